"""Reading the output of a process: from its pipe, or by way of a journal."""

import errno
import logging
import os
import select

from gaffer.streams.journal import RELEASE, Journal, StreamKeeper, open_journal
from gaffer.streams.log_files import LogFile
from gaffer.streams.rings import LARGEST_LIMIT, READ_SIZE, Ring

log = logging.getLogger("gaffer.streams.recording")

_SPARSE_READ = 256  # bytes, for which the interpreter has memory of its own
_NO_MEMORY = (errno.ENOMEM, errno.ENOSPC, errno.EFBIG)  # the last one for ulimit -f


def read_pipe(fd: int) -> tuple[bytes, bool]:
    """Read from `fd`; also return whether there may be more. Raises OSError.

    While there is no memory the read is a small one, because a stop waits for the end of the pipe.
    """
    size = READ_SIZE
    try:
        data = os.read(fd, size)
    except MemoryError:
        size = _SPARSE_READ
        data = os.read(fd, size)
    return data, len(data) == size


class Recording:
    """The journal of an output, which exists from the first data on. `read` takes the place of `read_pipe`.

    It is kept as `<name>.journal`; an adopted one gives the ring and the log file what they lack. Pipes are spliced;
    what comes from another descriptor is written into the journal, so that a crash between both loses it. An output for
    which there is no memfd does without a journal.
    """

    def __init__(
        self,
        owner: str,
        name: str,
        keeper: StreamKeeper | None,
        ring: Ring,
        log_file: LogFile | None = None,
        *,
        adopted: int | None = None,
        splices: bool = True,
    ) -> None:
        self._owner = owner
        self._name = name
        self._keeper = keeper
        self._ring = ring
        self._log_file = log_file
        self._splices = splices
        self._journal: Journal | None = None
        self._begins = keeper is not None and adopted is None
        self._told = False  # that memory is lacking
        if adopted is not None and (journal := open_journal(adopted, f"{name} of {owner}")) is not None:
            self._resume(journal)

    def _resume(self, journal: Journal) -> None:
        self._journal = journal
        ring = self._ring
        # All that readers may come back for, whatever the ring keeps otherwise.
        usual, ring.limit = ring.limit, LARGEST_LIMIT
        ring.resume(journal.epoch, max(journal.start, journal.end - ring.limit))
        while ring.end < journal.end:
            ring.append(journal.read(ring.end, READ_SIZE))
        ring.limit = usual
        if self._log_file is not None:
            self._log_file.resume(journal)

    def read(self, fd: int) -> tuple[bytes, bool]:
        """Read from `fd`; also return whether there may be more. Raises OSError.

        Data for which there is no memory stays in the journal, see `is_behind`.
        """
        journal = self._journal
        if journal is None or not self._splices:
            if journal is None and (journal := self._begin(fd)) is None:
                return read_pipe(fd)
            if not self._splices:
                return self._copy(journal, fd)
        ring = self._ring
        if ring.start - journal.start >= RELEASE:
            self._release(journal)
        offset = ring.end
        if journal.end == offset:
            try:
                if not journal.receive(fd, READ_SIZE):
                    return b"", False
            except BlockingIOError:
                raise
            except OSError as error:
                if error.errno not in _NO_MEMORY:
                    raise
                return self._pass_by(journal, fd, error)
        try:
            data = journal.read(offset, READ_SIZE)
        except MemoryError:
            data = journal.read(offset, _SPARSE_READ)
        return data, len(data) == READ_SIZE or offset + len(data) < journal.end

    @property
    def is_behind(self) -> bool:
        """Whether the journal has data that was not read."""
        return self._journal is not None and self._ring.end < self._journal.end

    @property
    def followed(self) -> bool:
        """Whether somebody followed the output, as the last `follow` said, perhaps that of an earlier gafferd."""
        return self._journal is not None and self._journal.followed

    def follow(self, followed: bool) -> None:
        """Note whether somebody follows the output, for the next gafferd."""
        if self._journal is not None:
            self._journal.follow(followed)

    def _release(self, journal: Journal) -> None:
        """Give back what neither the ring nor the log file needs any more."""
        # Of what the log has, the last byte tells whether it is inside a line.
        done = self._ring.start if self._log_file is None else self._log_file.done - 1
        journal.release(min(self._ring.start, done))

    def close(self, *, ended: bool) -> None:
        """Stop using the journal; if `ended`, the keeper need not hold the pipe any more."""
        if self._journal is not None and self._log_file is None:
            self._journal.close()
        self._journal = None
        if ended and self._keeper is not None:
            self._keeper.drop(self._name)
        self._keeper = None

    def _begin(self, fd: int) -> Journal | None:
        """Make the journal for the first data; None if there will be none. Raises BlockingIOError."""
        if not self._begins or (self._splices and not has_data(fd)):
            return None
        assert self._keeper is not None
        self._begins = False
        try:
            journal = Journal.create(self._name, self._ring.epoch)
        except OSError as error:
            self._tell(error)
            return None
        # Kept before it is used: else what is in it would be lost.
        self._keeper.keep(f"{self._name}.journal", journal.fileno())
        if self._log_file is not None:
            self._log_file.record_in(journal)
        self._journal = journal
        return journal

    def _copy(self, journal: Journal, fd: int) -> tuple[bytes, bool]:
        if self._ring.start - journal.start >= RELEASE:
            self._release(journal)
        data, more = read_pipe(fd)
        try:
            journal.append(data)
        except OSError as error:
            self._tell(error)
            journal.skip(len(data))
        return data, more

    def _pass_by(self, journal: Journal, fd: int, error: OSError) -> tuple[bytes, bool]:
        self._tell(error)
        data, more = read_pipe(fd)
        journal.skip(len(data))
        return data, more

    def _tell(self, error: OSError) -> None:
        if not self._told:
            self._told = True
            log.warning("%s of %s won't outlive gafferd: %s", self._name, self._owner, error.strerror)


def has_data(fd: int) -> bool:
    """Return whether the pipe `fd` has data, False if it has ended; raises BlockingIOError if it has none yet."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    found = poll.poll(0)
    if not found:
        raise BlockingIOError
    return bool(found[0][1] & select.POLLIN)
