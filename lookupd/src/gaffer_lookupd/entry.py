"""The entry point of `gaffer_lookupd`, which catches signals before its slow imports."""

from gaffer.runtime.startup import run_daemon


def main() -> None:
    """Run gaffer_lookupd."""
    run_daemon("gaffer_lookupd.main")
