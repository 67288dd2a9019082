"""Client of server-sent events (`feed=eventsource`) that resumes after lost connections and restarts."""

import contextlib
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import msgspec

from gaffer.streams.position import Position
from gaffer_client.backoff import Backoff
from gaffer_client.errors import BadRequest, GafferClientError, MalformedAnswer, NotFound, ServerError, Unreachable
from gaffer_client.listeners import Listener, Listeners
from gaffer_client.sse import EventParser
from gaffer_client.transport import DEFAULT_TIMEOUT, Stream, Transport

# Servers send a heartbeat every 60 seconds unless another interval is requested.
IDLE_TIMEOUT = 150.0


Lost = Callable[[GafferClientError | None], object]


class Received(NamedTuple):
    """An event: its name, its data, and the id to resume after it."""

    event: str
    data: Any
    id: str

    @property
    def lost(self) -> int | None:
        """The number of events that the event `gap` of a Watcher reports as lost.

        None if it is unknown, because the events of the node begin anew: it was restarted, or its gafferd was replaced.
        """
        start, end = self.data["from"], self.data["to"]
        resumed = Position.parse(self.id)
        is_anew = start == end or (resumed is not None and start < resumed.offset)
        return None if is_anew else int(end - start)


class EventsourceClient:
    """Follows the events at `url`, such as `http://127.0.0.1:5000/streams/1/stdout?feed=eventsource`.

    For a server on a UNIX socket, `path` is the path of the resource with its query. After a lost connection, the
    client reconnects with a delay and resumes after the last received event, if the server still has the next ones.

    Events are delivered as text: to listeners, from a separate thread (`start`) or the calling one (`run`), or from
    the iterator `events()`. Use only one of the three. The client ends on `stop()`, which is thread-safe, and when the
    resource is gone (404 after a successful connection).

    `idle_timeout` is the time in seconds after which a silent connection counts as lost, None for never. The first
    connection must succeed unless the client is `patient`. `on_open()` is called after each connection,
    `on_lost(error)` before each reconnection; `error` is None if the server ended the stream. The other options are
    those of Server.
    """

    def __init__(
        self,
        url: str,
        path: str = "",
        *,
        api_key: str | None = None,
        cacert: str | None = None,
        certfile: str | None = None,
        keyfile: str | None = None,
        insecure: bool = False,
        timeout: float = DEFAULT_TIMEOUT,
        idle_timeout: float | None = IDLE_TIMEOUT,
        last_event_id: str = "",
        patient: bool = False,
        on_open: Callable[[], object] | None = None,
        on_lost: Lost | None = None,
    ) -> None:
        if not path:
            url, path = _split(url)
        self.last_event_id = last_event_id
        self.connected = False
        self.error: GafferClientError | None = None  # why the client is not connected
        self._transport = Transport(
            url,
            api_key=api_key,
            cacert=cacert,
            certfile=certfile,
            keyfile=keyfile,
            insecure=insecure,
            timeout=timeout,
        )
        self._path = path
        self._idle_timeout = idle_timeout
        self._patient = patient
        self._on_open = on_open
        self._on_lost = on_lost
        self._listeners = Listeners()
        self._backoff = Backoff()
        self._parser = EventParser()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._stream: Stream | None = None
        self._thread: threading.Thread | None = None
        self._was_connected = False

    @classmethod
    def over(
        cls,
        transport: Transport,
        path: str,
        *,
        idle_timeout: float | None = IDLE_TIMEOUT,
        patient: bool = False,
        on_open: Callable[[], object] | None = None,
        on_lost: Lost | None = None,
    ) -> Self:
        """Return a client of `path` on the server of a transport, over a separate connection."""
        client = cls(transport.url, path, idle_timeout=idle_timeout, patient=patient, on_open=on_open, on_lost=on_lost)
        client._transport = transport.clone()
        return client

    @property
    def url(self) -> str:
        """The URL of the server."""
        return self._transport.url

    def subscribe(self, event: str, listener: Listener) -> None:
        """Call `listener(event, data)` for each event with this name or prefix: `proc.web` matches `proc.web.exit`.

        `.` matches all events.
        """
        self._listeners.add(event, listener)

    def subscribe_once(self, event: str, listener: Listener) -> None:
        """Like `subscribe`, but only for the next matching event."""
        self._listeners.add(event, listener, once=True)

    def unsubscribe(self, event: str, listener: Listener) -> None:
        """Undo `subscribe` or `subscribe_once`; unknown listeners are ignored."""
        self._listeners.remove(event, listener)

    def start(self) -> None:
        """Follow the events in a separate thread. `wait` waits for its end, and `error` is set if it failed."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run_in_thread, name=f"events of {self.url}", daemon=True)
            self._thread.start()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait up to `timeout` seconds for the end of the thread; return whether it has ended."""
        if self._thread is not None:
            self._thread.join(timeout)
        return self._thread is None or not self._thread.is_alive()

    def stop(self) -> None:
        """Stop, and wait for the end of the thread unless called from it."""
        self._stopping.set()
        with self._lock:
            if self._stream is not None:
                self._stream.interrupt()
            else:
                self._transport.interrupt()  # it may be waiting for the response
        if self._thread is not threading.current_thread():
            self.wait()

    def run(self) -> None:
        """Follow the events in the calling thread until the end.

        Raises the StatusError of an error response, and Unreachable if the first connection fails.
        """
        for received in self.events():
            self._listeners.deliver(received.event, received.data)

    def events(self) -> Generator[Received, None, None]:
        """Yield the events as they arrive; raise the same errors as `run`."""
        try:
            while not self._stopping.is_set():
                has_no_position = self._was_connected and not self.last_event_id
                try:
                    with self._opened() as stream:
                        if has_no_position:
                            yield from self._unknown_gap()
                        yield from self._read(stream)
                    self.error = None
                except NotFound:
                    if self._was_connected:
                        return
                    raise
                except BadRequest as refusal:
                    if not self.last_event_id:
                        raise
                    # A restarted server doesn't have the position.
                    self.error, self.last_event_id = refusal, ""
                except (Unreachable, ServerError) as failure:
                    self.error = failure
                if not self._stopping.is_set():
                    if self.error is not None and not (self._patient or self._was_connected):
                        raise self.error
                    if self._on_lost is not None:
                        self._on_lost(self.error)
                    self._stopping.wait(self._backoff.next(self._parser.retry or 0.0))
        finally:
            self._transport.close()

    def decode(self, event: str, data: str) -> Any:
        """Return the data of an event, decoded from its text."""
        return data

    # Implementation

    def _unknown_gap(self) -> Iterator[Received]:
        """Yield what reports that events may be missing, since the server never named a position to resume at."""
        return iter(())

    def _run_in_thread(self) -> None:
        try:
            self.run()
        except GafferClientError as error:
            self.error = error

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Stream]:
        headers = {"Accept": "text/event-stream"}
        if self.last_event_id:
            headers["Last-Event-ID"] = self.last_event_id
        stream = self._transport.stream(self._path, headers, idle_timeout=self._idle_timeout)
        try:
            if not stream.content_type.startswith("text/event-stream"):
                raise MalformedAnswer(
                    f"{self.url}{self._path} does not send events",
                    url=self.url,
                    hint="add ?feed=eventsource to the path of a node's feed",
                )
            with self._lock:
                self._stream = stream
            self.connected = self._was_connected = True
            self.error = None
            if self._on_open is not None:
                self._on_open()
            yield stream
        finally:
            self.connected = False
            with self._lock:
                self._stream = None
            stream.close()

    def _read(self, stream: Stream) -> Iterator[Received]:
        self._parser.restart(self.last_event_id)
        while not self._stopping.is_set() and (data := stream.read()):
            self._backoff.reset()
            try:
                for event in self._parser.feed(data):
                    received = Received(event.event, self.decode(event.event, event.data), event.id)
                    self.last_event_id = event.id
                    yield received
                self.last_event_id = self._parser.last_event_id
            except ValueError as error:
                raise MalformedAnswer(f"{self.url}: {error}", url=self.url) from None


class Watcher(EventsourceClient):
    """An EventsourceClient for events with JSON data, such as those of `/watch` and `/events`; decodes the data.

    An event `gap` reports events that are missing, see `Received.lost`.
    """

    def decode(self, event: str, data: str) -> Any:
        """Return the JSON document; raise ValueError if it is invalid."""
        try:
            return msgspec.json.decode(data)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ValueError(f"the data of {event} is not valid JSON: {error}") from None

    def _unknown_gap(self) -> Iterator[Received]:
        yield Received("gap", {"from": 0, "to": 0}, "")


class LookupWatcher(Watcher):
    """A Watcher of a lookup, which sends a snapshot to a client that has no position to resume at."""

    def _unknown_gap(self) -> Iterator[Received]:
        return iter(())


def _split(url: str) -> tuple[str, str]:
    """Return the URL of the server, and the path with its query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url, ""
    if parts.scheme not in ("http", "https"):
        return url, ""
    return f"{parts.scheme}://{parts.netloc}", parts.path + (f"?{parts.query}" if parts.query else "")
