"""The installed commands `gaffer` and `gafferctl`; Ctrl-C ends them without a traceback, even during imports."""

from gaffer.runtime.startup import run_command


def gaffer() -> None:
    """Run `gaffer`."""
    run_command("gaffer_client.cli.main", "gaffer")


def gafferctl() -> None:
    """Run `gafferctl`."""
    run_command("gaffer_client.cli.main", "gafferctl")
