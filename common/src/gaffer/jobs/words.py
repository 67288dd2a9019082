"""Split command lines into words like a POSIX shell, and detect those that only a shell can run.

The rules are those of POSIX, XCU 2.2 (Quoting). Splitting takes time linear in the length of the line; `shlex.split`
builds each word character by character, which takes time quadratic in the length of the word.
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from msgspec import Struct

MAX_WORD = 128 * 1024 - 1
"""The maximum bytes of an argument, and of a whole command line (MAX_ARG_STRLEN less its NUL byte, execve(2))."""

_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})", re.ASCII)

# No possessively repeated groups: Python 3.11.2 in Debian 12 matches them incorrectly.
_PIECE = re.compile(
    r"""(?P<blank>[ \t\r\n]++)
      | (?P<bare>[^ \t\r\n'"\\]++)
      | \\(?P<escaped>.)
      | '(?P<single>[^']*+)'
      | "(?P<double>[^"\\]*(?:\\.[^"\\]*)*)"
    """,
    re.VERBOSE | re.DOTALL,
)
_IN_DOUBLE_QUOTES = re.compile(r'\\(?P<escaped>[$`"\\])|(?P<double>(?:[^\\]+|\\(?![$`"\\]))+)', re.DOTALL)

# The meaning of these, if unquoted, is in XCU 2.2 to 2.14; in double quotes only `$` and backquotes are special.
_SYNTAX = re.compile(r"[|&;<>()$`*?\[\]#~{}!]")
_EXPANSION = re.compile(r"[$`]")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=", re.ASCII)
_PORT = re.compile(r"\$(?:PORT(?!\w)|\{PORT\})", re.ASCII)  # a number, which no shell would split or expand further

# Special built-ins (XCU 2.14), utilities that act on the shell itself (XCU 1.7, intrinsic), and `echo`, whose escapes
# differ between shells and programs. Reserved words without an operator can't be a complete command.
_BUILT_IN = frozenset(
    ". : break continue eval exec exit export readonly return set shift times trap unset "
    "alias bg cd command fc fg getopts hash jobs read type ulimit umask unalias wait echo "
    "case do done elif else esac fi for if in then until while".split()
)


class SplitError(ValueError):
    """A command line that can't be split into words; `hint` suggests a remedy."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def substitute_env(s: str, env: Mapping[str, str]) -> str:
    """Return `s` with `$VAR` and `${VAR}` replaced from `env`; unknown variables are left unchanged."""
    return _VARIABLE.sub(lambda match: env.get(match[1] or match[2], match[0]), s)


class Piece(NamedTuple):
    """A part of a word and how it was quoted: `bare`, `double`, or `literal` for single quotes and backslashes."""

    text: str
    quoting: str


class Word(Struct, frozen=True):
    """A word of a command line; `source` is the word as written, with its quotes."""

    pieces: tuple[Piece, ...]
    source: str

    @property
    def text(self) -> str:
        """The word without its quotes."""
        return "".join(piece.text for piece in self.pieces)

    @property
    def quotes_dollar(self) -> bool:
        """Whether it has a quoted `$`, which `text` alone doesn't show."""
        return any("$" in piece.text for piece in self.pieces if piece.quoting == "literal")

    def expand(self, env: Mapping[str, str]) -> str:
        """Return the word with variables replaced from `env`, except quoted ones; unknown ones are left unchanged."""
        return "".join(
            piece.text if piece.quoting == "literal" else substitute_env(piece.text, env) for piece in self.pieces
        )


def parse_words(line: str) -> list[Word]:
    """Split `line` into words.

    Raises SplitError for an unclosed quotation, a trailing backslash, and a line longer than MAX_WORD.
    """
    if len(line) > MAX_WORD:
        message = f"the command line has {len(line)} characters, more than the maximum of {MAX_WORD}"
        raise SplitError(message, "put the command into a script")
    words: list[Word] = []
    pieces: list[Piece] = []
    start = 0
    for begin, end, found in _scan(line):
        if found is not None:
            start = start if pieces else begin
            pieces += found
        elif pieces:
            words.append(Word(tuple(pieces), line[start:begin]))
            pieces = []
        start = start if pieces else end
    if pieces:
        words.append(Word(tuple(pieces), line[start:]))
    return words


def split_words(line: str) -> list[str]:
    """Return the words of `line` without their quotes; raises SplitError like `parse_words`."""
    return [word.text for word in parse_words(line)]


def needs_shell(line: str) -> bool:
    """Return whether a shell would do more with `line` than split it, remove quotes and replace `$PORT`.

    When in doubt, return True. Raises SplitError like `parse_words`, unless the line needs a shell.
    """
    for _, _, found in _scan(line):
        for piece in found or ():
            syntax = {"bare": _SYNTAX, "double": _EXPANSION}.get(piece.quoting)
            if syntax is not None and syntax.search(_PORT.sub("", piece.text)):
                return True
    first = parse_words(line)[:1]
    return any(word.text in _BUILT_IN or _ASSIGNMENT.match(word.source) is not None for word in first)


def _scan(line: str) -> Iterator[tuple[int, int, list[Piece] | None]]:
    """Yield the runs of blanks (None) and of equally quoted characters in `line`, each with its start and end."""
    position = 0
    while position < len(line):
        match = _PIECE.match(line, position)
        if match is None:
            if line[position] == "\\":
                raise SplitError("No escaped character", "remove the backslash at the end")
            raise SplitError("No closing quotation", "close the quotation")
        yield position, match.end(), _pieces(match)
        position = match.end()


def _pieces(match: re.Match[str]) -> list[Piece] | None:
    kind = str(match.lastgroup)
    text = match[kind]
    if kind == "blank":
        return None
    if kind == "escaped":
        return [] if text == "\n" else [Piece(text, "literal")]  # an escaped newline continues the line
    if kind == "double" and "\\" in text:
        parts = _IN_DOUBLE_QUOTES.finditer(text)
        return [Piece(part[0][-1], "literal") if part["escaped"] else Piece(part[0], "double") for part in parts]
    return [Piece(text, "literal" if kind == "single" else kind)]
