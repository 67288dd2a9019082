"""Command-line options and their layout in help texts."""

from collections.abc import Iterable
from typing import NamedTuple

WIDTH = 88
"""The width of a help text in columns."""


class Option(NamedTuple):
    """An option: `names` as help shows them, such as `-c SPEC, --concurrency=SPEC`; the last is the long one.

    `aliases` are other long names. The value of an option that may `repeat` is a list.
    """

    names: str
    help: str
    aliases: tuple[str, ...] = ()
    repeat: bool = False

    @property
    def long(self) -> str:
        """The long name, without a value: `--concurrency`."""
        return self.names.split()[-1].partition("=")[0]

    @property
    def value(self) -> str | None:
        """The placeholder of its value, or None if it takes none."""
        return self.names.split()[-1].partition("=")[2] or None

    @property
    def spellings(self) -> list[str]:
        """All names, short and long."""
        names = [part.split()[0].partition("=")[0] for part in self.names.split(", ")]
        return [*names, *self.aliases]

    def without_short(self) -> "Option":
        """Return this option with its long names only."""
        return self._replace(names=self.names.rpartition(", ")[2])

    def with_value(self, name: str) -> str:
        """Return one of its names with the placeholder of its value: `--root=DIR`."""
        return f"{name}={self.value}" if self.value else name


def columns(rows: Iterable[tuple[str, str]], indent: int | None = None) -> str:
    """Return two columns, the right one wrapped and starting at column `indent`.

    No line of the right column begins with a hyphen, because docopt would take it for an option.
    """
    import textwrap  # programs that do not show help start faster without it

    table = list(rows)
    indent = indent or indent_of(left for left, _ in table)
    return "\n".join(
        textwrap.fill(
            right.replace(" -", "\0-"),
            WIDTH,
            initial_indent=f"  {left}".ljust(indent),
            subsequent_indent=" " * indent,
            break_on_hyphens=False,
        ).replace("\0-", " -")
        for left, right in table
    )


def indent_of(names: Iterable[str]) -> int:
    """Return the start of the right column that fits the longest of these names."""
    return max(map(len, names)) + 4
