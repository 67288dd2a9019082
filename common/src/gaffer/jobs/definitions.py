"""The last definitions of a job, each with its generation. Pure."""

from collections import deque
from collections.abc import Sequence
from typing import Self

from gaffer.jobs.config import JobConfig

KEPT = 10


class Definitions:
    """The newest KEPT definitions; the last one is the current. Generations count from 1."""

    def __init__(self, config: JobConfig) -> None:
        self.generation = 1
        self._kept: deque[tuple[int, JobConfig]] = deque([(1, config)], maxlen=KEPT)

    @classmethod
    def restore(cls, kept: Sequence[tuple[int, JobConfig]]) -> Self:
        """Make them from generations and definitions, oldest first; the last one is the current."""
        generation, config = kept[-1]
        found = cls(config)
        found.generation = generation
        found._kept = deque(kept, maxlen=KEPT)
        return found

    @property
    def kept(self) -> list[tuple[int, JobConfig]]:
        """The generations that are kept and their definitions, newest first."""
        return [*reversed(self._kept)]

    @property
    def generations(self) -> list[int]:
        """The generations that are kept, oldest first."""
        return [generation for generation, _ in self._kept]

    def add(self, config: JobConfig) -> None:
        """Make `config` the current definition, a new generation."""
        self.generation += 1
        self._kept.append((self.generation, config))

    def launched(self, digest: str) -> JobConfig | None:
        """Return the newest definition with a launch digest, None if it is not kept; the current for an empty one."""
        return next((config for _, config in reversed(self._kept) if digest in ("", config.launch_digest)), None)

    def find(self, generation: int | None) -> JobConfig | None:
        """Return the definition of `generation`, by default the one before the current; None if it is not kept."""
        if generation is None:
            return self._kept[-2][1] if len(self._kept) > 1 else None
        return next((config for number, config in self._kept if number == generation), None)
