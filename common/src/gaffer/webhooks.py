"""WebHooks: an application that POSTs events as JSON to URLs."""

import asyncio
import os
import threading
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from gaffer.applications.delivery_files import DeliveryFiles
from gaffer.applications.delivery_queue import Delivery
from gaffer.applications.receivers import Receiver
from gaffer.runtime.keyfile import read_key_file
from gaffer.schemas.bodies import WebhookState

if TYPE_CHECKING:
    from gaffer.events import EventEmitter, Listener
    from gaffer.manager import Manager

_FLUSH_TIMEOUT = 1.5  # seconds allowed for posting the last events; the manager allows 2 for the whole stop
_WRITE_TIMEOUT = 0.4  # seconds allowed for the last writes to the queues on disk
_SHORT = 0.1  # seconds allowed for each of them at a handover

Hook = tuple[str, str]


class WebHooks:
    """An application that posts events to the URLs of its hooks.

    hooks: `(event, url)` pairs; the event is a pattern as in EventEmitter, `.` for all. secret_file: a key file; its
    key signs each request. queue_dir: a directory in which events wait, by default they wait in memory. Raises
    BadRequest for an invalid URL, KeyFileError for a key file that can't be used.

    Each URL gets its events in order, one request at a time, and never waits for another URL. The header of a request
    contains X-Gaffer-Event, the name of the event; X-Gaffer-Delivery, an id that is the same in all attempts; and with
    a key X-Gaffer-Signature, `sha256=` and the hexadecimal HMAC-SHA256 of the body. An attempt has 10 seconds. It is
    repeated after a failed connection, a timeout and the statuses 408, 429 and 5xx, with growing delays from half a
    second to a minute, or as `Retry-After` says, up to 5 minutes. After an hour, or any other status, the event is
    lost. Redirects on the same server are followed. 1,000 events or 4 MiB can wait for each URL; then the oldest are
    dropped. A warning is logged when a URL fails or drops events.

    With `queue_dir` events that wait survive the end of the program, also a sudden one; the next program posts them
    first, under the same ids. `start` removes what waits there for URLs without a hook.
    """

    def __init__(
        self,
        hooks: Iterable[Hook] = (),
        secret_file: str | os.PathLike[str] | None = None,
        queue_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        self._hooks: dict[Hook, Listener] = {}
        self._receivers: dict[str, Receiver] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._lock = threading.Lock()  # hooks are registered from any thread
        self._manager: Manager | None = None
        self._events: EventEmitter | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._secret_file = Path(secret_file) if secret_file is not None else None
        self._secret = self._read_secret()
        self._files = DeliveryFiles(queue_dir) if queue_dir is not None else None
        for hook in _checked(hooks):
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

    def status(self) -> Sequence[WebhookState]:
        """Return the state of each URL, for `HttpHandler(webhooks=...)`."""
        return [receiver.state() for receiver in self._receivers.values()]

    def start(self, loop: asyncio.AbstractEventLoop, manager: "Manager") -> None:
        """Start posting the events of `manager`."""
        self._loop = loop
        self._manager, self._events = manager, manager.events
        for (event, _), listener in tuple(self._hooks.items()):
            self._events.subscribe(event, listener)
        for receiver in self._receivers.values():
            receiver.start()
        if self._files is not None:
            self._files.remove_others()

    async def stop(self) -> None:
        """Stop, after waiting up to 2 seconds for queued events to be posted, 0.2 at a handover."""
        handing_over = self._manager is not None and self._manager.handing_over
        flush, write = (_SHORT, _SHORT) if handing_over else (_FLUSH_TIMEOUT, _WRITE_TIMEOUT)
        if self._events is not None:
            for (event, _), listener in self._hooks.items():
                self._events.unsubscribe(event, listener)
        self._manager = self._events = self._loop = None
        await asyncio.gather(
            *(receiver.finish(flush, keep=True) for receiver in self._receivers.values()), *self._leaving
        )
        if self._files is not None:
            await self._files.close(write)

    def restart(self) -> None:
        """Do nothing; the hooks are kept."""

    def close(self) -> None:
        """Remove all hooks; queued events are still posted, within 2 seconds."""
        for event, url in self.hooks:
            self.unregister_hook(event, url)

    def register_hook(self, event: str, url: str) -> None:
        """Post `event` to `url`; no-op if already registered. BadRequest if it is not an http or https URL."""
        if (event, url) in self._hooks:
            return
        with self._lock:
            receiver = self._receivers.get(url)
            if receiver is None:
                receiver = self._receivers[url] = self._make_receiver(url)
            listener = self._hooks[event, url] = partial(_post, receiver)
        if self._events is not None:
            self._events.subscribe(event, listener)

    def unregister_hook(self, event: str, url: str) -> None:
        """Stop posting `event` to `url`; an unknown pair is ignored."""
        listener = self._hooks.pop((event, url), None)
        if listener is None:
            return
        if self._events is not None:
            self._events.unsubscribe(event, listener)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._drop_unused)
        else:
            self._drop_unused()

    def replace_hooks(self, hooks: Iterable[Hook]) -> None:
        """Replace all hooks by these and read the key file again; URLs that stay miss no event and keep their queues.

        Raises BadRequest or KeyFileError, and changes nothing, as the constructor does.
        """
        wanted = _checked(hooks)
        added = {url: self._make_receiver(url) for _, url in wanted if url not in self._receivers}
        self._secret = self._read_secret()
        self._receivers.update(added)
        for event, url in wanted:
            self.register_hook(event, url)
        for event, url in self.hooks:
            if (event, url) not in wanted:
                self.unregister_hook(event, url)

    def _make_receiver(self, url: str) -> Receiver:
        return Receiver(url, lambda: self._secret, self._files)

    def _read_secret(self) -> str | None:
        return read_key_file(self._secret_file) if self._secret_file is not None else None

    def _drop_unused(self) -> None:
        with self._lock:
            used = {url for _, url in self._hooks}
            unused = [self._receivers.pop(url) for url in list(self._receivers) if url not in used]
        for receiver in unused:
            if self._loop is not None:
                task = self._loop.create_task(receiver.finish(_FLUSH_TIMEOUT, keep=False))
                self._leaving.add(task)
                task.add_done_callback(self._leaving.discard)


def _checked(hooks: Iterable[Hook]) -> list[Hook]:
    """Return the hooks as a list; raise TypeError for anything but pairs."""
    if isinstance(hooks, str):
        raise TypeError(f"expected a list of pairs (event, url), got {hooks!r}")
    pairs = list(hooks)
    for hook in pairs:
        if isinstance(hook, str) or len(hook) != 2:
            raise TypeError(f"expected a pair (event, url), got {hook!r}")
    return pairs


def _post(receiver: Receiver, evtype: str, message: Any = None, *_: object) -> None:
    event = message if isinstance(message, dict) else {"event": evtype, "message": message}
    if event.get("adopted"):  # an earlier manager has posted it
        return
    receiver.post(Delivery(evtype, msgspec.json.encode(event, enc_hook=str)))
