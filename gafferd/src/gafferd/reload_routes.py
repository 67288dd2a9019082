"""The HTTP route of the configuration file of the node (`/reload`)."""

from typing import Annotated, cast

import msgspec

from gaffer.api.node import NodeHandler
from gaffer.api.rollouts import Flag
from gaffer.errors import ConfigError
from gaffer.http.access import Forbidden, Scope
from gaffer.http.operations import operation
from gaffer.http.routes import Route
from gaffer.schemas.reload import ReloadResult, ReloadState
from gafferd.reloader import NoConfigFile, ReadTimeout, Reloader, noted


class ReloadQuery(msgspec.Struct):
    """How to reload."""

    dry_run: Annotated[Flag, msgspec.Meta(description="`true`: change nothing, and return what would change.")] = (
        "false"
    )


class ReloadHandler(NodeHandler):
    """The configuration file of the node."""

    @property
    def reloader(self) -> Reloader:
        """The reloader of the node."""
        return cast(Reloader, self.settings["reloader"])

    @operation(ReloadState)
    def get(self) -> None:
        """Return the outcome of the last reload, by SIGHUP or POST, as `{"path", "applied_at", "error", "problems",
        "failed", "restart_required"}`. Requires a key that is not limited to some sessions.
        """
        self.require_whole_node("a reload affects")
        self.reply(self.reloader.state)

    @operation(ReloadResult, query=ReloadQuery, errors=(ConfigError, Forbidden, NoConfigFile, ReadTimeout))
    async def post(self) -> None:
        """Read the configuration file again and apply the differences, as on SIGHUP.

        Jobs that the file leaves unchanged keep their processes. A change that can't be applied is listed in `failed`,
        and the others are applied. An invalid file changes nothing: 400 with all mistakes in `problems`, the `path` of
        each is `FILE:LINE`. 409 `no_config_file` if gafferd runs without a file. With `dry_run=true`, `changes` lists
        what would be tried. Requires a key that is not limited to some sessions.
        """
        self.require_whole_node("a reload affects")
        result = await self.reloader.reload(dry_run=self.flag("dry_run"))
        self.noted.update(noted(result))
        self.reply(result)


ROUTES = [Route("/reload", ReloadHandler, {"GET": Scope.READ, "POST": Scope.DEFINE})]
