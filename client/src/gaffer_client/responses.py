"""What a Lookup answers: the documents of lookups, merged.

Those of single lookups, and of nodes, are in gaffer.schemas. When several lookups are asked, `epoch` and `seq`, which
belong to one of them, are left out. Answers of lookups or nodes of gaffer 0.5 lack what came later, and what is kept
current by events has no ages.
"""

from typing import TypedDict

from gaffer.schemas.lookup import JobsResponse, NodesResponse, SessionsResponse, SourcesResponse


class Agreement(TypedDict):
    """Addresses of lookups: those whose own answer is the merged one, and those that gave none."""

    agree: list[str]
    unreachable: list[str]


class NodesAnswer(NodesResponse):
    """The nodes that lookups know."""

    lookups: Agreement


class SessionsAnswer(SessionsResponse):
    """Sessions with their jobs."""

    lookups: Agreement


class JobsAnswer(JobsResponse):
    """Jobs and the nodes that have them."""

    lookups: Agreement


class JobAnswer(SourcesResponse):
    """The nodes that have a job."""

    lookups: Agreement
