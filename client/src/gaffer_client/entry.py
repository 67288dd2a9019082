"""The commands `gaffer` and `gafferctl` as they are installed: Ctrl-C ends them quietly, even during the imports."""

from gaffer.runtime.startup import run_command


def gaffer() -> None:
    """Run `gaffer`."""
    run_command("gaffer_client.cli.main", "gaffer")


def gafferctl() -> None:
    """Run `gafferctl`."""
    run_command("gaffer_client.cli.main", "gafferctl")
