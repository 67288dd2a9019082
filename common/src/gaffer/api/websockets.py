"""Websockets of a process: one passes its output and input unchanged, the others in frames."""

from collections.abc import Awaitable
from contextlib import suppress
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gaffer.api.process_socket import ProcessSocket
from gaffer.errors import BadRequest, GafferError, NotRedirected, ProcessError
from gaffer.http.access import AUTH, Scope
from gaffer.http.feeds import StartQuery
from gaffer.http.operations import operation
from gaffer.http.rfc6455 import UpgradeRequired
from gaffer.http.routes import DEFERRED, Route
from gaffer.process import Process
from gaffer.schemas.frames import ACCEPTED, ERROR, GENERAL, MESSAGE, OK, RESPONSE, Frame, FrameError
from gaffer.streams.process_streams import STDIN
from gaffer.streams.rings import Chunk

_READ, _WRITE = 1, 2  # the bits of `mode`

# Error names in frames by HTTP status; all others are EIO.
_NAMES = {400: "EINVAL", 401: "AUTH_REQUIRED", 403: "EPERM", 404: "ENOENT", 409: "CONFLICT"}


class ChannelQuery(StartQuery):
    """`mode`: 1 to read, 2 to write, 3 to do both."""

    mode: Literal[1, 2, 3] = 3
    resumable: Annotated[
        Literal["true", "false"],
        Meta(
            description="Report where the output begins and how much input was accepted, for a client that reconnects."
        ),
    ] = "false"


class RawSocket(ProcessSocket):
    """Raw output and input of a process."""

    @operation(status=101, query=StartQuery, errors=(UpgradeRequired,))
    async def get(self) -> None:
        """Connect to a process: messages are written to its stdin, its first output is sent.

        After an error, which is sent as JSON, the connection is closed, unless only writing is impossible: the process
        has no redirect_input, or the key lacks the scope `control`. UTF-8 output is sent as text messages, other output
        as binary ones. A client that reads too slowly loses output without notice, which this protocol can't express.
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

    def send_output(self, chunk: Chunk) -> Awaitable[None]:
        return self.send(chunk.data)

    def try_handle(self, message: bytes) -> bool:
        return self.try_write(message)

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

    _is_resumable = False

    @operation(status=101, query=ChannelQuery, errors=(UpgradeRequired,))
    async def get(self) -> None:
        """Connect to a process: to its stdin and first output, or to the output or custom stream in the path.

        A client that the handshake did not authenticate sends `AUTH:KEY` in the first frame. Writing requires the scope
        `control`; without it, each frame is answered with the error EPERM. The id of an output frame is the `after`
        that resumes after it. An `after` of another output gets the error GAP and all retained output. With
        `resumable=true` an empty output frame with the starting position comes first, then a response with the id
        `accepted` and the number of bytes that the stream has accepted since the start of the process, from all
        clients; later responses are `OK NUMBER`. A frame with the id `NAME@NUMBER` is then written only if this number
        is right; else the error is CONFLICT, with the number in `to`.
        """
        await super().get()

    def choose(self) -> None:
        process = self.target
        mode = self.get_query_argument("mode", "3")
        if mode not in ("1", "2", "3"):
            raise BadRequest(
                f"invalid value mode={mode!r}", reason="bad_value", hint="use 1 to read, 2 to write, 3 to do both"
            )
        resumable = self.get_query_argument("resumable", "false")
        if resumable not in ("true", "false"):
            raise BadRequest(f"invalid value resumable={resumable!r}", reason="bad_value", hint="use true or false")
        self._is_resumable = resumable == "true"
        wanted = int(mode)
        readable, writable = self._labels()
        if wanted & _READ and readable is not None:
            self.follow(readable)
        if wanted & _WRITE and writable is not None:
            self.write_to(writable)
        if self._output is None and self._input is None:
            raise _not_redirected(process)

    def welcome(self) -> None:
        if not self._is_resumable:
            return
        if self._output is not None:
            self.send(Frame(MESSAGE, str(self._output.source.position(self._output.offset))).encode())
        if self._input is not None:
            self.send(Frame(RESPONSE, ACCEPTED, b"%d" % self._input.accepted).encode())

    def _labels(self) -> tuple[str | None, str | None]:
        """Return the streams to read and to write, None where there is none; raises ProcessError for an unknown one."""
        process = self.target
        label = self.params.get("stream")
        if label is None:
            return next(iter(process.redirect_output), None), STDIN if STDIN in process.streams else None
        stream = process.streams.get(label)
        if stream is None:
            known = ", ".join(process.streams) or "none"
            raise ProcessError(
                404, "io_not_found", f"{process.name} has no stream {label!r}", hint=f"available streams: {known}"
            )
        return label if stream.ring is not None else None, label if stream.writable else None

    def send_output(self, chunk: Chunk) -> Awaitable[None]:
        assert self._output is not None
        return self.send(Frame(MESSAGE, str(self._output.source.position(chunk.end)), chunk.data).encode())

    def find_key(self, message: bytes) -> str | None:
        try:
            body = Frame.decode(message).body
        except BadRequest:
            return super().find_key(message)
        return body.decode(errors="replace").removeprefix(AUTH) if body.startswith(AUTH.encode()) else None

    def confirm(self, message: bytes) -> None:
        with suppress(BadRequest):  # a bare token is not a frame
            self.send(Frame(RESPONSE, Frame.decode(message).id, OK).encode())

    def send_gap(self, start: int, end: int) -> None:
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
                    f"unexpected frame type {frame.type}", hint="send `V1 message ID`, a NUL byte, and the data"
                )
            await self.write_input(frame.body, self._offset_in(frame.id))
        except GafferError as error:
            moved = self._input.accepted if error.reason == "input_moved" and self._input is not None else None
            await self._report(frame.id, _frame_error(error, moved))
        else:
            done = b"%b %d" % (OK, self._input.accepted) if self._is_resumable and self._input is not None else OK
            await self.send(Frame(RESPONSE, frame.id, done).encode())

    def _offset_in(self, id: str) -> int | None:
        """Return the offset in the id `NAME@OFFSET` of a client that resumes."""
        offset = id.rpartition("@")[2]
        return int(offset) if self._is_resumable and "@" in id and offset.isdecimal() and len(offset) < 19 else None

    def report(self, error: GafferError) -> Awaitable[None]:
        return self._report(GENERAL, _frame_error(error))

    def _report(self, id: str, error: FrameError) -> Awaitable[None]:
        return self.send(Frame(ERROR, id, msgspec.json.encode(error)).encode())


def _not_redirected(process: Process) -> NotRedirected:
    return NotRedirected(
        403,
        "forbidden_write",
        f"{process.name} has no stream to connect to",
        hint="set redirect_output or redirect_input in the job, or choose another stream or mode",
    )


def _frame_error(error: GafferError, accepted: int | None = None) -> FrameError:
    name = _NAMES.get(error.errno, "EIO")
    return FrameError(
        error=name,
        errno=error.errno if name != "EIO" else 500,
        message=error.message,
        reason=error.reason,
        hint=error.hint,
        to=accepted,
    )


ROUTES = [
    Route("/wstreams/{pid}", RawSocket, {"GET": Scope.READ}),
    Route("/{pid:digits}/channel", FramedSocket, {"GET": DEFERRED}),
    Route("/{pid:digits}/channel/{stream}", FramedSocket, {"GET": DEFERRED}),
]
