"""Journals: memory that outlives gafferd and holds what was received from a process, or is on its way to it.

A journal is a memfd that the keeper holds as well. The kernel moves data between it and a pipe by splice(2), and to a
socket by sendfile(2), which also advance the position of the file: so the position is the exact number of bytes that
were moved, whatever kills us. The first HEADER bytes say what must be known about them:

    0    magic, and the epoch of the ring
    24   offset of the oldest byte kept
    32   which of the next two is valid: 0 or 1
    40   what the log has: its offset, and the write to the log file that is under way, if any
    88   the same
    136  the end of what was written to the process, in a journal of its input
    144  1 if somebody follows the output, and will be back

The byte at offset N of the stream is at HEADER + N. Each field is written by one system call, after what it describes;
what the log has changes with each line, so it is written to mapped memory, and one byte makes it valid.
"""

import ctypes
import logging
import mmap
import os
import re
import secrets
import struct
from functools import cache
from typing import Any, NamedTuple, Protocol

log = logging.getLogger("gaffer.streams.journal")

HEADER = 4096  # bytes before the data
RELEASE = 64 * 1024  # bytes that are no longer needed until they are given back

_MAGIC = b"GAFJRNL1"
_PAGE = 4096
_OFFSET = struct.Struct("<Q")
_LOG = struct.Struct("<6Q")
_START_AT, _VALID_AT, _LOG_AT, _INPUT_AT, _FOLLOWED_AT = 24, 32, (40, 88), 136, 144
_HEADER = struct.Struct("<8s16s16Q")
_EPOCH = re.compile(rb"[0-9a-f]{16}")
_KEEP_SIZE, _PUNCH_HOLE = 1, 2  # linux/falloc.h
_MAP_FAILED = ctypes.c_void_p(-1).value


class StreamKeeper(Protocol):
    """Who holds the descriptors of one process, by names such as `stdout.journal`. Its methods never fail."""

    def keep(self, name: str, fd: int) -> None:
        """Hold a duplicate of `fd`."""

    def drop(self, name: str) -> None:
        """Close the descriptor of that name."""


class LogWrite(NamedTuple):
    """A write to a log file: the file, its size before it and after it, the offset of the stream that it reaches."""

    device: int
    inode: int
    size: int
    grown: int
    after: int


class Journal:
    """The journal in the memfd `fd`, which it closes. Data has offsets from `start` to `end`, that of an input more.

    A header that makes no sense, such as one of zeros, is replaced by that of a stream of which nothing was kept in a
    log. `followed`: somebody follows the output. `logged` is the offset up to which the log file has the output,
    `under_way` a write to it of which nobody knows whether it was done. The methods for the log may be called in
    another thread than the others. All raise OSError.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._header: ctypes.Array[ctypes.c_ubyte] | None = None
        self.end = os.lseek(fd, 0, os.SEEK_CUR) - HEADER
        if self.end < 0:
            self.end = os.lseek(fd, HEADER, os.SEEK_SET) - HEADER
        found = os.pread(fd, _HEADER.size, 0).ljust(_HEADER.size, b"\0")
        magic, epoch, start, *_, accepted, followed = _HEADER.unpack(found)
        self._valid = found[_VALID_AT] & 1
        logged, *under_way = _LOG.unpack_from(found, _LOG_AT[self._valid])
        known = magic == _MAGIC and _EPOCH.fullmatch(epoch) is not None
        self.epoch = epoch.decode() if known else secrets.token_hex(8)
        self.start = start if known and start <= self.end else 0
        self.logged = logged if known and logged <= self.end else 0
        write = LogWrite(*under_way)
        is_valid = known and write.inode and write.size < write.grown and self.logged <= write.after <= self.end
        self.under_way = write if is_valid else None
        self.accepted = accepted if known and accepted >= self.end else self.end
        self.followed = known and followed == 1
        self._released = self.start // _PAGE * _PAGE
        if not known:
            os.pwrite(fd, _header(self.epoch, self.accepted), 0)

    @classmethod
    def create(cls, name: str, epoch: str) -> "Journal":
        """Create an empty journal; `name` is shown in /proc."""
        fd = os.memfd_create(name, os.MFD_CLOEXEC)
        try:
            os.pwrite(fd, _header(epoch, 0), 0)
        except BaseException:
            os.close(fd)
            raise
        return cls(fd)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd

    def close(self) -> None:
        """Close the descriptor; no-op if it is closed."""
        fd, self._fd = self._fd, -1
        header, self._header = self._header, None
        if header is not None:
            _library().munmap(ctypes.addressof(header), HEADER)
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()

    # Output

    def receive(self, pipe: int, size: int) -> int:
        """Move up to `size` bytes from `pipe` to the end; return their number, 0 at the end of the pipe."""
        received = os.splice(pipe, self._fd, size, flags=os.SPLICE_F_NONBLOCK)
        self.end += received
        return received

    def append(self, data: bytes) -> None:
        """Append what was read by other means."""
        os.pwrite(self._fd, data, HEADER + self.end)
        self.end += len(data)
        os.lseek(self._fd, HEADER + self.end, os.SEEK_SET)

    def skip(self, size: int) -> None:
        """Leave out `size` bytes for which there was no memory, and drop all before them."""
        self.end += size
        self._set_start(self.end)
        os.lseek(self._fd, HEADER + self.end, os.SEEK_SET)
        self._punch(self.end)

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset`, which is not before `start`."""
        return os.pread(self._fd, min(size, self.end - offset), HEADER + offset)

    def follow(self, followed: bool) -> None:
        """Note whether somebody follows the output."""
        if followed != self.followed:
            os.pwrite(self._fd, bytes([followed]), _FOLLOWED_AT)
            self.followed = followed

    def release(self, offset: int) -> None:
        """Give back the memory of what is before `offset`, once that is worth a system call."""
        if offset - self.start >= RELEASE:
            self._set_start(offset)
            self._punch(offset)

    def _set_start(self, offset: int) -> None:
        os.pwrite(self._fd, _OFFSET.pack(offset), _START_AT)
        self.start = offset

    def _punch(self, offset: int) -> None:
        """Give back whole pages: part of one would be overwritten with zeros."""
        until = offset // _PAGE * _PAGE
        if until > self._released and _fallocate(self._fd, HEADER + self._released, until - self._released):
            self._released = until

    # Input, of which `end` bytes were delivered

    def accept(self, data: bytes | memoryview) -> None:
        """Append data for the process."""
        os.pwrite(self._fd, data, HEADER + self.accepted)
        os.pwrite(self._fd, _OFFSET.pack(self.accepted + len(data)), _INPUT_AT)
        self.accepted += len(data)

    def deliver(self, fd: int, *, is_socket: bool = False) -> int:
        """Move to a pipe, or a socket, what it has room for; return the number of bytes, at least 1."""
        left = self.accepted - self.end
        if is_socket:
            delivered = os.sendfile(fd, self._fd, None, left)
        else:
            delivered = os.splice(self._fd, fd, left, flags=os.SPLICE_F_NONBLOCK)
        self.end += delivered
        return delivered

    # The log of the output

    def intend(self, logged: int, write: LogWrite) -> None:
        """Note a write to a log file before it is done; the log has the output up to the offset `logged`."""
        self._note(logged, *write)
        self.logged, self.under_way = logged, write

    def settle(self, logged: int) -> None:
        """Note that the log has the output up to the offset `logged`, and that no write is under way."""
        self._note(logged, 0, 0, 0, 0, 0)
        self.logged, self.under_way = logged, None

    def _note(self, *fields: int) -> None:
        header = self._header
        if header is None:
            header = self._header = _map(self._fd)
        valid = self._valid ^ 1
        _LOG.pack_into(header, _LOG_AT[valid], *fields)
        header[_VALID_AT] = valid
        self._valid = valid


def open_journal(fd: int, what: str) -> Journal | None:
    """Return the journal that an earlier gafferd has left in `fd`; None, with a warning, if it can't be used."""
    try:
        return Journal(fd)
    except OSError as error:
        log.warning("the journal of %s can't be read: %s", what, error.strerror)
        return None


def _header(epoch: str, accepted: int) -> bytes:
    return _HEADER.pack(_MAGIC, epoch.encode(), *([0] * 14), accepted, 0)


def _map(fd: int) -> "ctypes.Array[ctypes.c_ubyte]":
    """Map the header. The module mmap would duplicate the descriptor."""
    address = _library().mmap64(None, HEADER, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, 0)
    if address in (None, _MAP_FAILED):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return (ctypes.c_ubyte * HEADER).from_address(address)


def _fallocate(fd: int, offset: int, length: int) -> bool:
    """Return whether the pages were given back; a failure costs memory, not data."""
    return bool(_library().fallocate64(fd, _KEEP_SIZE | _PUNCH_HOLE, offset, length) == 0)


@cache
def _library() -> Any:
    library = ctypes.CDLL(None, use_errno=True)
    for name in ("fallocate64", "mmap64"):
        if not hasattr(library, name):  # musl: all offsets have 64 bits
            setattr(library, name, getattr(library, name.removesuffix("64")))
    library.fallocate64.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    number, size = ctypes.c_int, ctypes.c_size_t
    library.mmap64.argtypes = (ctypes.c_void_p, size, number, number, number, ctypes.c_int64)
    library.mmap64.restype = ctypes.c_void_p
    library.munmap.argtypes = (ctypes.c_void_p, size)
    return library
