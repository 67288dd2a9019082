"""Reads INI text and remembers where everything stands, so that a mistake can be shown with file and line.

The dialect is that of configparser without interpolation: `[section]`, `key = value`, lines indented deeper than
their key continue its value, `;` and `#` begin a comment line. Names keep their case and a blank line ends a value.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gaffer.errors import Problem


@dataclass(frozen=True)
class Value:
    """The text of a key and where it stands."""

    text: str
    file: str
    line: int

    def problem(self, message: str, hint: str | None = None) -> Problem:
        """A mistake on this line."""
        return Problem(f"{self.file}:{self.line}", message, hint)


@dataclass
class Section:
    """A section: its keys in file order and where its header stands."""

    name: str
    file: str
    line: int
    values: dict[str, Value] = field(default_factory=dict)

    def problem(self, message: str, hint: str | None = None, key: str | None = None) -> Problem:
        """A mistake in this section, at the line of `key` where it has that key."""
        place = self.values.get(key, self) if key else self
        return Problem(f"{place.file}:{place.line}", f"[{self.name}] {message}", hint)

    def texts(self) -> dict[str, str]:
        """The keys and their texts."""
        return {key: value.text for key, value in self.values.items()}


def parse_ini(text: str, file: str) -> tuple[dict[str, Section], list[Problem]]:
    """The sections of `text` in order, and every mistake in it; `file` is its name in messages."""
    parser = _Parser(file)
    for number, line in enumerate(text.split("\n"), start=1):
        parser.feed(number, line)
    parser.finish_value()
    return parser.sections, parser.problems


def merge(sections: dict[str, Section], more: Mapping[str, Section]) -> list[Problem]:
    """Add the sections of an included file; one that is there already is a mistake."""
    problems = []
    for name, section in more.items():
        first = sections.setdefault(name, section)
        if first is not section:
            problems.append(section.problem(f"this section is already at {first.file}:{first.line}", "merge the two"))
    return problems


class _Parser:
    def __init__(self, file: str) -> None:
        self.file = file
        self.sections: dict[str, Section] = {}
        self.problems: list[Problem] = []
        self._section: Section | None = None
        self._key: str | None = None
        self._key_line = 0
        self._indent = 0
        self._lines: list[str] = []

    def feed(self, number: int, line: str) -> None:
        content = line.strip()
        indent = len(line) - len(line.lstrip())
        if content.startswith((";", "#")):
            return
        if self._key is not None and content and indent > self._indent:
            self._lines.append(content)
            return
        self.finish_value()
        if not content:
            return
        if content.startswith("["):
            self._begin_section(number, content)
        elif self._section is None:
            self._wrong(number, f"{content!r} stands before the first section", "begin with a line such as [gaffer]")
        else:
            self._begin_value(number, content, indent)

    def finish_value(self) -> None:
        if self._key is not None and self._section is not None:
            self._section.values[self._key] = Value("\n".join(self._lines).strip(), self.file, self._key_line)
        self._key = None

    def _begin_section(self, number: int, content: str) -> None:
        name = content[1:-1].strip()
        self._section = section = Section(name, self.file, number)
        if not content.endswith("]") or not name:
            self._wrong(number, f"{content!r} is not a section header", "write [name] on a line of its own")
        elif name in self.sections:
            first = self.sections[name].line
            self._wrong(number, f"[{name}] is already on line {first}", "merge the two sections")
        else:
            self.sections[name] = section

    def _begin_value(self, number: int, content: str, indent: int) -> None:
        assert self._section is not None
        key, separator, text = content.partition("=")
        key = key.strip()
        if not separator or not key:
            self._wrong(number, f"[{self._section.name}] expected key = value, got {content!r}")
        elif key in self._section.values:
            first = self._section.values[key].line
            self._wrong(number, f"[{self._section.name}] {key} is already on line {first}", "keep one of the two")
        else:
            self._key, self._key_line, self._indent, self._lines = key, number, indent, [text.strip()]

    def _wrong(self, number: int, message: str, hint: str | None = None) -> None:
        self.problems.append(Problem(f"{self.file}:{number}", message, hint))
