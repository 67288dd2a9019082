"""Processes by their internal id: R-56 to R-61."""

from gaffer.http.access import Scope
from gaffer.http.jobs import SignalBody
from gaffer.http.node import NodeHandler
from gaffer.http.routes import Route


class Pids(NodeHandler):
    """R-56."""

    def get(self) -> None:
        processes = self.manager.running.items()
        self.reply({"pids": [pid for pid, process in processes if self.grant.sees(process.job.session)]})


class Pid(NodeHandler):
    """R-57 to R-59: `DELETE` stops the process; its job starts another one."""

    def get(self) -> None:
        self.reply(self.process.info)

    def delete(self) -> None:
        self.manager.stop_process(self.process.pid)
        self.done(202)


class PidSignal(NodeHandler):
    """R-60."""

    def post(self) -> None:
        self.manager.kill(self.process.pid, self.body_as(SignalBody).signal)
        self.done(202)


class PidStats(NodeHandler):
    """R-61."""

    def get(self) -> None:
        self.reply({"stats": self.process.stats})


ROUTES = [
    Route("/pids", Pids, {"GET": Scope.READ}),
    Route("/{pid:digits}", Pid, {"GET": Scope.READ, "DELETE": Scope.CONTROL}),
    Route("/{pid:digits}/signal", PidSignal, {"POST": Scope.CONTROL}),
    Route("/{pid:digits}/stats", PidStats, {"GET": Scope.READ}),
]
