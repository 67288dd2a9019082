"""A response made of logs: what their files hold, in the order of time, and what is added while it is followed."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress

from gaffer.http.feed_formats import EncodedOutput, Output, encode_event, to_json
from gaffer.streams.log_names import LogName
from gaffer.streams.log_store import LogPiece, LogStore, StoredLog
from gaffer.streams.position import Position
from gaffer.streams.rings import READ_SIZE, Chunk

MAX_LOGS = 100  # in one response
_ATTEMPTS = 3  # at a read that a rotation disturbs


class Reading:
    """A log being read: the next byte is at `offset`. `until` is where what its files held at first ends.

    `label` distinguishes it from the other logs of its feed.
    """

    def __init__(self, log: StoredLog, label: str, epoch: str, offset: int, until: int) -> None:
        self.log = log
        self.label = label
        self.epoch = epoch
        self.offset = offset
        self.until = until
        self.time = 0.0  # wall clock: when the next bytes were written

    @property
    def position(self) -> str:
        """The position of the next byte in this log."""
        return str(Position(self.epoch, self.offset))

    async def advance(self, size: int = READ_SIZE, *, segment: bool = False) -> Chunk:
        """Read on; return a Chunk without data at the end. Raises LogUnreadable."""
        for _ in range(_ATTEMPTS):
            piece = await self.log.read(self.offset, size, segment=segment)
            if piece.epoch not in ("", self.epoch):
                piece = await self._start_over(piece.epoch, size)
            if piece.data:
                break
        self.time = piece.time
        lost = piece.gap
        self.offset = max(self.offset, piece.end) if piece.data or lost else self.offset
        return Chunk(piece.offset, piece.data, lost)

    async def _start_over(self, epoch: str, size: int) -> LogPiece:
        """Begin another log that took the place of this one."""
        self.epoch, self.offset = epoch, 0
        return await self.log.read(0, size)


class LogFeed:
    """Readings as one source of chunks; `finished` is done once it is closed. Use it on the loop.

    Logs of the `jobs` for which `includes` is true join it while they are followed. `named`: labels begin with the name
    of the job.
    """

    def __init__(
        self, store: LogStore, jobs: Sequence[str], includes: Callable[[LogName], bool], *, named: bool = False
    ) -> None:
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.readings: list[Reading] = []
        self._store = store
        self._jobs = jobs
        self._includes = includes
        self.named = named
        self._changed: dict[LogName, None] = {}
        self._wake = asyncio.Event()
        self._ending = False
        for job in jobs:
            store.watch(job, self._on_growth)

    async def find(self) -> list[LogName]:
        """Return the logs that have files, job by job. Raises LogUnreadable."""
        return [name for job in self._jobs for name in await self._store.find(job) if self._includes(name)]

    def label(self, name: LogName) -> str:
        """Return what distinguishes a log from the others, such as `1.out` or `shop.web.1.out`."""
        return f"{name.job}.{name.label}" if self.named else name.label

    def is_over(self) -> bool:
        """Return whether nothing more is wanted of it."""
        return self._ending

    def end(self) -> None:
        """Make the iterators return what is available, then end."""
        self._ending = True
        self._wake.set()

    def close(self) -> None:
        """Finish the feed."""
        for job in self._jobs:
            self._store.unwatch(job, self._on_growth)
        if not self.finished.done():
            self.finished.set_result(None)

    @property
    def positions(self) -> str:
        """The position of each log, as `LABEL@EPOCH:OFFSET`."""
        return ",".join(f"{reading.label}@{reading.position}" for reading in self.readings)

    async def kept(self) -> AsyncGenerator[tuple[Reading, Chunk], None]:
        """Yield what the files held at first: of several logs, the piece that was written first."""
        several = len(self.readings) > 1
        pending = [reading for reading in self.readings if reading.offset < reading.until]
        if several:
            for reading in pending:
                await reading.advance(0)
        while pending and not self._ending:
            reading = min(pending, key=lambda each: each.time)
            chunk = await reading.advance(min(READ_SIZE, reading.until - reading.offset), segment=several)
            if chunk.data or chunk.gap:
                yield reading, chunk
            if not chunk.data or reading.offset >= reading.until:
                pending.remove(reading)

    async def following(self, heartbeat: float | None) -> AsyncGenerator[tuple[Reading, Chunk] | None, None]:
        """Yield what is added; None if nothing was for `heartbeat` seconds. Ends when more than MAX_LOGS would join."""
        self._changed.update(dict.fromkeys(reading.log.name for reading in self.readings))
        while len(self.readings) <= MAX_LOGS:
            while self._changed:
                name = next(iter(self._changed))
                del self._changed[name]
                reading = await self._reading_of(name)
                chunk = await reading.advance()
                if chunk.data:
                    self._changed[name] = None  # in turn with the others
                if chunk.data or chunk.gap:
                    yield reading, chunk
            if self._ending:
                return
            self._wake.clear()
            if self._changed:
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(heartbeat):
                    await self._wake.wait()
                continue
            yield None

    async def _reading_of(self, name: LogName) -> Reading:
        for reading in self.readings:
            if reading.log.name == name:
                return reading
        log = self._store.log(name)
        extent = await log.extent()
        self.readings.append(Reading(log, self.label(name), extent.epoch, extent.start, extent.end))
        return self.readings[-1]

    def _on_growth(self, file: str) -> None:
        name = LogName.parse(file)
        if name is not None and self._includes(name):
            self._changed[name] = None
            self._wake.set()


class Plain:
    """The bytes of the logs. Lines of several logs are kept whole, and bytes that are no longer kept become a line."""

    media = "text/plain; charset=utf-8"
    heartbeat = b""

    def __init__(self, *, several: bool) -> None:
        self._several = several
        self._unfinished: dict[str, bytes] = {}
        self._inside_line = False

    def encode(self, reading: Reading, chunk: Chunk) -> bytes:
        """Encode a piece."""
        data = chunk.data
        if chunk.gap:
            start = chunk.offset - chunk.gap
            gap = f"[gaffer: bytes {start} to {chunk.offset} of {reading.label} are no longer kept]\n".encode()
            inside_line = self._inside_line or reading.label in self._unfinished
            data = (b"\n" if inside_line else b"") + gap + data
        if self._several:
            data = self._unfinished.pop(reading.label, b"") + data
            end = data.rfind(b"\n") + 1 if len(data) < 2 * READ_SIZE else len(data)
            if end < len(data):
                self._unfinished[reading.label] = data[end:]
            data = data[:end]
        self._inside_line = not data.endswith(b"\n") if data else self._inside_line
        return data

    def last(self, readings: Sequence[Reading]) -> bytes:
        """Encode what is left at the end."""
        return b"\n".join(self._unfinished.values())


class Events:
    """The logs as server-sent events: their text, or base64 of their bytes, under the label of the log.

    The id of an event is the position of all logs, from which a client can continue.
    """

    media = "text/event-stream"
    heartbeat = b":\n\n"

    def __init__(self, feed: LogFeed, *, encoded: bool) -> None:
        self._feed = feed
        self._form = _EncodedText if encoded else _Text
        self._forms: dict[str, _Text | _EncodedText] = {}

    def gap(self, reading: Reading, start: int, end: int) -> bytes:
        """Encode the absence of bytes."""
        return encode_event("gap", to_json({"log": reading.label, "from": start, "to": end}).decode())

    def encode(self, reading: Reading, chunk: Chunk) -> bytes:
        """Encode a piece."""
        gap = self.gap(reading, chunk.offset - chunk.gap, chunk.offset) if chunk.gap else b""
        return gap + self._form_of(reading).events(chunk._replace(gap=0))

    def last(self, readings: Sequence[Reading]) -> bytes:
        """Encode what is left at the end."""
        return b"".join(self._form_of(reading).last_events(reading.offset) for reading in readings)

    def _form_of(self, reading: Reading) -> Output:
        form = self._forms.get(reading.label)
        if form is None:
            form = self._forms[reading.label] = self._form(reading.label)
            form.feed, form.reading = self._feed, reading
        return form


class _Positions:
    """Gives events the positions of all logs as their id."""

    feed: LogFeed
    reading: Reading

    def _event(self, name: str, text: str, offset: int) -> bytes:
        after, self.reading.offset = self.reading.offset, offset
        positions = self.feed.positions
        self.reading.offset = after
        return encode_event(name, text, positions)


class _Text(_Positions, Output):
    pass


class _EncodedText(_Positions, EncodedOutput):
    pass
