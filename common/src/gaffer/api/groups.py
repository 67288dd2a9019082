"""Groups, the name that version 0.4 had for sessions: R-29 to R-32. Session `default` is none of them."""

from gaffer.api.node import NodeHandler
from gaffer.api.processes import UnknownResource
from gaffer.errors import ProcessNotFound
from gaffer.http.access import Scope
from gaffer.http.operations import operation
from gaffer.http.routes import Route
from gaffer.jobs.names import DEFAULT_SESSION, parse_job_name
from gaffer.schemas.bodies import Done


class Groups(NodeHandler):
    """All groups."""

    @operation(list[str])
    def get(self) -> None:
        """The names of the groups that have jobs."""
        sessions = self.manager.sessions
        self.reply([each for each in sessions if each != DEFAULT_SESSION and self.grant.sees(each)])


class GroupHandler(NodeHandler):
    """A handler for one group."""

    @property
    def group(self) -> str:
        """The group of the path; raises BadRequest (`bad_name`) when it can't be one, ProcessNotFound for `default`."""
        group = self.sid
        if group == DEFAULT_SESSION:
            raise ProcessNotFound("the jobs of session `default` are in no group", hint="see /jobs/default")
        return group


class Group(GroupHandler):
    """One group."""

    @operation(list[str])
    def get(self) -> None:
        """The jobs of the group, as `group:name`."""
        group = self.group
        self.reply([f"{group}:{parse_job_name(name).name}" for name in self.manager.jobs(group)])

    @operation(Done)
    def delete(self) -> None:
        """Stop and forget all jobs of the group."""
        self.manager.remove_group(self.group)
        self.done()


class GroupStart(GroupHandler):
    """Starting a group."""

    @operation(Done)
    def post(self) -> None:
        """Start all jobs of the group."""
        self.manager.start_group(self.group)
        self.done()


class GroupStop(GroupHandler):
    """Stopping a group."""

    @operation(Done)
    def post(self) -> None:
        """Stop all jobs of the group."""
        self.manager.stop_group(self.group)
        self.done()


class GroupRestart(GroupHandler):
    """Restarting a group."""

    @operation(Done)
    def post(self) -> None:
        """Replace all processes of the group's jobs, as many as configured."""
        self.manager.restart_group(self.group)
        self.done()


class UnknownOfGroup(UnknownResource):
    """Anything else of a group."""


_CONTROL = {"POST": Scope.CONTROL}

ROUTES = [
    Route("/groups", Groups, {"GET": Scope.READ}),
    Route("/groups/{sid}", Group, {"GET": Scope.READ, "DELETE": Scope.DEFINE}),
    Route("/groups/{sid}/_start", GroupStart, _CONTROL),
    Route("/groups/{sid}/_stop", GroupStop, _CONTROL),
    Route("/groups/{sid}/_restart", GroupRestart, _CONTROL),
    Route("/groups/{sid}/{resource}", UnknownOfGroup, dict.fromkeys(("GET", "POST", "PUT", "DELETE"), Scope.READ)),
]
