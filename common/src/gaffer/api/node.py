"""Base of the node's API: access to the manager, and the restriction of keys to sessions."""

import asyncio
import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, ParamSpec, Protocol, TypeVar

import msgspec
from tornado.web import RequestHandler

from gaffer import Manager, __version__
from gaffer.api.audit import Auditor
from gaffer.api.changes import Changer, Immediately
from gaffer.api.job_index import JobIndex
from gaffer.api.parameters import PARAMETERS
from gaffer.api.response_cache import ResponseCache
from gaffer.errors import BadRequest, ProcessNotFound
from gaffer.http.access import Forbidden, Grant, Policy
from gaffer.http.base import Application, Handler
from gaffer.http.batches import Batches
from gaffer.http.connections import Traffic
from gaffer.http.latencies import Latencies
from gaffer.http.openapi import make_document
from gaffer.http.routes import Match, Route
from gaffer.jobs.names import JobName, check_name, parse_job_name, parse_pid, split_job_name
from gaffer.process import Process, ProcessConfig
from gaffer.schemas.bodies import KeeperState, WebhookState

LookupdStatus = Callable[[], Sequence[Mapping[str, Any]]]
WebhookStatus = Callable[[], Sequence[WebhookState]]
KeeperStatus = Callable[[], KeeperState | None]
T = TypeVar("T")

# Close codes of websockets: RFC 6455 section 7.4.1, and the registry of IANA.
_GOING_AWAY = (1001, "the node is stopping")
_SERVICE_RESTART = (1012, "service restart")

P = ParamSpec("P")


class Lasting(Protocol):
    """A response that lasts as long as its source."""

    finished: asyncio.Future[None]

    def end(self) -> None:
        """Send what is available, then finish."""


class NodeApplication(Application):
    """The API of one node: an Application with a manager and the set of running feeds.

    `changer` makes the changes of jobs. `lookupds` returns the status of the lookup servers for /health, `webhooks`
    that of the webhooks, `keeper` that of the keeper, `lost_history` the number of entries missing from the history.
    `node_name` is the name of the node, if it has one.
    Set `count_connections` to the function that counts the connections for /metrics.
    """

    def __init__(
        self,
        routes: Iterable[Route],
        policy: Policy,
        manager: Manager,
        *,
        changer: Changer | None = None,
        lookupds: LookupdStatus = list,
        webhooks: WebhookStatus = list,
        keeper: KeeperStatus = lambda: None,
        lost_history: Callable[[], int] | None = None,
        node_name: str | None = None,
        extra: Sequence[Any] = (),
        **settings: Any,
    ) -> None:
        super().__init__(routes, policy, extra, **settings)
        self.manager = manager
        self.changer = changer or Immediately()
        self.lookupds = lookupds
        self.webhooks = webhooks
        self.keeper = keeper
        self.lost_history = lost_history
        self.node_name = node_name
        self.response_cache = ResponseCache(manager)
        self.index = JobIndex(manager)
        self.feeds: set[Lasting] = set()
        self.batches = Batches()
        self.latencies = Latencies(self.routes)
        self.count_connections: Callable[[], Traffic] = lambda: Traffic(0, 0, 0)
        self.auditor = Auditor(manager, self.routes)
        self._started = time.monotonic()

    @property
    def uptime(self) -> float:
        """Seconds since the API started."""
        return time.monotonic() - self._started

    def farewell(self, stopping: tuple[int, str] = _GOING_AWAY) -> tuple[int, str]:
        """Return the code and reason with which to close a websocket: `stopping`, or that of a handover."""
        return _SERVICE_RESTART if self.manager.handing_over else stopping

    @functools.cached_property
    def description(self) -> bytes:
        """The OpenAPI document of the API, as JSON."""
        return msgspec.json.encode(
            make_document(self.routes, title="Gaffer node", version=__version__, cookie=self.policy.cookie)
        )

    def audit(self, handler: RequestHandler, *, abandoned: bool) -> None:
        self.auditor.call(handler, abandoned=abandoned)

    def log_request(self, handler: RequestHandler) -> None:
        super().log_request(handler)
        self.latencies.record(handler)

    async def end_feeds(self, timeout: float) -> None:
        """Let every running feed finish its response, for at most `timeout` seconds."""
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
        """Return the session that the route parameters identify, None if there is none."""
        if "sid" in params:
            return params["sid"]
        if "name" in params:
            return split_job_name(params["name"])[0]
        if "pid" in params:
            return find_process(self.manager, params["pid"]).job.session
        return None


class NodeHandler(Handler):
    """A handler of the node's API.

    Of the route parameters, `sid` is a session, `job` the bare name of a job in it, `name` a job name of any form, and
    `pid` the pid that Gaffer assigned to a process.
    """

    application: NodeApplication
    parameters: ClassVar[Mapping[str, Any]] = PARAMETERS

    @property
    def manager(self) -> Manager:
        """The manager of the node."""
        return self.application.manager

    @property
    def sid(self) -> str:
        """The session in the path; raises BadRequest for an invalid name."""
        return check_name(self.params["sid"], "session")

    @property
    def job(self) -> JobName:
        """The name of the job in the path, which need not exist; raises BadRequest for an invalid name."""
        if "name" in self.params:
            return parse_job_name(self.params["name"])
        return JobName(self.sid, check_name(self.params["job"]))

    @property
    def process(self) -> Process:
        """The process in the path; raises BadRequest (`bad_value`) or ProcessNotFound."""
        return find_process(self.manager, self.params["pid"])

    async def change(self, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Change jobs by a method of the manager, and return its result; raise what it raises, and NotStored (507)."""
        return await self.application.changer.change(functools.partial(method, *args, **kwargs))

    def flag(self, name: str) -> bool:
        """Return a query parameter that is `true` or `false`, false by default; raises BadRequest."""
        value = self.get_query_argument(name, "false")
        if value not in ("true", "false", "1", "0"):
            raise BadRequest(f"invalid value {name}={value!r}", reason="bad_value", hint="use true or false")
        return value in ("true", "1")

    def visible(self, names: Iterable[str]) -> list[str]:
        """Return those of the qualified job names that the grant covers."""
        return [name for name in names if self.grant.sees(parse_job_name(name).session)]

    def require_whole_node(self, what: str) -> None:
        """Raise Forbidden for a key that is limited to sessions; `what` affects all, such as `draining affects`."""
        if self.grant.sessions is not None:
            raise Forbidden(
                f"{what} all sessions of the node, but this key is limited to some",
                hint="use a key that is not limited to sessions",
            )

    def replacement(self, body: Mapping[str, Any]) -> ProcessConfig:
        """Return the config in `body` for the job in the path; raises BadRequest if the body names another job."""
        name = self.job
        config = config_for({"name": name.name, **body}, name.session)
        if config.name != name.name:
            raise BadRequest(f"the name {config.name!r} differs from the name {name.name!r} in the path", path="$.name")
        return config

    def done(self, status: int = 200, **extra: Any) -> None:
        """Send `{"ok": true}` with the fields of `extra`."""
        self.reply({"ok": True, **extra}, status)


def find_process(manager: Manager, text: str) -> Process:
    """Return the process with the pid in `text`; raises BadRequest (`bad_value`) or ProcessNotFound."""
    if not (text.isascii() and text.isdecimal()):
        raise BadRequest(f"invalid pid {text!r}", reason="bad_value", hint="use a number listed by /pids")
    pid = parse_pid(text)
    if pid is None:
        raise ProcessNotFound(f"there is no process {text}")
    return manager.get_process(pid)


def config_for(body: Mapping[str, Any], session: str, *, path: str = "$") -> ProcessConfig:
    """Return the config in `body` with its bare name; raises BadRequest if the body names another session."""
    config = ProcessConfig.from_dict(body, path=path)
    name = parse_job_name(config.name, session)
    if name.session != session:
        raise BadRequest(f"the job {name} is not in the session {session!r}", path=f"{path}.name")
    return config.replace(name=name.name)
