"""What keeps descriptors of a process."""

from typing import Protocol


class StreamKeeper(Protocol):
    """Who holds the descriptors of one process, by names such as `stdout.journal`. Its methods never fail."""

    def keep(self, name: str, fd: int) -> None:
        """Hold a duplicate of `fd`."""

    def drop(self, name: str) -> None:
        """Close the descriptor of that name."""
