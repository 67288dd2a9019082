"""What jobs and processes use, once or as it changes: R-74, R-75, R-76."""

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

KEPT = 256  # messages that wait for a slow client; then it gets the newest


class StatsQuery(msgspec.Struct):
    """Whether to answer once or to follow."""

    feed: Annotated[
        Literal["normal", "longpoll", "continuous", "eventsource"],
        Meta(description="Once; the next message; all that come; all that come as server-sent events."),
    ] = NORMAL
    heartbeat: Heartbeat = "true"


class AllStatsHandler(NodeHandler):
    """What all jobs use."""

    @operation(list[JobStats])
    async def get(self) -> None:
        """The stats of each job, as a list."""
        self.reply(await self.application.slices.run(lambda: self.manager.measuring(self.visible(self.manager.jobs()))))


class StatsHandler(FeedHandler):
    """A handler that tells stats as they change."""

    async def follow_stats(self, query: FeedQuery, target: JobName | int) -> None:
        """Answer with the messages of the stats of a job's processes or of one process, ten a second from each."""
        log: Log[dict[str, Any]] = Log(KEPT)

        def on_stats(event: str, message: dict[str, Any]) -> None:
            log.append(message)

        self.manager.monitor(on_stats, target, ended=log.close)
        try:
            await self.follow(query, log, 0, Messages(_named), resumable=False)
        finally:
            self.manager.unmonitor(on_stats, target)


class StatsOfJobHandler(StatsHandler):
    """What a job uses."""

    @operation((JobStats, ProcessStats), query=StatsQuery, media=(JSON, EVENTS))
    async def get(self) -> None:
        """The stats of the job's processes and their sums, once.

        As a feed: the stats of one process each, a line of JSON or an event `STATS`, ten times a second, until the job
        is unloaded. A client that is slow gets the newest, after `{"event": "gap", "from", "to"}`.
        """
        query, job = _query(self), self.job
        if query.kind == NORMAL:
            self.finish(await self.application.slices.run(lambda: self._measuring(job)))
        else:
            await self.follow_stats(query, job)

    def _measuring(self, job: JobName) -> Generator[None, None, bytes]:
        # Others may have asked for the same while this waited for its turn.
        answers, key = self.application.answers, ("stats", job)
        answer = answers.find(key)
        if answer is None:
            [found] = yield from self.manager.measuring([job])
            answer = answers.keep(key, found)
        return answer


class StatsOfProcessHandler(StatsHandler):
    """What a process uses."""

    @operation(ProcessStats, query=StatsQuery, media=(JSON, EVENTS))
    async def get(self) -> None:
        """The stats of one process of the job, once; as a feed ten times a second, until it ends."""
        query, process = _query(self), self.process
        if process.job != self.job:
            raise ProcessNotFound(f"process {process.pid} is not of the job {self.job}")
        if query.kind == NORMAL:
            [answer] = await self.application.slices.run(lambda: stats.measuring([process]))
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
