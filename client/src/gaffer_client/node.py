"""`Server`: one node, over its HTTP API."""

import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self

from gaffer.jobs.names import JobName, parse_pid
from gaffer.schemas.bodies import DrainState, HealthInfo, JobList, PidList, SessionList, VersionInfo
from gaffer.schemas.keys import KeyInfo, KeyList, NewKey
from gaffer.schemas.stats import JobStats
from gaffer.streams.event_log import ALL, normal
from gaffer_client.eventsource import Lost, Watcher
from gaffer_client.jobs import Job
from gaffer_client.naming import checked_job_name
from gaffer_client.processes import Process
from gaffer_client.transport import DEFAULT_TIMEOUT, Transport, path_of, with_query

if TYPE_CHECKING:
    from gaffer_client.channel import GafferSocket

DEFAULT_HEARTBEAT = 30.0  # seconds


class Server:
    """The node at `url`: `http://host:port`, `https://host:port` or `unix:/path`.

    Without a `url` it is the node of this host: by its unix socket in a default state directory, else at
    `http://127.0.0.1:5000`.

    `api_key` is sent with each request. `cacert` is a PEM file with the authorities to trust, `certfile` and
    `keyfile` the client's own certificate; `timeout`, in seconds, bounds a whole exchange, of which connecting takes 5
    at most. Usable as a context manager. Not for use by several threads at once.

    A key, and the environment of a job, are sent over https, or to a server on this host that runs as the same user
    or root; elsewhere only when `insecure`, else UntrustedServer is raised. Never give the key to a Server whose `url`
    comes from a lookup unless you know the address.

    Job names are `session.name`, or bare for the session `default`. Every method raises Unreachable when the node
    doesn't answer, MalformedAnswer when it doesn't answer like a node, and a StatusError (NotFound, Conflict...)
    when it refuses.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        cacert: str | None = None,
        certfile: str | None = None,
        keyfile: str | None = None,
        insecure: bool = False,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        self.transport = Transport(
            url or _default_url(),
            api_key=api_key,
            cacert=cacert,
            certfile=certfile,
            keyfile=keyfile,
            insecure=insecure,
            timeout=timeout,
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
        return self.transport.get("/version", VersionInfo)["version"]

    def ping(self) -> bool:
        """True when the node answers that it is well."""
        return self.transport.request("GET", "/ping").body.strip() == b"OK"

    def health(self) -> HealthInfo:
        """How the node is, and whether it reaches its lookups."""
        return self.transport.get("/health", HealthInfo)

    def drained(self) -> DrainState:
        """How far the node is out of service."""
        return self.transport.get("/drain", DrainState)

    def drain(self) -> DrainState:
        """Take the node out of service: lookups are told, then its processes end; it takes a while, see `drained`."""
        return self.transport.decode(self.transport.request("POST", "/drain"), DrainState)

    def resume(self) -> DrainState:
        """Put the node back into service: its jobs start again."""
        return self.transport.decode(self.transport.request("DELETE", "/drain"), DrainState)

    # Sessions and jobs

    def sessions(self) -> list[str]:
        """The sessions that have jobs."""
        return self.transport.get("/sessions", SessionList)["sessions"]

    def jobs(self, session: str | None = None) -> list[str]:
        """The qualified names of all jobs, or those of a session; NotFound when there is no such session."""
        path = "/jobs" if session is None else path_of("jobs", session)
        return self.transport.get(path, JobList)["jobs"]

    def jobs_walk(self, callback: Callable[["Server", "Job"], object], session: str | None = None) -> None:
        """Call `callback(server, job)` for each job."""
        for name in self.jobs(session):
            callback(self, Job(self, name))

    def job_exists(self, name: str) -> bool:
        """Whether the node has a job of that name."""
        return self.transport.exists(path_of("jobs", *self._job_name(name)))

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
        self.transport.order("POST", path_of("jobs", name.session), {**_with_start(config, start), "name": name.name})
        return Job(self, name)

    def load_all(self, configs: Iterable[Mapping[str, Any]], session: str, *, start: bool | None = None) -> None:
        """Add several jobs to a session: all of them, or none when one is wrong or its name is taken."""
        document = {"jobs": [_with_start(config, start) for config in configs]}
        self.transport.order("POST", path_of("jobs", session), document)

    def update(self, config: Mapping[str, Any], session: str | None = None, *, start: bool | None = None) -> "Job":
        """Replace the description of the job that `config` names."""
        name = self._job_name(config.get("name"), session)
        self.transport.order("PUT", path_of("jobs", *name), {**_with_start(config, start), "name": name.name})
        return Job(self, name)

    def unload(self, name: str) -> None:
        """Stop a job and forget it."""
        self.transport.order("DELETE", path_of("jobs", *self._job_name(name)))

    def reload(self, name: str) -> None:
        """Restart the instances of a job with its present description."""
        Job(self, name).restart()

    # Processes

    def pids(self) -> list[int]:
        """The internal pids of all running processes."""
        return self.transport.get("/pids", PidList)["pids"]

    def is_process(self, pid: int) -> bool:
        """Whether there is a running process with that internal pid."""
        return self.transport.exists(path_of(pid))

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
        self.transport.order("POST", "/processes", _with_start(config, start))

    def update_process(self, config: Mapping[str, Any], *, start: bool | None = None) -> None:
        """Replace the template that `config` names (R-14)."""
        self.transport.order("PUT", self._template_path(config.get("name")), _with_start(config, start))

    def save_process(self, config: Mapping[str, Any], *, start: bool | None = None) -> None:
        """Add a template, or replace it when there is one of that name."""
        if self.transport.exists(self._template_path(config.get("name"))):
            self.update_process(config, start=start)
        else:
            self.add_process(config, start=start)

    def remove_process(self, name: str) -> None:
        """Stop a template's processes and forget it (R-15)."""
        self.transport.order("DELETE", self._template_path(name))

    def send_signal(self, name_or_pid: str | int, signal: int | str) -> None:
        """Send a signal, by number or name, to the processes of a template or to the one with that pid (R-22, R-27)."""
        pid = name_or_pid if isinstance(name_or_pid, int) else parse_pid(name_or_pid)
        path = self._template_path(name_or_pid) if pid is None else path_of("processes", pid)
        self.transport.order("POST", path + path_of("_signal", signal))

    # Groups, the name that 0.4 had for sessions other than `default`

    def groups(self) -> list[str]:
        """The groups that have jobs (R-29)."""
        return self.transport.get("/groups", list[str])

    def get_group(self, name: str) -> list[str]:
        """The jobs of a group, as `group:name` (R-30)."""
        return self.transport.get(path_of("groups", name), list[str])

    def start_group(self, name: str) -> None:
        """Start all jobs of a group (R-31)."""
        self.transport.order("POST", path_of("groups", name, "_start"))

    def stop_group(self, name: str) -> None:
        """Stop all jobs of a group (R-31)."""
        self.transport.order("POST", path_of("groups", name, "_stop"))

    def restart_group(self, name: str) -> None:
        """Replace the processes of all jobs of a group (R-31)."""
        self.transport.order("POST", path_of("groups", name, "_restart"))

    def remove_group(self, name: str) -> None:
        """Stop and forget all jobs of a group (R-32)."""
        self.transport.order("DELETE", path_of("groups", name))

    # What happens

    def stats(self) -> list[JobStats]:
        """CPU and memory of all jobs (R-74)."""
        return self.transport.get("/stats", list[JobStats])

    def get_watcher(
        self, pattern: str = ALL, *, heartbeat: float = DEFAULT_HEARTBEAT, on_lost: Lost | None = None
    ) -> Watcher:
        """Follow the events that a pattern gets, `.` for all, `proc.web` for all of that job (R-72, R-73).

        The node gives a sign of life each `heartbeat` seconds; after twice as many without one it counts as lost.
        `on_lost` is that of EventsourceClient.
        """
        parts = [] if normal(pattern) == ALL else normal(pattern).split(".", 2)
        query = {"feed": "eventsource", "heartbeat": f"{heartbeat:g}"}
        path = with_query(path_of("watch", *parts), query)
        return Watcher.over(self.transport, path, idle_timeout=2 * heartbeat + 1, on_lost=on_lost)

    # Keys

    def keys(self) -> list[KeyInfo]:
        """The API keys that allow no more than this client's own (R-91)."""
        return self.transport.get("/keys", KeyList)["keys"]

    def create_key(self, scopes: Iterable[str], sessions: Iterable[str] | None = None) -> NewKey:
        """Make an API key with these scopes (`read`, `control`, `define`), limited to these sessions if any are given.

        Raises Forbidden when it would allow more than this client may do.
        """
        asked = {"scopes": list(scopes), "sessions": list(sessions) if sessions is not None else None}
        return self.transport.decode(self.transport.request("POST", "/keys", document=asked), NewKey)

    def revoke_key(self, identifier: str) -> None:
        """Revoke the API key with that id: what its holders have open is closed."""
        self.transport.order("DELETE", path_of("keys", identifier))

    def socket(self) -> "GafferSocket":
        """Topics and commands over one websocket; to be started, and closed."""
        from gaffer_client.channel import GafferSocket  # brings in what websockets need

        return GafferSocket(self.transport.again())

    def _job_name(self, name: object, session: str | None = None) -> JobName:
        return checked_job_name(name, self.url, session)

    def _template_path(self, name: object) -> str:
        return path_of("processes", self._job_name(name).display)


def _default_url() -> str:
    from gaffer_client.local import default_url  # brings in what sockets need

    return default_url(os.environ)


def _with_start(config: Mapping[str, Any], start: bool | None) -> dict[str, Any]:
    return dict(config) if start is None else {**config, "start": start}
