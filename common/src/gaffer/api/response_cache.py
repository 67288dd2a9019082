"""Answers that are costly to make and asked for often, kept as bytes for a moment."""

import time
from collections.abc import Callable
from typing import Any

import msgspec

from gaffer.manager import Manager

FRESH = 0.02  # seconds; uptimes in an answer are so old at most


class ResponseCache:
    """Keeps answers about jobs until anything changes on the node, and no longer than they are fresh."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._revision = -1
        self._answers: dict[Any, tuple[bytes, float]] = {}  # with the time until which they are fresh

    def get(self, key: Any, make: Callable[[], Any]) -> bytes:
        """The JSON of what `make` returns, or returned for `key` a moment ago."""
        return self.find(key) or self.keep(key, make())

    def find(self, key: Any) -> bytes | None:
        """The answer that was kept for `key` a moment ago, if there is one."""
        if self._manager.revision != self._revision:
            self._answers.clear()
            self._revision = self._manager.revision
        answer, until = self._answers.get(key, (None, 0.0))
        return answer if time.monotonic() < until else None

    def keep(self, key: Any, value: Any) -> bytes:
        """Return the JSON of `value`; keep it for `key` unless anything has changed since `find`."""
        answer = msgspec.json.encode(value)
        now = time.monotonic()
        if self._manager.revision == self._revision:
            self._answers = {known: kept for known, kept in self._answers.items() if now < kept[1]}
            self._answers[key] = answer, now + FRESH
        return answer
