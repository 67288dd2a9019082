"""The HTTP route that starts the program on disk in place of this gafferd (`/upgrade`)."""

from typing import Annotated, cast

import msgspec

from gaffer.api.node import NodeHandler
from gaffer.api.rollouts import Flag
from gaffer.errors import NotStored
from gaffer.http.access import Forbidden, Scope
from gaffer.http.operations import operation
from gaffer.http.routes import Route
from gaffer.schemas.upgrade import UpgradeStarted
from gafferd.upgrader import CheckFailed, NoKeeper, UpgradeInProgress, Upgrader


class UpgradeQuery(msgspec.Struct):
    """How to upgrade."""

    force: Annotated[Flag, msgspec.Meta(description="`true`: do not check whether the program on disk can start.")] = (
        "false"
    )


class UpgradeHandler(NodeHandler):
    """The replacement of gafferd."""

    @operation(
        UpgradeStarted,
        status=202,
        query=UpgradeQuery,
        errors=(CheckFailed, Forbidden, NoKeeper, NotStored, UpgradeInProgress),
    )
    async def post(self) -> None:
        """Start the program on disk in place of this gafferd, as on SIGUSR2; all processes keep running.

        First, `gafferd --check-config` is run with the arguments of this gafferd, which shows whether the program on
        disk starts and accepts the configuration: 409 `check_failed` with its output if it does not. Then the response
        is sent, feeds end, websockets are closed with code 1012, and gafferd exits. The next one continues with its
        processes and sockets, and connections wait until then. GET /health shows its `pid`. 409 `no_keeper` if no
        keeper would start the next one. Requires a key that is not limited to some sessions.
        """
        self.require_whole_node("an upgrade affects")
        upgrader = cast(Upgrader, self.settings["upgrader"])
        started = await upgrader.prepare(force=self.flag("force"))
        self.noted.update(started)
        self.reply(started, 202)
        upgrader.go()


ROUTES = [Route("/upgrade", UpgradeHandler, {"POST": Scope.DEFINE})]
