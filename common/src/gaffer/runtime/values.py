"""Rules for the values of settings: each converts a text to a value, or raises InvalidValue. No I/O.

A rule whose accepted values JSON Schema can describe has an attribute `schema`.
"""

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


class Whole:
    """A whole number from `lowest` to `highest`."""

    def __init__(self, lowest: int, highest: int) -> None:
        self.lowest = lowest
        self.highest = highest

    def __call__(self, text: str) -> int:
        digits = text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS
        if not (digits and self.lowest <= int(text) <= self.highest):
            raise InvalidValue(f"expected a whole number from {self.lowest} to {self.highest}, got {quoted(text)}")
        return int(text)

    @property
    def schema(self) -> dict[str, Any]:
        """The rule as JSON Schema."""
        return {"type": "integer", "minimum": self.lowest, "maximum": self.highest}


class Seconds:
    """A number of seconds, more than 0 or at least `lowest`, and at most `highest`."""

    def __init__(self, highest: int = _MAX_SECONDS, lowest: int = 0) -> None:
        self.highest = highest
        self.lowest = lowest

    def __call__(self, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if not (value > 0 and self.lowest <= value <= self.highest):
            least = f"at least {self.lowest}" if self.lowest else "more than 0"
            raise InvalidValue(f"expected a number of seconds, {least} and at most {self.highest}, got {quoted(text)}")
        return value

    @property
    def schema(self) -> dict[str, Any]:
        """The rule as JSON Schema."""
        least = {"minimum": self.lowest} if self.lowest else {"exclusiveMinimum": 0}
        return {"type": "number", **least, "maximum": self.highest}


class Choice:
    """One of `choices`; `noun` is the word for them in messages."""

    def __init__(self, noun: str, choices: tuple[str, ...]) -> None:
        self.noun = noun
        self.choices = choices

    def __call__(self, text: str) -> str:
        if text not in self.choices:
            *others, last = self.choices
            raise InvalidValue(f"unknown {self.noun} {quoted(text)}", f"use {', '.join(others)} or {last}")
        return text

    @property
    def schema(self) -> dict[str, Any]:
        """The rule as JSON Schema."""
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
    """Return `value` unless it is empty."""
    if not value:
        raise InvalidValue("expected a non-empty text")
    return value


def items(text: str) -> tuple[str, ...]:
    """Return the items of a comma-separated list."""
    return tuple(item.strip() for item in text.split(",") if item.strip())


def pairs(text: str) -> dict[str, str]:
    """Parse `name=value` pairs, separated by commas; raise InvalidValue if one is malformed."""
    result = {}
    for item in items(text):
        name, separator, value = item.partition("=")
        if not separator or not name.strip():
            raise InvalidValue(f"expected name=value pairs, got {item!r}", "such as zone=a, disk=ssd")
        result[name.strip()] = value.strip()
    return result
