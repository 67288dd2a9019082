"""`Server`: one node, over its HTTP API."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

from msgspec import UNSET

from gaffer.errors import GafferError
from gaffer.names import DEFAULT_SESSION, JobName, parse_job_name, parse_pid
from gaffer_client.answers import (
    Done,
    Drain,
    JobInfo,
    Jobs,
    JobStats,
    JobStatus,
    NumProcesses,
    Pid,
    Pids,
    ProcessStats,
    Sessions,
    Version,
)
from gaffer_client.errors import BadRequest, MalformedAnswer, NotFound
from gaffer_client.transport import DEFAULT_TIMEOUT, Transport, path_of

DEFAULT_URL = "http://127.0.0.1:5000"


class Server:
    """The node at `url`: `http://host:port`, `https://host:port` or `unix:/path`.

    `api_key` is sent with each request. `cacert` is a PEM file with the authorities to trust, `certfile` and
    `keyfile` the client's own certificate; `timeout`, in seconds, bounds each of connecting and answering. Usable as
    a context manager. Not for use by several threads at once.

    Job names are `session.name`, or bare for the session `default`. Every method raises Unreachable when the node
    doesn't answer, MalformedAnswer when it doesn't answer like a node, and a StatusError (NotFound, Conflict...)
    when it refuses.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        cacert: str | None = None,
        certfile: str | None = None,
        keyfile: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        self.transport = Transport(
            url, api_key=api_key, cacert=cacert, certfile=certfile, keyfile=keyfile, timeout=timeout
        )

    @property
    def url(self) -> str:
        """The URL of the node."""
        return self.transport.url

    def close(self) -> None:
        """Close the connection; the next request opens it again."""
        self.transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    # The node

    @property
    def version(self) -> str:
        """The version of the node's gafferd."""
        return self.transport.get("/version", Version)["version"]

    def ping(self) -> bool:
        """True when the node answers that it is well."""
        return self.transport.request("GET", "/ping").body.strip() == b"OK"

    def drained(self) -> Drain:
        """How far the node is out of service."""
        return self.transport.get("/drain", Drain)

    def drain(self) -> Drain:
        """Take the node out of service: lookups are told, then its processes end; it takes a while, see `drained`."""
        return self.transport.decode(self.transport.request("POST", "/drain"), Drain)

    def resume(self) -> Drain:
        """Put the node back into service: its jobs start again."""
        return self.transport.decode(self.transport.request("DELETE", "/drain"), Drain)

    # Sessions and jobs

    def sessions(self) -> list[str]:
        """The sessions that have jobs."""
        return self.transport.get("/sessions", Sessions)["sessions"]

    def jobs(self, session: str | None = None) -> list[str]:
        """The qualified names of all jobs, or those of a session; NotFound when there is no such session."""
        path = "/jobs" if session is None else path_of("jobs", session)
        return self.transport.get(path, Jobs)["jobs"]

    def jobs_walk(self, callback: Callable[["Server", "Job"], object], session: str | None = None) -> None:
        """Call `callback(server, job)` for each job."""
        for name in self.jobs(session):
            callback(self, Job(self, name))

    def job_exists(self, name: str) -> bool:
        """Whether the node has a job of that name."""
        return self._exists(path_of("jobs", *self._job_name(name)))

    def get_job(self, name: str) -> "Job":
        """The job of that name, which must exist."""
        job = Job(self, name)
        job.info()
        return job

    def load(self, config: Mapping[str, Any], session: str | None = None, *, start: bool | None = None) -> "Job":
        """Add a job; `config` is its description (`name`, `cmd`...). Raises Conflict when the name is taken.

        `start` overrides the key `start` of the description (default true).
        """
        name = self._job_name(config.get("name"), session)
        self._order("POST", path_of("jobs", name.session), {**_with_start(config, start), "name": name.name})
        return Job(self, name)

    def load_all(self, configs: Iterable[Mapping[str, Any]], session: str, *, start: bool | None = None) -> None:
        """Add several jobs to a session: all of them, or none when one is wrong or its name is taken."""
        document = {"jobs": [_with_start(config, start) for config in configs]}
        self._order("POST", path_of("jobs", session), document)

    def update(self, config: Mapping[str, Any], session: str | None = None, *, start: bool | None = None) -> "Job":
        """Replace the description of the job that `config` names."""
        name = self._job_name(config.get("name"), session)
        self._order("PUT", path_of("jobs", *name), {**_with_start(config, start), "name": name.name})
        return Job(self, name)

    def unload(self, name: str) -> None:
        """Stop a job and forget it."""
        self._order("DELETE", path_of("jobs", *self._job_name(name)))

    def reload(self, name: str) -> None:
        """Restart the instances of a job with its present description."""
        Job(self, name).restart()

    # Processes

    def pids(self) -> list[int]:
        """The internal pids of all running processes."""
        return self.transport.get("/pids", Pids)["pids"]

    def is_process(self, pid: int) -> bool:
        """Whether there is a running process with that internal pid."""
        return self._exists(path_of(pid))

    def get_process(self, pid: int) -> "Process":
        """The process with that internal pid, which must exist."""
        process = Process(self, pid)
        process.info()
        return process

    # Templates, the API of 0.4: a template is a job

    def processes(self) -> list[str]:
        """The names of all templates (R-10)."""
        return self.transport.get("/processes", list[str])

    def running(self) -> list[int]:
        """The internal pids of all running processes (R-10)."""
        return self.transport.get("/processes", list[int], query={"running": "true"})

    def template(self, name: str) -> dict[str, Any]:
        """The description of a template, with all its settings (R-13)."""
        return self.transport.get(self._template_path(name), dict[str, Any])

    def add_process(self, config: Mapping[str, Any], *, start: bool | None = None) -> None:
        """Add a template (R-11); raises Conflict when the name is taken."""
        self._order("POST", "/processes", _with_start(config, start))

    def update_process(self, config: Mapping[str, Any], *, start: bool | None = None) -> None:
        """Replace the template that `config` names (R-14)."""
        self._order("PUT", self._template_path(config.get("name")), _with_start(config, start))

    def save_process(self, config: Mapping[str, Any], *, start: bool | None = None) -> None:
        """Add a template, or replace it when there is one of that name."""
        if self._exists(self._template_path(config.get("name"))):
            self.update_process(config, start=start)
        else:
            self.add_process(config, start=start)

    def remove_process(self, name: str) -> None:
        """Stop a template's processes and forget it (R-15)."""
        self._order("DELETE", self._template_path(name))

    def send_signal(self, name_or_pid: str | int, signal: int | str) -> None:
        """Send a signal, by number or name, to the processes of a template or to the one with that pid (R-22, R-27)."""
        pid = name_or_pid if isinstance(name_or_pid, int) else parse_pid(name_or_pid)
        path = self._template_path(name_or_pid) if pid is None else path_of("processes", pid)
        self._order("POST", path + path_of("_signal", signal))

    # What the handles below share

    def _job_name(self, name: object, session: str | None = None) -> JobName:
        """Check a name before it becomes a part of a path."""
        try:
            return parse_job_name(str(name or ""), session or DEFAULT_SESSION)
        except GafferError as error:
            raise BadRequest(
                error.message, url=self.url, errno=error.errno, reason=error.reason, path=error.path, hint=error.hint
            ) from None

    def _template_path(self, name: object) -> str:
        return path_of("processes", self._job_name(name).display)

    def _exists(self, path: str) -> bool:
        try:
            self.transport.request("HEAD", path)
        except NotFound:
            return False
        return True

    def _order(self, method: str, path: str, document: object = UNSET, *, body: bytes | None = None) -> None:
        """Send a request whose answer is `{"ok": true}`."""
        answer = self.transport.request(method, path, document=document, body=body)
        if not self.transport.decode(answer, Done)["ok"]:
            raise MalformedAnswer(f"{self.url} says neither that it is done nor why not", url=self.url)

    def _set_number(self, path: str, document: object = UNSET) -> int:
        answer = self.transport.request("POST", path, document=document)
        return self.transport.decode(answer, NumProcesses)["numprocesses"]


class Job:
    """A job on a node. Each property and method asks the node anew."""

    def __init__(self, server: Server, name: str | JobName) -> None:
        parsed = server._job_name(name)
        self.server = server
        self.name = str(parsed)
        self._path = path_of("jobs", *parsed)
        self._template_path = path_of("processes", parsed.display)

    def __repr__(self) -> str:
        return f"Job({self.server.url!r}, {self.name!r})"

    def info(self) -> JobInfo:
        """What the node knows about it (R-45)."""
        return self.server.transport.get(self._path, JobInfo)

    def status(self) -> JobStatus:
        """The short answer: is it active, and its numbers of processes (R-28)."""
        return self.server.transport.get(path_of("status", self.name), JobStatus)

    def stats(self) -> JobStats:
        """CPU and memory, in all and of each process (R-48)."""
        return self.server.transport.get(self._path + "/stats", JobStats)

    @property
    def active(self) -> bool:
        """Whether it is meant to run and has not failed."""
        return self.server.transport.request("GET", self._path + "/state").body.strip() == b"1"

    @property
    def running(self) -> int:
        """How many of its processes are alive."""
        return self.info()["running"]

    @property
    def running_out(self) -> int:
        """How many processes run outside its number, by `commit`."""
        return self.info()["running_out"]

    @property
    def numprocesses(self) -> int:
        """How many processes it is meant to have."""
        answer = self.server.transport.get(self._path + "/numprocesses", NumProcesses)
        return answer["numprocesses"]

    @property
    def pids(self) -> list[int]:
        """The internal pids of its processes."""
        return self.server.transport.get(self._path + "/pids", Pids)["pids"]

    def start(self) -> None:
        """Start it, if it is not started."""
        self._set_state(b"1")

    def stop(self) -> None:
        """Stop it: its processes end and are not replaced."""
        self._set_state(b"0")

    def restart(self) -> None:
        """Replace its processes, as many as configured."""
        self._set_state(b"2")

    def scale(self, change: int | str) -> int:
        """Run more or less processes: `2` or `"+2"` more, `-2` or `"-2"` less, `"=2"` in all; the new number (R-50)."""
        return self.server._set_number(self._path + "/numprocesses", {"scale": change})

    def add(self, count: int = 1) -> int:
        """Run `count` more processes; the new number (R-20)."""
        return self.server._set_number(self._template_path + path_of("_add", count))

    def sub(self, count: int = 1) -> int:
        """Run `count` processes less; the new number (R-21)."""
        return self.server._set_number(self._template_path + path_of("_sub", count))

    def commit(self, graceful_timeout: float | None = None, env: Mapping[str, str] | None = None) -> int:
        """Run one more process that is not kept alive; its internal pid."""
        given = {"graceful_timeout": graceful_timeout, "env": env}
        answer = self.server.transport.request(
            "POST", self._path + "/commit", document={key: value for key, value in given.items() if value is not None}
        )
        return self.server.transport.decode(answer, Pid)["pid"]

    def kill(self, signal: int | str) -> None:
        """Send a signal, by number or name, to all its processes."""
        self.server._order("POST", self._path + "/signal", {"signal": signal})

    signal = kill

    def _set_state(self, state: bytes) -> None:
        self.server._order("POST", self._path + "/state", body=state)


class Process:
    """A process on a node, by its internal pid. Each property and method asks the node anew."""

    def __init__(self, server: Server, pid: int) -> None:
        self.server = server
        self.pid = pid
        self._path = path_of(pid)

    def __repr__(self) -> str:
        return f"Process({self.server.url!r}, {self.pid})"

    @property
    def active(self) -> bool:
        """Whether it is still there."""
        return self.server.is_process(self.pid)

    def info(self) -> dict[str, Any]:
        """What the node knows about it (R-58)."""
        return self.server.transport.get(self._path, dict[str, Any])

    def stats(self) -> dict[str, Any]:
        """Its CPU, memory and the like (R-61)."""
        return self.server.transport.get(self._path + "/stats", ProcessStats)["stats"]

    def stop(self) -> None:
        """Stop it; its job starts another in its place."""
        self.server._order("DELETE", self._path)

    def kill(self, signal: int | str) -> None:
        """Send it a signal, by number or name."""
        self.server._order("POST", self._path + "/signal", {"signal": signal})


def _with_start(config: Mapping[str, Any], start: bool | None) -> dict[str, Any]:
    return dict(config) if start is None else {**config, "start": start}
