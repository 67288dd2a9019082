"""Resource usage of jobs and processes, once or as a feed."""

from collections.abc import Generator
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from gaffer.api.feed_handler import FeedHandler
from gaffer.api.node import NodeHandler
from gaffer.errors import ProcessNotFound
from gaffer.http.access import Scope
from gaffer.http.feed_formats import Messages
from gaffer.http.feeds import KINDS, FeedQuery, Heartbeat
from gaffer.http.operations import EVENTS, JSON, operation
from gaffer.http.routes import Route
from gaffer.jobs.names import JobName
from gaffer.processes import stats
from gaffer.processes.sampler import EVENT
from gaffer.schemas.stats import JobStats, ProcessStats
from gaffer.streams.rings import Log

NORMAL: Final = "normal"

KEPT = 256  # messages queued for a slow client, which loses the oldest ones


class StatsQuery(msgspec.Struct):
    """How to return the stats."""

    feed: Annotated[
        Literal["normal", "longpoll", "continuous", "eventsource"],
        Meta(description="`normal`: the stats once; `longpoll`: one message; `continuous`, `eventsource`: a stream."),
    ] = NORMAL
    heartbeat: Heartbeat = "true"


class AllStatsHandler(NodeHandler):
    """Resource usage of all jobs."""

    @operation(list[JobStats])
    async def get(self) -> None:
        """Return a list with the stats of each job."""
        self.reply(
            await self.application.batches.run(lambda: self.manager.measuring(self.visible(self.manager.jobs())))
        )


class StatsHandler(FeedHandler):
    """Base of handlers that send stats as a feed."""

    async def follow_stats(self, query: FeedQuery, target: JobName | int) -> None:
        """Send the stats of the processes of a job, or of one process, ten times a second for each."""
        log: Log[dict[str, Any]] = Log(KEPT)

        def on_stats(event: str, message: dict[str, Any]) -> None:
            log.append(message)

        self.manager.monitor(on_stats, target, ended=log.close)
        try:
            await self.follow(query, log, 0, Messages(_named), resumable=False)
        finally:
            self.manager.unmonitor(on_stats, target)


class StatsOfJobHandler(StatsHandler):
    """Resource usage of a job."""

    @operation((JobStats, ProcessStats), query=StatsQuery, media=(JSON, EVENTS))
    async def get(self) -> None:
        """Return the stats of the job's processes and their sums, once or as a feed.

        A feed sends the stats of each process ten times a second, as a line of JSON or an event `STATS`, until the job
        is unloaded. A slow client gets the newest ones after `{"event": "gap", "from", "to"}`.
        """
        query, job = _query(self), self.job
        if query.kind == NORMAL:
            self.finish(await self.application.batches.run(lambda: self._measuring(job)))
        else:
            await self.follow_stats(query, job)

    def _measuring(self, job: JobName) -> Generator[None, None, bytes]:
        # Another request may have computed the same while this one waited for its turn.
        cache, key = self.application.response_cache, ("stats", job)
        answer = cache.find(key)
        if answer is None:
            [found] = yield from self.manager.measuring([job])
            answer = cache.keep(key, found)
        return answer


class StatsOfProcessHandler(StatsHandler):
    """Resource usage of a process."""

    @operation(ProcessStats, query=StatsQuery, media=(JSON, EVENTS))
    async def get(self) -> None:
        """Return the stats of one process of the job once, or as a feed ten times a second until it exits."""
        query, process = _query(self), self.process
        if process.job != self.job:
            raise ProcessNotFound(f"process {process.pid} does not belong to the job {self.job}")
        if query.kind == NORMAL:
            [answer] = await self.application.batches.run(lambda: stats.measuring([process]))
            self.reply(answer)
        else:
            await self.follow_stats(query, process.pid)


def _query(handler: FeedHandler) -> FeedQuery:
    return FeedQuery.of(handler, (NORMAL, *KINDS), past=False)


def _named(message: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return EVENT, message


_METHODS = {"GET": Scope.READ}

ROUTES = [
    Route("/stats", AllStatsHandler, _METHODS),
    Route("/stats/{name}", StatsOfJobHandler, _METHODS),
    Route("/stats/{name}/{pid}", StatsOfProcessHandler, _METHODS),
]
