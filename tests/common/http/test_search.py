"""Search in rows: what a filter finds, and that pages are the sorted rows, each once."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaffer.errors import BadRequest
from gaffer.http.jsonbody import convert
from gaffer.http.search import Filter, Kind, Page, PageQuery, Row, Search, Tally, count, select

pytestmark = pytest.mark.pure

KIND = Kind("things", {"name": str, "size": float}, ["bad", "good"])
WORDS = st.text("abAB \n", max_size=4)
ROWS = st.lists(
    st.builds(
        Row,
        key=st.text("abc", min_size=1, max_size=3),
        text=WORDS.map(str.lower),
        state=st.sampled_from(KIND.states),
        values=st.tuples(st.none() | WORDS, st.none() | st.integers(-3, 3) | st.floats(-3, 3)),
        session=st.sampled_from("xy"),
        node=st.sampled_from([(), ("n1", "id1"), ("n2", "id2")]),
    ),
    unique_by=lambda row: row.key,
)
EVERYTHING = Filter()
FILTERS = st.builds(
    Filter,
    words=st.lists(st.text("ab", min_size=1, max_size=2), max_size=2).map(tuple),
    states=st.sets(st.sampled_from(KIND.states)).map(frozenset),
    session=st.sampled_from(["", "x"]),
    node=st.sampled_from(["", "n1", "id2"]),
    sessions=st.none() | st.sets(st.sampled_from("xy")).map(frozenset),
)


def finish(steps: Any) -> Any:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def search(rows: list[Row], wanted: Filter = EVERYTHING, **query: Any) -> Page:
    asked = convert({name: value for name, value in query.items() if value is not None}, PageQuery)
    page: Page = finish(select(rows, Search.of(asked, KIND, wanted), KIND))
    return page


def parse(query: dict[str, Any]) -> Search:
    asked = convert(query, PageQuery, strict=False)
    return Search.of(asked, KIND, Filter.of(asked, KIND))


def matches(row: Row, wanted: Filter) -> bool:
    return (
        all(word in row.text for word in wanted.words)
        and wanted.session in ("", row.session)
        and (wanted.sessions is None or row.session in wanted.sessions)
        and (not wanted.node or wanted.node in row.node)
    )


def in_order(rows: list[Row], column: int, descending: bool) -> list[str]:
    known = [row for row in rows if row.values[column] is not None]
    others = [row for row in rows if row.values[column] is None]
    known.sort(key=lambda row: (row.values[column], row.key), reverse=descending)
    others.sort(key=lambda row: row.key, reverse=descending)
    return [row.key for row in (*known, *others)]


@given(ROWS, FILTERS, st.sampled_from(["name", "size", "-name", "-size"]), st.integers(1, 4))
def test_the_pages_are_the_sorted_matches(rows: list[Row], wanted: Filter, sort: str, limit: int) -> None:
    admitted = [row for row in rows if matches(row, wanted)]
    chosen = [row for row in admitted if not wanted.states or row.state in wanted.states]
    found: list[str] = []
    cursor = None
    while True:
        page = search(rows, wanted, sort=sort, limit=limit, cursor=cursor)
        assert len(page.keys) <= limit
        assert page.tally == Tally(len(chosen), dict(Counter(row.state for row in admitted)))
        found += page.keys
        cursor = page.cursor
        if cursor is None:
            break
        assert len(page.keys) == limit
    assert found == in_order(chosen, ["name", "size"].index(sort.removeprefix("-")), sort.startswith("-"))
    assert finish(count(rows, wanted)) == page.tally
    assert sorted(row.key for row in wanted.match(rows)) == sorted(found)


@given(ROWS, st.integers(1, 3))
def test_a_page_follows_its_cursor_whatever_came_and_went(rows: list[Row], limit: int) -> None:
    rows.sort(key=lambda row: row.key)
    page = search(rows, sort="size", limit=limit)
    if page.cursor is not None:
        rest = search([row for row in rows if row.key not in page.keys], sort="size", limit=500)
        assert search(rows, sort="size", limit=500, cursor=page.cursor).keys == rest.keys
        seen = [row for row in rows if row.key == page.keys[0]]
        assert search(seen, sort="size", cursor=page.cursor).keys == []


def test_many_rows_are_searched_in_steps_with_the_same_result() -> None:
    rows = [Row(f"{n:05}", "", "good", (str(n), float(-n))) for n in range(5000)]
    asked = Search.of(PageQuery(sort="size", limit=3), KIND, Filter())
    steps = select(rows, asked, KIND)
    assert [next(steps) for _ in range(3)] == [None] * 3
    assert finish(steps).keys == ["04999", "04998", "04997"]


def test_values_can_come_from_elsewhere() -> None:
    rows = [Row(key, "", "good", (key, None)) for key in "abc"]
    asked = Search.of(PageQuery(sort="-size", limit=2), KIND, Filter())
    assert finish(select(rows, asked, KIND, {"a": 1.0, "b": None, "c": 2.0}.get)).keys == ["c", "a"]


def test_words_and_states_of_a_query() -> None:
    query = PageQuery(q="  Web SHOP ", state="bad,good", session="x")
    wanted = Filter.of(query, KIND, node="n1", sessions=frozenset("x"))
    assert wanted == Filter(("web", "shop"), frozenset(KIND.states), "x", "n1", frozenset("x"))


CURSOR = search([Row(key, "", "good", (key, None)) for key in "ab"], limit=1).cursor


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ({"state": "bda"}, "$.state"),
        ({"sort": "nam"}, "$.sort"),
        ({"sort": "--name"}, "$.sort"),
        ({"limit": 0}, "$.limit"),
        ({"limit": 501}, "$.limit"),
        ({"limit": "many"}, "$.limit"),
        ({"q": "x" * 257}, "$.q"),
        ({"cursor": "?"}, "$.cursor"),
        ({"cursor": "bnVsbA"}, "$.cursor"),
        ({"cursor": "\N{SNOWMAN}"}, "$.cursor"),
        ({"cursor": CURSOR, "sort": "-name"}, "$.cursor"),
        ({"cursor": CURSOR, "sort": "size"}, "$.cursor"),
        ({"cursor": "WyJuYW1lIiwxLCJhIl0"}, "$.cursor"),  # a number, where names are sorted
        ({"nope": "x"}, "$"),
    ],
)
def test_bad_parameters_are_named(query: dict[str, Any], path: str) -> None:
    with pytest.raises(BadRequest) as failure:
        parse(query)
    assert failure.value.path == path
