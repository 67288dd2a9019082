"""The HTTP route of the usage history (`/jobs/{sid}/{job}/usage`)."""

from typing import cast

from gaffer.api.node import NodeHandler
from gaffer.http.access import Scope
from gaffer.http.base import NotFound
from gaffer.http.operations import operation
from gaffer.http.routes import Route
from gaffer.schemas.usage import JobUsage
from gafferd.usage.recorder import UsageRecorder


class UsageHandler(NodeHandler):
    """What the processes of a job used in the last hour."""

    @operation(JobUsage)
    async def get(self) -> None:
        """Return what each process of the job used, as it was measured at intervals, oldest first.

        gafferd measures every `usage_interval` seconds, 10 by default, and keeps 360 samples of each slot in memory
        while it runs. `at` has their times; `cpu`, `memory` and `restarts` have a value for each, null where the slot
        had no process. A process is measured without its descendants; of several that run once (slot 0) there are the
        sums. Returns 404 (`no_usage`) if `usage_history` is off.
        """
        name = self.job
        self.manager.get(name)
        recorder = cast(UsageRecorder | None, self.settings["usage"])
        if recorder is None:
            raise NotFound(
                "this node keeps no usage history", reason="no_usage", hint="set `usage_history = true` in [gaffer]"
            )
        self.reply(recorder.of(name))


ROUTES = [Route("/jobs/{sid}/{job}/usage", UsageHandler, {"GET": Scope.READ})]
