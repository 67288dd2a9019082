"""Secrets in files: making a key, and reading one.

API keys and the cluster key have one format: `gk_` and 256 random bits in URL-safe base64. Readers take any
printable word with enough bits, so that a key made by another tool works too.
"""

import logging
import math
import os
import secrets
import stat
import string
from pathlib import Path

from gaffer.errors import GafferError
from gaffer.runtime.trusted_files import UntrustedFile, read_trusted

KEY_PREFIX = "gk_"
MIN_BITS = 128  # nobody guesses such a key; a shorter one is refused beyond loopback
_HOPELESS_BITS = 20  # a process on the same host tries all such keys within a minute
_MAX_SIZE = 4096
_ALPHABETS = (string.digits, "0123456789abcdef", "0123456789ABCDEF", string.ascii_letters + string.digits + "-_")
_PRINTABLE = 94
_HINT = "make one with `(umask 077; gaffer key:new > FILE)`"

logger = logging.getLogger(__name__)


class KeyFileError(GafferError):
    """A key file can't be read, can be changed by others, or holds no good key."""

    errno = 400
    reason = "bad_key_file"


def new_key() -> str:
    """A new random key of 256 bits."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def is_weak(key: str) -> bool:
    """Whether a key has fewer than MIN_BITS random bits, judged by its length and the characters that it uses."""
    return _bits(key) < MIN_BITS


def _bits(key: str) -> float:
    size = next((len(each) for each in _ALPHABETS if set(key) <= set(each)), _PRINTABLE)
    return len(key) * math.log2(size)


def read_key_file(path: str | os.PathLike[str]) -> str:
    """The key that the file holds, without the white space around it.

    `path` may be one that a shell made for `<(command)`. Logs a warning when others than the owner may read the file.
    Raises KeyFileError when it is missing, unreadable, open to changes by others (see gaffer.runtime.trusted_files), or
    holds anything but one printable ASCII word, or one that anybody guesses.
    """
    path = Path(path)
    try:
        content, mode = read_trusted(path, _MAX_SIZE + 1, descriptors=True)
    except UntrustedFile as error:
        raise KeyFileError(f"the key file {error.message}", hint=error.hint) from None
    except OSError as error:
        raise KeyFileError(f"can't read the key file {path}: {error.strerror}", hint=_HINT) from None
    warn_when_readable_by_others(path, mode)
    words = content.split()
    if len(words) != 1 or len(content) > _MAX_SIZE or not all(0x21 <= byte <= 0x7E for byte in words[0]):
        raise KeyFileError(
            f"the key file {path} does not hold exactly one key",
            hint="one key on one line, as `gaffer key:new` prints it",
        )
    key = words[0].decode("ascii")
    if _bits(key) < _HOPELESS_BITS:
        raise KeyFileError(f"the key in {path} is too short: anybody can guess it", hint=_HINT)
    return key


def warn_when_readable_by_others(path: Path, mode: int) -> None:
    """Log a warning when the regular file of that `st_mode` is readable by its group or by everyone."""
    if stat.S_ISREG(mode) and mode & (stat.S_IRGRP | stat.S_IROTH):
        logger.warning("the key file %s is readable by other users: chmod 600 %s", path, path)


def warn_about_private_key(path: str | os.PathLike[str]) -> None:
    """Log a warning when everybody may read the private key of a certificate; a group may, as ssl-cert of Debian."""
    path = Path(path)
    warn_when_readable_by_others(path, path.stat().st_mode & ~stat.S_IRGRP)
