"""HTTP/1.x as defined by RFC 9110 and RFC 9112, where Tornado's parser departs from them.

Both daemons read every request with it, whether a handler, a websocket or a cached response answers it.
"""

import asyncio
import re
from collections.abc import Iterator
from typing import NoReturn

from tornado.http1connection import HTTP1Connection, HTTP1ServerConnection
from tornado.httputil import (
    HTTPHeaders,
    HTTPInputError,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.iostream import StreamClosedError, UnsatisfiableReadError

from gaffer.errors import GafferError
from gaffer.http.stream import WireStream

_CONTINUE = "100-continue"
_MAX_CHUNK_LINE = 4096  # bytes of a chunk size with its extensions
_MAX_TRAILERS = 100  # lines
_CHUNKS_AT_ONCE = 100  # read before the loop turns

_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})([ \t]*;[\t -~\x80-\xff]*)?\r\n")
_ABSOLUTE_FORM = re.compile(r"https?://([^/?#@]+)([/?].*)?", re.ASCII | re.IGNORECASE)


class BadTarget(GafferError):
    """The request target is neither a path nor a URL."""

    errno = 400
    reason = "malformed_request"

    def __init__(self, target: str) -> None:
        super().__init__(
            f"the request target {target[:100]!r} is neither a path nor an http URL",
            hint="begin the path with a slash (RFC 9112 section 3.2)",
        )


class ExpectationFailed(GafferError):
    """The request expects something other than 100-continue."""

    errno = 417
    reason = "expectation_failed"

    def __init__(self, expected: str) -> None:
        super().__init__(f"unsupported header Expect: {expected[:100]}", hint="omit the header, or send 100-continue")


def list_items(headers: HTTPHeaders, name: str) -> Iterator[str]:
    """Return the items of a header that is a comma list, in lower case (RFC 9110 section 5.6.1)."""
    return filter(None, (item.strip().lower() for item in headers.get(name, "").split(",")))


class Connection(HTTP1Connection):
    """One request of a client, and the response to it."""

    stream: WireStream

    def _parse_headers(self, data: bytes) -> tuple[str, HTTPHeaders]:
        line, headers = super()._parse_headers(data)
        method, _, rest = line.partition(" ")
        target, _, version = rest.rpartition(" ")
        if not version.startswith("HTTP/"):
            return line, headers  # Tornado rejects it
        if not target.startswith("/"):
            target = self._path_of(method, target, headers)
            line = f"{method} {target} {version}"
        if version != "HTTP/1.1":
            if version == "HTTP/1.0":
                headers.pop("Expect", None)  # RFC 9110 section 10.1.1
                if "Transfer-Encoding" in headers:
                    raise HTTPInputError("Transfer-Encoding in HTTP/1.0")  # faulty framing, RFC 9112 section 6.1
            elif re.fullmatch(r"HTTP/1\.[2-9]", version):
                line = f"{method} {target} HTTP/1.1"  # RFC 9110 section 2.5
        if "Expect" in headers:
            if set(list_items(headers, "Expect")) != {_CONTINUE}:
                self._refuse(ExpectationFailed(headers["Expect"]))
            headers["Expect"] = _CONTINUE  # the only spelling that Tornado recognizes
        return line, headers

    def _path_of(self, method: str, target: str, headers: HTTPHeaders) -> str:
        """Return the path of a target that is a URL, and set Host to its host (RFC 9112 section 3.2.2)."""
        if target == "*" and method == "OPTIONS":
            return target
        found = _ABSOLUTE_FORM.fullmatch(target)
        if found is None:
            self._refuse(BadTarget(target))
        headers["Host"] = found[1]
        path = found[2] or ""
        return "*" if method == "OPTIONS" and not path else path if path.startswith("/") else f"/{path}"

    def _refuse(self, error: GafferError) -> NoReturn:
        self.stream.refusal = error
        raise HTTPInputError(error.message)

    def _can_keep_alive(self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders) -> bool:
        if "Connection" not in headers:
            return start_line.version == "HTTP/1.1"
        options = set(list_items(headers, "Connection"))
        if "close" in options:
            return False
        if start_line.version == "HTTP/1.1":
            return True
        assert isinstance(start_line, RequestStartLine)
        return "keep-alive" in options and ("Content-Length" in headers or start_line.method in ("GET", "HEAD"))

    def write_headers(
        self,
        start_line: RequestStartLine | ResponseStartLine,
        headers: HTTPHeaders,
        chunk: bytes | None = None,
    ) -> "asyncio.Future[None]":
        assert isinstance(start_line, ResponseStartLine)
        request = self._request_start_line
        assert request is not None
        if not self._read_finished:  # the rest of the body will not be read
            self._disconnect_on_finish = True
        if request.version == "HTTP/1.0":
            # HTTP/1.0 has no chunked encoding: a body of unknown length ends with the connection.
            has_end = "Content-Length" in headers or request.method == "HEAD" or start_line.code in (204, 304)
            if not has_end:
                self._disconnect_on_finish = True
            self._request_headers = HTTPHeaders()  # or Tornado would announce keep-alive all the same
            if not self._disconnect_on_finish:
                headers["Connection"] = "Keep-Alive"
        return super().write_headers(start_line, headers, chunk)

    async def _read_chunked_body(self, delegate: HTTPMessageDelegate) -> None:
        """Read a chunked body (RFC 9112 section 7.1), ignoring extensions and trailers."""
        pending = bytearray()
        total = extensions = count = 0
        while True:
            length, extension = await self._next_chunk()
            extensions += extension
            total += length
            if total > self._max_body_size or extensions > self.params.max_header_size:
                raise HTTPInputError("chunked body too large")
            if not length:
                break
            while length:
                piece = await self.stream.read_bytes(min(length, self.params.chunk_size), partial=True)
                length -= len(piece)
                pending += piece
                if len(pending) >= self.params.chunk_size:
                    data = bytes(pending)
                    pending.clear()
                    await self._deliver_body(delegate, data)
            if await self.stream.read_bytes(2) != b"\r\n":
                raise HTTPInputError("improperly terminated chunk")
            count += 1
            if count % _CHUNKS_AT_ONCE == 0:
                await asyncio.sleep(0)
        await self._skip_trailers()
        if pending:
            await self._deliver_body(delegate, bytes(pending))

    async def _next_chunk(self) -> tuple[int, int]:
        """Return the sizes of the next chunk and of its extensions, in bytes."""
        found = _CHUNK_LINE.fullmatch(await self.stream.read_until(b"\r\n", max_bytes=_MAX_CHUNK_LINE))
        if found is None:
            raise HTTPInputError("invalid chunk size")
        return int(found[1], 16), len(found[2] or b"")

    async def _skip_trailers(self) -> None:
        left = self.params.max_header_size
        for _ in range(_MAX_TRAILERS):
            line = await self.stream.read_until(b"\r\n", max_bytes=left)
            if line == b"\r\n":
                return
            HTTPHeaders().parse_line(line.decode("latin1"))
            left -= len(line)
            if left < len(b"\r\n"):
                break
        raise HTTPInputError("too many trailers")


class ServerConnection(HTTP1ServerConnection):
    """The connection of one client, whose requests are served in order."""

    async def _server_request_loop(self, delegate: HTTPServerConnectionDelegate) -> None:
        try:
            while True:
                connection = Connection(self.stream, False, self.params, self.context)
                try:
                    keeps_alive = await connection.read_response(delegate.start_request(self, connection))
                except (StreamClosedError, UnsatisfiableReadError, asyncio.CancelledError):
                    return
                except BaseException:
                    connection.close()
                    raise
                if not keeps_alive:
                    return
                await asyncio.sleep(0)
        finally:
            delegate.on_close(self)
