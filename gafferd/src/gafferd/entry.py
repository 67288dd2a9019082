"""The command `gafferd` as it is installed: it catches signals before the imports, which take a while."""

from gaffer.runtime.startup import run_daemon


def main() -> None:
    """Run gafferd."""
    run_daemon("gafferd.main")
