"""Processes by their internal id: R-56 to R-61."""

from gaffer.http.access import Scope
from gaffer.http.jobs import SignalBody
from gaffer.http.node import NodeHandler
from gaffer.http.routes import Route


class Pids(NodeHandler):
    """All processes."""

    def get(self) -> None:
        """`{"pids": [...]}`."""
        processes = self.manager.running.items()
        self.reply({"pids": [pid for pid, process in processes if self.grant.sees(process.job.session)]})


class Pid(NodeHandler):
    """One process."""

    def get(self) -> None:
        """The process: `pid`, `os_pid`, `name`, its command, `create_time`, `committed`, `active` and more."""
        self.reply(self.process.info)

    def delete(self) -> None:
        """Stop the process; its job starts another one. Answers 202."""
        self.manager.stop_process(self.process.pid)
        self.done(202)


class PidSignal(NodeHandler):
    """Signals for a process."""

    def post(self) -> None:
        """`{"signal": n}` with a number or a name. Answers 202."""
        self.manager.kill(self.process.pid, self.body_as(SignalBody).signal)
        self.done(202)


class PidStats(NodeHandler):
    """What a process uses."""

    def get(self) -> None:
        """`{"stats": {...}}`."""
        self.reply({"stats": self.process.stats})


ROUTES = [
    Route("/pids", Pids, {"GET": Scope.READ}),
    Route("/{pid:digits}", Pid, {"GET": Scope.READ, "DELETE": Scope.CONTROL}),
    Route("/{pid:digits}/signal", PidSignal, {"POST": Scope.CONTROL}),
    Route("/{pid:digits}/stats", PidStats, {"GET": Scope.READ}),
]
