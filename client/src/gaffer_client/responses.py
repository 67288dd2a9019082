"""Merged responses of a `Lookup`.

The documents of single lookups and of nodes are in gaffer.schemas. `epoch` and `seq`, which belong to one lookup, are
missing if several are queried; ages are missing in responses built from events.
"""

from typing import TypedDict

from gaffer.schemas.lookup import JobsResponse, NodesResponse, SessionsResponse, SourcesResponse


class Agreement(TypedDict):
    """URLs of lookups: those whose own response equals the merged one, and those that did not respond."""

    agree: list[str]
    unreachable: list[str]


class NodesAnswer(NodesResponse):
    """All nodes known to the lookups."""

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
