"""Splitting command lines into words as a POSIX shell does (XCU 2.2, Quoting), in time linear in their length.

`shlex.split` builds each word character by character, which takes time quadratic in the length of the word.
"""

import re

MAX_WORD = 128 * 1024 - 1
"""Bytes that one argument can have, and a command line as a whole (MAX_ARG_STRLEN less its NUL byte, execve(2))."""

_PIECE = re.compile(
    r"""(?P<blank>[ \t\r\n]+)
      | (?P<plain>[^ \t\r\n'"\\]+)
      | \\(?P<escaped>.)
      | '(?P<single>[^']*)'
      | "(?P<double>(?:[^"\\]++|\\.)*+)"
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPED_IN_QUOTES = re.compile(r'\\(["\\])')


def split_words(line: str) -> list[str]:
    r"""Split a command line into words: blanks separate, `\`, `'` and `"` quote. Equal to `shlex.split(line)`.

    Raises ValueError for an open quotation, a backslash at the end, and more than MAX_WORD characters.
    """
    if len(line) > MAX_WORD:
        raise ValueError(f"{len(line)} characters are more than the {MAX_WORD} of a command line")
    words: list[str] = []
    word: list[str] | None = None  # the pieces of the current word
    position = 0
    while position < len(line):
        piece = _PIECE.match(line, position)
        if piece is None:
            raise ValueError("No escaped character" if line[position] == "\\" else "No closing quotation")
        position = piece.end()
        if piece.lastgroup == "blank":
            if word is not None:
                words.append("".join(word))
            word = None
            continue
        text = piece[piece.lastgroup or 0]
        if word is None:
            word = []
        word.append(_ESCAPED_IN_QUOTES.sub(r"\1", text) if piece.lastgroup == "double" else text)
    if word is not None:
        words.append("".join(word))
    return words
