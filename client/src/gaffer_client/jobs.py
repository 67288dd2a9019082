"""`Job`: a job on a node."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import UNSET

from gaffer.jobs.names import JobName
from gaffer.schemas.bodies import NewPid, PidList, ProcessCount
from gaffer.schemas.stats import JobStats
from gaffer_client.naming import checked_job_name
from gaffer_client.transport import path_of

if TYPE_CHECKING:
    from gaffer.schemas.responses import JobInfo, JobStatus
    from gaffer_client.node import Server


class Job:
    """A job on a node. Each property and method sends a request."""

    def __init__(self, server: "Server", name: str | JobName) -> None:
        parsed = checked_job_name(name, server.url)
        self.server = server
        self.name = str(parsed)
        self._path = path_of("jobs", *parsed)
        self._template_path = path_of("processes", parsed.display)

    def __repr__(self) -> str:
        return f"Job({self.server.url!r}, {self.name!r})"

    def info(self) -> "JobInfo":
        """Return the configuration and state of the job."""
        from gaffer.schemas.responses import JobInfo  # imports the settings of jobs

        return self.server.transport.get(self._path, JobInfo)

    def status(self) -> "JobStatus":
        """Return a summary: whether the job is active, and its numbers of processes."""
        from gaffer.schemas.responses import JobStatus

        return self.server.transport.get(path_of("status", self.name), JobStatus)

    def stats(self) -> JobStats:
        """Return CPU and memory usage, in total and per process."""
        return self.server.transport.get(self._path + "/stats", JobStats)

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
        answer = self.server.transport.get(self._path + "/numprocesses", ProcessCount)
        return answer["numprocesses"]

    @property
    def pids(self) -> list[int]:
        """Gaffer's pids of the processes of the job."""
        return self.server.transport.get(self._path + "/pids", PidList)["pids"]

    def start(self) -> None:
        """Start the job if it is not started."""
        self._set_state(b"1")

    def stop(self) -> None:
        """Stop the job and all its processes."""
        self._set_state(b"0")

    def restart(self) -> None:
        """Restart the job: replace its processes."""
        self._set_state(b"2")

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
        return self.server.transport.decode(answer, NewPid)["pid"]

    def kill(self, signal: int | str) -> None:
        """Send a signal, by number or name, to all processes of the job."""
        self.server.transport.order("POST", self._path + "/signal", {"signal": signal})

    signal = kill

    def _set_state(self, state: bytes) -> None:
        self.server.transport.order("POST", self._path + "/state", body=state)

    def _set_number(self, path: str, document: object = UNSET) -> int:
        transport = self.server.transport
        answer = transport.request("POST", path, document=document)
        return transport.decode(answer, ProcessCount)["numprocesses"]
