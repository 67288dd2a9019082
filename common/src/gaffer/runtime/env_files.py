"""Env files: `KEY=VALUE` lines, in the syntax of python-dotenv without expansion of variables."""

import io
import os
import re
import stat
from collections.abc import Callable

from gaffer.errors import ConfigError, Problem

Path = str | os.PathLike[str]

MAX_SIZE = 256 * 1024
"""The maximum size in bytes of a file that `read_env_file` reads."""

LINE_END = re.compile(r"\r\n|\r|\n")

_HINT = "write KEY=VALUE, or # before a comment"


def decode(data: bytes, path: Path) -> str:
    """Return the text of a file with the content `data`; raises ConfigError unless it is UTF-8 without a NUL byte."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = f"0x{data[error.start]:02x}"
        problem = Problem(f"{os.fspath(path)}:{line}", f"invalid UTF-8: byte {byte}", "save the file as UTF-8")
        raise ConfigError([problem]) from None
    if "\0" in text:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise ConfigError([Problem(f"{os.fspath(path)}:{line}", "unexpected NUL byte", "save the file as UTF-8 text")])
    return text


def parse_env(text: str, path: Path, invalid: Callable[[Problem], object]) -> dict[str, str]:
    """Return the variables in the text of an env file; `invalid` is called for each line that is not `KEY=VALUE`.

    Quotes around a value are removed, and a quoted value may have several lines; `#` starts a comment.
    """
    from dotenv.parser import parse_stream  # deferred: few jobs have env files

    env: dict[str, str] = {}
    for binding in parse_stream(io.StringIO(text, newline="")):
        part = binding.original.string.lstrip()
        if binding.key is not None and binding.value is not None and "=" not in binding.key:
            env[binding.key] = binding.value
        elif part and not part.startswith("#"):
            blank = binding.original.string[: -len(part)]
            line = binding.original.line + len(LINE_END.findall(blank))
            # The text is left out, since it may be a secret.
            invalid(Problem(f"{os.fspath(path)}:{line}", "expected KEY=VALUE", _HINT))
    return env


def read_env_file(path: Path) -> dict[str, str]:
    """Return the variables in a regular file; raises ConfigError if it can't be read or has an invalid line."""
    problems: list[Problem] = []
    env = parse_env(decode(_read(path), path), path, problems.append)
    if problems:
        raise ConfigError(problems)
    return env


def _read(path: Path) -> bytes:
    place = os.fspath(path)
    try:
        # Without O_NONBLOCK, opening a pipe would wait for a writer.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ConfigError([Problem(place, "not a regular file", "use the path of a file")])
            with open(fd, "rb", closefd=False) as file:
                data = file.read(MAX_SIZE + 1)
        finally:
            os.close(fd)
    except OSError as error:
        hint = "create it" if isinstance(error, FileNotFoundError) else "make it readable for the user of the manager"
        raise ConfigError(
            [Problem(place, f"can't be read: {error.strerror}", f"{hint}, or use another file")]
        ) from None
    if len(data) > MAX_SIZE:
        raise ConfigError([Problem(place, f"more than {MAX_SIZE} bytes", "use a smaller file")])
    return data
