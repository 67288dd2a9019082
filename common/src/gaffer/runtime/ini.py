"""Sections of configuration files with the file and line of each key, for error messages; and the parser of INI files.

The dialect is that of configparser without interpolation: `[section]`, `key = value`; lines indented deeper than
a key continue its value; lines that begin with `;` or `#` are comments. Names are case-sensitive, and a blank line
ends a value.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gaffer.errors import InvalidValue, Problem, quoted

_COMMENT = re.compile(r"\s[;#]")


@dataclass(frozen=True)
class Value:
    """The value of a key and its position.

    `data` is a text or, in a YAML file, also None, a list or a mapping; `parts` has the lines of the parts of such a
    value by their path, such as `[1]` or `.PORT`.
    """

    data: Any
    file: str
    line: int
    parts: Mapping[str, int] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The value as it is written in INI: items separated by commas, pairs as `name=value`.

        Raises InvalidValue if INI has no such value.
        """
        if isinstance(self.data, Mapping):
            return _joined([f"{name}={_plain(item)}" for name, item in self.data.items()])
        return _joined(map(_plain, self.data)) if isinstance(self.data, list) else _plain(self.data)

    @property
    def words(self) -> list[str]:
        """The items of a list, or the words of a text, which are separated by blanks; raises InvalidValue."""
        return list(map(_plain, self.data)) if isinstance(self.data, list) else self.text.split()

    def each_part(self) -> Iterator[tuple[str, "Value"]]:
        """Yield the path and position of the value itself, as `""`, and of each of its parts."""
        yield "", self
        for path, line in self.parts.items():
            yield path, replace(self, line=line)

    def problem(self, message: str, hint: str | None = None) -> Problem:
        """Return a problem on this line."""
        return Problem(f"{self.file}:{self.line}", message, hint)


@dataclass
class Section:
    """A section: its keys in file order, and the position of its header.

    `title` is its name in messages; by default its header in INI.
    """

    name: str
    file: str
    line: int
    values: dict[str, Value] = field(default_factory=dict)
    title: str = ""

    def problem(self, message: str, hint: str | None = None, at: str | Value | None = None) -> Problem:
        """Return a problem in this section: at a value, or on the line of a key if the section has that key."""
        place = self.values.get(at, self) if isinstance(at, str) else at or self
        if hint is None and isinstance(place, Value) and isinstance(place.data, str) and _COMMENT.search(place.data):
            hint = "put comments on their own line"
        return Problem(f"{place.file}:{place.line}", f"{self.title or f'[{self.name}]'} {message}", hint)

    def texts(self) -> dict[str, Any]:
        """Return the data of each key, which is its text in INI."""
        return {key: value.data for key, value in self.values.items()}


def parse_ini(text: str, file: str, first: str = "gaffer") -> tuple[dict[str, Section], list[Problem]]:
    """Return the sections of `text` in order, and all problems in it; `file` is its name in messages.

    `first` is a section that such files often begin with, for hints.
    """
    parser = _Parser(file, first)
    for number, line in enumerate(text.split("\n"), start=1):
        parser.feed(number, line)
    parser.finish_value()
    return parser.sections, parser.problems


def merge(sections: dict[str, Section], more: Mapping[str, Section]) -> list[Problem]:
    """Add the sections of an included file; return a problem for each one that already exists."""
    problems = []
    for name, section in more.items():
        first = sections.setdefault(name, section)
        if first is not section:
            problems.append(
                section.problem(f"this section already exists at {first.file}:{first.line}", "merge the sections")
            )
    return problems


def position(problem: Problem) -> tuple[str, int]:
    """Return the file and line of a problem, to sort by; the line is 0 if it has none."""
    file, _, line = problem.path.rpartition(":")
    return (file, int(line)) if line.isdecimal() else (problem.path, 0)


def _plain(data: Any) -> str:
    if data is not None and not isinstance(data, str):
        raise InvalidValue(f"expected a text, got {quoted(data)}")
    return data or ""


def _joined(items: Iterable[str]) -> str:
    texts = list(items)
    if wrong := next((text for text in texts if "," in text), None):
        raise InvalidValue(f"{quoted(wrong)} contains a comma", "write each item on its own")
    return ", ".join(texts)


class _Parser:
    def __init__(self, file: str, first: str) -> None:
        self.file = file
        self.first = first
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
            hint = f"start with a section header such as [{self.first}]"
            self._wrong(number, f"{content!r} before the first section", hint)
        else:
            self._begin_value(number, content, indent)

    def finish_value(self) -> None:
        if self._key is not None and self._section is not None:
            self._section.values[self._key] = Value("\n".join(self._lines).strip(), self.file, self._key_line)
        self._key = None

    def _begin_section(self, number: int, content: str) -> None:
        name = content.removeprefix("[").removesuffix("]").strip()
        self._section = section = Section(name, self.file, number)
        if not content.endswith("]") or not name:
            self._wrong(number, f"{content!r} is not a section header", "write [name] on a line of its own")
        elif name in self.sections:
            first = self.sections[name].line
            self._wrong(number, f"[{name}] already exists on line {first}", "merge the two sections")
        else:
            self.sections[name] = section

    def _begin_value(self, number: int, content: str, indent: int) -> None:
        assert self._section is not None
        key, separator, text = content.partition("=")
        key = key.strip()
        if not separator or not key:
            hint = f"write {content.replace(':', ' =', 1)}" if ":" in content else None
            self._wrong(number, f"[{self._section.name}] expected key = value, got {content!r}", hint)
        elif key in self._section.values:
            first = self._section.values[key].line
            self._wrong(number, f"[{self._section.name}] {key} is already set on line {first}", "remove one of the two")
        else:
            self._key, self._key_line, self._indent, self._lines = key, number, indent, [text.strip()]

    def _wrong(self, number: int, message: str, hint: str | None = None) -> None:
        self.problems.append(Problem(f"{self.file}:{number}", message, hint))
