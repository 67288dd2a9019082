"""Opens websockets to hosts with several addresses, with staggered connection attempts (RFC 8305)."""

import asyncio
import socket
from typing import Any

from tornado.concurrent import future_set_exception_unless_cancelled
from tornado.httpclient import HTTPRequest
from tornado.httputil import HTTPHeaders, RequestStartLine, ResponseStartLine
from tornado.iostream import IOStream, SSLIOStream, StreamClosedError
from tornado.netutil import ssl_wrap_socket
from tornado.tcpclient import TCPClient
from tornado.websocket import WebSocketClientConnection, WebSocketError, WebSocketProtocol13

from gaffer.runtime.connecting import connect


class _Client(TCPClient):
    """A TCP client that uses `connect`."""

    async def connect(
        self,
        host: str,
        port: int,
        af: socket.AddressFamily = socket.AF_UNSPEC,
        ssl_options: Any = None,
        max_buffer_size: int | None = None,
        source_ip: str | None = None,
        source_port: int | None = None,
        timeout: Any = None,
    ) -> IOStream:
        async with asyncio.timeout(timeout):
            loop = asyncio.get_running_loop()
            addresses = await loop.getaddrinfo(host, port, family=af, type=socket.SOCK_STREAM)
            sock = await connect(addresses)
            if ssl_options is None:
                return IOStream(sock, max_buffer_size=max_buffer_size)
            wrapped = ssl_wrap_socket(
                sock, ssl_options, server_hostname=host, server_side=False, do_handshake_on_connect=False
            )
            stream = SSLIOStream(wrapped, max_buffer_size=max_buffer_size)
            try:
                return await stream.wait_for_handshake()
            except StreamClosedError as error:
                raise error.real_error or error from None
            except BaseException:
                stream.close()
                raise


class _Connection(WebSocketClientConnection):
    """A websocket that connects through `_Client`; Tornado connects in the next iteration of the loop."""

    def __init__(self, request: HTTPRequest, max_message_size: int) -> None:
        super().__init__(request, max_message_size=max_message_size)
        self.tcp_client.close()
        self.tcp_client = _Client()

    async def headers_received(self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders) -> None:
        """Reject an invalid handshake response, for which Tornado would log a traceback."""
        if isinstance(start_line, ResponseStartLine) and start_line.code == 101 and not self._accepts(headers):
            error = WebSocketError("the response is not a websocket handshake")
            future_set_exception_unless_cancelled(self.connect_future, error)
            self.stream.close()
            return
        await super().headers_received(start_line, headers)

    def _accepts(self, headers: HTTPHeaders) -> bool:
        """Return whether the headers form a valid handshake (RFC 6455 section 4.1); no extension was offered."""
        return (
            headers.get("Upgrade", "").lower() == "websocket"
            and headers.get("Connection", "").lower() == "upgrade"
            and headers.get("Sec-WebSocket-Accept") == WebSocketProtocol13.compute_accept_value(self.key)
            and "Sec-WebSocket-Extensions" not in headers
        )


def open_websocket(request: HTTPRequest, max_message_size: int) -> "asyncio.Future[WebSocketClientConnection]":
    """Open a websocket; the future behaves like that of `tornado.websocket.websocket_connect`."""
    request.headers = HTTPHeaders(request.headers)
    return _Connection(_with_defaults(request), max_message_size).connect_future


def _with_defaults(request: HTTPRequest) -> HTTPRequest:
    for name, value in HTTPRequest._DEFAULTS.items():
        if getattr(request, name) is None:
            setattr(request, name, value)
    return request
