"""HTTP client of one server at an http, https or unix URL, with validated responses."""

import math
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Self, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from gaffer.schemas.common import Done
from gaffer_client.errors import InvalidURL, MalformedAnswer, NotFound, StatusError, Unreachable, status_error
from gaffer_client.shapes import tolerant

if TYPE_CHECKING:
    import requests

    from gaffer_client.adapter import Adapter

T = TypeVar("T")

DEFAULT_URL = "http://127.0.0.1:5000"
DEFAULT_TIMEOUT = 30.0  # seconds
MAX_ANSWER = 64 * 1024 * 1024
_CHUNK = 65536
# All parsers must find the same host in a URL, or the key may go elsewhere: no backslash, and percent only for a scope.
_HOST = re.compile(r"[\w.-]+|[0-9a-f:.]+(%[\w.-]+)?")
_UNREADABLE = (msgspec.DecodeError, RecursionError)


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
    ) -> None:
        if api_key is not None and not is_key(api_key):
            raise ValueError("a key must be one word of printable ASCII characters")
        self.address = parse_url(url)
        self.security = Security(api_key, cacert, certfile, keyfile, insecure)
        self.timeout = timeout
        self.deadline = math.inf  # of all requests together, in monotonic seconds
        self.allow_loopback = True  # whether connections may go to a loopback address
        self._open_session: requests.Session | None = None
        self._adapter: Adapter | None = None

    @property
    def url(self) -> str:
        """The URL of the server."""
        return self.address.url

    def clone(self) -> "Transport":
        """Return a new transport for the same server, for use in another thread; it has no deadline."""
        transport = Transport(self.url, timeout=self.timeout, **self.security._asdict())
        transport.allow_loopback = self.allow_loopback
        return transport

    def close(self) -> None:
        """Close the connection; the next request reopens it."""
        if self._open_session is not None:
            self._open_session.close()
            self._open_session = None

    def interrupt(self) -> None:
        """Abort the current request; thread-safe."""
        adapter = self._adapter
        if adapter is not None and adapter.socket is not None and (sock := adapter.socket()) is not None:
            with suppress(OSError):  # already closed
                sock.shutdown(socket.SHUT_RDWR)

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
        document: object = msgspec.UNSET,
        body: bytes | None = None,
        deadline: float = math.inf,
    ) -> Answer:
        """Send a request, with `document` as JSON or `body` unchanged, and return its 2xx response.

        `deadline`, in monotonic seconds, can shorten the timeout.

        Raises the StatusError of any other status, and Unreachable without a response.
        """
        headers = {"Accept": "application/json"}
        if document is not msgspec.UNSET:
            body = msgspec.json.encode(document)
            headers["Content-Type"] = "application/json"
        elif body is not None:
            headers["Content-Type"] = "application/octet-stream"
        exchange = self._new_exchange(deadline, confidential=holds_environment(document))
        answer = self._exchange(method, with_query(path, query), headers, body, exchange)
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

    def order(self, method: str, path: str, document: object = msgspec.UNSET, *, body: bytes | None = None) -> None:
        """Send a request whose response is `{"ok": true}`."""
        answer = self.request(method, path, document=document, body=body)
        if not self.decode(answer, Done)["ok"]:
            raise MalformedAnswer(f"{self.url} returned neither success nor an error", url=self.url)

    def decode(self, answer: Answer, shape: type[T]) -> T:
        """Return the JSON document of a response; raise MalformedAnswer if it is not valid as `shape`."""
        try:
            document = msgspec.json.decode(answer.body)
            msgspec.convert(document, tolerant(shape))
        except _UNREADABLE as error:
            raise MalformedAnswer(
                f"{self.url} sent an invalid response: {error}",
                url=self.url,
                hint="check that this is the address of a Gaffer server, and its version",
            ) from None
        checked: T = document
        return checked

    def stream(
        self, path: str, headers: Mapping[str, str], *, method: str = "GET", idle_timeout: float | None = None
    ) -> "Stream":
        """Open a streaming response; reading raises Unreachable after `idle_timeout` seconds without data.

        Raises the same errors as `request`, for any status other than 200.
        """
        headers = {**headers, "Accept-Encoding": "identity"}
        response = self._response(method, path, headers, None, self._new_exchange(streams=True), idle_timeout)
        if response.status_code == 200:
            return Stream(response, partial(self._translated_errors, idle_timeout))
        try:
            answer = Answer(response.status_code, self._content(response))
        finally:
            response.raw.close()
        raise refusal(answer, self.url)

    def _exchange(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None, exchange: Exchange
    ) -> Answer:
        with self._response(method, path, headers, body, exchange, self.timeout) as response:
            return Answer(response.status_code, self._content(response))

    def _new_exchange(
        self, deadline: float = math.inf, *, confidential: bool = False, streams: bool = False
    ) -> Exchange:
        confidential = confidential or self.security.api_key is not None
        return Exchange(min(deadline, self.deadline, time.monotonic() + self.timeout), confidential, streams)

    def _response(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        exchange: Exchange,
        read_timeout: float | None,
    ) -> "requests.Response":
        session = self._open_session = self._open_session or self._new_session()
        assert self._adapter is not None
        self._adapter.exchange = exchange
        with self._translated_errors(self.timeout):
            return session.request(
                method,
                self.address.base + path,
                data=body,
                headers=dict(headers),
                timeout=(self.timeout, read_timeout),
                allow_redirects=False,
                stream=True,
            )

    def _content(self, response: "requests.Response") -> bytes:
        content = bytearray()
        with self._translated_errors(self.timeout):
            for chunk in response.iter_content(_CHUNK):
                content += chunk
                if len(content) > MAX_ANSWER:
                    raise MalformedAnswer(f"the response of {self.url} exceeds {MAX_ANSWER} bytes", url=self.url)
        return bytes(content)

    @contextmanager
    def _translated_errors(self, timeout: float | None) -> Iterator[None]:
        """Translate errors of requests, urllib3 and sockets into Unreachable."""
        import requests
        import urllib3

        try:
            yield
        except (requests.exceptions.SSLError, urllib3.exceptions.SSLError) as error:
            raise tls_failed(self.url, _innermost(error)) from None
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            late = isinstance(_innermost(error), TimeoutError | urllib3.exceptions.TimeoutError)
            raise unreachable(self.url, f"no response within {timeout:g} s" if late else _cause(error)) from None

    def _new_session(self) -> "requests.Session":
        import requests

        from gaffer_client.adapter import Adapter

        session = requests.Session()
        # A key must not leak to a proxy or be replaced by .netrc.
        session.trust_env = False
        self._adapter = Adapter(self)
        for scheme in ("http://", "https://"):
            session.mount(scheme, self._adapter)
        session.headers.update(self.security.headers)
        return session


def holds_environment(document: object) -> bool:
    """Return whether the JSON document of a request contains a job environment."""
    if not isinstance(document, Mapping):
        return False
    jobs = document.get("jobs")
    return bool(document.get("env")) or (isinstance(jobs, list) and any(map(holds_environment, jobs)))


class Stream:
    """A streaming response; another thread may `interrupt` it."""

    def __init__(
        self, response: "requests.Response", translated_errors: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self.content_type: str = response.headers.get("Content-Type", "")
        self._response = response
        self._translated_errors = translated_errors
        self._lock = threading.Lock()
        self._open = True

    def read(self) -> bytes:
        """Return the next available bytes, or empty bytes at the end; raise Unreachable if the connection breaks."""
        with self._translated_errors():
            return self._response.raw.read1(_CHUNK)

    def interrupt(self) -> None:
        """Make `read` return or fail; thread-safe."""
        with self._lock:
            if self._open:
                self._response.raw.shutdown()

    def close(self) -> None:
        """Close the connection; called by the reading thread."""
        with self._lock:
            self._open = False
            self._response.close()


def with_query(path: str, query: Mapping[str, str] | None) -> str:
    """Return `path` with the query, if any."""
    return f"{path}?{urlencode(query)}" if query else path


def refusal(answer: Answer, url: str) -> StatusError | MalformedAnswer:
    """Return the error for a response with a status other than 2xx."""
    if 300 <= answer.status < 400:
        return MalformedAnswer(f"{url} answered with a redirect, which Gaffer servers never do: check the URL", url=url)
    try:
        document = msgspec.json.decode(answer.body)
    except _UNREADABLE:
        document = None
    return status_error(answer.status, document, url)


def unreachable(url: str, why: str, hint: str | None = None) -> Unreachable:
    """Return the error for a server that can't be reached."""
    return Unreachable(f"can't reach {url}: {why}", url=url, hint=hint)


def tls_failed(url: str, error: BaseException) -> Unreachable:
    """Return the error for a failed TLS handshake."""
    from gaffer.runtime import tls  # imports ssl, which most commands don't need

    hint = (
        "use --cacert for the CA that signed the server's certificate, and --certfile and --keyfile if the server "
        "requires a client certificate (in Python cacert=, certfile= and keyfile=)"
    )
    return unreachable(url, f"TLS failed: {tls.explain(error) or error}", hint)


def _cause(error: BaseException) -> str:
    """Return the innermost cause of an error wrapped by requests and urllib3, as one line."""
    error = _innermost(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower() if error.errno is not None and error.errno > 0 else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _innermost(error: BaseException) -> BaseException:
    seen = {id(error)}
    while True:
        inner = getattr(error, "reason", None) or error.__cause__ or error.__context__ or _first_argument(error)
        if not isinstance(inner, BaseException) or id(inner) in seen:
            return error
        seen.add(id(inner))
        error = inner


def _first_argument(error: BaseException) -> object:
    return next((argument for argument in error.args if isinstance(argument, BaseException)), None)
