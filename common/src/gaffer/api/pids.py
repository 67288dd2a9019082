"""Processes by the pid that Gaffer assigned."""

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
        """Return `{"pids": [...]}`."""
        processes = self.manager.running.items()
        self.reply({"pids": [pid for pid, process in processes if self.grant.sees(process.job.session)]})


class PidHandler(NodeHandler):
    """One process."""

    @operation(responses.ProcessInfo)
    def get(self) -> None:
        """Return the process: `pid`, `os_pid`, `name`, its command, `create_time`, `committed`, `active` and more.

        Without the scope `define` the values of `env` are null.
        """
        self.reply(self.grant.shown(self.process.info))

    @operation(Done, status=202)
    def delete(self) -> None:
        """Stop the process, which its job then replaces. Returns 202."""
        self.manager.stop_process(self.process.pid)
        self.done(202)


class PidSignalHandler(NodeHandler):
    """Signals for a process."""

    @operation(Done, status=202, body=SignalBody)
    def post(self) -> None:
        """Send a signal: `{"signal": n}` with a number or a name. Returns 202."""
        self.manager.kill(self.process.pid, self.body_as(SignalBody).signal)
        self.done(202)


class PidStatsHandler(NodeHandler):
    """Resource usage of a process."""

    @operation(OneProcessStats)
    async def get(self) -> None:
        """Return `{"stats": {...}}`."""
        process = self.process
        [answer] = await self.application.batches.run(lambda: stats.measuring([process]))
        self.reply({"stats": answer})


ROUTES = [
    Route("/pids", PidsHandler, {"GET": Scope.READ}),
    Route("/{pid:digits}", PidHandler, {"GET": Scope.READ, "DELETE": Scope.CONTROL}),
    Route("/{pid:digits}/signal", PidSignalHandler, {"POST": Scope.CONTROL}),
    Route("/{pid:digits}/stats", PidStatsHandler, {"GET": Scope.READ}),
]
