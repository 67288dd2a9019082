"""Search in the nodes of the cluster and their jobs: `GET /search`, and `GET /search/changes`."""

import time
from collections.abc import Generator, Iterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from tornado.iostream import StreamClosedError

from gaffer.http.item_feed import MOST_ITEMS, ChangesQuery, ItemFeed, News
from gaffer.http.operations import EVENTS, operation
from gaffer.http.search import MAX_TEXT, Filter, Kind, Page, PageQuery, Search, count, select
from gaffer.schemas.lookup import ChangedNodeJobs, ChangedNodes, FoundNodeJobs, FoundNodes
from gaffer_lookupd.application import LookupHandler
from gaffer_lookupd.changes import Change
from gaffer_lookupd.node_index import AGE, JOBS, KINDS, NODES, job_key, key_of, node_in
from gaffer_lookupd.queries import in_parts, separated

KindName = Annotated[Literal["nodes", "jobs"], Meta(description="What to search.")]
NodeName = Annotated[str, Meta(max_length=MAX_TEXT, description="The name or id of a node.")]
Ready = Annotated[
    bool | None, Meta(description="Only jobs that are ready, and nodes all of whose jobs are; or only the others.")
]

_encode = msgspec.json.Encoder().encode


class ClusterSearchQuery(PageQuery, kw_only=True, forbid_unknown_fields=True):
    """Which nodes or jobs to find, and in which order to return how many."""

    kind: KindName = "nodes"
    node: NodeName = ""
    ready: Ready = None


class ClusterChangesQuery(ChangesQuery, kw_only=True, forbid_unknown_fields=True):
    """The changes of which nodes or jobs to follow."""

    kind: KindName = "nodes"
    node: NodeName = ""
    ready: Ready = None


class SearchHandler(LookupHandler):
    """A search in the nodes of the cluster or their jobs."""

    @operation((FoundNodes, FoundNodeJobs), query=ClusterSearchQuery)
    async def get(self) -> None:
        """Find nodes or jobs; return a page as `{"items", "total", "counts", "cursor", "epoch", "seq", "stale",
        "warming"}`.

        `q` is searched in the name, origin, id and labels (`name=value`) of a node; in the name and the reason of a job
        and the name of its node. The `state` of a node is its `status`. Nodes can be sorted by the keys `name`,
        `status` (those that need attention first), `age_ms`, `jobs`, `not_ready`, `processes`, `origin` and `version`;
        jobs, one item for each node, by `name`, `session`, `state` (those that need attention first), `reason`, `node`,
        `status`, `ready`, `expected` and `processes`. `counts` are by state and ignore the parameter `state`. Nodes
        report the state of a job with its reason at most once a second; see FoundNodeJob for nodes that do not.
        """
        query = self.query_as(ClusterSearchQuery)
        kind = KINDS[query.kind]
        search = Search.of(query, kind, Filter.of(query, kind, node=query.node, ready=query.ready))
        registry, seq = self.application.registry, self.application.registry.seq
        page = await self.application.index.batches.run(lambda: self._select(kind, search))
        end = {
            "total": page.tally.total,
            "counts": page.tally.counts,
            "cursor": page.cursor,
            "epoch": registry.epoch,
            "seq": seq,
            "stale": registry.stale,
            "warming": registry.warming,
        }
        await self.send_all(in_parts(self._parts(kind, page, end)))

    def _select(self, kind: Kind, search: Search) -> Generator[None, None, Page]:
        index = self.application.index
        yield from index.refreshing()
        return (yield from select(index.rows(kind), search, kind, index.heard if search.key == AGE else None))

    def _parts(self, kind: Kind, page: Page, end: dict[str, Any]) -> Iterator[bytes]:
        now = time.monotonic()
        found = (self.application.index.describe(kind, key, now) for key in page.keys)
        yield b'{"items":['
        yield from separated(_encode(item) for item in found if item is not None)
        yield b"],%b" % _encode(end)[1:]


class SearchChangesHandler(LookupHandler):
    """The feed of changes of what a search finds."""

    _feed: ItemFeed[Change] | None = None

    @operation((ChangedNodes, ChangedNodeJobs), media=EVENTS, query=ClusterChangesQuery)
    async def get(self) -> None:
        """Follow the changes of the nodes or jobs that `/search` finds, as server-sent events with ids `EPOCH:SEQ`.

        An event `items` has `{"changed": [item], "removed": [key], "total", "counts", "stale", "warming"}`, at most
        four a second. `removed` also has keys of changed items that do not match, whether or not they did before.
        An event `reset` means that changes were missed or too many for an event: search again. `after` continues from
        the `epoch` and `seq` of a search.
        """
        query = self.query_as(ClusterChangesQuery)
        kind = KINDS[query.kind]
        wanted = Filter.of(query, kind, node=query.node, ready=query.ready)
        application = self.application
        after = self.request.headers.get("Last-Event-ID") or query.after
        self._feed = feed = ItemFeed(application.changes, application.registry.epoch, after, query.heartbeat)
        self.set_header("Content-Type", EVENTS)
        self.set_header("Cache-Control", "no-store, no-transform")  # compressing proxies would delay the feed
        if self.request.method == "HEAD":
            return

        async def find(changes: list[Change]) -> News | None:
            return await application.index.batches.run(lambda: self._find(changes, kind, wanted))

        self.follow()
        try:
            await self.flush()
            await feed.run(find, self.send)
        except StreamClosedError:
            pass
        finally:
            application.readers.leave(self)
            feed.close()

    def on_connection_close(self) -> None:
        super().on_connection_close()
        if self._feed is not None:
            self._feed.end()

    def _find(self, changes: list[Change], kind: Kind, wanted: Filter) -> Generator[None, None, News | None]:
        index, registry = self.application.index, self.application.registry
        yield from index.refreshing()
        keys: dict[str, None] = {}
        for change in changes:
            found = self._keys(change, kind)
            if found is None:
                return None
            keys.update(dict.fromkeys(found))
        if len(keys) > MOST_ITEMS:
            return None
        rows = [row for node in {key.partition("/")[0] for key in keys} for row in index.rows_of(kind, node)]
        matching = {row.key for row in wanted.match(rows) if row.key in keys}
        now = time.monotonic()
        described = {key: index.describe(kind, key, now) for key in keys if key in matching}
        changed = [item for item in described.values() if item is not None]
        tally = yield from count(index.rows(kind), wanted)
        more = {"stale": registry.stale, "warming": registry.warming}
        return News(changed, [key for key in keys if described.get(key) is None], tally, more)

    def _keys(self, change: Change, kind: Kind) -> list[str] | None:
        """Return the keys of items that a change concerns; None if they are not known any more."""
        message: Any = change.message
        node = node_in(change)
        if node is None:
            return []
        node_key = key_of(node)
        if kind is NODES:
            return [node_key]
        if "job_name" in message:
            return [job_key(node_key, message["job_name"])]
        if message["event"] == "remove_node":
            return None
        return [row.key for row in self.application.index.rows_of(JOBS, node_key)]
