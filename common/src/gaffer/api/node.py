"""What the handlers of the node's API have in common: the manager, and the limits of a key to some sessions."""

import asyncio
import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import msgspec
from tornado.web import RequestHandler

from gaffer import Manager, __version__
from gaffer.api.parameters import PARAMETERS
from gaffer.api.response_cache import ResponseCache
from gaffer.errors import BadRequest, ProcessNotFound
from gaffer.http.access import Grant, Policy
from gaffer.http.base import Application, Handler
from gaffer.http.batches import Batches
from gaffer.http.connections import Traffic
from gaffer.http.latencies import Latencies
from gaffer.http.openapi import make_document
from gaffer.http.routes import Match, Route
from gaffer.jobs.names import JobName, check_name, parse_job_name, parse_pid, split_job_name
from gaffer.process import Process, ProcessConfig

LookupdStatus = Callable[[], Sequence[Mapping[str, Any]]]


class Lasting(Protocol):
    """An answer that goes on until what it tells of has ended."""

    finished: asyncio.Future[None]

    def end(self) -> None:
        """Send what is there, then finish."""


class NodeApplication(Application):
    """The API of one node: an Application that knows its manager and keeps the feeds that are running.

    `lookupds` tells, for /health, the lookup servers the node announces itself to; `count_connections` is to be
    set where there are some.
    """

    def __init__(
        self,
        routes: Iterable[Route],
        policy: Policy,
        manager: Manager,
        *,
        lookupds: LookupdStatus = list,
        extra: Sequence[Any] = (),
        **settings: Any,
    ) -> None:
        super().__init__(routes, policy, extra, **settings)
        self.manager = manager
        self.lookupds = lookupds
        self.answers = ResponseCache(manager)
        self.feeds: set[Lasting] = set()
        self.slices = Batches()
        self.latencies = Latencies(self.routes)
        self.count_connections: Callable[[], Traffic] = lambda: Traffic(0, 0, 0)
        self._started = time.monotonic()

    @property
    def uptime(self) -> float:
        """Seconds since the API began to answer."""
        return time.monotonic() - self._started

    @functools.cached_property
    def description(self) -> bytes:
        """The OpenAPI document of the API, as JSON."""
        return msgspec.json.encode(
            make_document(self.routes, title="Gaffer node", version=__version__, cookie=self.policy.cookie)
        )

    def log_request(self, handler: RequestHandler) -> None:
        super().log_request(handler)
        self.latencies.record(handler)

    async def end_feeds(self, timeout: float) -> None:
        """Let every running feed finish its answer, for at most `timeout` seconds."""
        feeds = tuple(self.feeds)
        for feed in feeds:
            feed.end()
        if feeds:
            await asyncio.wait([feed.finished for feed in feeds], timeout=timeout)

    def authorize(self, match: Match, method: str, grant: Grant) -> None:
        super().authorize(match, method, grant)
        if grant.sessions is not None:
            session = self._session_of(match.params)
            if session is not None:
                grant.require_session(session)

    def _session_of(self, params: Mapping[str, str]) -> str | None:
        """The session a request is about, by the parameters of its route; None when it names none."""
        if "sid" in params:
            return params["sid"]
        if "name" in params:
            return split_job_name(params["name"])[0]
        if "pid" in params:
            return find_process(self.manager, params["pid"]).job.session
        return None


class NodeHandler(Handler):
    """A handler of the node's API. Its route's parameters mean `sid` a session, `job` a bare job name in it,
    `name` a job name of any form, `pid` an internal process id.
    """

    application: NodeApplication
    parameters: ClassVar[Mapping[str, Any]] = PARAMETERS

    @property
    def manager(self) -> Manager:
        """The manager that the request is about."""
        return self.application.manager

    @property
    def sid(self) -> str:
        """The session of the path; raises BadRequest when it can't be one."""
        return check_name(self.params["sid"], "session")

    @property
    def job(self) -> JobName:
        """The job of the path, which may not exist; raises BadRequest when it can't be one."""
        if "name" in self.params:
            return parse_job_name(self.params["name"])
        return JobName(self.sid, check_name(self.params["job"]))

    @property
    def process(self) -> Process:
        """The process of the path; raises BadRequest (`bad_value`) or ProcessNotFound."""
        return find_process(self.manager, self.params["pid"])

    def visible(self, names: Iterable[str]) -> list[str]:
        """Those of the qualified job names that the caller's key is for."""
        return [name for name in names if self.grant.sees(parse_job_name(name).session)]

    def replacement(self, body: Mapping[str, Any]) -> ProcessConfig:
        """The process description in `body` for the job of the path; raises BadRequest when it names another one."""
        name = self.job
        config = config_for({"name": name.name, **body}, name.session)
        if config.name != name.name:
            raise BadRequest(f"the body describes {config.name!r}, the path {name.name!r}", path="$.name")
        return config

    def done(self, status: int = 200, **extra: Any) -> None:
        """Answer that the command was taken."""
        self.reply({"ok": True, **extra}, status)


def find_process(manager: Manager, text: str) -> Process:
    """The process whose id `text` spells; raises BadRequest (`bad_value`) or ProcessNotFound."""
    if not (text.isascii() and text.isdecimal()):
        raise BadRequest(f"{text!r} is not a process id", reason="bad_value", hint="process ids are numbers, see /pids")
    pid = parse_pid(text)
    if pid is None:
        raise ProcessNotFound(f"there is no process {text}")
    return manager.get_process(pid)


def config_for(body: Mapping[str, Any], session: str, *, path: str = "$") -> ProcessConfig:
    """The process description in `body`, its name made bare; raises BadRequest when it names another session."""
    config = ProcessConfig.from_dict(body, path=path)
    name = parse_job_name(config.name, session)
    if name.session != session:
        raise BadRequest(f"the job {name} is not of the session {session!r}", path=f"{path}.name")
    return config.replace(name=name.name)
