"""Secrets in files: making a key, and reading one.

API keys and the cluster key have one format: `gk_` and 256 random bits in URL-safe base64. Readers take any
printable word, so that a key made by another tool works too.
"""

import logging
import os
import secrets
import stat
from pathlib import Path

from gaffer.errors import GafferError

KEY_PREFIX = "gk_"
_MAX_SIZE = 4096

logger = logging.getLogger(__name__)


class KeyFileError(GafferError):
    """A key file can't be read or holds no key."""

    errno = 400
    reason = "bad_key_file"


def new_key() -> str:
    """A new random key of 256 bits."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def read_key_file(path: str | os.PathLike[str]) -> str:
    """The key that the file holds, without the white space around it.

    Logs a warning when others than the owner may read the file. Raises KeyFileError when the file is missing,
    unreadable, empty or holds anything but one printable ASCII word.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_MAX_SIZE + 1)
    except OSError as error:
        raise KeyFileError(
            f"can't read the key file {path}: {error.strerror}",
            hint="make one with `gaffer key:new > FILE` and `chmod 600 FILE`",
        ) from None
    warn_when_readable_by_others(path, mode)
    words = content.split()
    if len(words) != 1 or len(content) > _MAX_SIZE or not all(0x21 <= byte <= 0x7E for byte in words[0]):
        raise KeyFileError(
            f"the key file {path} does not hold exactly one key",
            hint="one key on one line, as `gaffer key:new` prints it",
        )
    return words[0].decode("ascii")


def warn_when_readable_by_others(path: Path, mode: int) -> None:
    """Log a warning when the regular file of that `st_mode` is readable by its group or by everyone."""
    if stat.S_ISREG(mode) and mode & (stat.S_IRGRP | stat.S_IROTH):
        logger.warning("the key file %s is readable by other users: chmod 600 %s", path, path)
