"""How much of a stream its log file has, noted in the journal of the stream, so that no byte is lost or written twice.

Each write to the file is noted before it is done, with the size of the file before and after it. After a crash the size
tells whether it was done; one that was cut short is undone.
"""

import os
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from gaffer.streams.journal import Journal, LogWrite
from gaffer.streams.log_place import Identity, opened


class Progress:
    """The writing of a batch: `data`, from offset `begin` to `end`, as `parts` of `total` bytes.

    If `exact`, the parts are the data. Otherwise a line of the file stands for a line of the data, and what was written
    is rounded down to whole lines.
    """

    def __init__(
        self,
        journal: Journal,
        begin: int,
        end: int,
        data: Sequence[bytes],
        parts: Sequence[bytes],
        *,
        total: int,
        exact: bool,
    ) -> None:
        self._journal = journal
        self._began = journal.logged
        self._begin = begin
        self._end = end
        self._data = data
        self._parts = parts
        self._total = total
        self._exact = exact

    def intend(self, identity: Identity, size: int, written: int, count: int) -> None:
        """Note that `count` bytes will be written to a file of `size` bytes; `written` bytes of the batch were."""
        after = self._offset(written + count)
        self._journal.intend(self._offset(written), LogWrite(*identity, size, size + count, after))

    def pass_loss(self) -> None:
        """Note that a line in the file stands for what it lacks before the batch."""
        self._began = self._begin
        self._journal.settle(self._begin)

    def settle(self, written: int) -> None:
        """Note that `written` bytes of the batch are in the file."""
        if self._journal.under_way is not None:
            self._journal.settle(self._offset(written))

    def _offset(self, written: int) -> int:
        """Return the offset in the stream of what follows the first `written` bytes of the batch."""
        if written == self._total:
            return self._end
        if not written:
            return self._began
        if self._exact:
            return self._begin + written
        lines = b"".join(self._parts)[:written].count(b"\n")
        ends = list(accumulate(len(line) + 1 for line in b"".join(self._data).split(b"\n")[:-1]))
        return self._begin + ends[lines - 1] if 0 < lines <= len(ends) else self._began


def recover(journal: Journal, path: Path) -> int:
    """Return the offset up to which the log at `path` has the stream, and undo a write that was cut short.

    Raises OSError, UntrustedFile.
    """
    write = journal.under_way
    if write is None:
        return journal.logged
    with opened(path) as files:
        for file in files:
            if file.identity != (write.device, write.inode):
                continue
            if file.status.st_size >= write.grown:
                return write.after
            if file.status.st_size > write.size:
                _truncate(file.fd, write.size)
            break
    return journal.logged


def _truncate(fd: int, size: int) -> None:
    """Truncate a file that is open for reading: its name may have changed."""
    writable = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.ftruncate(writable, size)
    finally:
        os.close(writable)
