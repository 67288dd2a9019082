"""The streams of one process, by label: its stdin, its captured output, its custom streams."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gaffer.errors import NotRedirected, ProcessError
from gaffer.jobs.config import JobConfig
from gaffer.jobs.probing import ProbeKind, parse_probe
from gaffer.processes import launch
from gaffer.streams.journal import StreamKeeper
from gaffer.streams.log_files import LogFile
from gaffer.streams.pipes import Input, Output, Tap
from gaffer.streams.recording import Recording
from gaffer.streams.rings import Ring

STDIN = "stdin"
_ALIASES = {"ttin": STDIN}

IoListener = Callable[[str, dict[str, Any]], Any]
Data = bytes | str


class Stream:
    """One stream of a process. `ring` holds the output of the process, None for its stdin.

    A listener is called on the loop as `listener(label, {"event": label, "name", "pid", "data"})`, `data` in bytes.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, label: str, about: Mapping[str, Any], *, readable: bool, writable: bool
    ) -> None:
        self.label = label
        self.ring = Ring() if readable else None
        self.writable = writable
        self.input: Input | None = None
        self.before_write: Callable[[], Any] = lambda: None
        self._loop = loop
        self._about = about
        self._taps: dict[IoListener, Tap] = {}

    def write(self, data: Data) -> None:
        """Write all of `data`, from any thread; data of different calls is never interleaved.

        Raises ProcessError: 403 `forbidden_write` for an output, 410 `stream_closed` if the process is not running or
        no longer reads, 503 `stream_full` if it is far behind.
        """
        if not self.writable:
            raise ProcessError(403, "forbidden_write", f"{self.label!r} is an output")
        if self.input is None:
            raise ProcessError(410, "stream_closed", "the process was not started")
        self.before_write()
        self.input.write(_to_bytes(data))

    @property
    def accepted(self) -> int:
        """The number of bytes written since the start of the process, also to an earlier gafferd."""
        return 0 if self.input is None else self.input.accepted

    def writelines(self, lines: Iterable[Data]) -> None:
        """Write several pieces as one, without separators."""
        self.write(b"".join(map(_to_bytes, lines)))

    def subscribe(self, listener: IoListener) -> None:
        """Call `listener` with all new output; no-op if already subscribed. ProcessError 404 for stdin."""
        if self.ring is None:
            raise ProcessError(404, "io_not_found", f"{self.label!r} is an input")
        if listener not in self._taps:
            about = {"event": self.label, **self._about}
            self._taps[listener] = Tap(
                self._loop, self.ring, lambda data: listener(self.label, {**about, "data": data})
            )

    def unsubscribe(self, listener: IoListener) -> None:
        """Undo `subscribe`; unknown listeners are ignored."""
        tap = self._taps.pop(listener, None)
        if tap is not None:
            tap.close()

    def close(self) -> None:
        """Close the input and drop all listeners, which still get what was read."""
        if self.input is not None:
            self.input.close()
        self._taps.clear()


class ProcessStreams:
    """All streams of a process; `rings` holds its output, by label, `captured` what is read of stdout and stderr.

    `about` is the `name` and `pid` passed to listeners. `stdout` and `stderr` are the arguments for launching it. Every
    stream exists from the start, and works once `connect` was called.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, config: JobConfig, about: Mapping[str, Any], *, capture_all: bool
    ) -> None:
        labels = config.redirect_output
        by_probe = config.ready is not None and parse_probe(config.ready).kind is ProbeKind.LOG
        capture = (capture_all or by_probe) and not config.detach
        merged = len(labels) == 2 and labels[0] == labels[1]
        self.stdout = launch.CAPTURE if labels or capture else launch.DISCARD
        self.stderr = launch.MERGE if merged else launch.CAPTURE if len(labels) == 2 or capture else launch.DISCARD
        self.by_label: dict[str, Stream] = {}
        # The end offsets of the rings at the last write to the process, by label.
        self.last_write_offsets: dict[str, int] = {}
        self._loop = loop
        self._config = config
        self._name = about["name"]
        self._outputs: list[Output] = []
        self._logs: list[LogFile] = []
        if config.redirect_input:
            self._add(STDIN, about, readable=False, writable=True)
        for label in dict.fromkeys(labels):
            self._add(label, about, readable=True, writable=False)
        for label in config.custom_streams:
            self._add(label, about, readable=True, writable=True)
        self.rings = {label: stream.ring for label, stream in self.by_label.items() if stream.ring is not None}
        named = [self.rings[label] for label in dict.fromkeys(labels)]
        wanted = (self.stdout, self.stderr).count(launch.CAPTURE)
        self.captured = [*named, *(Ring() for _ in range(wanted - len(named)))]

    def _add(self, label: str, about: Mapping[str, Any], *, readable: bool, writable: bool) -> None:
        stream = Stream(self._loop, label, about, readable=readable, writable=writable)
        stream.before_write = self._record_offsets
        self.by_label[label] = stream

    def connect(
        self, child: launch.Child, log_file: Callable[[str], LogFile | None], keeper: StreamKeeper | None = None
    ) -> None:
        """Take over our ends of the pipes of `child`; `log_file(kind)` returns the file for `out` and for `err`.

        With a `keeper` all streams get journals. Those in `child.journals`, which an earlier gafferd has left, give
        the rings and logs what they lack, also without the pipe, which has ended then.
        """
        captured = iter(self.captured)
        for mode, name, kind in ((self.stdout, "stdout", "out"), (self.stderr, "stderr", "err")):
            if mode == launch.CAPTURE:
                self._connect_output(child, name, getattr(child, name), next(captured), keeper, log_file(kind))
        child.stdout = child.stderr = None
        if child.stdin is not None:
            adopted_input = child.journals.pop("stdin.journal", None)
            self.by_label[STDIN].input = Input(self._loop, child.stdin, keeper, adopted=adopted_input)
            child.stdin = None
        # A process that we did not start has none.
        for label, fd, input_fd in zip(self._config.custom_streams, child.streams, child.stream_inputs, strict=False):
            stream = self.by_label[label]
            assert stream.ring is not None
            name = launch.stream_name(label)
            input_name = f"{name}:input"  # no label has a colon there: it would be quoted
            adopted_input = child.journals.pop(f"{input_name}.journal", None)
            stream.input = Input(self._loop, input_fd, keeper, name=input_name, adopted=adopted_input)
            self._connect_output(child, name, fd, stream.ring, keeper)
        child.streams, child.stream_inputs = [], []

    def _connect_output(
        self,
        child: launch.Child,
        name: str,
        fd: int | None,
        ring: Ring,
        keeper: StreamKeeper | None,
        log_file: LogFile | None = None,
    ) -> None:
        adopted = child.journals.pop(f"{name}.journal", None)
        recording = None
        if keeper is not None or adopted is not None:
            is_pipe = name in ("stdout", "stderr")
            recording = Recording(self._name, name, keeper, ring, log_file, adopted=adopted, splices=is_pipe)
        if log_file is not None and (fd is not None or recording is not None):
            self._logs.append(log_file)
        if fd is not None:
            self._outputs.append(Output(self._loop, fd, ring, log_file, recording))
        elif recording is not None:
            recording.close(ended=False)
            ring.close()
            if log_file is not None:
                log_file.finish()

    def read_available(self) -> None:
        """Read what is in the pipes."""
        for output in self._outputs:
            output.read_available()

    def close(self) -> None:
        """Read what is left, then close all streams."""
        for output in self._outputs:
            output.read_available()
            output.close()
        for stream in self.by_label.values():
            stream.close()

    def release(self) -> None:
        """Close all streams here; the process goes on with them, and another gafferd adopts them."""
        for output in self._outputs:
            output.release()
        for stream in self.by_label.values():
            if stream.input is not None:
                stream.input.release()
            stream.close()

    def when_logged(self, callback: Callable[[], object]) -> None:
        """Call `callback()` on the loop once all output is in the log files, after `close` or `release`.

        At once if there are no logs, or they are written.
        """
        waiting = len(self._logs) + 1

        def done() -> None:
            nonlocal waiting
            waiting -= 1
            if not waiting:
                callback()

        for log_file in self._logs:
            log_file.when_ended(done)
        done()

    def last_output(self, limit: int = 400) -> str | None:
        """Return the end of its latest output, of stderr if any, else of stdout, in human-readable form."""
        for ring in reversed(self.captured):
            if ring.end == 0:
                continue
            text = ring.read(ring.offset_of_tail(limit)).data.decode(errors="replace").strip()
            if text:
                return text
        return None

    def last_lines(self, count: int, limit: int) -> str | None:
        """Return up to `count` last lines of up to `limit` bytes, first those of stdout; None if there is no output."""
        lines: list[str] = []
        for ring in reversed(self.captured):
            offset = max(ring.offset_of_tail_lines(count - len(lines)), ring.offset_of_tail(limit))
            data = ring.read(offset, limit).data
            limit -= len(data)
            if data:
                lines[:0] = data.removesuffix(b"\n").decode(errors="replace").split("\n")
        return "\n".join(lines) or None

    def ring(self, label: str) -> Ring:
        """Return the output `label`; ProcessError 400 `io_not_redirected` or 404 `io_not_found`."""
        rings = self.rings
        if not rings:
            raise NotRedirected(
                400,
                "io_not_redirected",
                f"the output of {self._name} is not redirected",
                hint="set redirect_output in the job",
            )
        if label not in rings:
            known = ", ".join(rings)
            raise ProcessError(
                404, "io_not_found", f"{self._name} has no output {label!r}", hint=f"available outputs: {known}"
            )
        return rings[label]

    def subscribe(self, label: str, listener: IoListener) -> None:
        """Call `listener` with new output on `label`, or on all outputs (`.`); raises like `ring`."""
        for each in self._matching(label):
            self.ring(each)
            self.by_label[each].subscribe(listener)

    def unsubscribe(self, label: str, listener: IoListener) -> None:
        """Undo `subscribe`; unknown listeners are ignored."""
        for each in self._matching(label):
            if each in self.by_label:
                self.by_label[each].unsubscribe(listener)

    def _matching(self, label: str) -> list[str]:
        return (list(self.rings) if label == "." else []) or [label]

    def writable(self, label: str) -> Stream:
        """Return the stream `label` for writing; ProcessError 403 `forbidden_write` or 404 `stream_not_found`."""
        label = _ALIASES.get(label, label)
        stream = self.by_label.get(label)
        if stream is not None and stream.writable:
            return stream
        if label == STDIN:
            raise NotRedirected(
                403,
                "forbidden_write",
                f"the input of {self._name} is not redirected",
                hint="set redirect_input in the job",
            )
        raise ProcessError(404, "stream_not_found", f"{self._name} has no stream {label!r} to write to")

    def _record_offsets(self) -> None:
        for label, ring in self.rings.items():
            self.last_write_offsets[label] = ring.end


def _to_bytes(data: Data) -> bytes:
    return data.encode() if isinstance(data, str) else bytes(data)
