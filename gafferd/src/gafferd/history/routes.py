"""The HTTP route of the history (`/history`)."""

from typing import Annotated, Any, cast

import msgspec
from msgspec import Meta

from gaffer.api.node import NodeHandler
from gaffer.errors import BadRequest
from gaffer.http.access import Scope
from gaffer.http.operations import operation
from gaffer.http.routes import Route
from gaffer.jobs.names import JOB_NAME_PATTERN, parse_job_name
from gaffer.schemas.history import HistoryPage
from gafferd.history.recorder import History

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000


class HistoryQuery(msgspec.Struct):
    """The entries to return."""

    job: Annotated[
        Annotated[str, Meta(pattern=JOB_NAME_PATTERN)] | None,
        Meta(description="Only entries about this job or its whole session; with a session, about its jobs."),
    ] = None
    since: Annotated[
        Annotated[float, Meta(ge=0)] | None, Meta(description="Only entries since this time, in seconds since 1970.")
    ] = None
    before: Annotated[
        Annotated[int, Meta(ge=0)] | None, Meta(description="Only entries with a smaller `id`: `next` of a page.")
    ] = None
    limit: Annotated[int, Meta(ge=1, le=MAX_LIMIT, description="The number of entries.")] = DEFAULT_LIMIT


class HistoryHandler(NodeHandler):
    """The history of the node."""

    @operation(HistoryPage, query=HistoryQuery)
    async def get(self) -> None:
        """Return who changed what, and what happened to the node and its jobs: `{"entries", "next"}`, newest first.

        Entries are calls that change something, also refused and failed ones; reloads, start and stop of the daemon;
        and failures, flapping, rollouts, completions and the like of jobs. What repeats, such as refused calls and
        writes to a process, is summarized once a minute. Requires the scope `control`, because entries name callers and
        their addresses; a key limited to sessions gets only the entries about these.
        """
        query = self._query()
        if query.job is not None:
            parse_job_name(query.job)
        page = await self._history.read(
            limit=query.limit, job=query.job, since=query.since, before=query.before, sessions=self.grant.sessions
        )
        self.reply(page)

    @property
    def _history(self) -> History:
        return cast(History, self.settings["history"])

    def _query(self) -> HistoryQuery:
        given: dict[str, Any] = {
            name: value
            for name in ("job", "since", "before", "limit")
            if (value := self.get_query_argument(name, None))
        }
        try:
            return msgspec.convert(given, HistoryQuery, strict=False)
        except msgspec.ValidationError as error:
            raise BadRequest(
                f"invalid query: {error}", reason="bad_value", hint="see GET /openapi.json for the parameters"
            ) from None


ROUTES = [Route("/history", HistoryHandler, {"GET": Scope.CONTROL})]
