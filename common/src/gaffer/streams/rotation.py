"""The size limit of a log file and the names of its backups. No I/O."""

from typing import NamedTuple


class Rotation(NamedTuple):
    """A rotation policy: at most `max_bytes` in a file (0: unlimited), and `backups` older files, `.1` the newest."""

    max_bytes: int
    backups: int

    def room(self, size: int, block: bytes) -> int:
        """Return how many bytes of `block` fit into a file of `size` bytes; rotate before writing the rest.

        Lines are kept whole if they fit: 0 means that the file must be rotated first. Never 0 for an empty file.
        """
        if self.fits(size, len(block)):
            return len(block)
        room = self.max_bytes - size
        if room <= 0:
            return 0
        whole_lines = block.rfind(b"\n", 0, room) + 1
        return whole_lines or (0 if size else room)

    def fits(self, size: int, more: int) -> bool:
        """Return whether `more` bytes fit into a file of `size` bytes."""
        return not self.max_bytes or size + more <= self.max_bytes

    def oldest(self, path: str) -> str:
        """Return the file to remove before the renames, if it exists."""
        return f"{path}.{self.backups}" if self.backups else path

    def renames(self, path: str) -> list[tuple[str, str]]:
        """Return the renames, in order, that make room for a new file at `path`."""
        names = [path, *(f"{path}.{number}" for number in range(1, self.backups + 1))]
        return [(names[index], names[index + 1]) for index in reversed(range(self.backups))]
