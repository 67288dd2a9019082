"""Parallel queries to several servers, without waiting for those that hang."""

import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from gaffer_client.errors import GafferClientError
from gaffer_client.transport import Transport, timed_out, unreachable

GRACE = 0.2  # seconds to wait for the others after the first good response
LATE = 0.8  # seconds to wait for the others after the first response that is not good
HUNG_FOR = 30.0  # seconds during which a server that missed this deadline is not waited for

T = TypeVar("T")


class Panel(Generic[T]):
    """Queries the servers of `transports`, each in a separate thread.

    A server with a pending query does not get another one.
    """

    def __init__(self, transports: Mapping[str, Transport]) -> None:
        self._transports = transports
        self._threads: dict[str, threading.Thread] = {}
        self._hung_until: dict[str, float] = {}  # monotonic seconds

    def close(self) -> None:
        """Close the connections; pending queries fail."""
        for url, transport in self._transports.items():
            if (thread := self._threads.get(url)) is not None:
                transport.interrupt()
                thread.join(GRACE)
            transport.close()

    def ask(
        self, fetch: Callable[[Transport], T], is_good: Callable[[T], bool], *, timeout: float, grace: float = GRACE
    ) -> dict[str, T | GafferClientError]:
        """Return the result of `fetch` for each server, or its error, or an error if it was not waited for.

        `fetch` must itself end within `timeout` seconds.
        """
        if len(self._transports) == 1:
            return {url: _attempt(fetch, transport) for url, transport in self._transports.items()}
        started = time.monotonic()
        outcomes: dict[str, T | GafferClientError] = {}
        news = threading.Condition()
        for url, transport in self._transports.items():
            if (thread := self._threads.get(url)) is not None and thread.is_alive():
                outcomes[url] = unreachable(url, "the previous query is still pending")
            else:
                self._threads[url] = threading.Thread(
                    target=self._run, args=(fetch, url, transport, outcomes, news), name=f"asking {url}", daemon=True
                )
                self._threads[url].start()
        with news:
            self._await(outcomes, news, is_good, started + timeout + LATE, grace)
            answered = outcomes.copy()
        for url in self._transports:
            if url not in answered:
                now = time.monotonic()
                answered[url] = timed_out(url, round(now - started, 1))
                if self._hung_until.get(url, 0.0) < now:
                    self._hung_until[url] = now + HUNG_FOR
        return {url: answered[url] for url in self._transports}

    def _await(
        self,
        outcomes: Mapping[str, T | GafferClientError],
        news: threading.Condition,
        is_good: Callable[[T], bool],
        deadline: float,
        grace: float,
    ) -> None:
        """Wait until all servers have responded, or some have and the time of the others is over."""
        first_answer = first_good = math.inf
        while missing := [url for url in self._transports if url not in outcomes]:
            now = time.monotonic()
            limit = deadline
            answers = [outcome for outcome in outcomes.values() if not isinstance(outcome, GafferClientError)]
            if answers:
                first_answer = min(first_answer, now)
                first_good = min(first_good, now) if any(map(is_good, answers)) else first_good
                limit = min(deadline, first_answer + LATE, first_good + grace)
                if all(self._hung_until.get(url, 0.0) > now for url in missing):
                    return
            if limit <= now:
                return
            news.wait(limit - now)

    def _run(
        self,
        fetch: Callable[[Transport], T],
        url: str,
        transport: Transport,
        outcomes: dict[str, T | GafferClientError],
        news: threading.Condition,
    ) -> None:
        outcome = _attempt(fetch, transport)
        with news:
            outcomes[url] = outcome
            if not isinstance(outcome, GafferClientError):
                self._hung_until.pop(url, None)
            news.notify_all()


def _attempt(fetch: Callable[[Transport], T], transport: Transport) -> T | GafferClientError:
    try:
        return fetch(transport)
    except GafferClientError as error:
        return error
