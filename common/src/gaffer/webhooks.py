"""WebHooks: an application that POSTs events as JSON to URLs."""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from gaffer.applications.http_post import Address, post

if TYPE_CHECKING:
    from gaffer.events import EventEmitter, Listener
    from gaffer.manager import Manager

log = logging.getLogger("gaffer.webhooks")

QUEUE_LIMIT = 1000  # events queued for each URL; when full, the oldest is dropped
TIMEOUT = 10.0  # seconds to wait for a response
_FLUSH_TIMEOUT = 1.5  # seconds allowed for posting the last events when the manager stops

Hook = tuple[str, str]


class WebHooks:
    """An application that posts events to the URLs of its hooks.

    hooks: `(event, url)` pairs; the event is a pattern as in EventEmitter, `.` for all. Each URL gets its events in
    order, one request at a time. If a request fails, the event is lost, and a warning is logged, once until the URL
    works again. If QUEUE_LIMIT events are queued for a URL, the oldest is lost.
    """

    def __init__(self, hooks: Iterable[Hook] = ()) -> None:
        self._hooks: dict[Hook, Listener] = {}
        self._targets: dict[str, _Target] = {}
        self._events: EventEmitter | None = None
        if isinstance(hooks, str):
            raise TypeError(f"expected a list of pairs (event, url), got {hooks!r}")
        for hook in hooks:
            if isinstance(hook, str) or len(hook) != 2:
                raise TypeError(f"expected a pair (event, url), got {hook!r}")
            self.register_hook(*hook)

    @property
    def hooks(self) -> list[Hook]:
        """The `(event, url)` pairs, in the order of registration."""
        return list(self._hooks)

    @property
    def refcount(self) -> int:
        """The number of hooks."""
        return len(self._hooks)

    @property
    def active(self) -> bool:
        """Whether it is started and has hooks."""
        return self._events is not None and bool(self._hooks)

    def start(self, loop: asyncio.AbstractEventLoop, manager: "Manager") -> None:
        """Start posting the events of `manager`."""
        self._events = manager.events
        for (event, _), listener in tuple(self._hooks.items()):
            self._events.subscribe(event, listener)

    async def stop(self) -> None:
        """Stop, after waiting up to 1.5 seconds for queued events to be posted."""
        self._unsubscribe()
        tasks = [target.task for target in self._targets.values() if target.task is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_FLUSH_TIMEOUT)
            for task in late:
                task.cancel()
            await asyncio.wait(tasks)

    def restart(self) -> None:
        """Do nothing; the hooks are kept."""

    def close(self) -> None:
        """Remove all hooks; queued events are still posted."""
        for event, url in self.hooks:
            self.unregister_hook(event, url)

    def register_hook(self, event: str, url: str) -> None:
        """Post `event` to `url`; no-op if already registered. BadRequest if it is not an http or https URL."""
        if (event, url) in self._hooks:
            return
        target = self._targets.get(url) or _Target(url)
        used = {known for _, known in self._hooks}
        self._targets = {u: t for u, t in self._targets.items() if u in used or t.task is not None}
        self._targets[url] = target
        listener = self._hooks[event, url] = partial(_post, target)
        if self._events is not None:
            self._events.subscribe(event, listener)

    def unregister_hook(self, event: str, url: str) -> None:
        """Stop posting `event` to `url`; an unknown pair is ignored."""
        listener = self._hooks.pop((event, url), None)
        if listener is not None and self._events is not None:
            self._events.unsubscribe(event, listener)

    def replace_hooks(self, hooks: Iterable[Hook]) -> None:
        """Replace all hooks by these; those that stay miss no event."""
        wanted = list(hooks)
        for event, url in wanted:
            self.register_hook(event, url)
        for event, url in self.hooks:
            if (event, url) not in wanted:
                self.unregister_hook(event, url)

    def _unsubscribe(self) -> None:
        if self._events is not None:
            for (event, _), listener in self._hooks.items():
                self._events.unsubscribe(event, listener)
            self._events = None


def _post(target: "_Target", evtype: str, message: Any = None, *_: object) -> None:
    event = message if isinstance(message, dict) else {"event": evtype, "message": message}
    target.post(msgspec.json.encode(event, enc_hook=str))


class _Target:
    """A URL and its queued events. Use it on the loop."""

    def __init__(self, url: str) -> None:
        self.task: asyncio.Task[None] | None = None
        self._address = Address(url)
        self._queue: deque[bytes] = deque(maxlen=QUEUE_LIMIT)
        self._lost = 0  # events, since it last worked

    def post(self, body: bytes) -> None:
        if len(self._queue) == self._queue.maxlen:
            self._lose("it is too slow, and its queue is full")
        self._queue.append(body)
        if self.task is None:
            self.task = asyncio.get_running_loop().create_task(self._deliver())

    async def _deliver(self) -> None:
        try:
            while self._queue:
                await self._send(self._queue.popleft())
        finally:
            self.task = None

    async def _send(self, body: bytes) -> None:
        try:
            async with asyncio.timeout(TIMEOUT):
                status = await post(self._address, body, "application/json")
        except TimeoutError:
            self._lose(f"no response within {TIMEOUT:g} s")
        except OSError as error:
            self._lose(error.strerror or str(error))
        except ValueError as error:
            self._lose(str(error))
        else:
            if 200 <= status < 300:
                self._worked()
            else:
                self._lose(f"it responds with status {status}")

    def _worked(self) -> None:
        if self._lost:
            log.warning("the webhook %s works again; %d events were lost", self._address, self._lost)
            self._lost = 0

    def _lose(self, reason: str) -> None:
        if not self._lost:
            log.warning("the webhook %s is losing events: %s", self._address, reason)
        self._lost += 1
