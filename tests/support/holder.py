"""What a keeper is to the sockets of a manager."""

import os


class Holder:
    """What a keeper is to the sockets: duplicates by name. They are slow to go, as those of another process may be."""

    def __init__(self) -> None:
        self.kept: dict[str, int] = {}
        self._dropped: list[int] = []

    def take(self) -> list[tuple[str, int]]:
        return [(name, os.dup(descriptor)) for name, descriptor in self.kept.items()]

    def claim(self, name: str) -> int | None:
        return os.dup(self.kept[name]) if name in self.kept else None

    def keep(self, name: str, descriptor: int) -> None:
        assert name not in self.kept
        self.kept[name] = os.dup(descriptor)

    def drop(self, name: str) -> None:
        self._dropped.append(self.kept.pop(name))

    def close(self) -> None:
        for descriptor in (*self.kept.values(), *self._dropped):
            os.close(descriptor)
