"""Groups: the sessions except `default`, under the name they had in version 0.4."""

from gaffer.api.node import NodeHandler
from gaffer.api.processes import UnknownResourceHandler
from gaffer.errors import NotStored, ProcessNotFound
from gaffer.http.access import Scope
from gaffer.http.operations import operation
from gaffer.http.routes import Route
from gaffer.jobs.names import DEFAULT_SESSION, parse_job_name
from gaffer.schemas.common import Done


class GroupsHandler(NodeHandler):
    """All groups."""

    @operation(list[str])
    def get(self) -> None:
        """Return the names of the groups that have jobs."""
        sessions = self.manager.sessions
        self.reply([each for each in sessions if each != DEFAULT_SESSION and self.grant.sees(each)])


class BaseGroupHandler(NodeHandler):
    """Base of handlers for one group."""

    @property
    def group(self) -> str:
        """The group in the path; raises BadRequest (`bad_name`) for an invalid name, ProcessNotFound for `default`."""
        group = self.sid
        if group == DEFAULT_SESSION:
            raise ProcessNotFound("the session `default` is not a group", hint="use /jobs/default")
        return group


class GroupHandler(BaseGroupHandler):
    """One group."""

    @operation(list[str])
    def get(self) -> None:
        """Return the jobs of the group as `group:name`."""
        group = self.group
        self.reply([f"{group}:{parse_job_name(name).name}" for name in self.manager.jobs(group)])

    @operation(Done, errors=(NotStored,))
    async def delete(self) -> None:
        """Stop and remove all jobs of the group."""
        await self.change(self.manager.remove_group, self.group)
        self.done()


class GroupStartHandler(BaseGroupHandler):
    """Starting a group."""

    @operation(Done, errors=(NotStored,))
    async def post(self) -> None:
        """Start all jobs of the group."""
        await self.change(self.manager.start_group, self.group)
        self.done()


class GroupStopHandler(BaseGroupHandler):
    """Stopping a group."""

    @operation(Done, errors=(NotStored,))
    async def post(self) -> None:
        """Stop all jobs of the group."""
        await self.change(self.manager.stop_group, self.group)
        self.done()


class GroupRestartHandler(BaseGroupHandler):
    """Restarting a group."""

    @operation(Done, errors=(NotStored,))
    async def post(self) -> None:
        """Replace all processes of the group's jobs, resetting their numbers to the configured ones."""
        await self.change(self.manager.restart_group, self.group)
        self.done()


class UnknownOfGroupHandler(UnknownResourceHandler):
    """Unknown resources of a group."""


_CONTROL = {"POST": Scope.CONTROL}
_ANY_METHOD = dict.fromkeys(("GET", "POST", "PUT", "DELETE"), Scope.READ)

ROUTES = [
    Route("/groups", GroupsHandler, {"GET": Scope.READ}),
    Route("/groups/{sid}", GroupHandler, {"GET": Scope.READ, "DELETE": Scope.DEFINE}),
    Route("/groups/{sid}/_start", GroupStartHandler, _CONTROL),
    Route("/groups/{sid}/_stop", GroupStopHandler, _CONTROL),
    Route("/groups/{sid}/_restart", GroupRestartHandler, _CONTROL),
    Route(
        "/groups/{sid}/{resource}", UnknownOfGroupHandler, dict.fromkeys(("GET", "POST", "PUT", "DELETE"), Scope.READ)
    ),
]
