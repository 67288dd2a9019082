"""Processes by their internal id: R-56 to R-61."""

from gaffer.api.node import NodeHandler
from gaffer.http.access import Scope
from gaffer.http.operations import operation
from gaffer.http.routes import Route
from gaffer.processes import stats
from gaffer.schemas import responses
from gaffer.schemas.bodies import PidList, SignalBody
from gaffer.schemas.common import Done
from gaffer.schemas.stats import OneProcessStats


class PidsHandler(NodeHandler):
    """All processes."""

    @operation(PidList)
    def get(self) -> None:
        """`{"pids": [...]}`."""
        processes = self.manager.running.items()
        self.reply({"pids": [pid for pid, process in processes if self.grant.sees(process.job.session)]})


class PidHandler(NodeHandler):
    """One process."""

    @operation(responses.ProcessInfo)
    def get(self) -> None:
        """The process: `pid`, `os_pid`, `name`, its command, `create_time`, `committed`, `active` and more.

        Without `define` the values of `env` are null.
        """
        self.reply(self.grant.shown(self.process.info))

    @operation(Done, status=202)
    def delete(self) -> None:
        """Stop the process; its job starts another one. Answers 202."""
        self.manager.stop_process(self.process.pid)
        self.done(202)


class PidSignalHandler(NodeHandler):
    """Signals for a process."""

    @operation(Done, status=202, body=SignalBody)
    def post(self) -> None:
        """`{"signal": n}` with a number or a name. Answers 202."""
        self.manager.kill(self.process.pid, self.body_as(SignalBody).signal)
        self.done(202)


class PidStatsHandler(NodeHandler):
    """What a process uses."""

    @operation(OneProcessStats)
    async def get(self) -> None:
        """`{"stats": {...}}`."""
        process = self.process
        [answer] = await self.application.slices.run(lambda: stats.measuring([process]))
        self.reply({"stats": answer})


ROUTES = [
    Route("/pids", PidsHandler, {"GET": Scope.READ}),
    Route("/{pid:digits}", PidHandler, {"GET": Scope.READ, "DELETE": Scope.CONTROL}),
    Route("/{pid:digits}/signal", PidSignalHandler, {"POST": Scope.CONTROL}),
    Route("/{pid:digits}/stats", PidStatsHandler, {"GET": Scope.READ}),
]
