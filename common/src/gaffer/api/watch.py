"""The events of the node: R-72, R-73."""

from typing import Any

from gaffer.api.feed_handler import OFFSET_HEADER, FeedHandler
from gaffer.http.access import Scope
from gaffer.http.feed_formats import Messages
from gaffer.http.feeds import FeedQuery, FollowQuery
from gaffer.http.operations import EVENTS, JSON, operation
from gaffer.http.routes import Route
from gaffer.schemas.bodies import EventMessage
from gaffer.streams.event_log import ALL, Event, matching


class WatchHandler(FeedHandler):
    """What happens on the node."""

    @operation(
        EventMessage,
        query=FollowQuery,
        media=(JSON, EVENTS),
        headers={OFFSET_HEADER: "Of a longpoll: the `after` that continues it."},
    )
    async def get(self) -> None:
        """Follow the events that the rest of the path, joined by dots, is a prefix of: `create`, `proc/dummy`.

        Each is a line of JSON with `event`, its name, or a server-sent event of that name. Without a prefix each event
        comes under its documented names, first the short one: `exit`, `proc.dummy.exit`; those of version 0.5 come to
        who asks for them (`job/shop`, `proc/12`, `load`). A key for some sessions gets only the events of those.

        `after=EPOCH:N` resumes after an event, `tail=N` goes that many back. Events that are no longer kept are
        reported as `{"event": "gap", "from", "to"}`; so is an `after` of an earlier life of the node, which gets all
        that is kept. A longpoll answers the next event and, in X-Gaffer-Offset, the `after` that continues it.
        """
        pattern = ".".join(self.params.values()) or ALL
        query = FeedQuery.of(self)
        log = self.manager.event_log
        start = query.start_in(log)

        def select(event: Event) -> tuple[str, Any] | None:
            found = matching(event, pattern)
            return found if found is None or self._may_see(event) else None

        await self.follow(query, log, log.end if start is None else start, Messages(select, log.epoch))

    def _may_see(self, event: Event) -> bool:
        # What concerns the whole node is of no session.
        return self.grant.sessions is None or event.session in self.grant.sessions


_METHODS = {"GET": Scope.READ}

ROUTES = [
    Route("/watch", WatchHandler, _METHODS),
    Route("/watch/{first}", WatchHandler, _METHODS),
    Route("/watch/{first}/{second}", WatchHandler, _METHODS),
    Route("/watch/{first}/{second}/{third}", WatchHandler, _METHODS),
]
