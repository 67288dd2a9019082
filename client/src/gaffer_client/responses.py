"""Merged responses of a `Lookup`.

The documents of single lookups, and of nodes, are in gaffer.schemas. `epoch` and `seq`, which belong to one lookup, are
missing when several are asked; ages are missing in what is composed from events.
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
