"""`Server`: client of the HTTP API of one node."""

import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self

from gaffer.jobs.names import JobName, parse_pid
from gaffer_client.jobs import Job
from gaffer_client.lazy import LazyModule
from gaffer_client.naming import checked_job_name
from gaffer_client.processes import Process
from gaffer_client.transport import DEFAULT_TIMEOUT, Sender, Transport, path_of, with_query

if TYPE_CHECKING:
    from gaffer.schemas.reload import ReloadResult
    from gaffer_client import documents
    from gaffer_client.channel import GafferSocket
    from gaffer_client.eventsource import Lost, Watcher
else:
    documents = LazyModule("gaffer_client.documents")

DEFAULT_HEARTBEAT = 30.0  # seconds


class Server:
    """A client of the node at `url`: `http://host:port`, `https://host:port` or `unix:/path`.

    The default is the node of this host: its unix socket in a default state directory, else `http://127.0.0.1:5000`.

    `api_key` is sent with each request. `cacert` is a PEM file with the CA certificates to trust, `certfile` and
    `keyfile` are the client certificate and its key; `timeout` limits a whole exchange, in seconds, of which at most 5
    are used to connect. Requests are sent by the library requests, or by `sender`, such as
    `gaffer_client.plain.PlainSender`, which is imported much faster. Usable as a context manager. Not thread-safe.

    The key and job environments are sent only over https or to a server on this host that runs as the same user or
    root, unless `insecure`; otherwise, UntrustedServer is raised. Do not pass a key with a `url` from a lookup unless
    you trust the address.

    Job names are `session.name`, or `name` for the session `default`. Every method raises Unreachable if the node does
    not respond, MalformedAnswer if its response is invalid, and a StatusError (NotFound, Conflict...) if it returns an
    error.
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
        sender: Callable[[Transport], Sender] | None = None,
    ) -> None:
        self.transport = Transport(
            url or _default_url(),
            api_key=api_key,
            cacert=cacert,
            certfile=certfile,
            keyfile=keyfile,
            insecure=insecure,
            timeout=timeout,
            sender=sender,
        )

    @property
    def url(self) -> str:
        """The URL of the node."""
        return self.transport.url

    def close(self) -> None:
        """Close the connection; the next request reopens it."""
        self.transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    # The node

    @property
    def version(self) -> str:
        """The gafferd version of the node."""
        return self.transport.get("/version", documents.VersionInfo)["version"]

    def ping(self) -> bool:
        """Return whether the node reports that it is up."""
        return self.transport.request("GET", "/ping").body.strip() == b"OK"

    def health(self) -> "documents.HealthInfo":
        """Return the health of the node and its connections to lookups."""
        return self.transport.get("/health", documents.HealthInfo)

    def drained(self) -> "documents.DrainState":
        """Return the drain state of the node."""
        return self.transport.get("/drain", documents.DrainState)

    def drain(self) -> "documents.DrainState":
        """Start draining: lookups stop listing the node's processes, which are then stopped. Poll `drained`."""
        return self.transport.decode(self.transport.request("POST", "/drain"), documents.DrainState)

    def resume(self) -> "documents.DrainState":
        """Put the node back into service and start its jobs again."""
        return self.transport.decode(self.transport.request("DELETE", "/drain"), documents.DrainState)

    def reload_config(self, *, dry_run: bool = False) -> "ReloadResult":
        """Make the node read its configuration file again and apply the differences; with `dry_run`, only return them.

        Changes that can't be applied are in `failed` of the result. Raises BadRequest with all mistakes in `problems`
        if the file is invalid, and Conflict if the node runs without one.
        """
        from gaffer.schemas.reload import ReloadResult

        path = with_query("/reload", {"dry_run": "true"} if dry_run else None)
        return self.transport.decode(self.transport.request("POST", path), ReloadResult)

    # Sessions and jobs

    def sessions(self) -> list[str]:
        """Return the sessions that have jobs."""
        return self.transport.get("/sessions", documents.SessionList)["sessions"]

    def jobs(self, session: str | None = None) -> list[str]:
        """Return the qualified names of all jobs, or those of a session; raise NotFound if it does not exist."""
        path = "/jobs" if session is None else path_of("jobs", session)
        return self.transport.get(path, documents.JobList)["jobs"]

    def list_jobs(self, session: str | None = None, *, stats: bool = False) -> "list[documents.ListedJob]":
        """Return the info of all jobs, or of those of a session, in one request; raise NotFound if it does not exist.

        With `stats`, each has its resource usage as `stats`.
        """
        path = "/jobs" if session is None else path_of("jobs", session)
        return self.transport.get(path, documents.JobListing, query={"view": "stats" if stats else "info"})["jobs"]

    def jobs_walk(self, callback: Callable[["Server", "Job"], object], session: str | None = None) -> None:
        """Call `callback(server, job)` for each job."""
        for name in self.jobs(session):
            callback(self, Job(self, name))

    def job_exists(self, name: str) -> bool:
        """Return whether the node has a job with this name."""
        return self.transport.exists(path_of("jobs", *self._job_name(name)))

    def get_job(self, name: str) -> "Job":
        """Return the job with this name; raise NotFound if it does not exist."""
        job = Job(self, name)
        job.info()
        return job

    def load(self, config: Mapping[str, Any], session: str | None = None, *, start: bool | None = None) -> "Job":
        """Add a job; `config` is its description (`name`, `cmd`...). Raises Conflict if the name already exists.

        `start` overrides the key `start` of the description (default true).
        """
        name = self._job_name(config.get("name"), session)
        self.transport.order("POST", path_of("jobs", name.session), {**_with_start(config, start), "name": name.name})
        return Job(self, name)

    def load_all(self, configs: Iterable[Mapping[str, Any]], session: str, *, start: bool | None = None) -> None:
        """Add several jobs to a session: all, or none if one is invalid or its name already exists."""
        document = {"jobs": [_with_start(config, start) for config in configs]}
        self.transport.order("POST", path_of("jobs", session), document)

    def update(
        self,
        config: Mapping[str, Any],
        session: str | None = None,
        *,
        start: bool | None = None,
        rolling: bool = False,
    ) -> "Job":
        """Replace the description of the job that `config` names.

        If this requires new processes, they replace the old ones at once, or a few at a time if `rolling`.
        """
        name = self._job_name(config.get("name"), session)
        path = with_query(path_of("jobs", *name), {"rolling": "true"} if rolling else None)
        self.transport.order("PUT", path, {**_with_start(config, start), "name": name.name})
        return Job(self, name)

    def unload(self, name: str) -> None:
        """Stop and remove a job."""
        self.transport.order("DELETE", path_of("jobs", *self._job_name(name)))

    def reload(self, name: str) -> None:
        """Send the `reload_signal` of a job to its processes; without one, replace them."""
        Job(self, name).reload()

    # Processes

    def pids(self) -> list[int]:
        """Return Gaffer's pids of all running processes."""
        return self.transport.get("/pids", documents.PidList)["pids"]

    def is_process(self, pid: int) -> bool:
        """Return whether a process with this pid (Gaffer's) is running."""
        return self.transport.exists(path_of(pid))

    def get_process(self, pid: int) -> "Process":
        """Return the process with this pid (Gaffer's); raise NotFound if it does not exist."""
        process = Process(self, pid)
        process.info()
        return process

    # Templates, the API of 0.4. A template is a job.

    def processes(self) -> list[str]:
        """Return the names of all templates."""
        return self.transport.get("/processes", list[str])

    def running(self) -> list[int]:
        """Return Gaffer's pids of all running processes."""
        return self.transport.get("/processes", list[int], query={"running": "true"})

    def template(self, name: str) -> dict[str, Any]:
        """Return the description of a template, with all its settings."""
        return self.transport.get(self._template_path(name), dict[str, Any])

    def add_process(self, config: Mapping[str, Any], *, start: bool | None = None) -> None:
        """Add a template; raise Conflict if the name already exists."""
        self.transport.order("POST", "/processes", _with_start(config, start))

    def update_process(self, config: Mapping[str, Any], *, start: bool | None = None) -> None:
        """Replace the template that `config` names."""
        self.transport.order("PUT", self._template_path(config.get("name")), _with_start(config, start))

    def save_process(self, config: Mapping[str, Any], *, start: bool | None = None) -> None:
        """Add a template, or replace the existing one with the same name."""
        if self.transport.exists(self._template_path(config.get("name"))):
            self.update_process(config, start=start)
        else:
            self.add_process(config, start=start)

    def remove_process(self, name: str) -> None:
        """Stop and remove a template."""
        self.transport.order("DELETE", self._template_path(name))

    def send_signal(self, name_or_pid: str | int, signal: int | str) -> None:
        """Send a signal, by number or name, to the processes of a template or to one process by its pid."""
        pid = name_or_pid if isinstance(name_or_pid, int) else parse_pid(name_or_pid)
        path = self._template_path(name_or_pid) if pid is None else path_of("processes", pid)
        self.transport.order("POST", path + path_of("_signal", signal))

    # Groups, the name in 0.4 for sessions other than `default`

    def groups(self) -> list[str]:
        """Return the groups that have jobs."""
        return self.transport.get("/groups", list[str])

    def get_group(self, name: str) -> list[str]:
        """Return the jobs of a group, as `group:name`."""
        return self.transport.get(path_of("groups", name), list[str])

    def start_group(self, name: str) -> None:
        """Start all jobs of a group."""
        self.transport.order("POST", path_of("groups", name, "_start"))

    def stop_group(self, name: str) -> None:
        """Stop all jobs of a group."""
        self.transport.order("POST", path_of("groups", name, "_stop"))

    def restart_group(self, name: str) -> None:
        """Restart all jobs of a group."""
        self.transport.order("POST", path_of("groups", name, "_restart"))

    def remove_group(self, name: str) -> None:
        """Stop and remove all jobs of a group."""
        self.transport.order("DELETE", path_of("groups", name))

    # Monitoring

    def stats(self) -> "list[documents.JobStats]":
        """Return CPU and memory usage of all jobs."""
        return self.transport.get("/stats", list[documents.JobStats])

    def get_watcher(
        self,
        pattern: str = ".",
        *,
        heartbeat: float = DEFAULT_HEARTBEAT,
        on_lost: "Lost | None" = None,
        on_open: Callable[[], object] | None = None,
        patient: bool = False,
    ) -> "Watcher":
        """Return a Watcher for the events that match a pattern: `.` for all, `proc.web` for those of a job.

        The node sends a heartbeat every `heartbeat` seconds; after twice that time without data, the connection counts
        as lost. See EventsourceClient for `on_lost`, `on_open` and `patient`.
        """
        from gaffer.streams.event_log import ALL, normal
        from gaffer_client.eventsource import Watcher

        parts = [] if normal(pattern) == ALL else normal(pattern).split(".", 2)
        query = {"feed": "eventsource", "heartbeat": f"{heartbeat:g}"}
        path = with_query(path_of("watch", *parts), query)
        return Watcher.over(
            self.transport,
            path,
            idle_timeout=2 * heartbeat + 1,
            patient=patient,
            on_open=on_open,
            on_lost=on_lost,
        )

    def history(
        self, job: str | None = None, *, since: float | None = None, limit: int = 100, before: int | None = None
    ) -> "documents.HistoryPage":
        """Return who changed what, and what happened to the node and its jobs, newest first.

        `job` is the name of a job or a session; `since` is in seconds since 1970; `limit` is at most 1,000. For older
        entries, pass the `next` of the page as `before`; it is None at the end. Requires the scope `control`.
        """
        asked = {"job": job, "since": since, "limit": limit, "before": before}
        query = {name: str(value) for name, value in asked.items() if value is not None}
        return self.transport.get("/history", documents.HistoryPage, query=query)

    # Keys

    def keys(self) -> "list[documents.KeyInfo]":
        """Return the API keys that grant no more than this client's own key."""
        return self.transport.get("/keys", documents.KeyList)["keys"]

    def create_key(self, scopes: Iterable[str], sessions: Iterable[str] | None = None) -> "documents.NewKey":
        """Create an API key with these scopes (`read`, `control`, `define`), limited to `sessions` if given.

        Raises Forbidden if it would grant more than this client's own key.
        """
        asked = {"scopes": list(scopes), "sessions": list(sessions) if sessions is not None else None}
        return self.transport.decode(self.transport.request("POST", "/keys", document=asked), documents.NewKey)

    def revoke_key(self, identifier: str) -> None:
        """Revoke the API key with this id and close its connections."""
        self.transport.order("DELETE", path_of("keys", identifier))

    def socket(self) -> "GafferSocket":
        """Return a websocket for topics and commands; start it, and close it after use."""
        from gaffer_client.channel import GafferSocket  # imports websockets

        return GafferSocket(self.transport.clone())

    def _job_name(self, name: object, session: str | None = None) -> JobName:
        return checked_job_name(name, self.url, session)

    def _template_path(self, name: object) -> str:
        return path_of("processes", self._job_name(name).display)


def _default_url() -> str:
    from gaffer_client.local import default_url  # imports sockets

    return default_url(os.environ)


def _with_start(config: Mapping[str, Any], start: bool | None) -> dict[str, Any]:
    return dict(config) if start is None else {**config, "start": start}
