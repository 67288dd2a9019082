"""Answers that are costly to make and asked for often, kept as bytes for a moment."""

import time
from collections.abc import Callable
from typing import Any

import msgspec

from gaffer.manager import Manager

FRESH = 0.02  # seconds; uptimes in an answer are so old at most


class AnswerCache:
    """Keeps answers about jobs until anything changes on the node, and no longer than they are fresh."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._revision = -1
        self._until = 0.0
        self._answers: dict[Any, bytes] = {}

    def get(self, key: Any, make: Callable[[], Any]) -> bytes:
        """The JSON of what `make` returns, or returned for `key` a moment ago."""
        now = time.monotonic()
        if self._manager.revision != self._revision or now >= self._until:
            self._answers.clear()
            self._revision, self._until = self._manager.revision, now + FRESH
        answer = self._answers.get(key)
        if answer is None:
            answer = self._answers[key] = msgspec.json.encode(make())
        return answer
