"""The usage of processes over time, in rings of bounded size. No I/O."""

import math
from array import array
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from gaffer.jobs.names import JobName
from gaffer.schemas.usage import JobUsage, SlotUsage

SAMPLES = 360  # of each slot
MOST_SLOTS = 4096  # some 3 KB each


class Measured(NamedTuple):
    """What process `pid` (Gaffer's) in a slot of a job uses: CPU seconds since its start, and bytes of memory.

    `since` is its start, in monotonic seconds.
    """

    job: JobName
    slot: int
    pid: int
    since: float
    cpu_seconds: float
    resident: int


class _Slot:
    """The rings of a slot; NaN where it had no process. `last` is the round of its last sample."""

    def __init__(self, samples: int) -> None:
        self.cpu = array("f", [math.nan]) * samples
        self.memory = array("f", [math.nan]) * samples
        self.last = 0


class _Job:
    def __init__(self, samples: int) -> None:
        self.restarts = array("f", [math.nan]) * samples
        self.slots: dict[int, _Slot] = {}


class UsageHistory:
    """The last `samples` rounds of measurements, of at most `most` slots with a sample in them.

    A ring of the times, and rings of the same length for each slot and job: round N is at N modulo the length.
    """

    def __init__(self, samples: int = SAMPLES, most: int = MOST_SLOTS) -> None:
        self._most = most
        self._samples = samples
        self._times = array("d", [math.nan]) * samples
        self._jobs: dict[JobName, _Job] = {}
        self._rounds = 0
        self._kept = 0  # slots
        self._counted: dict[int, tuple[float, float]] = {}  # CPU seconds, and when they were read, by pid
        self.left_out = 0
        """Processes of the last round that were not recorded, because there were too many."""

    @property
    def jobs(self) -> list[JobName]:
        """The jobs that have samples."""
        return list(self._jobs)

    def record(self, at: float, now: float, measured: Iterable[Measured], restarts: Mapping[JobName, int]) -> None:
        """Add a round, taken `at` a wall-clock time, `now` in monotonic seconds; `restarts` of jobs that have samples.

        The processes that run once share a slot, which has their sum.
        """
        position = self._begin(at)
        self.left_out = 0
        counted = {}
        for each in measured:
            counted[each.pid] = each.cpu_seconds, now
            slot = self._slot(each.job, each.slot)
            if slot is None:
                self.left_out += 1
                continue
            before, since = self._counted.get(each.pid, (0.0, each.since))
            share = 100 * max(0.0, each.cpu_seconds - before) / max(now - since, 0.01)
            others = slot.last == self._rounds
            slot.cpu[position] = share + (slot.cpu[position] if others else 0.0)
            slot.memory[position] = each.resident + (slot.memory[position] if others else 0.0)
            slot.last = self._rounds
        self._counted = counted
        for name, number in restarts.items():
            if name in self._jobs:
                self._jobs[name].restarts[position] = number
        self._forget()

    def of(self, name: JobName, now: float, interval: float) -> JobUsage:
        """Return the samples of a job, oldest first, from the first that it has.

        `now` is the wall-clock time, `interval` that between two rounds, in seconds.
        """
        job = self._jobs.get(name) or _Job(self._samples)
        rings = [ring for slot in job.slots.values() for ring in (slot.cpu, slot.memory)]
        order = [number % self._samples for number in range(max(0, self._rounds - self._samples) + 1, self._rounds + 1)]
        first = next((index for index, at in enumerate(order) if any(not math.isnan(ring[at]) for ring in rings)), None)
        order = [] if first is None else order[first:]
        processes: list[SlotUsage] = [
            {"slot": number, "cpu": _numbers(slot.cpu, order), "memory": _integers(slot.memory, order)}
            for number, slot in sorted(job.slots.items())
        ]
        return {
            "name": str(name),
            "now": round(now, 3),
            "interval": interval,
            "at": [round(self._times[index], 3) for index in order],
            "restarts": _integers(job.restarts, order),
            "processes": processes,
            "left_out": self.left_out,
        }

    def _begin(self, at: float) -> int:
        self._rounds += 1
        position = self._rounds % self._samples
        self._times[position] = at
        for job in self._jobs.values():
            job.restarts[position] = math.nan
            for slot in job.slots.values():
                slot.cpu[position] = slot.memory[position] = math.nan
        return position

    def _slot(self, name: JobName, number: int) -> _Slot | None:
        job = self._jobs.get(name)
        slot = job.slots.get(number) if job is not None else None
        if slot is None and self._kept < self._most:
            self._kept += 1
            job = self._jobs.setdefault(name, job or _Job(self._samples))
            slot = job.slots[number] = _Slot(self._samples)
        return slot

    def _forget(self) -> None:
        """Drop the slots without a sample in all rounds that are kept."""
        oldest = self._rounds - self._samples
        for name, job in list(self._jobs.items()):
            for number, slot in list(job.slots.items()):
                if slot.last <= oldest:
                    del job.slots[number]
                    self._kept -= 1
            if not job.slots:
                del self._jobs[name]


def _numbers(ring: "array[float]", order: list[int]) -> list[float | None]:
    return [None if math.isnan(ring[index]) else round(ring[index], 1) for index in order]


def _integers(ring: "array[float]", order: list[int]) -> list[int | None]:
    return [None if math.isnan(ring[index]) else round(ring[index]) for index in order]
