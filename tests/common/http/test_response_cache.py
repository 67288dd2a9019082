"""Answers that are kept for a moment, until anything changes."""

from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from gaffer.api import response_cache
from gaffer.api.response_cache import ResponseCache


def test_an_answer_is_kept_until_something_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_cache, "FRESH", 60)
    manager: Any = SimpleNamespace(revision=1)
    cache, made = ResponseCache(manager), count()
    assert [cache.get("a", lambda: next(made)) for _ in range(2)] == [b"0", b"0"]
    assert cache.get("b", lambda: next(made)) == b"1"
    manager.revision = 2
    assert cache.find("a") is None
    assert cache.get("a", lambda: next(made)) == b"2"


def test_what_changed_while_an_answer_was_made_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_cache, "FRESH", 60)
    manager: Any = SimpleNamespace(revision=1)
    cache = ResponseCache(manager)
    assert cache.find("a") is None
    manager.revision = 2
    assert cache.keep("a", 1) == b"1"
    assert cache.find("a") is None


def test_an_answer_is_kept_for_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_cache, "FRESH", 0)
    cache, made = ResponseCache(SimpleNamespace(revision=1)), count()  # type: ignore[arg-type]
    assert [cache.get("a", lambda: next(made)) for _ in range(2)] == [b"0", b"1"]
