"""Search in the jobs and processes of a node: `GET /search`, and `GET /search/changes`."""

from collections.abc import Generator
from typing import Annotated, Literal

from msgspec import Meta
from tornado.iostream import StreamClosedError

from gaffer.api.job_index import JOBS, KINDS, MEASURED, JobChange, value_of
from gaffer.api.node import NodeHandler
from gaffer.http.access import Scope
from gaffer.http.item_feed import MOST_ITEMS, ChangesQuery, ItemFeed, News
from gaffer.http.operations import EVENTS, operation
from gaffer.http.routes import Route
from gaffer.http.search import Filter, FilterQuery, Kind, Page, PageQuery, Search, count, select
from gaffer.schemas.search import ChangedJobs, ChangedProcesses, FoundJobs, FoundProcesses

KindName = Annotated[Literal["jobs", "processes"], Meta(description="What to search.")]


class NodeSearchQuery(PageQuery, kw_only=True, forbid_unknown_fields=True):
    """Which jobs or processes to find, and in which order to return how many."""

    kind: KindName = "jobs"


class NodeChangesQuery(ChangesQuery, kw_only=True, forbid_unknown_fields=True):
    """The changes of which jobs or processes to follow."""

    kind: KindName = "jobs"


class SearchHandler(NodeHandler):
    """A search in the jobs or processes of the node."""

    @operation((FoundJobs, FoundProcesses), query=NodeSearchQuery)
    async def get(self) -> None:
        """Find jobs or processes; return a page as `{"items", "total", "counts", "cursor", "epoch", "seq"}`.

        `q` is searched in the name and the reason of a job; in the name of its job, the ids and the error of the probes
        of a process. Jobs can be sorted by the keys `name`, `session`, `state` (those that need attention first),
        `reason`, `running`, `max_processes`, `restarts`, `last_exit` (by its time), `uptime`, `cpu` and `memory`;
        processes by `pid`, `name`, `session`, `state`, `slot`, `os_pid`, `uptime`, `cpu` and `memory`. Items without a
        value come last. `counts` are by state and ignore the parameter `state`. `cpu` and `memory` are measured while
        somebody searches, at most once a second. A key limited to sessions finds only what is in these.
        """
        query = self.query_as(NodeSearchQuery)
        kind = KINDS[query.kind]
        search = Search.of(query, kind, filter_of(self, query, kind))
        index = self.application.index
        epoch, seq = index.position()
        await index.usage.refresh(wait=search.key in MEASURED)
        page = await index.batches.run(lambda: self._select(kind, search))
        items = [item for item in (index.describe(kind, key) for key in page.keys) if item is not None]
        self.reply(
            {
                "items": items,
                "total": page.tally.total,
                "counts": page.tally.counts,
                "cursor": page.cursor,
                "epoch": epoch,
                "seq": seq,
            }
        )

    def _select(self, kind: Kind, search: Search) -> Generator[None, None, Page]:
        index = self.application.index
        yield from index.refreshing()
        return (yield from select(index.rows(kind), search, kind, value_of(index.usage, kind, search.key)))


def filter_of(handler: NodeHandler, query: FilterQuery, kind: Kind) -> Filter:
    """Return the filter of a query; raises Forbidden for a session that the caller may not see, and BadRequest."""
    if query.session:
        handler.grant.require_session(query.session)
    return Filter.of(query, kind, sessions=handler.grant.sessions)


class SearchChangesHandler(NodeHandler):
    """The feed of changes of what a search finds."""

    _feed: ItemFeed[JobChange] | None = None

    @operation((ChangedJobs, ChangedProcesses), media=EVENTS, query=NodeChangesQuery)
    async def get(self) -> None:
        """Follow the changes of the jobs or processes that `/search` finds, as server-sent events with ids `EPOCH:SEQ`.

        An event `items` has `{"changed": [item], "removed": [key], "total", "counts"}`, at most four a second.
        `removed` also has keys of changed items that do not match, whether or not they did before. Changes of `uptime`,
        `cpu` and `memory` alone are not sent. An event `reset` means that changes were missed or too many for an event:
        search again. `after` continues from the `epoch` and `seq` of a search.
        """
        query = self.query_as(NodeChangesQuery)
        kind = KINDS[query.kind]
        wanted = filter_of(self, query, kind)
        index = self.application.index
        index.position()
        after = self.request.headers.get("Last-Event-ID") or query.after
        self._feed = feed = ItemFeed(index.changes, index.changes.epoch, after, query.heartbeat)
        self.set_header("Content-Type", EVENTS)
        self.set_header("Cache-Control", "no-store, no-transform")  # proxies that compress a feed delay it
        if self.request.method == "HEAD":
            return

        async def find(changes: list[JobChange]) -> News | None:
            await index.usage.refresh(wait=False)
            return await index.batches.run(lambda: self._find(changes, kind, wanted))

        self.application.feeds.add(feed)
        try:
            await self.flush()
            await feed.run(find, self._send)
        except StreamClosedError:
            pass
        finally:
            self.application.feeds.discard(feed)
            feed.close()

    def on_connection_close(self) -> None:
        super().on_connection_close()
        if self._feed is not None:
            self._feed.end()

    async def _send(self, event: bytes) -> None:
        self.write(event)
        await self.flush()

    def _find(self, changes: list[JobChange], kind: Kind, wanted: Filter) -> Generator[None, None, News | None]:
        index, grant = self.application.index, self.grant
        yield from index.refreshing()
        seen = [change for change in changes if grant.sees(change.name.session)]
        rows = [row for name in {change.name for change in seen} for row in index.rows_of(name, kind)]
        if kind is JOBS:
            keys = dict.fromkeys(str(change.name) for change in seen)
        else:
            keys = dict.fromkeys((*(key for change in seen for key in change.processes), *(row.key for row in rows)))
        if len(keys) > MOST_ITEMS:
            return None
        described = {row.key: index.describe(kind, row.key) for row in wanted.match(rows)}
        changed = [item for item in described.values() if item is not None]
        tally = yield from count(index.rows(kind), wanted)
        return News(changed, [key for key in keys if described.get(key) is None], tally, {})


_READ = {"GET": Scope.READ}

ROUTES = [Route("/search", SearchHandler, _READ), Route("/search/changes", SearchChangesHandler, _READ)]
