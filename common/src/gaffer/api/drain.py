"""`/drain`: takes the node out of service and puts it back, see gaffer.supervision.lifecycle."""

from gaffer.api.node import NodeHandler
from gaffer.http.access import Forbidden, Scope
from gaffer.http.operations import operation
from gaffer.http.routes import Route
from gaffer.schemas.bodies import DrainState


class DrainHandler(NodeHandler):
    """The node's being out of service."""

    @operation(DrainState)
    def get(self) -> None:
        """`{"draining", "drained", "processes"}`.

        Whether the node is out of service, whether it got so far that nothing runs any more, and how many processes
        have not ended.
        """
        self._answer(200)

    @operation(DrainState, status=202, errors=(Forbidden,))
    def post(self) -> None:
        """Take the node out of service, and answer 202 as GET does.

        Lookups are told first. Then the processes end, those of the last loaded job first, each after the
        `drain_timeout` of its job. Jobs keep what is desired of them, and wait; what is loaded or started meanwhile
        waits too. It needs a key that is not limited to some sessions, and lasts until it is undone or gafferd starts
        again.
        """
        self._require_whole_node()
        self.manager.drain()
        self._answer(202)

    @operation(DrainState, status=202, errors=(Forbidden,))
    def delete(self) -> None:
        """Put the node back into service, and answer 202 as GET does: its jobs start again."""
        self._require_whole_node()
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

    def _require_whole_node(self) -> None:
        if self.grant.sessions is not None:
            raise Forbidden(
                "this is about all jobs of the node, and this key is for some sessions only",
                hint="use a key without a limit to sessions",
            )


ROUTES = [Route("/drain", DrainHandler, {"GET": Scope.READ, "POST": Scope.CONTROL, "DELETE": Scope.CONTROL})]
