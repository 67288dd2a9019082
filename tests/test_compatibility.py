"""docs/compatibility.md says what the tests show: it is made from their marks, and fits them."""

from pathlib import Path

import compatibility
import pytest
from compatibility import UNSHOWN, Evidence, InvalidValue, Row, Verdict

ROOT = Path(__file__).parents[1]

MODULE = """
import pytest

row = pytest.mark.row
pytestmark = [pytest.mark.row("A-1")]

@pytest.mark.row("A-2", "A-3")
async def test_one(): ...

@row("A-2")
@pytest.mark.parametrize("x", [pytest.param(1, marks=row("A-4"))])
def test_two(x):
    row("A-9")

class TestGroup:
    @row("A-5")
    def test_three(self): ...

@pytest.mark.timeout("A-9")
def test_four(): ...
"""


def test_the_committed_page_is_fresh() -> None:
    made = compatibility.make_page(ROOT)
    assert (ROOT / "docs" / "compatibility.md").read_text() == made, "stale: run `make docs`"


def test_marks_are_found_without_importing() -> None:
    assert list(compatibility.marks(MODULE, "x/test_m.py")) == [
        ("A-1", Evidence("x/test_m.py", "")),
        ("A-2", Evidence("x/test_m.py", "test_one")),
        ("A-3", Evidence("x/test_m.py", "test_one")),
        ("A-2", Evidence("x/test_m.py", "test_two")),
        ("A-4", Evidence("x/test_m.py", "test_two")),
        ("A-5", Evidence("x/test_m.py", "TestGroup::test_three")),
    ]


def test_a_mark_must_be_readable() -> None:
    with pytest.raises(InvalidValue, match=r"test_m\.py:1: the rows of a mark must be string literals"):
        list(compatibility.marks("@pytest.mark.row(*ROWS)\ndef test(): ...", "test_m.py"))


def sections(**rows: Row) -> dict[str, dict[str, Row]]:
    return {"S": rows}


TESTS = {"a": [Evidence("t.py", "test_a")]}


def test_verdicts() -> None:
    verdicts = compatibility.judge(
        sections(
            a=Row("shown"),
            b=Row("of c and a", ("c", "a")),
            c=Row("of a", ("a",)),
            d=Row("other"),
            e=Row("of d and a", ("d", "a")),
            f=Row("unshown"),
            g=Row("of a and f", ("a", "f")),
            h=Row("none"),
        ),
        [("d", Verdict("differs", "for a reason")), ("h", Verdict("no", "for another"))],
        TESTS,
    )
    assert verdicts == {
        "a": Verdict("yes"),
        "b": Verdict("yes", "see c, a"),
        "c": Verdict("yes", "see a"),
        "d": Verdict("differs", "for a reason"),
        "e": Verdict("differs", "see d"),
        "f": Verdict("no", UNSHOWN),
        "g": Verdict("no", "see f"),
        "h": Verdict("no", "for another"),
    }


@pytest.mark.parametrize(
    ("rows", "differences", "message"),
    [
        ({"b": Row("unmarked")}, [], "tests/t.py: test_a is marked with unknown row a"),
        ({"a": Row("x")}, [("z", Verdict("no", "y"))], "docs/differences.toml: unknown row z"),
        ({"a": Row("x")}, [("a", Verdict("no", "y"))], "a is listed as not provided, but tests/t.py shows it"),
        ({"a": Row("x")}, 2 * [("a", Verdict("differs", "y"))], "docs/differences.toml: a is listed 2 times"),
        ({"a": Row("x", ("z",))}, [], "docs/rows.toml: a refers to unknown row z"),
        ({"a": Row("x", ("b",)), "b": Row("y", ("a",))}, [], "docs/rows.toml: circular reference"),
    ],
)
def test_what_does_not_fit(rows: dict[str, Row], differences: list[tuple[str, Verdict]], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        compatibility.judge(sections(**rows), differences, TESTS)


def test_a_page() -> None:
    rows = compatibility.read_rows('["One"]\na = "shown | here"\nb = ["as a", "a"]\n["Two"]\nc = "gone"\n')
    differences = compatibility.read_differences('[[no]]\nrows = ["c"]\nreason = "nobody asked"\n')
    page = compatibility.render("# Title\n", rows, compatibility.judge(rows, differences, TESTS), TESTS)
    assert page == (
        "# Title\n\n## Row by row\n\n"
        "Of 3 rows, 2 hold, 0 differ, and 1 are not provided or have no test. Test paths are relative to `tests/`.\n\n"
        "### One\n\n| row | behaviour | status |\n| --- | --- | --- |\n"
        "| `a` | shown \\| here | **yes**<br>`t.py` `test_a` |\n"
        "| `b` | as a | **yes**: see a |\n\n"
        "### Two\n\n| row | behaviour | status |\n| --- | --- | --- |\n"
        "| `c` | gone | **no**: nobody asked |\n"
    )
