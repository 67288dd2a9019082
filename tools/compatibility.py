"""Generate docs/compatibility.md: the rows of the documentation of gaffer 0.5, their status, and the tests for each.

    python tools/compatibility.py            write the page
    python tools/compatibility.py --check    exit with code 1 if the committed page is stale; write nothing

Sources: docs/rows.toml (the rows), docs/differences.toml (the rows that differ or are not provided),
docs/compatibility.in (the text above the rows) and the marks `@pytest.mark.row("MGR-37")` of the tests.
"""

import ast
import sys
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
UNSHOWN = "not provided yet; no test"


class Row(NamedTuple):
    """A documented behaviour; it is shown by its own tests, or else by the tests of the rows in `like`."""

    words: str
    like: tuple[str, ...] = ()


class Evidence(NamedTuple):
    """A test function, class or file (empty `name`); `path` is relative to tests/."""

    path: str
    name: str


class Verdict(NamedTuple):
    """The status of a row: `word` is "yes", "differs" or "no"."""

    word: str
    reason: str = ""


Sections = Mapping[str, Mapping[str, Row]]


class InvalidValue(Exception):
    """Inconsistent rows, differences or marks; the message has one line per error."""


def read_rows(text: str) -> dict[str, dict[str, Row]]:
    """Return the rows of rows.toml, by section and id."""
    return {
        section: {
            row: Row(given) if isinstance(given, str) else Row(given[0], tuple(given[1:]))
            for row, given in rows.items()
        }
        for section, rows in tomllib.loads(text).items()
    }


def read_differences(text: str) -> list[tuple[str, Verdict]]:
    """Return the entries of differences.toml, one for each row."""
    return [
        (row, Verdict(word, entry["reason"]))
        for word, entries in tomllib.loads(text).items()
        for entry in entries
        for row in entry["rows"]
    ]


def marks(source: str, path: str) -> Iterator[tuple[str, Evidence]]:
    """Yield the rows and tests of a module's marks; raise InvalidValue for a mark that is not a literal."""
    tree = ast.parse(source, path)
    aliases = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign) and _is_mark(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    yield from _marks_in(tree.body, path, "", aliases)


def _marks_in(body: Sequence[ast.stmt], path: str, inside: str, aliases: set[str]) -> Iterator[tuple[str, Evidence]]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for row in _ids(node.decorator_list, path, aliases):
                yield row, Evidence(path, f"{inside}{node.name}")
        elif isinstance(node, ast.ClassDef):
            for row in _ids(node.decorator_list, path, aliases):
                yield row, Evidence(path, f"{inside}{node.name}")
            yield from _marks_in(node.body, path, f"{inside}{node.name}::", aliases)
        elif isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == "pytestmark" for t in node.targets
        ):
            for row in _ids([node.value], path, aliases):
                yield row, Evidence(path, inside.removesuffix("::"))


def _ids(expressions: Iterable[ast.expr], path: str, aliases: set[str]) -> Iterator[str]:
    for call in (node for expression in expressions for node in ast.walk(expression)):
        if not isinstance(call, ast.Call):
            continue
        if _is_mark(call.func) or (isinstance(call.func, ast.Name) and call.func.id in aliases):
            for argument in call.args:
                if not (isinstance(argument, ast.Constant) and isinstance(argument.value, str)):
                    raise InvalidValue(f"{path}:{call.lineno}: the rows of a mark must be string literals")
                yield argument.value


def _is_mark(node: ast.expr) -> bool:
    """Return whether `node` is `pytest.mark.row`."""
    return isinstance(node, ast.Attribute) and ast.unparse(node) == "pytest.mark.row"


def judge(
    sections: Sections, differences: Sequence[tuple[str, Verdict]], tests: Mapping[str, Sequence[Evidence]]
) -> dict[str, Verdict]:
    """Return the verdict on each row; raise InvalidValue with all inconsistencies."""
    rows = {row: described for section in sections.values() for row, described in section.items()}
    if mistakes := [*_mistakes(rows, differences, tests)]:
        raise InvalidValue("\n".join(mistakes))
    try:
        order = [*TopologicalSorter({row: rows[row].like for row in rows}).static_order()]
    except CycleError as error:
        raise InvalidValue(f"docs/rows.toml: circular reference: {', '.join(error.args[1])}") from None
    stated = dict(differences)
    verdicts: dict[str, Verdict] = {}
    for row in order:
        if row in stated:
            verdicts[row] = stated[row]
        elif tests.get(row):
            verdicts[row] = Verdict("yes")
        else:
            verdicts[row] = _worst(rows[row].like, verdicts)
    return verdicts


def _mistakes(
    rows: Mapping[str, Row], differences: Sequence[tuple[str, Verdict]], tests: Mapping[str, Sequence[Evidence]]
) -> Iterator[str]:
    for row, described in rows.items():
        for other in described.like:
            if other not in rows:
                yield f"docs/rows.toml: {row} refers to unknown row {other}"
    for row, times in Counter(row for row, _ in differences).items():
        if row not in rows:
            yield f"docs/differences.toml: unknown row {row}"
        if times > 1:
            yield f"docs/differences.toml: {row} is listed {times} times"
    for row, verdict in differences:
        if verdict.word == "no" and tests.get(row):
            yield f"docs/differences.toml: {row} is listed as not provided, but tests/{tests[row][0].path} shows it"
    for row in tests.keys() - rows.keys():
        for test in tests[row]:
            yield f"tests/{test.path}: {test.name or 'the module'} is marked with unknown row {row}"


def _worst(like: Sequence[str], verdicts: Mapping[str, Verdict]) -> Verdict:
    """Return the verdict on a row that is shown by other rows."""
    for word in ("no", "differs", "yes"):
        if found := [row for row in like if verdicts[row].word == word]:
            return Verdict(word, f"see {', '.join(found)}")
    return Verdict("no", UNSHOWN)


def render(
    prose: str, sections: Sections, verdicts: Mapping[str, Verdict], tests: Mapping[str, Sequence[Evidence]]
) -> str:
    """Return the text of the page."""
    words = [verdict.word for verdict in verdicts.values()]
    parts = [
        prose.rstrip("\n"),
        "## Row by row",
        f"Of {len(words)} rows, {words.count('yes')} hold, {words.count('differs')} differ, "
        f"and {words.count('no')} are not provided or have no test. Test paths are relative to `tests/`.",
    ]
    for title, rows in sections.items():
        lines = [f"### {title}", "", "| row | behaviour | status |", "| --- | --- | --- |"]
        lines += [
            f"| `{row}` | {_cell(described.words)} | {_answer(verdicts[row], tests.get(row, ()))} |"
            for row, described in rows.items()
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _answer(verdict: Verdict, tests: Sequence[Evidence]) -> str:
    by_path = defaultdict(list)
    for test in tests:
        by_path[test.path].append(test.name)
    shown = [f"`{path}`" + "".join(f" `{name}`" for name in names if name) for path, names in by_path.items()]
    return "<br>".join([f"**{verdict.word}**" + (f": {_cell(verdict.reason)}" if verdict.reason else ""), *shown])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def make_page(root: Path) -> str:
    """Return the page for the checkout at `root`; raise InvalidValue on inconsistencies."""
    docs, folder = root / "docs", root / "tests"
    sections = read_rows((docs / "rows.toml").read_text())
    tests: defaultdict[str, list[Evidence]] = defaultdict(list)
    for file in sorted(folder.rglob("test_*.py")):
        for row, test in marks(file.read_text(), file.relative_to(folder).as_posix()):
            if test not in tests[row]:
                tests[row].append(test)
    verdicts = judge(sections, read_differences((docs / "differences.toml").read_text()), tests)
    return render((docs / "compatibility.in").read_text(), sections, verdicts, tests)


def main(arguments: Sequence[str]) -> int:
    """Write or check the page; return the exit code."""
    page = ROOT / "docs" / "compatibility.md"
    try:
        made = make_page(ROOT)
    except InvalidValue as wrong:
        print(wrong, file=sys.stderr)
        return 1
    if "--check" not in arguments:
        page.write_text(made)
    elif page.read_text() != made:
        print("docs/compatibility.md is stale; run `make docs`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
