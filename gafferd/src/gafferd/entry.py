"""The installed command `gafferd`: catches signals before the slow imports."""

from gaffer.runtime.startup import run_daemon


def main() -> None:
    """Run gafferd."""
    run_daemon("gafferd.main")
