"""A short-lived cache of encoded responses that are expensive and frequently requested."""

import time
from collections.abc import Callable
from typing import Any

import msgspec

from gaffer.manager import Manager

FRESH = 0.02  # seconds; the maximum age of uptimes in a response


class ResponseCache:
    """A cache of responses about jobs, valid until anything changes on the node and for at most FRESH seconds."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._revision = -1
        self._answers: dict[Any, tuple[bytes, float]] = {}  # and expiry times

    def get(self, key: Any, make: Callable[[], Any]) -> bytes:
        """Return the cached JSON for `key`, or cache and return the JSON of what `make` returns."""
        return self.find(key) or self.keep(key, make())

    def find(self, key: Any) -> bytes | None:
        """Return the cached JSON for `key`, None if there is none."""
        if self._manager.revision != self._revision:
            self._answers.clear()
            self._revision = self._manager.revision
        answer, until = self._answers.get(key, (None, 0.0))
        return answer if time.monotonic() < until else None

    def keep(self, key: Any, value: Any) -> bytes:
        """Return the JSON of `value`, and cache it for `key` unless anything has changed since `find`."""
        answer = msgspec.json.encode(value)
        now = time.monotonic()
        if self._manager.revision == self._revision:
            self._answers = {known: kept for known, kept in self._answers.items() if now < kept[1]}
            self._answers[key] = answer, now + FRESH
        return answer
