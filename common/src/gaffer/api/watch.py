"""The events of the node."""

from typing import Any

from gaffer.api.feed_handler import OFFSET_HEADER, FeedHandler
from gaffer.api.subscriptions import log_for, require_for_pattern
from gaffer.http.access import Scope
from gaffer.http.feed_formats import Messages
from gaffer.http.feeds import FeedQuery, FollowQuery
from gaffer.http.operations import EVENTS, JSON, operation
from gaffer.http.routes import Route
from gaffer.schemas.bodies import EventMessage
from gaffer.streams.event_log import ALL, Event, matching


class WatchHandler(FeedHandler):
    """Events of the node."""

    @operation(
        EventMessage,
        query=FollowQuery,
        media=(JSON, EVENTS),
        headers={OFFSET_HEADER: "For a longpoll: the `after` that continues it."},
    )
    async def get(self) -> None:
        """Follow the events whose names begin with the rest of the path, joined by dots: `create`, `proc/dummy`.

        Each event is a line of JSON with its name as `event`, or a server-sent event of that name. Without a prefix
        each event is sent under its documented names, the short one first: `exit`, `proc.dummy.exit`. The names of
        version 0.5 are sent only to clients that ask for them (`job/shop`, `proc/12`, `load`). A key limited to
        sessions gets only the events of these sessions.

        `/watch/audit` follows the calls that change something, see `GET /history`. It requires the scope `control`, and
        these events are sent only to clients that ask for them.

        `after=EPOCH:N` resumes after an event; `tail=N` starts that number of events back. Events that are no longer
        retained are reported as `{"event": "gap", "from", "to"}`. The same happens for an `after` of an earlier run of
        the node, which gets all retained events. A longpoll returns the next event and, in X-Gaffer-Offset, the `after`
        that continues it.
        """
        pattern = ".".join(self.params.values()) or ALL
        require_for_pattern(self.grant, pattern)
        query = FeedQuery.of(self)
        log = log_for(self.manager, pattern)
        start = query.start_in(log)

        def select(event: Event) -> tuple[str, Any] | None:
            found = matching(event, pattern)
            return found if found is None or self._may_see(event) else None

        await self.follow(query, log, log.end if start is None else start, Messages(select, log.epoch))

    def _may_see(self, event: Event) -> bool:
        # Events of the whole node belong to no session.
        return self.grant.sessions is None or event.session in self.grant.sessions


_METHODS = {"GET": Scope.READ}

ROUTES = [
    Route("/watch", WatchHandler, _METHODS),
    Route("/watch/{first}", WatchHandler, _METHODS),
    Route("/watch/{first}/{second}", WatchHandler, _METHODS),
    Route("/watch/{first}/{second}/{third}", WatchHandler, _METHODS),
]
