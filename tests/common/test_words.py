"""Splitting of command lines: equal to shlex, and linear."""

import shlex
from collections.abc import Callable
from typing import TypeVar

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gaffer.jobs.words import MAX_WORD, SplitError, needs_shell, parse_words, split_words

T = TypeVar("T")

pytestmark = pytest.mark.pure

COMMAND_LINES = st.text(alphabet=st.sampled_from("ab \t\r'\"\\#é\0\x0b"), max_size=30)


def outcome(split: Callable[[str], T], line: str) -> T | None:
    try:
        return split(line)
    except ValueError:
        return None


@given(COMMAND_LINES)
@example("")
@example("python -m http.server $PORT")
@example("""sh -c 'echo "a b"' "it's" a\\ b "\\x\\\\\\"" '' x"y"'z'""")
@example("a\\")
@example('"a\\')
def test_a_line_is_split_as_by_shlex(line: str) -> None:
    assert outcome(split_words, line) == outcome(shlex.split, line)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("run $A ${A}x", ["run", "1 2", "1 2x"]),
        ('run "$A" pre"${A}"', ["run", "1 2", "pre1 2"]),
        ("run \\\n '$A' \\$A \"\\$A\" '${A}'$A", ["run", "$A", "$A", "$A", "${A}1 2"]),
        ("run $UNKNOWN '$'A \"$\"A", ["run", "$UNKNOWN", "$A", "$A"]),
        ('run "$QUOTES" $QUOTES', ["run", "\"'; $A", "\"'; $A"]),
    ],
)
def test_variables_are_replaced_after_splitting_and_outside_single_quotes(line: str, words: list[str]) -> None:
    env = {"A": "1 2", "QUOTES": "\"'; $A"}
    assert [word.expand(env) for word in parse_words(line)] == words


@pytest.mark.parametrize(
    "line",
    [
        "cd sub && cat marker",
        "A=1 run",
        "A= run",
        "run ${PORT:-5000}",
        "run $PORTS",
        "run $OPTIONS",
        'run "$OPTIONS"',
        "run | cat",
        "run; run",
        "run &",
        "run > file",
        "run 2>&1",
        "run `date`",
        'run "$(date)"',
        "(run)",
        "{ run; }",
        "run *.py",
        "run file?",
        "run [ab]",
        "run ~/file",
        "run # comment",
        "run # don't",
        "run ${NAME:-it's}",
        "! run",
        "run $'a'",
        "exec run",
        "exec",
        ". ./settings",
        "ulimit -n 100",
        "echo 'a\\tb'",
        "while true; do run; done",
    ],
)
def test_shell_syntax_needs_a_shell(line: str) -> None:
    assert needs_shell(line)


@pytest.mark.parametrize(
    "line",
    [
        "run",
        "run --port $PORT --bind=:$PORT",
        'run "${PORT}" a=b -x=1',
        "sh -c 'while :; do echo $A; done | cat > /dev/null'",
        '"./my program" \'a;b\' "a;b"',
        "run \\$A \\; \\*",
        "./A=1",
        "python -m http.server",
    ],
)
def test_plain_lines_need_none(line: str) -> None:
    assert not needs_shell(line)


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("'a", "No closing quotation", "close the quotation"),
        ('a "b', "No closing quotation", "close the quotation"),
        ("a\\", "No escaped character", "remove the backslash"),
        ("x" * (MAX_WORD + 1), "has 131072 characters, more than the maximum of 131071", "a script"),
    ],
)
def test_what_cannot_be_split_is_an_error(line: str, message: str, hint: str) -> None:
    with pytest.raises(SplitError, match=message) as raised:
        split_words(line)
    assert hint in (raised.value.hint or "")


@pytest.mark.parametrize("mark", ["x", "x\\", '"', "\\'", '""', "''", '"\\x"', "é "], ids=ascii)
def test_long_lines_are_split_as_short_ones(mark: str) -> None:
    line = (mark * MAX_WORD)[:MAX_WORD]
    outcome(split_words, line)
    outcome(split_words, '"' + line[1:])
    outcome(needs_shell, line)
