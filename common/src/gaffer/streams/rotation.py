"""When a log file is full and how its backups are named. No I/O."""

from typing import NamedTuple


class Rotation(NamedTuple):
    """A file has at most `max_bytes` (0: any number) and `backups` predecessors, `.1` being the newest."""

    max_bytes: int
    backups: int

    def room(self, size: int, block: bytes) -> int:
        """How many bytes of `block` go into a file that has `size` bytes already; rotate before the others.

        Lines stay whole where they fit: 0 means that the file is to be rotated first. Never 0 for an empty file.
        """
        if self.fits(size, len(block)):
            return len(block)
        room = self.max_bytes - size
        if room <= 0:
            return 0
        whole_lines = block.rfind(b"\n", 0, room) + 1
        return whole_lines or (0 if size else room)

    def fits(self, size: int, more: int) -> bool:
        """Whether `more` bytes go into a file that has `size` bytes already."""
        return not self.max_bytes or size + more <= self.max_bytes

    def oldest(self, path: str) -> str:
        """The file that is to be removed before the renames, when there is one."""
        return f"{path}.{self.backups}" if self.backups else path

    def renames(self, path: str) -> list[tuple[str, str]]:
        """The renames, in this order, that make way for a new file at `path`."""
        names = [path, *(f"{path}.{number}" for number in range(1, self.backups + 1))]
        return [(names[index], names[index + 1]) for index in reversed(range(self.backups))]
