"""The command `gaffer_lookupd` as it is installed: it catches signals before the imports, which take a while."""

from gaffer.runtime.startup import run_daemon


def main() -> None:
    """Run gaffer_lookupd."""
    run_daemon("gaffer_lookupd.main")
