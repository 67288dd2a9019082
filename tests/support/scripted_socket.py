"""The server's end of a websocket in a script (RFC 6455), frame by frame."""

import base64
import hashlib
import struct
from collections.abc import Callable

from support.scripted import Play, Visit

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

_MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def frame(opcode: int, data: bytes | str, *, last: bool = True) -> bytes:
    """A frame to a client."""
    payload = data.encode() if isinstance(data, str) else data
    size = len(payload)
    length = (
        bytes([size])
        if size < 126
        else struct.pack("!BH", 126, size)
        if size < 65536
        else struct.pack("!BQ", 127, size)
    )
    return bytes([opcode | (0x80 if last else 0)]) + length + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """A close frame."""
    return frame(CLOSE, struct.pack("!H", code) + reason.encode())


class Peer:
    """A client that has been let in."""

    def __init__(self, visit: Visit) -> None:
        self.visit = visit

    def send(self, *frames: bytes) -> None:
        """Send frames."""
        self.visit.send(b"".join(frames))

    def receive(self) -> tuple[int, bytes]:
        """Opcode and unmasked payload of the next frame."""
        first, second = self._read(2)
        assert second & 0x80, "clients mask what they send"
        size = second & 0x7F
        if size == 126:
            [size] = struct.unpack("!H", self._read(2))
        elif size == 127:
            [size] = struct.unpack("!Q", self._read(8))
        mask = self._read(4)
        payload = bytes(byte ^ mask[index % 4] for index, byte in enumerate(self._read(size)))
        return first & 0x0F, payload

    def receive_text(self) -> str:
        """The next frame, which is a text message."""
        opcode, payload = self.receive()
        assert opcode == TEXT, opcode
        return payload.decode()

    def end(self) -> None:
        """Take the client's close frame and answer it."""
        while True:
            opcode, payload = self.receive()
            if opcode == CLOSE:
                self.send(frame(CLOSE, payload))
                return

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.visit.sock.recv(size - len(data))
            if not more:
                raise ConnectionError
            data += more
        return data


def websocket(script: Callable[[Peer], object], first: bytes = b"") -> Play:
    """A play that lets the client in, sends `first` in one go with that, and follows the script."""

    def play(visit: Visit) -> None:
        key = visit.header("Sec-WebSocket-Key") or ""
        accept = base64.b64encode(hashlib.sha1((key + _MAGIC).encode()).digest()).decode()
        head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        visit.send(f"{head}Sec-WebSocket-Accept: {accept}\r\n\r\n".encode() + first)
        script(Peer(visit))

    return play
