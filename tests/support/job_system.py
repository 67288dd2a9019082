"""A system that carries out the instructions of one job."""

from collections import deque
from typing import Any

from gaffer.jobs import events as ev
from gaffer.jobs.job import Job
from gaffer.jobs.names import JobName
from gaffer.jobs.probing import Question
from gaffer.jobs.slot import SlotState
from gaffer.jobs.states import Phase
from support.job_steps import config_of

OBSERVING = ("ready", "start", "lifetime")  # timers that end with their process


class System:
    """Carries out instructions as an operating system would: exits come only when they are told to.

    What each keeps of a process, of its timers and probes is checked as it goes.
    """

    def __init__(self, name: str = "j", **config: Any) -> None:
        self.count = 0
        config["name"] = name
        self.job = Job(JobName("s", name), config_of(**config), self.next_pid, rand=lambda: 0.5)
        self.now = 100.0
        self.queue: deque[ev.Instruction] = deque()
        self.alive: dict[int, int] = {}  # pid -> slot
        self.zombies: set[int] = set()
        self.signals: list[tuple[int, int]] = []
        self.timers: dict[ev.TimerKey, float] = {}
        self.probes: set[int] = set()
        self.published: list[str] = []
        self.released: set[int] = set()
        self.broken = False  # no program can be started
        self.slow = False  # what is to be spawned comes to `launching`
        self.launching: list[tuple[int, int]] = []  # pid and slot
        self.spawn_times: list[float] = []
        self.armed = False  # the schedule
        self.awaited: str | None = None  # a connection, or that there is none
        self.sockets_open = False
        self.ended: list[int] = []  # exit codes of the manager

    def after_event(self, event: ev.Event) -> None:
        """Overridden to do what follows from an event at once."""

    def next_pid(self) -> int:
        self.count += 1
        return self.count

    def tell(self, *events: ev.Event) -> None:
        idle = not self.queue
        for event in events:
            instructions = self.job.handle(event, self.now)
            if any(isinstance(each, ev.Spawn) and each.slot for each in instructions):
                self.check_spawn()
            self.queue.extend(instructions)
            self.after_event(event)
            while idle and self.queue:
                self.carry_out(self.queue[0])
                self.queue.popleft()

    def carry_out(self, instruction: ev.Instruction) -> None:
        match instruction:
            case ev.Spawn(pid, slot) if self.slow:
                self.launching.append((pid, slot))
            case ev.Spawn(pid, slot):
                self.spawn(pid, slot)
            case ev.Adopt(pid, record):
                self.alive[pid] = record.slot
                self.sockets_open = self.sockets_open or bool(record.slot and self.job.config.socket)
            case ev.Signal(pid, signum):
                assert pid in self.alive, "a signal to a process that is gone"
                self.signals.append((pid, signum))
            case ev.Release(pid):
                del self.alive[pid]
                self.released.add(pid)
            case ev.SetTimer(key, delay):
                self.timers[key] = self.now + delay
            case ev.CancelTimer(key):
                self.timers.pop(key, None)
            case ev.StartProbes(pid, again):
                assert again == (pid in self.probes), "probes begin twice"
                self.probes.add(pid)
            case ev.StopProbes(pid):
                self.probes.remove(pid)
            case ev.ArmSchedule():
                self.armed = True
            case ev.DisarmSchedule():
                self.armed = False
            case ev.AwaitConnection():
                self.awaited, self.sockets_open = "connection", True
            case ev.AwaitIdle():
                self.awaited = "idle"
            case ev.CloseSockets():
                self.awaited, self.sockets_open = None, False
            case ev.EndManager(exit_code):
                self.ended.append(exit_code)
            case ev.Publish(kind):
                self.published.append(kind)

    def spawn(self, pid: int, slot: int) -> None:
        if not self.job.expects(pid):
            return
        self.spawn_times.append(self.now)
        if self.broken:
            self.tell(ev.SpawnFailed(pid, "program_not_found", "none"))
            return
        assert slot == 0 or slot not in self.alive.values(), "two processes in one slot"
        self.alive[pid] = slot
        self.sockets_open = self.sockets_open or bool(self.job.config.socket)
        self.tell(ev.Spawned(pid, 1000 + pid))

    def exit(self, pid: int, code: int | None = 0, term_signal: int | None = 0) -> None:
        self.zombies.add(pid)
        self.tell(ev.Exited(pid, code, term_signal))

    def group_empty(self, pid: int) -> None:
        self.zombies.discard(pid)
        del self.alive[pid]
        self.tell(ev.GroupEmpty(pid))

    def die(self, *pids: int, code: int | None = 0) -> None:
        for pid in pids or list(self.alive):
            self.exit(pid, code)
            self.group_empty(pid)

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while self.timers and min(self.timers.values()) <= end:
            key = min(self.timers, key=self.timers.__getitem__)
            self.now = max(self.now, self.timers.pop(key))
            self.tell(ev.TimerFired(key))
        self.now = end

    def probe(self, pid: int, good: bool, question: Question = Question.READY) -> None:
        self.tell(ev.ProbeResult(pid, question, good, "" if good else "refused"))

    def launch(self) -> None:
        """What was to be spawned is."""
        while self.launching:
            self.spawn(*self.launching.pop(0))

    def settle(self) -> None:
        """Whoever was asked to end does, whoever is probed is ready, and time passes, until nothing changes."""
        self.slow = False
        for _ in range(200):
            self.launch()
            if self.end_those_asked() or self.pass_probes():
                continue
            slots = (*self.job.slots.values(), *self.job.committed.values())
            waiting = any(s.state in (SlotState.BACKOFF, SlotState.DRAINING, SlotState.STARTING) for s in slots)
            if not waiting and self.job.phase is not Phase.HELD:
                return
            due = [at for (kind, _), at in self.timers.items() if kind != "lifetime"]
            assert due, f"it waits for nothing:\n{self.job.history()}"
            self.advance(max(0.0, min(due) - self.now))
        raise AssertionError(f"it never settles:\n{self.job.history()}")

    def end_those_asked(self) -> bool:
        """Whether there were any."""
        ending = [pid for pid in self.alive if self.state(pid) is SlotState.STOPPING]
        for pid in ending:
            if pid not in self.zombies:
                self.exit(pid)
            self.group_empty(pid)
        return bool(ending)

    def pass_probes(self) -> bool:
        """Whether that made a process ready."""
        slots = {pid: self.job.slot_of(pid) for pid in self.probes}
        waiting = [pid for pid, slot in slots.items() if slot and slot.probed and slot.state is SlotState.STARTING]
        for pid in waiting:
            self.probe(pid, good=True)
        return bool(waiting)

    def state(self, pid: int) -> SlotState:
        slot = self.job.slot_of(pid)
        assert slot is not None
        return slot.state

    def check(self) -> None:
        """The job knows exactly the living; what observes a process ends with it."""
        job = self.job
        held = {slot.pid for slot in (*job.slots.values(), *job.committed.values()) if slot.pid is not None}
        launching = {pid for pid, _ in self.launching if job.expects(pid)}
        assert self.alive.keys() | launching == held
        serving = {pid for pid in self.alive if self.state(pid) in (SlotState.STARTING, SlotState.READY)}
        assert serving <= self.alive.keys() - self.zombies
        assert set(job.pids(committed=True)) == serving
        assert {number for kind, number in self.timers if kind in OBSERVING} <= serving
        assert {number for kind, number in self.timers if kind in ("drain", "kill")} <= self.alive.keys()
        assert self.probes <= serving

    def check_spawn(self) -> None:
        """A process is spawned only in a job that is to run and may."""
        job = self.job
        assert job.phase is Phase.STARTED
        assert job.waiting_for is None
        assert not job.drained
        assert job.name_free
