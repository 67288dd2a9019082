"""Rules for the values of settings: each takes a text and returns the value, or raises InvalidValue. Pure.

A rule that refuses texts which JSON Schema can describe has an attribute `schema`.
"""

from dataclasses import dataclass
from typing import Any, Final

from gaffer.errors import InvalidValue, quoted

BOOLEANS: Final = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}

_MAX_DIGITS = 18
_MAX_SECONDS = 10**9  # 31 years; timers of the loop overflow far beyond that


@dataclass(frozen=True)
class Whole:
    """A whole number from `lowest` to `highest`."""

    lowest: int
    highest: int

    def __call__(self, text: str) -> int:
        digits = text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS
        if not (digits and self.lowest <= int(text) <= self.highest):
            raise InvalidValue(f"expected a whole number from {self.lowest} to {self.highest}, got {quoted(text)}")
        return int(text)

    @property
    def schema(self) -> dict[str, Any]:
        """The same as JSON Schema."""
        return {"type": "integer", "minimum": self.lowest, "maximum": self.highest}


@dataclass(frozen=True)
class Seconds:
    """A number of seconds, more than 0 and at most `highest`."""

    highest: int = _MAX_SECONDS

    def __call__(self, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if not 0 < value <= self.highest:
            raise InvalidValue(
                f"expected a number of seconds, more than 0 and at most {self.highest}, got {quoted(text)}"
            )
        return value

    @property
    def schema(self) -> dict[str, Any]:
        """The same as JSON Schema."""
        return {"type": "number", "exclusiveMinimum": 0, "maximum": self.highest}


@dataclass(frozen=True)
class Choice:
    """One of `choices`, each a `noun`."""

    noun: str
    choices: tuple[str, ...]

    def __call__(self, text: str) -> str:
        if text not in self.choices:
            *others, last = self.choices
            raise InvalidValue(f"unknown {self.noun} {quoted(text)}", f"use {', '.join(others)} or {last}")
        return text

    @property
    def schema(self) -> dict[str, Any]:
        """The same as JSON Schema."""
        return {"enum": list(self.choices)}


class _Boolean:
    """A word for true or false."""

    schema: Final = {"type": "boolean"}

    def __call__(self, text: str) -> bool:
        try:
            return BOOLEANS[text.strip().lower()]
        except KeyError:
            raise InvalidValue(f"expected true or false, got {quoted(text)}") from None


boolean: Final = _Boolean()


def text(value: str) -> str:
    """Any text but an empty one."""
    if not value:
        raise InvalidValue("expected a text that is not empty")
    return value


def items(text: str) -> tuple[str, ...]:
    """The items of a comma list."""
    return tuple(item.strip() for item in text.split(",") if item.strip())
