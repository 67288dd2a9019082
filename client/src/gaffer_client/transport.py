"""HTTP client of one server at an http, https or unix URL, with validated responses."""

import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Final, NamedTuple, Protocol, Self, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from gaffer_client.errors import (
    ConnectionLost,
    InvalidURL,
    MalformedAnswer,
    NotFound,
    StatusError,
    TimedOut,
    Unreachable,
    status_error,
)

T = TypeVar("T")

DEFAULT_URL = "http://127.0.0.1:5000"
DEFAULT_TIMEOUT = 30.0  # seconds
MAX_ANSWER = 64 * 1024 * 1024
_READS = ("GET", "HEAD")
_TLS_END = "SSLEOFError"  # the connection ended without the end of TLS, as when the server was killed
# All parsers must find the same host in a URL, or the key may go elsewhere: no backslash, and percent only for a scope.
_HOST = re.compile(r"[\w.-]+|[0-9a-f:.]+(%[\w.-]+)?")
ABSENT: Final = object()
"""Stands for the document of a request without one."""


class Address(NamedTuple):
    """The address of a server: paths are appended to `base`; `socket` is the path of a UNIX socket or None."""

    url: str
    base: str
    socket: str | None


class Security(NamedTuple):
    """Credentials: a key, and paths of PEM files for TLS.

    Unless `insecure`, the key and job environments are sent only to servers verified by TLS or the kernel.
    """

    api_key: str | None = None
    cacert: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    insecure: bool = False

    @property
    def headers(self) -> dict[str, str]:
        """The request header with the key."""
        return {} if self.api_key is None else {"Authorization": f"Bearer {self.api_key}"}


class Answer(NamedTuple):
    """A response of a server."""

    status: int
    body: bytes


class Exchange(NamedTuple):
    """One request: its deadline (monotonic seconds), and whether it may be sent only to a verified server.

    If it `streams`, reading the response may take longer than the deadline.
    """

    deadline: float
    confidential: bool
    streams: bool


class Request(NamedTuple):
    """A request to the server of a transport.

    Each wait for data of its response takes at most `read_timeout` seconds.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes | None
    exchange: Exchange
    read_timeout: float | None


class Reply(Protocol):
    """A response whose body is read by and by. Errors are those of the library that sent the request."""

    status: int
    content_type: str

    def read(self) -> bytes:
        """Return the next available bytes, or empty bytes at the end."""

    def content(self) -> Iterator[bytes]:
        """Yield the whole body in pieces."""

    def shutdown(self) -> None:
        """Make `read` return or fail; thread-safe."""

    def close(self) -> None:
        """Release the connection, or close it if the body was not read to its end."""


class Sender(Protocol):
    """Sends the requests of a transport, with a library for HTTP.

    `errors` are the exceptions that it and its replies raise when the server can't be reached.
    """

    errors: tuple[type[Exception], ...]

    def send(self, request: Request) -> Reply:
        """Send a request and return its response."""

    def interrupt(self) -> None:
        """Abort the current request; thread-safe."""

    def close(self) -> None:
        """Close the connection; the next request reopens it."""

    def cause(self, error: Exception) -> BaseException:
        """Return the cause of one of `errors`."""


def parse_url(url: str) -> Address:
    """Parse `http://host:port`, `https://host:port` or `unix:/path`; raise InvalidURL."""
    if url.startswith("unix:"):
        path = url.removeprefix("unix:")
        path = path[2:] if path.startswith("//") else path
        if not path.startswith("/"):
            raise InvalidURL(
                f"{url!r} does not give a socket path",
                url=url,
                hint="use the absolute path of the socket, such as unix:/run/gaffer/gafferd.sock",
            )
        return Address(f"unix:{path}", "http://localhost", path)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidURL(f"{url!r} is not a valid URL: {error}", url=url) from None
    if parts.scheme not in ("http", "https") or not _HOST.fullmatch(parts.hostname or ""):
        raise InvalidURL(
            f"{url!r} is not a server URL",
            url=url,
            hint="write http://HOST:PORT, https://HOST:PORT or unix:/PATH",
        )
    if parts.username is not None or parts.password is not None:
        raise InvalidURL(
            f"the URL of {parts.hostname} contains a user name or password",
            url=f"{parts.scheme}://{parts.hostname}",
            hint="keep keys in a file, never in a URL",
        )
    if parts.query or parts.fragment or port == 0:
        raise InvalidURL(f"{url!r} is not a server URL", url=url, hint="write only http://HOST:PORT")
    base = f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")
    return Address(base, base, None)


def path_of(*segments: str | int) -> str:
    """Return the path of these segments, each percent-encoded."""
    return "".join("/" + quote(str(segment), safe="") for segment in segments)


def is_key(text: str) -> bool:
    """Return whether `text` can be a key: one word of printable ASCII characters."""
    return text.isascii() and text.isprintable() and text != "" and " " not in text


class Transport:
    """An HTTP client of one server.

    `api_key` is sent as a bearer token; `cacert`, `certfile` and `keyfile` are paths of PEM files for TLS;
    `timeout` limits a whole exchange, in seconds, of which at most 5 are used to connect. Proxies and .netrc of the
    environment are ignored. Not thread-safe. Raises InvalidURL, and ValueError for an invalid key.

    The key and job environments are sent only over https or to a server on this host that runs as the same user or
    root, unless `insecure`; otherwise, the request raises UntrustedServer.

    `sender` sends the requests, by default with the library requests, which is imported then.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        cacert: str | None = None,
        certfile: str | None = None,
        keyfile: str | None = None,
        insecure: bool = False,
        timeout: float = DEFAULT_TIMEOUT,
        sender: Callable[["Transport"], Sender] | None = None,
    ) -> None:
        if api_key is not None and not is_key(api_key):
            raise ValueError("a key must be one word of printable ASCII characters")
        self.address = parse_url(url)
        self.security = Security(api_key, cacert, certfile, keyfile, insecure)
        self.timeout = timeout
        self.deadline = math.inf  # of all requests together, in monotonic seconds
        self.allow_loopback = True  # whether connections may go to a loopback address
        self._make_sender = sender or _requests_sender
        self._sender: Sender | None = None
        self._interrupted = False

    @property
    def url(self) -> str:
        """The URL of the server."""
        return self.address.url

    def clone(self) -> "Transport":
        """Return a new transport for the same server, for use in another thread; it has no deadline."""
        transport = Transport(self.url, timeout=self.timeout, sender=self._make_sender, **self.security._asdict())
        transport.allow_loopback = self.allow_loopback
        return transport

    def close(self) -> None:
        """Close the connection; the next request reopens it."""
        if self._sender is not None:
            self._sender.close()
            self._sender = None

    def interrupt(self) -> None:
        """Abort the current request; thread-safe."""
        self._interrupted = True
        if (sender := self._sender) is not None:
            sender.interrupt()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        document: object = ABSENT,
        body: bytes | None = None,
        deadline: float = math.inf,
    ) -> Answer:
        """Send a request, with `document` as JSON or `body` unchanged, and return its 2xx response.

        `deadline`, in monotonic seconds, can shorten the timeout. A GET or HEAD whose connection is lost is sent once
        more: a node that its keeper restarts answers it then.

        Raises the StatusError of any other status, and Unreachable without a response.
        """
        headers = {"Accept": "application/json"}
        if document is not ABSENT:
            body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
            headers["Content-Type"] = "application/json"
        elif body is not None:
            headers["Content-Type"] = "application/octet-stream"
        exchange = self._new_exchange(deadline, confidential=holds_environment(document))
        request = Request(method, with_query(path, query), headers, body, exchange, self.timeout)

        def ask() -> Answer:
            sender = self._opened()
            return self._answer(sender, self._send(sender, request))

        answer = self._repeated(ask) if method in _READS else ask()
        if 200 <= answer.status < 300:
            return answer
        raise refusal(answer, self.url)

    def get(
        self, path: str, shape: type[T], *, query: Mapping[str, str] | None = None, deadline: float = math.inf
    ) -> T:
        """Return the JSON document at `path`, validated as `shape`; unknown fields are kept."""
        return self.decode(self.request("GET", path, query=query, deadline=deadline), shape)

    def exists(self, path: str) -> bool:
        """Return whether a resource exists at `path`."""
        try:
            self.request("HEAD", path)
        except NotFound:
            return False
        return True

    def read(self, path: str, *, query: Mapping[str, str] | None = None) -> Any:
        """Return the JSON document at `path`, whatever it contains; see `check`."""
        return self._parse(self.request("GET", path, query=query))

    def order(self, method: str, path: str, document: object = ABSENT, *, body: bytes | None = None) -> None:
        """Send a request whose response is `{"ok": true}`."""
        answer = self._parse(self.request(method, path, document=document, body=body))
        if not (isinstance(answer, dict) and answer.get("ok") is True):
            raise MalformedAnswer(f"{self.url} returned neither success nor an error", url=self.url)

    def decode(self, answer: Answer, shape: type[T]) -> T:
        """Return the JSON document of a response; raise MalformedAnswer if it is not valid as `shape`."""
        checked: T = self._parse(answer)
        self.check(checked, shape)
        return checked

    def check(self, document: object, shape: object) -> None:
        """Raise MalformedAnswer if a JSON document is not valid as `shape`."""
        import msgspec

        from gaffer_client.shapes import validate

        try:
            validate(document, shape)
        except msgspec.ValidationError as error:
            raise self._invalid(error) from None

    def _parse(self, answer: Answer) -> Any:
        try:
            return json.loads(answer.body)
        except (ValueError, RecursionError) as error:
            raise self._invalid(error) from None

    def _invalid(self, error: Exception) -> MalformedAnswer:
        return MalformedAnswer(
            f"{self.url} sent an invalid response: {error}",
            url=self.url,
            hint="check that this is the address of a Gaffer server, and its version",
        )

    def stream(
        self, path: str, headers: Mapping[str, str], *, method: str = "GET", idle_timeout: float | None = None
    ) -> "Stream":
        """Open a streaming response; reading raises Unreachable after `idle_timeout` seconds without data.

        Raises the same errors as `request`, for any status other than 200.
        """
        headers = {**headers, "Accept-Encoding": "identity"}
        request = Request(method, path, headers, None, self._new_exchange(streams=True), idle_timeout)

        def open_() -> Stream | Answer:
            sender = self._opened()
            reply = self._send(sender, request)
            if reply.status == 200:
                return Stream(reply, partial(_translated_errors, self.url, sender, idle_timeout))
            return self._answer(sender, reply)

        opened = self._repeated(open_) if method in _READS else open_()
        if isinstance(opened, Stream):
            return opened
        raise refusal(opened, self.url)

    def _repeated(self, ask: Callable[[], T]) -> T:
        """Return the result of a request that changes nothing; repeat it once if the connection is lost."""
        self._interrupted = False
        try:
            return ask()
        except ConnectionLost as lost:
            if self._interrupted:
                raise
            try:
                return ask()
            except Unreachable:
                raise lost from None

    def _opened(self) -> Sender:
        self._sender = self._sender or self._make_sender(self)
        return self._sender

    def _new_exchange(
        self, deadline: float = math.inf, *, confidential: bool = False, streams: bool = False
    ) -> Exchange:
        confidential = confidential or self.security.api_key is not None
        return Exchange(min(deadline, self.deadline, time.monotonic() + self.timeout), confidential, streams)

    def _send(self, sender: Sender, request: Request) -> Reply:
        with _translated_errors(self.url, sender, self.timeout):
            return sender.send(request)

    def _answer(self, sender: Sender, reply: Reply) -> Answer:
        """Read the whole body of a response."""
        content = bytearray()
        try:
            with _translated_errors(self.url, sender, self.timeout):
                for piece in reply.content():
                    content += piece
                    if len(content) > MAX_ANSWER:
                        raise MalformedAnswer(f"the response of {self.url} exceeds {MAX_ANSWER} bytes", url=self.url)
        finally:
            reply.close()
        return Answer(reply.status, bytes(content))


@contextmanager
def _translated_errors(url: str, sender: Sender, timeout: float | None) -> Iterator[None]:
    """Translate errors of the sender into Unreachable."""
    try:
        yield
    except sender.errors as error:
        raise _failure(url, sender.cause(error), timeout) from None


def _requests_sender(transport: Transport) -> Sender:
    from gaffer_client.adapter import RequestsSender  # imports requests, which is slow

    return RequestsSender(transport)


def holds_environment(document: object) -> bool:
    """Return whether the JSON document of a request contains a job environment."""
    if not isinstance(document, Mapping):
        return False
    jobs = document.get("jobs")
    return bool(document.get("env")) or (isinstance(jobs, list) and any(map(holds_environment, jobs)))


class Stream:
    """A streaming response; another thread may `interrupt` it."""

    def __init__(self, reply: Reply, translated_errors: Callable[[], AbstractContextManager[None]]) -> None:
        self.content_type = reply.content_type
        self._reply = reply
        self._translated_errors = translated_errors
        self._lock = threading.Lock()
        self._open = True

    def read(self) -> bytes:
        """Return the next available bytes, or empty bytes at the end; raise Unreachable if the connection breaks."""
        with self._translated_errors():
            return self._reply.read()

    def interrupt(self) -> None:
        """Make `read` return or fail; thread-safe."""
        with self._lock:
            if self._open:
                self._reply.shutdown()

    def close(self) -> None:
        """Close the connection; called by the reading thread."""
        with self._lock:
            self._open = False
            self._reply.close()


def with_query(path: str, query: Mapping[str, str] | None) -> str:
    """Return `path` with the query, if any."""
    return f"{path}?{urlencode(query)}" if query else path


def refusal(answer: Answer, url: str) -> StatusError | MalformedAnswer:
    """Return the error for a response with a status other than 2xx."""
    if 300 <= answer.status < 400:
        return MalformedAnswer(f"{url} answered with a redirect, which Gaffer servers never do: check the URL", url=url)
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        document = None
    return status_error(answer.status, document, url)


def unreachable(url: str, why: str, hint: str | None = None) -> Unreachable:
    """Return the error for a server that can't be reached."""
    return Unreachable(f"can't reach {url}: {why}", url=url, hint=hint)


def timed_out(url: str, seconds: float | None) -> TimedOut:
    """Return the error for a server that has not responded in time."""
    return TimedOut(f"can't reach {url}: no response within {seconds:g} s", url=url)


def tls_failed(url: str, error: BaseException) -> Unreachable:
    """Return the error for a failed TLS handshake."""
    from gaffer.runtime import tls  # imports ssl, which most commands don't need

    hint = (
        "use --cacert for the CA that signed the server's certificate, and --certfile and --keyfile if the server "
        "requires a client certificate (in Python cacert=, certfile= and keyfile=)"
    )
    kind = ConnectionLost if type(error).__name__ == _TLS_END else Unreachable
    return kind(f"can't reach {url}: TLS failed: {tls.explain(error) or error}", url=url, hint=hint)


def connection_lost(url: str, why: str) -> ConnectionLost:
    """Return the error for a server whose connection ended too early."""
    return ConnectionLost(f"can't reach {url}: {why}", url=url)


def _failure(url: str, cause: BaseException, timeout: float | None) -> Unreachable:
    """Return the error for the cause of a failed exchange."""
    if type(cause).__name__ == _TLS_END:
        return connection_lost(url, "the connection was closed")
    if type(cause).__module__ == "ssl":
        return tls_failed(url, cause)
    if isinstance(cause, TimeoutError):
        return timed_out(url, timeout)
    from http.client import (
        BadStatusLine,
        IncompleteRead,
        LineTooLong,
        UnknownProtocol,
    )  # imported by the sender already

    what = " ".join(str(cause).split()) or type(cause).__name__
    if isinstance(cause, OSError) and cause.strerror:
        positive = cause.errno is not None and cause.errno > 0
        what = cause.strerror.lower() if positive else cause.strerror
    elif isinstance(cause, IncompleteRead):
        what = "the connection broke within the response"
    elif type(cause) in (BadStatusLine, LineTooLong, UnknownProtocol):
        what = f"its response is not HTTP: {what}"
    lost = isinstance(cause, ConnectionResetError | BrokenPipeError | IncompleteRead)
    return connection_lost(url, what) if lost else unreachable(url, what)
