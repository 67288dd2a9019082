"""The history of the cluster over HTTP: `GET /history`, and `GET /history/changes`."""

import asyncio
from collections.abc import Generator
from typing import Annotated

import msgspec
from msgspec import Meta
from tornado.iostream import StreamClosedError

from gaffer.http.access import Scope
from gaffer.http.feed_formats import HEARTBEAT_EVENT, encode_event
from gaffer.http.feeds import After, Heartbeat, parse_heartbeat
from gaffer.http.item_feed import Start
from gaffer.http.operations import EVENTS, operation
from gaffer.http.search import MAX_TEXT
from gaffer.schemas.lookup import ClusterEntries, ClusterEntry, ClusterHistoryPage
from gaffer.streams.position import Position
from gaffer.streams.rings import Cursor, Records
from gaffer_lookupd.application import LookupHandler
from gaffer_lookupd.history import KEPT, matches

_MAX_SENT = 500  # entries in an event
_STEP = 200  # entries

Text = Annotated[str, Meta(max_length=MAX_TEXT, description="Part of the name of a node or job, or of what happened.")]
NodeName = Annotated[str, Meta(max_length=MAX_TEXT, description="The name or id of a node.")]
JobName = Annotated[str, Meta(max_length=MAX_TEXT, description="The qualified name of a job.")]
Failed = Annotated[bool, Meta(description="Only what failed or was refused.")]


class ClusterHistoryQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which entries to return."""

    q: Text = ""
    node: NodeName = ""
    job: JobName = ""
    failed: Failed = False
    before: Annotated[
        Annotated[int, Meta(ge=0)] | None, Meta(description="Only entries with a smaller `id`: `next` of a page.")
    ] = None
    limit: Annotated[int, Meta(ge=1, le=KEPT, description="The number of entries.")] = 500


class ClusterHistoryChangesQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which entries to follow."""

    q: Text = ""
    node: NodeName = ""
    job: JobName = ""
    failed: Failed = False
    after: (
        Annotated[
            After,
            Meta(description="`EPOCH:SEQ` of a page, or the id of the last event, which Last-Event-ID overrides."),
        ]
        | None
    ) = None
    heartbeat: Heartbeat = "15"


class _HistoryBase(LookupHandler):
    def _wanted(
        self, entries: list[ClusterEntry], query: ClusterHistoryQuery | ClusterHistoryChangesQuery
    ) -> list[ClusterEntry]:
        """Return the entries that match, without their callers for readers who may not see these."""
        text = query.q.lower()
        found = [
            entry for entry in entries if matches(entry, text=text, node=query.node, job=query.job, failed=query.failed)
        ]
        return found if Scope.CONTROL in self.grant.scopes else [{**entry, "caller": None} for entry in found]


class ClusterHistoryHandler(_HistoryBase):
    """The history of the cluster."""

    @operation(ClusterHistoryPage, query=ClusterHistoryQuery)
    async def get(self) -> None:
        """Return what happened in the cluster: `{"entries", "next", "begun", "dropped", "epoch", "seq"}`, newest first.

        Entries are what lookupd sees of nodes (joined, silent, heard again, draining, name conflict, expired and the
        like), and what nodes report of themselves: failed exits of processes, flapping, rollouts, and calls that
        changed something. They are in the order of arrival; `at` is by the clock of lookupd. The `caller` is null
        unless the reader has the cluster key or is a local caller with lookupd's own user. lookupd keeps the newest
        5,000 entries since its start, `begun` in seconds since 1970, of which it `dropped` older ones. Nodes repeat
        their newest 50 to a lookupd that has started again.
        """
        query = self.query_as(ClusterHistoryQuery)
        history, epoch = self.application.history, self.application.registry.epoch
        seq = history.end
        end = seq if query.before is None else min(query.before, seq)
        kept = history.read(history.start, max(0, end - history.start)).items
        found = await self.application.index.batches.run(lambda: self._select(kept[::-1], query))
        page, more = found[: query.limit], len(found) > query.limit
        self.reply(
            ClusterHistoryPage(
                entries=page,
                next=page[-1]["id"] if more else None,
                begun=history.begun,
                dropped=history.start,
                epoch=epoch,
                seq=seq,
            )
        )

    def _select(
        self, entries: list[ClusterEntry], query: ClusterHistoryQuery
    ) -> Generator[None, None, list[ClusterEntry]]:
        """Return one entry more than wanted, if there are as many."""
        found: list[ClusterEntry] = []
        for start in range(0, len(entries), _STEP):
            found += self._wanted(entries[start : start + _STEP], query)
            if len(found) > query.limit:
                break
            yield
        return found[: query.limit + 1]


class ClusterHistoryChangesHandler(_HistoryBase):
    """The feed of the history of the cluster."""

    _cursor: Cursor[Records[ClusterEntry]] | None = None

    @operation(ClusterEntries, media=EVENTS, query=ClusterHistoryChangesQuery)
    async def get(self) -> None:
        """Follow the history as server-sent events with ids `EPOCH:SEQ`.

        An event `entries` has `{"entries": [entry]}` as in `/history`, oldest first. An event `reset` means that
        entries were missed: get `/history` again. `after` continues from the `epoch` and `seq` of a page.
        """
        query = self.query_as(ClusterHistoryChangesQuery)
        heartbeat = parse_heartbeat(query.heartbeat)
        history, epoch = self.application.history, self.application.registry.epoch
        start = Start.of(history, epoch, self.request.headers.get("Last-Event-ID") or query.after)
        self._cursor = cursor = Cursor(history, start.offset)
        self.set_header("Content-Type", EVENTS)
        self.set_header("Cache-Control", "no-store, no-transform")  # compressing proxies would delay the feed
        if self.request.method == "HEAD":
            return
        missed = start.missed
        self.follow()
        try:
            await self.flush()
            while True:
                if missed:
                    await self.send(encode_event("reset", "{}", Position(epoch, cursor.offset)))
                try:
                    async with asyncio.timeout(heartbeat):
                        records = await cursor.next(_MAX_SENT)
                except TimeoutError:
                    missed = False
                    await self.send(HEARTBEAT_EVENT)
                    continue
                if records is None:
                    return
                missed = records.gap > 0
                if missed:
                    cursor.offset = history.end
                    continue
                found = self._wanted(records.items, query)
                content = msgspec.json.encode(ClusterEntries(entries=found)).decode()
                await self.send(encode_event("entries", content, Position(epoch, cursor.offset)))
        except StreamClosedError:
            pass
        finally:
            self.application.readers.leave(self)

    def on_connection_close(self) -> None:
        super().on_connection_close()
        if self._cursor is not None:
            self._cursor.end()
