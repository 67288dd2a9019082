"""`Job`: a job on a node."""

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from gaffer.jobs.names import JobName
from gaffer_client.errors import ConnectionLost, MalformedAnswer
from gaffer_client.lazy import LazyModule
from gaffer_client.naming import checked_job_name
from gaffer_client.sse import EventParser
from gaffer_client.transport import ABSENT, Answer, Stream, Transport, path_of, with_query

if TYPE_CHECKING:
    from gaffer.schemas.responses import Definition, JobStatus
    from gaffer.schemas.views import ExitInfo
    from gaffer_client import documents
    from gaffer_client.eventsource import Lost
    from gaffer_client.logs import LogPiece
    from gaffer_client.node import Server
else:
    documents = LazyModule("gaffer_client.documents")

_ACTION_HEARTBEAT = 15  # seconds

Gap = TypedDict("Gap", {"from": int, "to": int})
Gap.__doc__ = "The offsets between which output was lost."


class ActionResult(NamedTuple):
    """The end of an action.

    `outcome` is `succeeded`, `failed`, `timed_out` or `cancelled`. `exit_code` is None if a signal ended it,
    `term_signal` is 0 unless one did; both are None if the status is unknown. `uptime` is in seconds, `lost` the number
    of bytes of output that were dropped because the client read too slowly.
    """

    outcome: str
    exit_code: int | None
    term_signal: int | None
    uptime: float
    lost: int


class Job:
    """A job on a node. Each property and method sends a request."""

    def __init__(self, server: "Server", name: str | JobName) -> None:
        parsed = checked_job_name(name, server.url)
        self.server = server
        self.name = str(parsed)
        self.display_name = parsed.display  # without `default.` in the default session
        self._path = path_of("jobs", *parsed)
        self._template_path = path_of("processes", parsed.display)

    def __repr__(self) -> str:
        return f"Job({self.server.url!r}, {self.name!r})"

    def info(self) -> "documents.ListedJob":
        """Return the configuration and state of the job."""
        return self.server.transport.get(self._path, documents.ListedJob)

    def status(self) -> "JobStatus":
        """Return a summary: whether the job is active, and its numbers of processes."""
        from gaffer.schemas.responses import JobStatus

        return self.server.transport.get(path_of("status", self.name), JobStatus)

    def stats(self) -> "documents.JobStats":
        """Return CPU and memory usage, in total and per process."""
        return self.server.transport.get(self._path + "/stats", documents.JobStats)

    @property
    def active(self) -> bool:
        """Whether the job is started and has not failed."""
        return self.server.transport.request("GET", self._path + "/state").body.strip() == b"1"

    @property
    def running(self) -> int:
        """The number of running processes."""
        return self.info()["running"]

    @property
    def running_out(self) -> int:
        """The number of processes started by `commit`, which do not count towards `numprocesses`."""
        return self.info()["running_out"]

    @property
    def numprocesses(self) -> int:
        """The configured number of processes."""
        answer = self.server.transport.get(self._path + "/numprocesses", documents.ProcessCount)
        return answer["numprocesses"]

    @property
    def pids(self) -> list[int]:
        """Gaffer's pids of the processes of the job."""
        return self.server.transport.get(self._path + "/pids", documents.PidList)["pids"]

    def start(self) -> None:
        """Start the job if it is not started; raise JobDisabled if it is disabled."""
        self._set_state(b"1")

    def stop(self) -> None:
        """Stop the job and all its processes."""
        self._set_state(b"0")

    def restart(self, *, rolling: bool = False) -> None:
        """Replace all processes of the job, at once or, if `rolling`, a few at a time.

        The call returns immediately. A rolling restart replaces a process only while enough others are ready, and stops
        when a new one does not become ready: follow `info()["rollout"]`. A completed or failed job is started.
        """
        path = with_query(self._path + "/restart", {"rolling": "true"} if rolling else None)
        self.server.transport.order("POST", path)

    def reload(self) -> None:
        """Send the `reload_signal` of the job to its processes; without one, replace them."""
        self.server.transport.order("POST", self._path + "/reload")

    def rollback(self, to: int | None = None) -> int:
        """Return to the definition of generation `to`, or to the one before the current; return its new generation.

        Processes are replaced a few at a time, as by a rolling restart. Raises Conflict if the definition is not kept.
        """
        path = with_query(self._path + "/rollback", None if to is None else {"to": str(to)})
        transport = self.server.transport
        return transport.decode(transport.request("POST", path), documents.DoneGeneration)["generation"]

    def disable(self, reason: str, seconds: float | None = None) -> None:
        """Stop the job and keep it from running for `seconds`, or until `enable`; `reason` is shown in its info.

        The call returns immediately; a further one changes the time and the reason. The job can be scaled and updated
        in the meantime, but `start` and `restart` raise JobDisabled. It stays disabled over reloads and restarts of
        the node. Raises BadRequest for an empty reason or an invalid time.
        """
        document = {"reason": reason} if seconds is None else {"reason": reason, "for": seconds}
        self.server.transport.order("POST", self._path + "/disable", document)

    def enable(self) -> None:
        """Undo `disable`: the job runs again if it was started."""
        self.server.transport.order("POST", self._path + "/enable")

    def definitions(self) -> "list[Definition]":
        """Return the last 10 definitions of the job with their generations, newest first; the first is the current."""
        from gaffer.schemas.responses import DefinitionList  # imports the settings of jobs

        return self.server.transport.get(self._path + "/definitions", DefinitionList)["definitions"]

    def exits(self) -> "list[ExitInfo]":
        """Return the last 20 exits and failed starts of the job, newest first."""
        from gaffer.schemas.responses import ExitList  # imports the settings of jobs

        return self.server.transport.get(self._path + "/exits", ExitList)["exits"]

    def logs(
        self,
        *,
        streams: Iterable[str] = ("out",),
        slots: Iterable[int] | None = None,
        offset: int | str | None = None,
        since: float | str | None = None,
        tail: int | str | None = None,
        follow: bool = False,
        on_lost: "Lost | None" = None,
        on_open: Callable[[], object] | None = None,
        patient: bool = False,
    ) -> "Iterator[LogPiece]":
        """Yield what the log files of the job hold, over all rotated files, of several logs the older piece first.

        `streams` are `out` and `err`, `slots` those of the processes, by default all. Start at `offset`, a number of
        bytes in a single log or the `position` of a piece, or at `since`, an age in seconds, a text such as `5m`, or a
        time as in RFC 3339, or `tail` lines, or bytes as in `"4096b"`, back; by default with the oldest byte.

        With `follow`, continue with what is added, and reconnect after a lost connection; `on_lost(error)` is called
        before that, and `on_open()` after each connection. If `patient`, the first connection may fail as well. Raises
        NotFound if there are no logs.
        """
        from gaffer_client.logs import read_logs

        return read_logs(
            self.server.transport,
            self._path + "/logs",
            streams=streams,
            slots=slots,
            offset=offset,
            since=since,
            tail=tail,
            follow=follow,
            on_lost=on_lost,
            on_open=on_open,
            patient=patient,
        )

    def actions(self) -> dict[str, str]:
        """Return the actions of the job: command lines by name."""
        return self.server.transport.get(self._path + "/actions", documents.ActionList)["actions"]

    def run_action(
        self, action: str, output: Callable[[bytes], object] | None = None, *, timeout: str | float | None = None
    ) -> ActionResult:
        """Run an action and wait for its end; `output` is called with each piece of its stdout and stderr.

        The node stops the action after `timeout`, in seconds or as text such as `5m` (default: 24 hours). If the
        connection is lost or `output` raises an error, the action continues.

        Raises NotFound if the job has no such action, BadRequest for an invalid timeout, a StatusError if it can't be
        started or too many actions are running (429), and ConnectionLost if the connection is lost before its end: the
        action ends then if gafferd was killed.
        """
        query = {"encoding": "base64", "heartbeat": str(_ACTION_HEARTBEAT)}
        if timeout is not None:
            query["timeout"] = str(timeout)
        path = with_query(self._path + "/actions" + path_of(action), query)
        with self.server.transport.clone() as transport:
            return _follow_action(transport, path, output)

    def scale(self, change: int | str) -> int:
        """Change the number of processes by `2`, `"+2"` or `-2`, or set it with `"=2"`; return the new number."""
        return self._set_number(self._path + "/numprocesses", {"scale": change})

    def add(self, count: int = 1) -> int:
        """Run `count` more processes; return the new number."""
        return self._set_number(self._template_path + path_of("_add", count))

    def sub(self, count: int = 1) -> int:
        """Run `count` fewer processes; return the new number."""
        return self._set_number(self._template_path + path_of("_sub", count))

    def commit(self, graceful_timeout: float | None = None, env: Mapping[str, str] | None = None) -> int:
        """Run one additional process that is not restarted; return its pid (Gaffer's)."""
        given = {"graceful_timeout": graceful_timeout, "env": env}
        answer = self.server.transport.request(
            "POST", self._path + "/commit", document={key: value for key, value in given.items() if value is not None}
        )
        return self.server.transport.decode(answer, documents.NewPid)["pid"]

    def kill(self, signal: int | str) -> None:
        """Send a signal, by number or name, to all processes of the job."""
        self.server.transport.order("POST", self._path + "/signal", {"signal": signal})

    signal = kill

    def _set_state(self, state: bytes) -> None:
        self.server.transport.order("POST", self._path + "/state", body=state)

    def _set_number(self, path: str, document: object = ABSENT) -> int:
        transport = self.server.transport
        answer = transport.request("POST", path, document=document)
        return transport.decode(answer, documents.ProcessCount)["numprocesses"]


def _follow_action(transport: Transport, path: str, output: Callable[[bytes], object] | None) -> ActionResult:
    """Start an action and read its output until its end."""
    lost = 0
    headers = {"Accept": "text/event-stream"}
    idle_timeout = 2 * _ACTION_HEARTBEAT + 1
    try:
        with closing(transport.stream(path, headers, method="POST", idle_timeout=idle_timeout)) as stream:
            for piece in _pieces(stream, transport):
                if isinstance(piece, bytes):
                    if output is not None:
                        output(piece)
                elif isinstance(piece, int):
                    lost += piece
                else:
                    end = piece["outcome"], piece["exit_code"], piece["term_signal"], piece["uptime"]
                    return ActionResult(*end, lost)
        why = "it was closed"
    except ConnectionLost as error:
        why = error.message
    raise ConnectionLost(
        f"the connection was lost before the action ended, whose outcome is unknown: {why}",
        url=transport.url,
        hint="an action continues without its client, but ends with its gafferd",
    )


def _pieces(stream: Stream, transport: Transport) -> "Iterator[bytes | int | documents.ActionExit]":
    """Yield the output of an action, the numbers of lost bytes, and its end."""
    parser = EventParser()
    try:
        while data := stream.read():
            for event in parser.feed(data):
                if event.event == "output":
                    yield base64.b64decode(event.data)
                elif event.event == "gap":
                    gap = transport.decode(Answer(200, event.data.encode()), Gap)
                    yield gap["to"] - gap["from"]
                elif event.event == "exit":
                    yield transport.decode(Answer(200, event.data.encode()), documents.ActionExit)
    except ValueError as error:
        raise MalformedAnswer(f"{transport.url} sent an invalid event: {error}", url=transport.url) from None
