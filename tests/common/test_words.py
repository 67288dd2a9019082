"""Splitting of command lines: equal to shlex, and linear."""

import shlex

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gaffer.jobs.words import MAX_WORD, needs_shell, parse_words, split_words

pytestmark = pytest.mark.pure

COMMAND_LINES = st.text(alphabet=st.sampled_from("ab \t\r'\"\\#é\0\x0b"), max_size=30)


def outcome(split, line: str) -> list[str] | None:
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
def test_a_line_is_split_as_by_shlex(line):
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
def test_variables_are_replaced_after_splitting_and_outside_single_quotes(line, words):
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
def test_shell_syntax_needs_a_shell(line):
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
def test_plain_lines_need_none(line):
    assert not needs_shell(line)


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("'a", "No closing quotation", "close the quotation"),
        ('a "b', "No closing quotation", "close the quotation"),
        ("a\\", "No escaped character", "remove the backslash"),
        ("x" * (MAX_WORD + 1), "131072 characters are more than the 131071", "a script"),
    ],
)
def test_what_cannot_be_split_is_an_error(line, message, hint):
    with pytest.raises(ValueError, match=message) as raised:
        split_words(line)
    assert hint in raised.value.hint


@pytest.mark.parametrize("mark", ["x", "x\\", '"', "\\'", '""', "''", '"\\x"', "é "], ids=ascii)
def test_long_lines_are_split_as_short_ones(mark):
    line = (mark * MAX_WORD)[:MAX_WORD]
    outcome(split_words, line)
    outcome(split_words, '"' + line[1:])
    outcome(needs_shell, line)
