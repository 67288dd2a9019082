"""Search in lists of items: filter, sort and page, pure.

A `Row` is what is searched of an item. A `Search` is what a request asks for; `select` finds the rows of its page, in
steps between which an event loop can run.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta, Struct

from gaffer.errors import BadRequest, did_you_mean, quoted

DEFAULT_LIMIT, MAX_LIMIT = 50, 500
MAX_TEXT = 256  # characters of a parameter

Value = str | float | None
Rank = tuple[bool, Any, str]

_STEP = 1000  # rows

Text = Annotated[str, Meta(max_length=MAX_TEXT)]


class FilterQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which items to find, see `operation`."""

    q: Annotated[Text, Meta(description="Words that all have to occur, in any order, whatever their case.")] = ""
    state: Annotated[Text, Meta(description="One of these states, separated by commas.")] = ""
    session: Annotated[Text, Meta(description="In this session.")] = ""


class PageQuery(FilterQuery, kw_only=True, forbid_unknown_fields=True):
    """Which items to find, and in which order to return how many."""

    sort: Annotated[Text, Meta(description="Key to sort by; `-` in front reverses the order.")] = ""
    cursor: Annotated[
        Annotated[str, Meta(max_length=2048)], Meta(description="The `cursor` of the previous page, for the next one.")
    ] = ""
    limit: Annotated[int, Meta(ge=1, le=MAX_LIMIT, description="Most items to return.")] = DEFAULT_LIMIT


class Kind(NamedTuple):
    """A kind of items.

    `keys` are those that one can sort by, with the type of their values, the first by default; `states` are in the
    order in which the key `state` sorts them.
    """

    name: str
    keys: Mapping[str, type[str] | type[float]]
    states: Sequence[str]


class Row(msgspec.Struct, frozen=True, gc=False):
    """What is searched of one item: `key` identifies it, `text` has the words in lower case.

    `values` are those of the keys of its kind, in their order. `node` are the names of its node. `ready`: it needs no
    attention.
    """

    key: str
    text: str
    state: str
    values: tuple[Value, ...]
    session: str = ""
    node: tuple[str, ...] = ()
    ready: bool = True


class Filter(Struct, frozen=True):
    """A filter of rows. `sessions` are those that the caller may see, None for all; `ready` is None for all rows."""

    words: tuple[str, ...] = ()
    states: frozenset[str] = frozenset()
    session: str = ""
    node: str = ""
    sessions: frozenset[str] | None = None
    ready: bool | None = None

    @classmethod
    def of(
        cls,
        query: FilterQuery,
        kind: Kind,
        *,
        node: str = "",
        sessions: frozenset[str] | None = None,
        ready: bool | None = None,
    ) -> "Filter":
        """Return the filter of a query; raises BadRequest with the path of an unknown state."""
        states = frozenset(filter(None, query.state.split(",")))
        for state in states.difference(kind.states):
            hint = did_you_mean(state, kind.states) or f"use {', '.join(kind.states)}"
            raise BadRequest(f"unknown state {quoted(state)}", path="$.state", hint=hint)
        return cls(tuple(query.q.lower().split()), states, query.session, node, sessions, ready)

    def admit(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Return the rows that match all but the states."""
        if self.sessions is not None:
            rows = [row for row in rows if row.session in self.sessions]
        if self.session:
            rows = [row for row in rows if row.session == self.session]
        if self.node:
            rows = [row for row in rows if self.node in row.node]
        if self.ready is not None:
            rows = [row for row in rows if row.ready is self.ready]
        for word in self.words:
            rows = [row for row in rows if word in row.text]
        return rows

    def match(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Return the rows that match."""
        return self.choose(self.admit(rows))

    def choose(self, admitted: Sequence[Row]) -> Sequence[Row]:
        """Return those of the admitted rows that match."""
        return [row for row in admitted if row.state in self.states] if self.states else admitted


class Search(Struct, frozen=True):
    """A filter, and a page of the rows that match it: `limit` rows after the rank `after`, sorted by `key`."""

    filter: Filter
    key: str
    descending: bool = False
    after: Rank | None = None
    limit: int = DEFAULT_LIMIT

    @classmethod
    def of(cls, query: PageQuery, kind: Kind, wanted: Filter) -> "Search":
        """Return the search of a query with the filter `wanted`; raises BadRequest with the path of a bad parameter."""
        key = query.sort.removeprefix("-") or next(iter(kind.keys))
        if key not in kind.keys:
            hint = did_you_mean(key, kind.keys) or f"use {', '.join(kind.keys)}"
            raise BadRequest(f"can't sort {kind.name} by {quoted(key)}", path="$.sort", hint=hint)
        search = cls(wanted, key, query.sort.startswith("-"), None, query.limit)
        if not query.cursor:
            return search
        return cls(wanted, key, search.descending, search.rank(*_decoded(query.cursor, kind, search)), query.limit)

    def rank(self, value: Value, key: str) -> Rank:
        """Return what orders the items by the value of the sorted key; items without one come last."""
        return (value is None) is not self.descending, 0 if value is None else value, key

    def cursor(self, rank: Rank) -> str:
        """Return the cursor for the page after the item of that rank."""
        missing, value, key = rank
        content = [self._order, None if missing is not self.descending else value, key]
        return urlsafe_b64encode(msgspec.json.encode(content)).rstrip(b"=").decode()

    @property
    def _order(self) -> str:
        return ("-" if self.descending else "") + self.key


class _Cursor(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    order: str
    value: Value
    key: str


def _decoded(cursor: str, kind: Kind, search: Search) -> tuple[Value, str]:
    """Return the value and key of the item that a cursor stands for."""
    try:
        content = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        found = msgspec.json.decode(content, type=_Cursor)
    except (ValueError, msgspec.DecodeError):
        raise BadRequest("invalid cursor", path="$.cursor", hint="use the `cursor` of the previous page") from None
    expected = str if kind.keys[search.key] is str else int | float
    if found.order != search._order or not (found.value is None or isinstance(found.value, expected)):
        hint = "use the same `kind` and `sort` for all pages, or omit `cursor`"
        raise BadRequest(f"the cursor belongs to another order than {search._order}", path="$.cursor", hint=hint)
    return found.value, found.key


class Tally(NamedTuple):
    """The number of rows that match a filter; `counts` are by state, also of states that the filter leaves out."""

    total: int
    counts: dict[str, int]


class Page(NamedTuple):
    """The keys of the items on one page, the cursor of the next one if there is one, and the numbers of all items."""

    keys: list[str]
    cursor: str | None
    tally: Tally


def select(
    rows: Iterable[Row], search: Search, kind: Kind, values: Callable[[str], Value] | None = None
) -> Generator[None, None, Page]:
    """Find a page, in steps. `values` returns the value to sort by of an item by its key; by default the row has it."""
    column = list(kind.keys).index(search.key)
    counts: Counter[str] = Counter()
    found: list[Rank] = []  # in order
    wanted, descending, after, most = search.filter, search.descending, search.after, search.limit + 1
    for step in _in_steps(rows):
        admitted = wanted.admit(step)
        counts.update([row.state for row in admitted])
        chosen = wanted.choose(admitted)
        sorted_by = [row.values[column] if values is None else values(row.key) for row in chosen]
        # As `Search.rank`, whose call for each row would take most of the time.
        ranks = [
            ((value is None) is not descending, 0 if value is None else value, row.key)
            for value, row in zip(sorted_by, chosen, strict=True)
        ]
        if after is not None:
            ranks = [rank for rank in ranks if (rank < after if descending else rank > after)]
        if len(found) == most:
            last = found[-1]
            ranks = [rank for rank in ranks if (rank > last if descending else rank < last)]
        found = sorted(found + ranks, reverse=descending)[:most]
        yield
    cursor = search.cursor(found[search.limit - 1]) if len(found) == most else None
    return Page([key for _, _, key in found[: search.limit]], cursor, _tally(counts, wanted))


def count(rows: Iterable[Row], wanted: Filter) -> Generator[None, None, Tally]:
    """Count the rows that match a filter, in steps."""
    counts: Counter[str] = Counter()
    for step in _in_steps(rows):
        counts.update([row.state for row in wanted.admit(step)])
        yield
    return _tally(counts, wanted)


def _tally(counts: Mapping[str, int], wanted: Filter) -> Tally:
    total = sum(number for state, number in counts.items() if not wanted.states or state in wanted.states)
    return Tally(total, dict(counts))


def _in_steps(rows: Iterable[Row]) -> Iterable[Sequence[Row]]:
    remaining = list(rows)
    return (remaining[start : start + _STEP] for start in range(0, len(remaining), _STEP))
