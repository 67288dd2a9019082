"""Documents of the state directory: small JSON files that survive crashes and show damage.

A document begins with its format and the SHA-256 of what follows. It is kept twice, `NAME.json` and `NAME.json.copy`,
with the same content: when one is damaged the other one is still good. What an earlier gafferd wrote, without format
and checksum, is read too.
"""

import contextlib
import hashlib
import logging
import os
import re
from pathlib import Path
from typing import TypeVar

import msgspec

from gaffer.errors import GafferError
from gaffer.trusted_files import read_trusted

T = TypeVar("T")

FORMAT = 1
_HEADER = re.compile(rb'\{"format":([0-9]{1,9}),"checksum":"([0-9a-f]{64})",')

logger = logging.getLogger(__name__)


class DamagedFile(GafferError):
    """A document is not what was written."""

    reason = "damaged_file"


class NewerFile(GafferError):
    """A later version of gafferd wrote the document."""

    reason = "newer_file"


def copy_of(path: Path) -> Path:
    """Where the second copy of the document at `path` is."""
    return path.with_name(f"{path.name}.copy")


def save(path: Path, value: msgspec.Struct, *, sync: bool, pretty: bool = False) -> None:
    """Replace the document at `path`, then its copy. `sync`: also for when the host goes down.

    Raises OSError, and leaves the old document then. A copy that can't be written is removed: it would be out of date.
    """
    body = msgspec.json.encode(value)
    body = msgspec.json.format(body) if pretty else body
    header = b'{"format":%d,"checksum":"%s",' % (FORMAT, _checksum(body))
    content = header + body[1:]
    replace_file(path, content, sync=sync)
    copy = copy_of(path)
    try:
        replace_file(copy, content, sync=sync)
    except OSError as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(copy)
            logger.warning("can't write %s: %s", copy, error.strerror)


def load(path: Path, kind: type[T]) -> T:
    """The document at `path`. Raises FileNotFoundError, DamagedFile, NewerFile, and UntrustedFile."""
    try:
        return _parse(read_trusted(path).data, kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedFile(f"{path} is damaged: {error}") from None
    except NewerFile as error:
        raise NewerFile(f"{path} {error.message}", hint="use the later gafferd, or another --state-dir") from None


def load_either(path: Path, kind: type[T]) -> T | None:
    """The document at `path`, or its copy, with a line in the log, when that is damaged or missing; None without both.

    Raises DamagedFile when neither is good, and NewerFile and UntrustedFile.
    """
    copy = copy_of(path)
    damage: DamagedFile | None = None
    try:
        return load(path, kind)
    except FileNotFoundError:
        pass
    except DamagedFile as error:
        damage = error
    try:
        found = load(copy, kind)
    except FileNotFoundError:
        if damage is None:
            return None
        raise damage from None
    except DamagedFile as error:
        raise damage or error from None
    logger.error("%s: using %s", damage.message if damage else f"{path} is missing", copy)
    return found


def _parse(content: bytes, kind: type[T]) -> T:
    header = _HEADER.match(content)
    if header is None:
        raw = msgspec.json.decode(content)
        if isinstance(raw, dict) and ("format" in raw or "checksum" in raw):
            if isinstance(raw.get("format"), int) and raw["format"] > FORMAT:
                raise NewerFile("was written by a later gafferd")
            raise msgspec.DecodeError("its checksum can't be found")
        return msgspec.convert(raw, kind)
    if int(header[1]) > FORMAT:
        raise NewerFile("was written by a later gafferd")
    body = b"{" + content[header.end() :]
    if _checksum(body) != header[2]:
        raise msgspec.DecodeError("its checksum is another one")
    return msgspec.json.decode(body, type=kind)


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()


def replace_file(path: Path, content: bytes, *, sync: bool) -> None:
    """Put `content` into the file, mode 0600; one writer at a time. `sync`: also for when the host goes down.

    Follows no link. Raises OSError, and leaves the old content then.
    """
    temporary = path.with_name(f"{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)  # of a crash
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if sync:
                os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    if sync:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
