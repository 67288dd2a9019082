"""Search in the jobs and processes of a node: `GET /search`."""

from collections.abc import Generator
from typing import Annotated, Literal

from msgspec import Meta

from gaffer.api.job_index import KINDS, MEASURED, value_of
from gaffer.api.node import NodeHandler
from gaffer.http.access import Scope
from gaffer.http.operations import operation
from gaffer.http.routes import Route
from gaffer.http.search import Filter, FilterQuery, Kind, Page, PageQuery, Search, select
from gaffer.schemas.search import FoundJobs, FoundProcesses

KindName = Annotated[Literal["jobs", "processes"], Meta(description="What to search.")]


class NodeSearchQuery(PageQuery, kw_only=True, forbid_unknown_fields=True):
    """Which jobs or processes to find, and in which order to return how many."""

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
        seq = index.position()
        await index.usage.refresh(wait=search.key in MEASURED)
        page = await self.application.batches.run(lambda: self._select(kind, search))
        items = [item for item in (index.describe(kind, key) for key in page.keys) if item is not None]
        self.reply(
            {
                "items": items,
                "total": page.tally.total,
                "counts": page.tally.counts,
                "cursor": page.cursor,
                "epoch": index.changes.epoch,
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


ROUTES = [Route("/search", SearchHandler, {"GET": Scope.READ})]
