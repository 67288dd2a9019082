import shlex

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gaffer.command_line import needs_shell, parse, split

LINES = st.text(alphabet=st.sampled_from("ab \t'\"\\#é\x0b="), max_size=30)


def outcome(splitter, line):
    try:
        return splitter(line)
    except ValueError:
        return None


@given(LINES)
@example("")
@example("""sh -c 'echo "a b"' "it's" a\\ b "\\x\\\\\\"" '' x"y"'z'""")
def test_lines_are_split_as_by_shlex(line):
    assert outcome(split, line) == outcome(shlex.split, line)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("run $A ${A}x", ["run", "1 2", "1 2x"]),
        ('run "$A" pre"${A}"', ["run", "1 2", "pre1 2"]),
        ("run '$A' \\$A \"\\$A\" '${A}'$A", ["run", "$A", "$A", "$A", "${A}1 2"]),
        ("run $UNKNOWN '$'A \"$\"A", ["run", "$UNKNOWN", "$A", "$A"]),
        ('run "$QUOTES" $QUOTES', ["run", "\"'; $A", "\"'; $A"]),
    ],
)
def test_variables_are_replaced_after_splitting_and_outside_single_quotes(line, words):
    env = {"A": "1 2", "QUOTES": "\"'; $A"}
    assert [word.expand(env) for word in parse(line)] == words


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


@pytest.mark.parametrize("line", ["run 'a", 'run "a', "run \\"])
def test_an_open_quotation_is_a_mistake(line):
    with pytest.raises(ValueError, match=r"No closing quotation|No escaped character"):
        needs_shell(line)


@pytest.mark.parametrize("mark", ["x", '"', "\\'", "''", '"\\x"', "$A'b'", "' "], ids=ascii)
def test_a_long_line_takes_linear_time(mark):
    """Quadratic time would be minutes here."""
    line = (mark * 200_000)[:200_000]
    outcome(parse, line)
    outcome(needs_shell, '"' + line)
