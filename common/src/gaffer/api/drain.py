"""Draining: taking the node out of service and returning it to service."""

from gaffer.api.node import NodeHandler
from gaffer.http.access import Forbidden, Scope
from gaffer.http.operations import operation
from gaffer.http.routes import Route
from gaffer.schemas.bodies import DrainState


class DrainHandler(NodeHandler):
    """Taking the node out of service."""

    @operation(DrainState)
    def get(self) -> None:
        """Return `{"draining", "drained", "processes"}`.

        `draining` is true while the node is out of service, `drained` once all of its processes have also exited, and
        `processes` is the number of those that are still running.
        """
        self._answer(200)

    @operation(DrainState, status=202, errors=(Forbidden,))
    def post(self) -> None:
        """Take the node out of service; return 202 and the same body as GET.

        The lookup servers are notified first. Then the processes are stopped, starting with those of the job loaded
        last, each after the `drain_timeout` of its job. Jobs keep their desired state, and start no processes until the
        node is in service again; the same is true for jobs that are loaded or started while it drains. The node stays
        out of service until DELETE or a restart of gafferd. Requires a key that is not limited to some sessions.
        """
        self.require_whole_node("draining affects")
        self.manager.drain()
        self._answer(202)

    @operation(DrainState, status=202, errors=(Forbidden,))
    def delete(self) -> None:
        """Return the node to service, so that its jobs start again; return 202 and the same body as GET."""
        self.require_whole_node("draining affects")
        self.manager.resume()
        self._answer(202)

    def _answer(self, status: int) -> None:
        manager = self.manager
        state: DrainState = {
            "draining": manager.draining,
            "drained": manager.drained,
            "processes": len(manager.running),
        }
        self.reply(state, status)


ROUTES = [Route("/drain", DrainHandler, {"GET": Scope.READ, "POST": Scope.CONTROL, "DELETE": Scope.CONTROL})]
