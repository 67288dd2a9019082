"""A POST over HTTP/1.1 that can be cancelled cleanly, unlike requests of Tornado's client."""

import asyncio
import base64
import re
import ssl
from functools import cache
from urllib.parse import quote, unquote, urlsplit

from gaffer.errors import BadRequest

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})")
_LENGTH = re.compile(rb"^content-length: *([0-9]{1,9}) *\r$", re.IGNORECASE | re.MULTILINE)
_READ_LIMIT = 64 * 1024  # bytes of a response body that are read, so that the server can finish sending


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
        self._shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._head = [
            f"POST {quote(target, safe=_SAFE)} HTTP/1.1",
            f"Host: {parts.netloc.rpartition('@')[2] if parts.netloc.isascii() else self.host}",
            "User-Agent: gaffer",
            "Connection: close",
        ]
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._head.append(f"Authorization: Basic {base64.b64encode(pair.encode()).decode()}")

    def __str__(self) -> str:
        return self._shown

    def request(self, body: bytes, content_type: str) -> bytes:
        """Return the request with `body`."""
        lines = [*self._head, f"Content-Type: {content_type}", f"Content-Length: {len(body)}", "", ""]
        return "\r\n".join(lines).encode() + body


# Characters not to be quoted in the target of a request.
_SAFE = "%/:=&?~+!$,;'@()*[]"


async def post(address: Address, body: bytes, content_type: str) -> int:
    """POST `body` and return the status of the response. Redirects are not followed.

    Raises OSError if the connection fails, ValueError if the response is not HTTP.
    """
    reader, writer = await asyncio.open_connection(
        address.host, address.port, ssl=_trusting_authorities() if address.tls else None
    )
    try:
        writer.write(address.request(body, content_type))
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            found = _STATUS.match(head)
            if found is None:
                raise ValueError("the response is not HTTP")
            status = int(found[1])
            if status >= 200:
                break
        length = _LENGTH.search(head)
        await reader.readexactly(min(int(length[1]), _READ_LIMIT) if length else 0)
        return status
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        raise ValueError("the response is truncated or not HTTP") from None
    finally:
        writer.transport.abort()


@cache
def _trusting_authorities() -> ssl.SSLContext:
    return ssl.create_default_context()
