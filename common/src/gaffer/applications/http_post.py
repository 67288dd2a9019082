"""POSTs over HTTP/1.1 to one server, without an HTTP library.

Tornado's client can't be cancelled: a request past its deadline keeps its connection, and its lookups share the
threads of the loop. requests blocks, and both follow the proxies of the environment or redirects to any host. Here a
connection ends with the task that uses it, and goes only to the host of the URL.
"""

import asyncio
import base64
import re
import ssl
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple
from urllib.parse import quote, unquote, urljoin, urlsplit

from gaffer.errors import BadRequest
from gaffer.runtime.connecting import Resolver, connect

_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})")
_FIELD = re.compile(rb"^([!-9;-~]+):[ \t]*([^\r\n]*?)[ \t]*\r$", re.MULTILINE)
_READ_LIMIT = 64 * 1024  # bytes of a response body that are read, so that the server can finish sending
_HANDSHAKE_TIMEOUT = 10.0  # seconds
_SHUTDOWN_TIMEOUT = 1.0  # seconds for ending TLS


class Address:
    """A parsed http or https URL; raises BadRequest for any other. `str` omits user, password and query."""

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            self.host = (parts.hostname or "").encode("idna").decode()
            self.tls = parts.scheme == "https"
            self.port = parts.port if parts.port is not None else 443 if self.tls else 80
            good = parts.scheme in ("http", "https") and self.host and self.port and " " not in self.host
        except ValueError:
            good = False
        if not good:
            raise BadRequest(
                f"{url!r} is not an http or https URL",
                reason="bad_url",
                hint="use a URL such as http://10.0.0.7:8080/events",
            )
        self._url = url
        self._shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._head = [
            f"POST {quote(target, safe=_SAFE)} HTTP/1.1",
            f"Host: {parts.netloc.rpartition('@')[2] if parts.netloc.isascii() else self.host}",
            "User-Agent: gaffer",
        ]
        self._authorization: list[str] = []
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._authorization = [f"Authorization: Basic {base64.b64encode(pair.encode()).decode()}"]

    def __str__(self) -> str:
        return self._shown

    def request(self, body: bytes, headers: Mapping[str, str]) -> bytes:
        """Return the request with `body`; names and values of `headers` are printable ASCII."""
        fields = [f"{name}: {value}" for name, value in headers.items()]
        lines = [*self._head, *self._authorization, *fields, f"Content-Length: {len(body)}", "", ""]
        return "\r\n".join(lines).encode() + body

    def redirected(self, location: str) -> "Address":
        """Return the target of a redirect, for the same user.

        Raises BadRequest unless it is on the same server, or on the same host from port 80 to https on port 443:
        another port may belong to a service that trusts local callers.
        """
        try:
            target = Address(urljoin(self._url, location))
        except (ValueError, BadRequest):  # whose message may show our user
            raise BadRequest("it redirects to an invalid URL", reason="bad_url") from None
        place = (target.tls, target.port)
        if target.host != self.host or place not in ((self.tls, self.port), _upgraded(self.tls, self.port)):
            raise BadRequest(f"it redirects to another server, {target.host!r} port {target.port}", reason="bad_url")
        target._authorization = self._authorization
        return target


# Characters not to be quoted in the target of a request.
_SAFE = "%/:=&?~+!$,;'@()*[]"


def _upgraded(tls: bool, port: int) -> tuple[bool, int]:
    return (True, 443) if (tls, port) == (False, 80) else (tls, port)


class Response(NamedTuple):
    """The status of a response and, if present, its fields `Location` and `Retry-After`."""

    status: int
    location: str | None = None
    retry_after: str | None = None


class Poster:
    """Sends requests to one address, one at a time, on a connection that it keeps as long as the server does.

    `close` it. Trusts the certificate authorities of the system. A cancelled post closes the connection.
    """

    def __init__(self, address: Address, resolver: Resolver) -> None:
        self.address = address
        self._resolver = resolver
        self._kept: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, body: bytes, headers: Mapping[str, str]) -> Response:
        """POST `body` and return the response. Redirects are not followed, and there is no time limit.

        Raises OSError if the connection fails, ValueError if the response is not HTTP.
        """
        request = self.address.request(body, headers)
        if self._kept is not None:
            try:
                return await self._exchange(*self._kept, request)
            except (OSError, ValueError):
                pass  # the server may close a kept connection at any time
        return await self._exchange(*await self._connect(), request)

    def close(self) -> None:
        """Close the connection."""
        if self._kept is not None:
            self._kept[1].transport.abort()
            self._kept = None

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        sock = await connect(await self._resolver.resolve(self.address.port))
        try:
            if not self.address.tls:
                return await asyncio.open_connection(sock=sock)
            return await asyncio.open_connection(
                sock=sock,
                ssl=trusting_authorities(),
                server_hostname=self.address.host,
                ssl_handshake_timeout=_HANDSHAKE_TIMEOUT,
                ssl_shutdown_timeout=_SHUTDOWN_TIMEOUT,
            )
        except BaseException:
            sock.close()
            raise

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> Response:
        self._kept = None
        keep = False
        try:
            writer.write(request)
            version, status, fields = await _read_head(reader)
            keep = (
                await _read_body(reader, status, fields) and version and fields.get("connection", "").lower() != "close"
            )
            return Response(status, fields.get("location"), fields.get("retry-after"))
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            raise ValueError("the response is truncated or not HTTP") from None
        finally:
            if keep:
                self._kept = (reader, writer)
            else:
                writer.transport.abort()


async def _read_head(reader: asyncio.StreamReader) -> tuple[bool, int, dict[str, str]]:
    """Return whether the server speaks HTTP/1.1, the status and the header fields, with lower-case names."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        found = _STATUS.match(head)
        if found is None:
            raise ValueError("the response is not HTTP")
        status = int(found[2])
        if status >= 200:
            fields = {name.decode().lower(): value.decode("latin-1") for name, value in _FIELD.findall(head)}
            return found[1] == b"1", status, fields


async def _read_body(reader: asyncio.StreamReader, status: int, fields: Mapping[str, str]) -> bool:
    """Read the body, up to _READ_LIMIT, and return whether that was all."""
    if status == 204:
        return True
    length = fields.get("content-length", "")
    if "transfer-encoding" in fields or not re.fullmatch("[0-9]{1,9}", length):
        return False
    await reader.readexactly(min(int(length), _READ_LIMIT))
    return int(length) <= _READ_LIMIT


@cache
def trusting_authorities() -> ssl.SSLContext:
    """Return the TLS context that trusts the system's authorities; the first call reads them, some 20 ms."""
    return ssl.create_default_context()
