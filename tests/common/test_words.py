"""Splitting of command lines: equal to shlex, and linear."""

import shlex

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gaffer.words import MAX_WORD, split_words

COMMAND_LINES = st.text(alphabet=st.sampled_from("ab \t\r\n'\"\\$#é\0\x0b"), max_size=30)


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
    ("line", "message"),
    [
        ("'a", "No closing quotation"),
        ('a "b', "No closing quotation"),
        ("a\\", "No escaped character"),
        ("x" * (MAX_WORD + 1), "131072 characters are more than the 131071"),
    ],
)
def test_what_cannot_be_split_is_an_error(line, message):
    with pytest.raises(ValueError, match=message):
        split_words(line)


@pytest.mark.parametrize("mark", ["x", "x\\", '"', "\\'", '""', "''", '"\\x"', "é "], ids=ascii)
def test_long_lines_are_split_as_short_ones(mark):
    line = (mark * MAX_WORD)[:MAX_WORD]
    outcome(split_words, line)
    outcome(split_words, '"' + line[1:])
