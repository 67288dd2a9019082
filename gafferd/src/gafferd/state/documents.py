"""Documents of the state directory: small JSON files that survive crashes and detect damage.

A document begins with its format, a serial number that grows with each change, and the SHA-256 of the rest. It is
stored twice, as `NAME.json` and `NAME.json.copy`: if one file is damaged, missing or outdated, the other one is used.
Files of earlier versions, without this header, are also accepted.
"""

import contextlib
import errno
import hashlib
import logging
import os
import re
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from gaffer.errors import GafferError
from gaffer.runtime.trusted_files import read_trusted

T = TypeVar("T", bound=msgspec.Struct)

FORMAT = 1
MAX_SIZE = 256 * 1024 * 1024  # bytes of a document
_HEADER = re.compile(rb'\{"format":([0-9]{1,9}),"serial":([0-9]{1,15}),"checksum":"([0-9a-f]{64})",')

logger = logging.getLogger(__name__)


class DamagedFile(GafferError):
    """The content of a document is invalid."""

    reason = "damaged_file"


class NewerFile(GafferError):
    """The document was written by a later version of gafferd."""

    reason = "newer_file"


class Document(Generic[T]):
    """A document of the type `kind` at `path`, and its `copy`.

    `format` is the format that it is written in. With `keep_previous`, the copy is the document before the last change,
    which saves a write; else it is the same.
    """

    def __init__(self, path: Path, kind: type[T], *, format: int = FORMAT, keep_previous: bool = False) -> None:
        self.path = path
        self.copy = path.with_name(f"{path.name}.copy")
        self._kind = kind
        self._format = format
        self._keep_previous = keep_previous
        self._path_valid = False  # the file at `path` holds the last document
        self._serial = 0

    def load(self) -> T:
        """Return the document at `path`; raise FileNotFoundError, DamagedFile, NewerFile or UntrustedFile."""
        value, serial = self._load(self.path)
        self._serial = max(self._serial, serial or 0)
        return value

    def load_either(self) -> T | None:
        """Return the valid or newer one of both files, or None if both are missing; log the use of the copy.

        Raises DamagedFile if neither is valid, NewerFile and UntrustedFile.
        """
        fault: DamagedFile | None = None
        value: T | None = None
        serial: int | None = 0
        try:
            value, serial = self._load(self.path)
            self._path_valid = True
        except FileNotFoundError:
            pass
        except DamagedFile as error:
            fault = error
        try:
            other, other_serial = self._load(self.copy)
        except (FileNotFoundError, DamagedFile, NewerFile) as error:
            if value is None and fault is None and isinstance(error, FileNotFoundError):
                return None
            if value is None:
                raise fault or error from None
        else:
            # Earlier versions wrote no serial number and no copy: their last state is at `path`.
            if value is None or (serial is not None and serial < (other_serial or 0)):
                why = fault.message if fault else f"{self.path} is {'missing' if value is None else 'not the newest'}"
                logger.error("%s: using %s", why, self.copy)
                value, serial = other, other_serial
                self._path_valid = False
        self._serial = max(self._serial, serial or 0)
        return value

    def save(self, value: T, *, sync: bool, pretty: bool = False) -> None:
        """Replace both files; `sync` also protects against a crash of the host.

        Raises OSError, and keeps the old files, on failure. If only a copy that is the same can't be written, it is
        removed.
        """
        body = msgspec.json.encode(value)
        body = msgspec.json.format(body) if pretty else body
        serial = self._serial + 1
        header = b'{"format":%d,"serial":%d,"checksum":"%s",' % (self._format, serial, _checksum(serial, body[1:]))
        if len(header) + len(body) > MAX_SIZE:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        # A copy that was used instead of a damaged file is the only valid one until this is done.
        previous = self.copy if self._keep_previous and self._path_valid else None
        replace_file(self.path, header + body[1:], sync=sync, previous=previous)
        self._serial, self._path_valid = serial, True
        if self._keep_previous:
            return
        try:
            replace_file(self.copy, header + body[1:], sync=sync)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(self.copy)
                logger.warning("can't write %s: %s", self.copy, error.strerror)

    def move_aside(self, suffix: str) -> list[Path]:
        """Rename both files to `NAME.suffix`, and return their new paths; raises OSError."""
        moved = []
        for path in (self.path, self.copy):
            if path.exists():
                moved.append(path.rename(path.with_name(f"{path.name}.{suffix}")))
        self._path_valid = False
        return moved

    def _load(self, path: Path) -> tuple[T, int | None]:
        """Return a document and its serial number, or None if it has no number."""
        try:
            content = read_trusted(path, MAX_SIZE + 1).data
            if len(content) > MAX_SIZE:
                raise DamagedFile(f"{path} is larger than {MAX_SIZE >> 20} MiB")
            return _parse(content, self._kind, self._format)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise DamagedFile(f"{path} is damaged: {error}") from None
        except NewerFile as error:
            raise NewerFile(
                f"{path} {error.message}", hint="use the later version of gafferd, or another --state-dir"
            ) from None


def _parse(content: bytes, kind: type[T], newest: int) -> tuple[T, int | None]:
    header = _HEADER.match(content)
    if header is None:
        raw = msgspec.json.decode(content)
        if isinstance(raw, dict) and ("format" in raw or "checksum" in raw):
            if isinstance(raw.get("format"), int) and raw["format"] > newest:
                raise NewerFile("was written by a later version of gafferd")
            raise msgspec.DecodeError("no checksum")
        return msgspec.convert(raw, kind), None
    if int(header[1]) > newest:
        raise NewerFile("was written by a later version of gafferd")
    serial, body = int(header[2]), content[header.end() :]
    if _checksum(serial, body) != header[3]:
        raise msgspec.DecodeError("wrong checksum")
    return msgspec.json.decode(b"{" + body, type=kind), serial


def _checksum(serial: int, body: bytes) -> bytes:
    return hashlib.sha256(b"%d " % serial + body).hexdigest().encode()


def replace_file(path: Path, content: bytes, *, sync: bool, previous: Path | None = None) -> None:
    """Replace the content of a file, mode 0600; `sync` also protects against a crash of the host.

    The old content is kept at the path `previous`, if given.

    Only one writer at a time. Links are not followed. Raises OSError on failure, and keeps the old content unless only
    the directory can't be synchronized.
    """
    temporary = path.with_name(f"{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)  # left by a crash
    with contextlib.ExitStack() as stack:
        if sync:  # opened first, since nothing may fail for lack of descriptors after the replacement
            directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, directory)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                if sync:
                    os.fsync(descriptor)
            if previous is not None and path.exists():
                _link_over(path, previous)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        if sync:
            os.fsync(directory)


def _link_over(path: Path, other: Path) -> None:
    """Keep the file at `path` also as `other`."""
    temporary = other.with_name(f"{other.name}.new")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    try:
        os.link(path, temporary, follow_symlinks=False)
    except PermissionError:
        os.replace(path, other)  # a file system without links, link(2): a crash now leaves the old content as `other`
    else:
        os.replace(temporary, other)
