"""Websockets of a process: R-80 passes its output and input on as they are, R-81 and R-82 in frames."""

from collections.abc import Awaitable
from contextlib import suppress
from typing import Literal

import msgspec

from gaffer.api.process_socket import ProcessSocket
from gaffer.errors import BadRequest, GafferError, NotRedirected, ProcessError
from gaffer.http.access import AUTH, Scope
from gaffer.http.feeds import StartQuery
from gaffer.http.operations import operation
from gaffer.http.rfc6455 import UpgradeRequired
from gaffer.http.routes import DEFERRED, Route
from gaffer.process import Process
from gaffer.schemas.frames import ERROR, GENERAL, MESSAGE, OK, RESPONSE, Frame, FrameError
from gaffer.streams.process_streams import STDIN
from gaffer.streams.rings import Chunk

_READ, _WRITE = 1, 2  # the bits of `mode`

# How frames call the HTTP status of an error (STR-32); any other is EIO.
_NAMES = {400: "EINVAL", 401: "AUTH_REQUIRED", 403: "EPERM", 404: "ENOENT"}


class ChannelQuery(StartQuery):
    """`mode`: 1 to read, 2 to write, 3 for both."""

    mode: Literal[1, 2, 3] = 3


class RawSocket(ProcessSocket):
    """Output and input of a process as they are."""

    @operation(status=101, query=StartQuery, errors=(UpgradeRequired,))
    async def get(self) -> None:
        """Connect to a process: messages are written to its stdin, its first output is sent.

        An error is sent as JSON, then the connection is closed, except when it only means that nothing can be written:
        the process has no redirect_input, or the key not the scope `control`. Output that is UTF-8 comes as text, other
        output as binary. A client that reads too slowly loses output without a notice, for which there is no room.
        """
        await super().get()

    def choose(self) -> None:
        process = self.target
        if process.redirect_output:
            self.follow(process.redirect_output[0])
        if STDIN in process.streams:
            self.write_to(STDIN)
        elif not process.redirect_output:
            raise _not_redirected(process)

    def pass_on(self, chunk: Chunk) -> Awaitable[None]:
        return self.send(chunk.data)

    def handle_at_once(self, message: bytes) -> bool:
        return self.write_at_once(message)

    async def handle(self, message: bytes) -> None:
        try:
            await self.write_input(message)
        except GafferError as error:
            if error.errno != 403:
                raise
            await self.report(error)

    def report(self, error: GafferError) -> Awaitable[None]:
        return self.send(error.to_json())


class FramedSocket(ProcessSocket):
    """Streams of a process in frames."""

    @operation(status=101, query=ChannelQuery, errors=(UpgradeRequired,))
    async def get(self) -> None:
        """Connect to a process: its stdin and first output, or the output or custom stream of the path.

        A client that is not known by its handshake sends `AUTH:KEY` in the first frame. Writing needs the scope
        `control`; without it, each frame is answered with the error EPERM. The id of a frame of output is the `after`
        that resumes behind it; one of another output gets the error GAP and all that is kept.
        """
        await super().get()

    def choose(self) -> None:
        process = self.target
        mode = self.get_query_argument("mode", "3")
        if mode not in ("1", "2", "3"):
            raise BadRequest(f"mode={mode!r} can't be used", reason="bad_value", hint="1 reads, 2 writes, 3 does both")
        wanted = int(mode)
        readable, writable = self._labels()
        if wanted & _READ and readable is not None:
            self.follow(readable)
        if wanted & _WRITE and writable is not None:
            self.write_to(writable)
        if self._output is None and self._input is None:
            raise _not_redirected(process)

    def _labels(self) -> tuple[str | None, str | None]:
        """What can be read here, and what written; raises ProcessError 404 for a stream that isn't there."""
        process = self.target
        label = self.params.get("stream")
        if label is None:
            return next(iter(process.redirect_output), None), STDIN if STDIN in process.streams else None
        stream = process.streams.get(label)
        if stream is None:
            known = ", ".join(process.streams) or "nothing"
            raise ProcessError(404, "io_not_found", f"{process.name} has no stream {label!r}", hint=f"there is {known}")
        return label if stream.ring is not None else None, label if stream.writable else None

    def pass_on(self, chunk: Chunk) -> Awaitable[None]:
        assert self._output is not None
        return self.send(Frame(MESSAGE, str(self._output.source.position(chunk.end)), chunk.data).encode())

    def key_in(self, message: bytes) -> str | None:
        try:
            body = Frame.decode(message).body
        except BadRequest:
            return super().key_in(message)
        return body.decode(errors="replace").removeprefix(AUTH) if body.startswith(AUTH.encode()) else None

    def confirm(self, message: bytes) -> None:
        with suppress(BadRequest):  # a token alone is no frame
            self.send(Frame(RESPONSE, Frame.decode(message).id, OK).encode())

    def pass_on_gap(self, start: int, end: int) -> None:
        lost = FrameError(error="GAP", errno=410, message=f"{end - start} bytes were lost", start=start, to=end)
        self._report(GENERAL, lost)

    async def handle(self, message: bytes) -> None:
        try:
            frame = Frame.decode(message)
        except BadRequest as error:
            await self.report(error)
            return
        try:
            if frame.type != MESSAGE:
                raise BadRequest(
                    f"a client sends no {frame.type}", hint="send `V1 message ID`, a NUL byte, and the data"
                )
            await self.write_input(frame.body)
        except GafferError as error:
            await self._report(frame.id, _frame_error(error))
        else:
            await self.send(Frame(RESPONSE, frame.id, OK).encode())

    def report(self, error: GafferError) -> Awaitable[None]:
        return self._report(GENERAL, _frame_error(error))

    def _report(self, id: str, error: FrameError) -> Awaitable[None]:
        return self.send(Frame(ERROR, id, msgspec.json.encode(error)).encode())


def _not_redirected(process: Process) -> NotRedirected:
    return NotRedirected(
        403,
        "forbidden_write",
        f"{process.name} has nothing here to do that with",
        hint="set redirect_output or redirect_input in the job, or choose another stream or mode",
    )


def _frame_error(error: GafferError) -> FrameError:
    name = _NAMES.get(error.errno, "EIO")
    return FrameError(
        error=name,
        errno=error.errno if name != "EIO" else 500,
        message=error.message,
        reason=error.reason,
        hint=error.hint,
    )


ROUTES = [
    Route("/wstreams/{pid}", RawSocket, {"GET": Scope.READ}),
    Route("/{pid:digits}/channel", FramedSocket, {"GET": DEFERRED}),
    Route("/{pid:digits}/channel/{stream}", FramedSocket, {"GET": DEFERRED}),
]
