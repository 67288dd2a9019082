"""HTTP with one server at an http, https or unix URL: requests go out, checked answers or errors come back."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, Self, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from gaffer_client.errors import InvalidURL, MalformedAnswer, Unreachable, status_error

if TYPE_CHECKING:
    import requests

T = TypeVar("T")

DEFAULT_TIMEOUT = 10.0
MAX_ANSWER = 64 * 1024 * 1024
_CHUNK = 65536
_UNREADABLE = (msgspec.DecodeError, RecursionError)


class Address(NamedTuple):
    """Where a server is: `base` is what paths are appended to, `socket` the path of a UNIX socket or None."""

    url: str
    base: str
    socket: str | None


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    body: bytes


def parse_url(url: str) -> Address:
    """Read `http://host:port`, `https://host:port` or `unix:/path`; raises InvalidURL."""
    if url.startswith("unix:"):
        path = url.removeprefix("unix:")
        path = path[2:] if path.startswith("//") else path
        if not path.startswith("/"):
            raise InvalidURL(
                f"{url!r} names no socket",
                url=url,
                hint="give the absolute path of the socket: unix:/run/gaffer/gafferd.sock",
            )
        return Address(f"unix:{path}", "http://localhost", path)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidURL(f"{url!r} is not a valid URL: {error}", url=url) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidURL(
            f"{url!r} is not the URL of a server",
            url=url,
            hint="write http://HOST:PORT, https://HOST:PORT or unix:/PATH",
        )
    if parts.username is not None or parts.password is not None:
        raise InvalidURL(
            f"the URL of {parts.hostname} holds a user name or a password",
            url=f"{parts.scheme}://{parts.hostname}",
            hint="keys are given in a file, never in a URL",
        )
    if parts.query or parts.fragment or port == 0:
        raise InvalidURL(f"{url!r} is not the URL of a server", url=url, hint="write no more than http://HOST:PORT")
    base = f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")
    return Address(base, base, None)


def path_of(*segments: str | int) -> str:
    """The path with these segments, each percent-encoded."""
    return "".join("/" + quote(str(segment), safe="") for segment in segments)


def is_key(text: str) -> bool:
    """Whether `text` can be a key: one printable ASCII word."""
    return text.isascii() and text.isprintable() and text != "" and " " not in text


class Transport:
    """Speaks HTTP with one server.

    `api_key` is sent as a bearer token; `cacert`, `certfile` and `keyfile` are paths of PEM files for TLS;
    `timeout` bounds, in seconds, each of connecting and answering. Proxies and .netrc of the environment are not used.
    Not for use by several threads at once. Raises InvalidURL, and ValueError for a key that is none.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        cacert: str | None = None,
        certfile: str | None = None,
        keyfile: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        if api_key is not None and not is_key(api_key):
            raise ValueError("a key is one printable ASCII word")
        self.address = parse_url(url)
        self.timeout = timeout
        self._api_key = api_key
        self._verify: str | bool = cacert or True
        self._cert = (certfile, keyfile) if certfile and keyfile else certfile
        self._open_session: requests.Session | None = None

    @property
    def url(self) -> str:
        """The URL it talks to."""
        return self.address.url

    def close(self) -> None:
        """Close the connection; the next request opens it again."""
        if self._open_session is not None:
            self._open_session.close()
            self._open_session = None

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
    ) -> Answer:
        """Send a request, with `document` as JSON or `body` as it is; answers of status 2xx are returned.

        Raises the StatusError of any other status, Unreachable without an answer.
        """
        headers = {"Accept": "application/json"}
        if document is not msgspec.UNSET:
            body = msgspec.json.encode(document)
            headers["Content-Type"] = "application/json"
        elif body is not None:
            headers["Content-Type"] = "application/octet-stream"
        target = self.address.base + path + ("?" + urlencode(query) if query else "")
        answer = self._exchange(method, target, headers, body)
        if 200 <= answer.status < 300:
            return answer
        if 300 <= answer.status < 400:
            raise MalformedAnswer(f"{self.url} redirects elsewhere, as no Gaffer server does", url=self.url)
        try:
            refusal = msgspec.json.decode(answer.body)
        except _UNREADABLE:
            refusal = None
        raise status_error(answer.status, refusal, self.url)

    def get(self, path: str, shape: type[T], *, query: Mapping[str, str] | None = None) -> T:
        """The JSON document at `path`, checked to be of that shape; what the shape does not name is kept."""
        return self.decode(self.request("GET", path, query=query), shape)

    def decode(self, answer: Answer, shape: type[T]) -> T:
        """The JSON document of an answer; raises MalformedAnswer when it is none or not of that shape."""
        try:
            document = msgspec.json.decode(answer.body)
            msgspec.convert(document, shape)
        except _UNREADABLE as error:
            raise MalformedAnswer(
                f"{self.url} gave an answer that can't be understood: {error}",
                url=self.url,
                hint="is that the address of a Gaffer server of this version?",
            ) from None
        checked: T = document
        return checked

    def _exchange(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        import requests
        import urllib3

        session = self._open_session = self._open_session or self._new_session()
        deadline = time.monotonic() + self.timeout
        try:
            with session.request(
                method,
                target,
                data=body,
                headers=dict(headers),
                timeout=self.timeout,
                allow_redirects=False,
                stream=True,
                verify=self._verify,
                cert=self._cert,
            ) as response:
                content = bytearray()
                for chunk in response.iter_content(_CHUNK):
                    content += chunk
                    if len(content) > MAX_ANSWER:
                        raise MalformedAnswer(f"the answer of {self.url} is over {MAX_ANSWER} bytes", url=self.url)
                    if time.monotonic() > deadline:
                        raise self._unreachable(f"the answer took more than {self.timeout:g} s")
                return Answer(response.status_code, bytes(content))
        except requests.exceptions.SSLError as error:
            raise self._unreachable(
                f"TLS failed: {_cause(error)}",
                hint="give the certificate of the authority that signed the server's",
            ) from None
        except requests.exceptions.Timeout:
            raise self._unreachable(f"no answer within {self.timeout:g} s") from None
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise self._unreachable(_cause(error)) from None

    def _unreachable(self, why: str, hint: str | None = None) -> Unreachable:
        return Unreachable(f"can't reach {self.url}: {why}", url=self.url, hint=hint)

    def _new_session(self) -> "requests.Session":
        import requests

        session = requests.Session()
        # A key must not leak to a proxy, nor be replaced by what .netrc says.
        session.trust_env = False
        if self.address.socket is not None:
            from gaffer_client.unixsocket import UnixAdapter

            session.mount("http://", UnixAdapter(self.address.socket))
        if self._api_key is not None:
            session.headers["Authorization"] = f"Bearer {self._api_key}"
        return session


def _cause(error: BaseException) -> str:
    """The innermost reason of an error that requests and urllib3 have wrapped, as one line."""
    seen = {id(error)}
    while True:
        inner = getattr(error, "reason", None) or error.__cause__ or error.__context__ or _first_argument(error)
        if not isinstance(inner, BaseException) or id(inner) in seen:
            break
        seen.add(id(inner))
        error = inner
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower() if error.errno is not None and error.errno > 0 else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _first_argument(error: BaseException) -> object:
    return next((argument for argument in error.args if isinstance(argument, BaseException)), None)
