"""The connection of a node to one lookupd: connects, announces, detects lost connections, and reconnects."""

import asyncio
import logging
import os
import random
import re
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import urlsplit

import msgspec
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.iostream import StreamClosedError, UnsatisfiableReadError
from tornado.simple_httpclient import HTTPStreamClosedError, HTTPTimeoutError
from tornado.websocket import WebSocketClientConnection, WebSocketError

from gaffer.errors import BadRequest
from gaffer.jobs.names import is_origin
from gaffer.runtime import tls
from gaffer.schemas.bodies import LookupdState
from gaffer.schemas.messages import (
    MAX_MESSAGE_SIZE,
    MAX_REPORTED_JOBS,
    Drain,
    Identify,
    Leave,
    LookupLink,
    MessageId,
    Ping,
    Reply,
    Report,
    Request,
    UnregisterJob,
    decode_reply,
    encode,
)
from gafferd.announce.dialing import open_websocket
from gafferd.announce.job_states import JobStates
from gafferd.announce.journal import Change, Journal
from gafferd.announce.reports import Reports

CONNECT_TIMEOUT = 5.0  # seconds
CLOSE_TIMEOUT = 0.5
HURRIED = 0.25  # of an interval: the timeout of a connection attempt while the lease expires
DEFAULT_INTERVAL = 15.0  # seconds between PINGs, unless set by the lookupd
MIN_INTERVAL, MAX_INTERVAL = 0.1, 3600.0  # limits for values set by the lookupd; the maximum also applies to the ttl
DEFAULT_WINDOW = 1.0  # seconds within which to reconnect, before the first reply
MAX_WINDOW = 20.0
OUTBOX_LIMIT = 10_000  # queued messages per lookupd
MAX_REASON = 300  # characters of a lookupd's text to show

_IDENTIFY, _SNAPSHOT, _PING, _DRAIN, _LEAVE = "identify", "snapshot", "ping", "drain", "leave"
_REPORT = "report "  # and the number of the event after the last one

logger = logging.getLogger(__name__)


class LinkError(Exception):
    """The connection failed; the text gives the reason."""


class _Silence(LinkError):
    """The lookupd stopped replying."""


# BadRequest: an invalid message, or an invalid address of the node. UnicodeError: an invalid host name.
_FAILURES = (
    LinkError,
    BadRequest,
    OSError,
    HTTPClientError,
    StreamClosedError,
    UnsatisfiableReadError,
    WebSocketError,
    UnicodeError,
)


# Errors of a connection that ended without a reply.
_ENDS = (ssl.SSLError, ConnectionResetError, BrokenPipeError, StreamClosedError, HTTPStreamClosedError)

_STALE_INCARNATION = re.compile(r"stale_incarnation\b[^0-9]*([0-9]{1,19})")

_OVERSIZE = "over the limits of one node"

_TLS_OPTIONS = "(see --cacert, --client-certfile and --client-keyfile)"


def websocket_url(address: str) -> str:
    """Return the websocket URL of the lookupd at `address`, an http(s) URL or host:port; raise BadRequest."""
    parts = urlsplit(address if "://" in address else f"http://{address}")
    scheme = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}.get(parts.scheme)
    try:
        port_is_valid = parts.port != 0
    except ValueError:
        port_is_valid = False
    if scheme is None or not parts.hostname or not port_is_valid:
        raise BadRequest(
            f"{address!r} is not a valid lookupd address",
            reason="bad_address",
            hint="write http://HOST:5010 or https://HOST:5010",
        )
    return f"{scheme}://{parts.netloc}/ws"


def reconnect_delay(window: float, chance: float) -> float:
    """Return the seconds to wait before reconnecting; random `chance` (0 to 1) spreads nodes over the window."""
    return chance * min(window, MAX_WINDOW)


class Link:
    """The connection to one lookupd, maintained until `close`.

    `identify` returns the first message of each connection. `outgrow` exceeds an incarnation of the node that the
    lookupd has seen, or returns False. `changed` is called when what `describe` returns has changed. `headers` are sent
    with the handshake.
    """

    def __init__(
        self,
        address: str,
        journal: Journal,
        reports: Reports,
        states: JobStates,
        identify: Callable[[str], Identify],
        outgrow: Callable[[int], bool],
        changed: Callable[[], None],
        headers: dict[str, str],
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        self.address = address
        self.url = websocket_url(address)
        self.connected = False
        self.error: str | None = None
        self._journal = journal
        self._reports = reports
        self._states = states
        self._changed = changed
        self._since = time.time()
        self._epoch: str | None = None
        self._described: tuple[bool, str | None, str | None] = False, None, None
        self._takes_reports = False
        self._reported = 0  # events that were sent on this connection, or known before
        self._acknowledged = 0  # events that the lookupd of `_epoch` has
        self._stated = 0  # the number of the last change of a job's state that was sent after the last snapshot
        self._identify = identify
        self._outgrow = outgrow
        self._headers = headers
        self._ssl = ssl_context
        self._window = DEFAULT_WINDOW
        self._interval = DEFAULT_INTERVAL
        self._ttl = 0.0
        self._unnoticed = 0.0  # extra seconds that other nodes may need to detect the lost connection
        self._answered = 0.0  # loop time of the last reply
        self._hurry_until = 0.0
        self._plain = False
        self._outbox: asyncio.Queue[Request] = asyncio.Queue(OUTBOX_LIMIT)
        self._broken = asyncio.Event()
        self._why_broken = ""
        self._sent: dict[MessageId, Change] = {}  # changes without a reply so far
        self._doubted: set[str] = set()  # jobs rejected once by a lookupd of 0.5
        self._refused: dict[str, str] = {}  # rejected jobs and the reasons
        self._snapshot_due = False
        self._ping_unanswered = False
        self._leaving = False
        self._awaited: dict[MessageId, asyncio.Event] = {}  # awaited replies
        self._task: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Start connecting; called on the loop."""
        self._leaving = False
        self._task = asyncio.create_task(self._run(), name=f"announce to {self.address}")
        self._task.add_done_callback(self._ended)

    def announce(self, changes: Iterable[Change]) -> None:
        """Send changes, if connected; each new connection starts with a full announcement."""
        if not self.connected:
            return
        room = False
        for message in self._journal.plain_changes(changes) if self._plain else changes:
            gone = isinstance(message, UnregisterJob)
            room |= gone
            if message.job_name not in self._refused:
                self._post(message)
            elif gone:
                # The skipped number is a gap, after which the lookupd requests a snapshot.
                del self._refused[message.job_name]
                self._show_refused()
        if room and self._refused and not self._plain:
            self._offer_again()

    async def drain(self) -> None:
        """Announce that the node is out of service and wait for the reply, if connected."""
        await self._ask(self._journal.plain_withdrawals() if self._plain else [Drain(_DRAIN, self._journal.seq)])

    def resume(self) -> None:
        """Announce that the node is back in service, which takes a snapshot."""
        if not self.connected:
            return
        if not self._plain:
            self._send_snapshot()
            return
        for message in self._journal.plain_offers():
            self._post(message)

    def report(self, lookupds: list[LookupLink] | None = None) -> None:
        """Send the state of the node's links and the events that the lookupd lacks, if it takes reports."""
        if not (self.connected and self._takes_reports) or self._leaving:
            return
        piece = self._reports.read(self._reported)
        self._reported = piece.end
        if piece.items or lookupds is not None:
            self._post(Report(f"{_REPORT}{piece.end}", time.time(), lookupds, piece.items, piece.offset))

    def report_jobs(self) -> None:
        """Send the states of jobs that have changed, if the lookupd takes reports."""
        if not (self.connected and self._takes_reports) or self._leaving:
            return
        changed = self._states.after(self._stated)
        self._stated = self._states.end
        for start in range(0, len(changed), MAX_REPORTED_JOBS):
            jobs = {str(job.name): job.report for job in changed[start : start + MAX_REPORTED_JOBS]}
            self._post(Report(f"{_REPORT}{self._reported}", time.time(), jobs=jobs))

    def renew(self) -> None:
        """Reconnect after the identity of the node has changed."""
        if self.connected:
            self._give_up("the node has a new incarnation")

    async def leave(self) -> None:
        """Announce that the node leaves and wait for the reply, if connected."""
        self._leaving = True
        await self._ask([] if self._plain else [Leave(_LEAVE, self._journal.seq)])

    async def close(self) -> None:
        """Close the connection for good."""
        self._leaving = True  # a failing task group swallows the cancellation
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        if self._closing:
            await asyncio.wait(self._closing)

    def status(self) -> LookupdState:
        """Return the state of the connection, as shown by `/health`."""
        return {"address": self.address, "connected": self.connected, "error": self.error}

    def describe(self) -> LookupLink | None:
        """Return the state of the connection as reported to lookupds; None if the address is more than an origin."""
        origin = self.url.replace("ws", "http", 1).removesuffix("/ws")
        if not is_origin(origin):  # it may hold a password
            return None
        return LookupLink(origin, self.connected, round(self._since, 3), self._epoch, self.error)

    def _show(self) -> None:
        """Report the state of the connection if it has changed."""
        described = self.connected, self.error, self._epoch
        if described != self._described:
            if self.connected != self._described[0]:
                self._since = time.time()
            self._described = described
            self._changed()

    async def _run(self) -> None:
        while not self._leaving:
            error: Exception | None = None
            try:
                await self._hold_connection()
            except* _FAILURES as group:
                error = _first(group)
                self._record_delay(error)
                if not self._leaving:
                    opening_tls = self.url.startswith("wss:") and not self.connected
                    self._failed(_explain(error, opening_tls=opening_tls))
            finally:
                self._lost()
                self._show()
            if self._leaving:
                return
            if isinstance(error, _Silence):
                self._hurry_until = self._answered + self._ttl
            # While packets are lost, the lease is expiring: retry at once. After any response, even a refused
            # connection, wait a random time, because other nodes reconnect too.
            unheard = isinstance(error, TimeoutError | HTTPTimeoutError) and self._hurries
            if not (unheard or isinstance(error, _Silence)):
                await asyncio.sleep(reconnect_delay(self._window, random.random()))

    def _record_delay(self, error: Exception) -> None:
        """Derive from a failure how long other nodes may take to detect it."""
        if self.connected and (self._ping_unanswered or isinstance(error, _Silence)):
            self._unnoticed = self._interval
        elif isinstance(error, TimeoutError | HTTPTimeoutError):
            self._unnoticed = max(self._unnoticed, CONNECT_TIMEOUT)

    @property
    def _hurries(self) -> bool:
        return asyncio.get_running_loop().time() < self._hurry_until

    @property
    def _timeout(self) -> float:
        """Seconds for the handshake, and for the reply to IDENTIFY."""
        return HURRIED * self._interval if self._hurries else CONNECT_TIMEOUT

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.error = f"announcer failed: {error!r}"
            logger.critical("stopped announcing to lookupd %s", self.address, exc_info=error)

    def _failed(self, why: str) -> None:
        why = _shortened(why)
        if self.connected or why != self.error:
            logger.warning("lookupd %s: %s; reconnecting", self.address, why)
        self.error = why

    async def _hold_connection(self) -> None:
        """Connect, announce everything and then every change, until the connection fails."""
        connection = await self._connect()
        try:
            async with asyncio.timeout(self._timeout):
                self._welcomed(await self._introduce(connection))
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read(connection))
                group.create_task(self._write(connection))
                group.create_task(self._watch())
                group.create_task(self._ping())
        finally:
            # Closing may take long; the next attempt does not wait for it.
            closing = asyncio.create_task(_close(connection))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def _connect(self) -> WebSocketClientConnection:
        timeout = self._timeout
        request = HTTPRequest(
            self.url,
            headers=self._headers,
            connect_timeout=timeout,
            request_timeout=timeout,
            ssl_options=self._ssl,
        )
        connecting = open_websocket(request, MAX_MESSAGE_SIZE)
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            connecting.add_done_callback(_close_late)
            raise

    async def _introduce(self, connection: WebSocketClientConnection) -> Reply:
        """Identify the node, a second time if the lookupd has seen a later incarnation; return the reply."""
        for last in (False, True):
            window = self._window + self._unnoticed
            identity = msgspec.structs.replace(self._identify(_IDENTIFY), reconnect_window=window)
            await connection.write_message(encode(identity))
            reply = await _receive(connection)
            stale = _STALE_INCARNATION.match(reply.reason or "")
            if last or not reply.errno or stale is None or not self._outgrow(int(stale[1])):
                break
        _check(reply)
        return reply

    def _welcomed(self, reply: Reply) -> None:
        self._unnoticed = 0.0
        self._answered, self._ttl = asyncio.get_running_loop().time(), min(reply.ttl or 0.0, MAX_INTERVAL)
        self._plain = reply.epoch is None
        if reply.epoch != self._epoch:
            self._epoch, self._acknowledged = reply.epoch, 0
        self._takes_reports, self._reported = reply.reports, self._acknowledged
        self._interval = min(max(reply.interval or DEFAULT_INTERVAL, MIN_INTERVAL), MAX_INTERVAL)
        self._window = DEFAULT_WINDOW if reply.reconnect_window is None else reply.reconnect_window
        self._refused = {} if self._plain else dict.fromkeys(self._journal.oversize(), _OVERSIZE)
        if self._refused:
            logger.warning("lookupd %s: not announcing %d jobs: %s", self.address, len(self._refused), _OVERSIZE)
        self._sent.clear()
        self._broken.clear()
        opening = self._journal.plain_snapshot() if self._plain else [self._snapshot()]
        self._outbox = asyncio.Queue(len(opening) + OUTBOX_LIMIT)
        for message in opening:
            self._post(message)
        self._snapshot_due = not self._plain
        self._stated = 0
        self._ping_unanswered = False
        self.connected, self.error = True, None
        logger.info("announcing to lookupd %s", self.address)
        self._show_refused()
        self._show()
        self.report_jobs()

    def _send_snapshot(self) -> None:
        self._snapshot_due = True
        self._post(self._snapshot())
        self._stated = 0
        self.report_jobs()

    def _snapshot(self) -> Request:
        return self._journal.snapshot(_SNAPSHOT, self._refused)

    def _post(self, message: Request) -> None:
        try:
            self._outbox.put_nowait(message)
        except asyncio.QueueFull:
            self._give_up(f"not reading: {OUTBOX_LIMIT} messages were queued")

    def _give_up(self, why: str) -> None:
        self._why_broken = why
        self._broken.set()

    def _refuse(self, change: Change, reply: Reply) -> None:
        """Handle a rejected change: leave out its job and announce the rest.

        A lookupd of 0.5 may have lost earlier messages and has no snapshots: the first time, raise LinkError to
        reconnect and announce everything again.
        """
        if change.job_name in self._refused:
            return
        if self._plain and change.job_name not in self._doubted:
            self._doubted.add(change.job_name)
            _check(reply)
        why = _shortened(f"{reply.errno} {reply.reason or ''}".rstrip())
        logger.warning(
            "lookupd %s: refused job %s: %s", self.address, change.job_name, why, extra={"job": change.job_name}
        )
        self._refused[change.job_name] = why
        self._show_refused()
        if not self._plain:
            self._send_snapshot()

    def _offer_again(self) -> None:
        """Announce jobs that were left out because of limits, now that other jobs are gone."""
        oversize = self._journal.oversize()
        limits = (_OVERSIZE, "413 ")
        fits = [job for job, why in self._refused.items() if why.startswith(limits) and job not in oversize]
        for job in fits:
            del self._refused[job]
        if fits:
            self._show_refused()
            self._send_snapshot()

    def _show_refused(self) -> None:
        self.error = None
        if self._refused:
            job, why = next(iter(self._refused.items()))
            more = f" (and {len(self._refused) - 1} more)" if len(self._refused) > 1 else ""
            self.error = f"job {job} is not announced{more}: {why}"

    async def _ask(self, messages: Sequence[Request]) -> None:
        """Send messages and wait for the reply to the last one, or for the end of the connection."""
        if not (self.connected and messages):
            return
        answered = self._awaited.setdefault(messages[-1].msgid, asyncio.Event())
        for message in messages:
            self._post(message)
        await answered.wait()

    def _lost(self) -> None:
        self.connected = False
        for answered in self._awaited.values():
            answered.set()
        self._awaited.clear()

    async def _write(self, connection: WebSocketClientConnection) -> None:
        while True:
            message = await self._outbox.get()
            if isinstance(message, Change):
                if len(self._sent) >= OUTBOX_LIMIT:
                    del self._sent[next(iter(self._sent))]
                self._sent[message.msgid] = message
            await connection.write_message(encode(message))

    async def _watch(self) -> None:
        await self._broken.wait()
        raise LinkError(self._why_broken)

    async def _read(self, connection: WebSocketClientConnection) -> None:
        while True:
            reply = await _receive(connection)
            self._answered = asyncio.get_running_loop().time()
            change = None if reply.msgid is None else self._sent.pop(reply.msgid, None)
            if change is not None and reply.errno:
                self._refuse(change, reply)
                self._show()
                continue
            if isinstance(reply.msgid, str) and reply.msgid.startswith(_REPORT):
                self._reported_until(reply.msgid.removeprefix(_REPORT), reply)
                continue
            _check(reply)
            if reply.msgid in self._awaited:
                self._awaited.pop(reply.msgid).set()
            if reply.msgid == _PING:
                self._ping_unanswered = False
            elif reply.msgid == _SNAPSHOT:
                self._snapshot_due = False
            if reply.reconnect_window is not None:
                self._window = reply.reconnect_window
            if reply.resync and not self._snapshot_due:
                self._send_snapshot()

    def _reported_until(self, number: str, reply: Reply) -> None:
        """Handle the reply to a report. What people are told is not worth a reconnection."""
        if not reply.errno:
            if number.isdecimal() and int(number) <= self._reported:  # otherwise to none of ours
                self._acknowledged = max(self._acknowledged, int(number))
        elif self._takes_reports:
            self._takes_reports = False
            why = _shortened(f"{reply.errno} {reply.reason or ''}".rstrip())
            logger.warning("lookupd %s: refused a report, which is not repeated: %s", self.address, why)

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            if self._ping_unanswered:
                raise _Silence(f"no reply for {self._interval:g} s")
            self._ping_unanswered = True
            self._post(Ping(_PING, None if self._plain else self._journal.seq))


async def _receive(connection: WebSocketClientConnection) -> Reply:
    text = await connection.read_message()
    if text is None:
        raise LinkError(f"connection closed{f': {why}' if (why := connection.close_reason) else ''}")
    return decode_reply(text)


def _check(reply: Reply) -> None:
    """Raise LinkError for an error reply, to reconnect and announce everything again."""
    if reply.errno or not reply.ok:
        raise LinkError(f"refused message {reply.msgid!r}: {reply.errno} {reply.reason or ''}".rstrip())


async def _close(connection: WebSocketClientConnection) -> None:
    """Close the connection with a handshake; drop the socket if it takes longer than CLOSE_TIMEOUT."""
    stream = connection.protocol.stream if connection.protocol is not None else None
    connection.close()
    if stream is None or stream.closed():
        return
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT):
            while await connection.read_message() is not None:
                pass
    except TimeoutError:
        stream.close()


def _close_late(connecting: "asyncio.Future[WebSocketClientConnection]") -> None:
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result().close()


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]}..."


def _first(group: BaseExceptionGroup[Exception]) -> Exception:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _explain(error: Exception, *, opening_tls: bool) -> str:
    """Return why a connection failed; `opening_tls` if it used TLS and was not yet established."""
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, UnsatisfiableReadError):
        return "response header too large"
    if why := tls.explain(error):
        return f"TLS failed: {why} {_TLS_OPTIONS}"
    if opening_tls and isinstance(error, _ENDS):
        # The TLS alert follows the handshake and may be lost when the connection closes at the same time.
        return f"TLS failed: connection closed; the lookupd may require a certificate {_TLS_OPTIONS}"
    if isinstance(error, HTTPClientError) and error.code == 401:
        return "401: cluster key required; set --cluster-key-file"
    if isinstance(error, HTTPClientError) and error.response is not None and error.response.body:
        try:
            message = msgspec.json.decode(error.response.body)["message"]
        except (msgspec.DecodeError, RecursionError, TypeError, KeyError):
            message = error.message
        return f"{error.code}: {message}"
    if isinstance(error, HTTPClientError) and error.code == 599:
        return error.message
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and (error.errno or 0) > 0:
        return os.strerror(error.errno or 0)  # asyncio's own text is "Connect call failed (HOST, PORT)"
    return str(error) or type(error).__name__
