"""Serve a page on PORT that identifies the instance."""

import os
import signal
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Page(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        instance = os.environ.get("GAFFER_INSTANCE", "?")
        address, port = self.connection.getsockname()[:2]
        text = f"web.{instance} on {socket.gethostname()}, pid {os.getpid()}, listening on {address}:{port}\n"
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda number, frame: sys.exit(0))
    address = os.environ.get("HOST", "0.0.0.0"), int(os.environ.get("PORT", "8000"))
    with ThreadingHTTPServer(address, Page) as server:
        print(f"web is listening on http://{address[0]}:{server.server_port}")
        server.serve_forever()


if __name__ == "__main__":
    main()
