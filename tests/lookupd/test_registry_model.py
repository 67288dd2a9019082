"""The registry against a model that shares no code with it, under reordered, repeated and stale messages."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gaffer.schemas.common import ProcessState
from gaffer.schemas.messages import Process
from gaffer_lookupd.errors import Refused
from gaffer_lookupd.lease import MAX_IDENTIFY_TIMEOUT
from support.follower import Follower, in_order, jobs_without_ages
from support.registry import Lookup, json

pytestmark = pytest.mark.pure

TTL, INTERVAL, TICK = 9.0, 3.0, 0.3
IDS = [f"id{k}" for k in range(10)]
JOBS = ["s.a", "s.b"]


class Model:
    """What a registry should hold, by brute force: records in a list, searched for every question."""

    def __init__(self, now: float) -> None:
        self.now = self.last_tick = now
        self.nodes: list[
            dict[str, Any]
        ] = []  # dicts: id name origin inc session since overdue seq resync draining jobs
        self.open: dict[int, float] = {}  # anonymous sessions and since when they have been open
        self.graves: dict[str, tuple[int, float]] = {}  # id: (incarnation, when forgotten)
        self.preserving: float | None = None

    def of(self, session: int) -> dict[str, Any] | None:
        return next((node for node in self.nodes if node["session"] == session), None)

    def by_id(self, id: str) -> dict[str, Any] | None:
        return next((node for node in self.nodes if node["id"] is not None and node["id"] == id), None)

    def bury(self, node: dict[str, Any]) -> None:
        self.nodes.remove(node)
        if node["id"] is not None:
            self.graves[node["id"]] = (node["inc"], self.now + 2 * TTL)

    def hear(self, session: int) -> None:
        if node := self.of(session):
            node["since"], node["overdue"] = self.now, False

    def identify(self, session: int, id: str | None, name: str, origin: str, inc: int) -> int | None:
        """None when it is accepted, else the error number."""
        if self.of(session):
            return 409
        if session not in self.open:
            return 404
        same = self.by_id(id) if id else None
        if id in self.graves and inc < self.graves[id][0]:
            return 409
        if same:
            if inc < same["inc"]:
                return 409
            elsewhere = (same["name"], same["origin"]) != (name, origin)
            if inc <= same["inc"] and elsewhere and same["session"] and not same["overdue"]:
                return 409
        doomed = []
        for node in self.nodes:
            if node is same or (node["name"], node["origin"]) != (name, origin):
                continue
            if node["session"]:
                if id and node["id"]:
                    continue
                quiet = self.now - node["since"]
                if (node["id"] and not node["overdue"]) or (not node["id"] and quiet <= TTL / 3):
                    return 409
            doomed.append(node)
        for node in doomed:
            self.bury(node)
        if same and inc > same["inc"]:  # its table is the old one until its snapshot
            same.update(inc=inc, seq=0, draining=False)
        if same is None:
            same = {"id": id, "inc": inc, "seq": 0, "resync": False, "draining": False, "jobs": {}}
            self.nodes.append(same)
        else:
            same["resync"] = True
        same.update(name=name, origin=origin, session=session, since=self.now, overdue=False)
        del self.open[session]
        if id is not None:
            self.graves.pop(id, None)
        return None

    def change(self, session: int, seq: int | None, apply: Callable[[dict[str, Any]], int | None]) -> int | None:
        """Make a change of the node's jobs; None or the error number."""
        node = self.of(session)
        if node is None:
            return 404
        if seq is not None and seq <= node["seq"]:
            return None
        if seq is not None and seq > node["seq"] + 1:
            node["resync"] = True
            return None
        jobs = copy.deepcopy(node["jobs"])
        if error := apply(jobs):
            return error
        node["jobs"] = jobs
        if seq is not None:
            node["seq"] = seq
        return None

    def snapshot(self, session: int, seq: int, jobs: dict[str, dict[int, ProcessState]]) -> int | None:
        node = self.of(session)
        if node is None:
            return 404
        if seq >= node["seq"] or node["resync"]:
            node.update(seq=seq, resync=False, jobs=copy.deepcopy(jobs), draining=False)
        return None

    def hang_up(self, session: int) -> None:
        self.open.pop(session, None)
        if node := self.of(session):
            if node["id"] is None:
                self.bury(node)
            else:
                node["session"] = None

    def tick(self) -> None:
        late = self.now - self.last_tick - TICK
        self.last_tick = self.now
        if late > INTERVAL / 2:
            for node in self.nodes:
                node["since"] = min(self.now, node["since"] + late)
            self.open = {session: min(self.now, since + late) for session, since in self.open.items()}
        for node in self.nodes:
            node["overdue"] |= self.now - node["since"] > 1.5 * INTERVAL
        silent = [node for node in self.nodes if node["session"] and node["overdue"]]
        over_half = len(silent) > len(self.nodes) - len(silent)
        if self.preserving is None:
            if over_half and len(self.nodes) >= 8:
                self.preserving = self.now
        elif not over_half:
            self.preserving = None
            for node in self.nodes:
                node["since"] = self.now
            self.open = dict.fromkeys(self.open, self.now)
        elif self.now - self.preserving >= 10 * TTL:
            self.preserving = None
        self.graves = {id: grave for id, grave in self.graves.items() if self.now < grave[1]}
        timeout = min(MAX_IDENTIFY_TIMEOUT, TTL)
        self.open = {session: since for session, since in self.open.items() if self.now - timeout < since}
        if self.preserving is None:
            for node in [node for node in self.nodes if self.now - TTL >= node["since"]]:
                self.bury(node)

    def view(self) -> dict[str, Any]:
        connected = [node["name"] for node in self.nodes if node["session"] and node["id"]]
        return {
            (node["id"] or node["session"]): (
                node["name"],
                node["inc"],
                node["seq"],
                "suspect" if node["overdue"] or not node["session"] else "draining" if node["draining"] else "alive",
                bool(node["session"] and node["id"] and connected.count(node["name"]) > 1),
                node["jobs"],
            )
            for node in self.nodes
        }


sessions = st.integers(0, 30)
seqs = st.none() | st.integers(1, 6)
pids = st.integers(1, 3)
tables = st.dictionaries(
    st.sampled_from(JOBS), st.dictionaries(pids, st.sampled_from(["ready", "draining"]), max_size=2)
)


class RegistryMachine(RuleBasedStateMachine):
    """Any message may come on any session ever opened, with any number: late, twice, or out of order."""

    def __init__(self) -> None:
        super().__init__()
        self.lookup = Lookup(TTL, INTERVAL)
        self.model = Model(self.lookup.now)
        self.sessions: list[int] = []
        self.follow_anew()

    def pick(self, index: int) -> int:
        return self.sessions[index % len(self.sessions)]

    def refused(self, call: Callable[..., object], *args: Any, **kwargs: Any) -> int | None:
        try:
            call(*args, **kwargs)
        except Refused as error:
            return error.errno
        return None

    @rule()
    def connect(self) -> None:
        session = self.lookup.connect()
        self.model.open[session] = self.model.now
        self.sessions.append(session)

    @precondition(lambda self: self.sessions)
    @rule(
        index=sessions,
        id=st.none() | st.sampled_from(IDS[:3]),
        name=st.sampled_from(["a", "b"]),
        origin=st.sampled_from(["http://x", "http://y"]),
        inc=st.integers(0, 2),
    )
    def identify(self, index: int, id: str | None, name: str, origin: str, inc: int) -> None:
        session = self.pick(index)
        before = {node["session"] for node in self.model.nodes} - {None}
        expected = self.model.identify(session, id, name, origin, inc)
        kept = {node["session"] for node in self.model.nodes}
        closed = len(self.lookup.closed)
        found = self.refused(self.lookup.identify, session, name=name, origin=origin, id=id, incarnation=inc)
        assert found == expected
        assert set(self.lookup.closed[closed:]) == before - kept

    @rule(count=st.integers(8, 10))
    def many_nodes(self, count: int) -> None:
        for id in IDS[:count]:
            self.connect()
            known = self.model.by_id(id)
            inc = known["inc"] if known else 2
            self.identify(len(self.sessions) - 1, id, f"host {id}", f"http://{id}", inc)

    @precondition(lambda self: self.sessions)
    @rule(index=sessions)
    def hear(self, index: int) -> None:
        self.model.hear(self.pick(index))
        self.lookup.heard(self.pick(index))

    @precondition(lambda self: self.model.nodes)
    @rule(most=st.integers(1, 10))
    def hear_some(self, most: int) -> None:
        for node in self.model.nodes[:most]:
            if node["session"]:
                self.lookup.heard(node["session"])
                self.model.hear(node["session"])

    def change(
        self, session: int, seq: int | None, apply: Callable[[dict[str, Any]], int | None], call: str, *args: Any
    ) -> None:
        expected = self.model.change(session, seq, apply)
        tables = self.lookup.registry.tables

        def make() -> None:
            getattr(tables, call)(self.lookup.registry.identified(session), *args, seq)

        assert self.refused(make) == expected

    @precondition(lambda self: self.sessions)
    @rule(index=sessions, job=st.sampled_from(JOBS), seq=seqs)
    def register_job(self, index: int, job: str, seq: int | None) -> None:
        self.change(
            self.pick(index),
            seq,
            lambda jobs: 409 if job in jobs else jobs.update({job: {}}),
            "register_job",
            job,
        )

    @precondition(lambda self: self.sessions)
    @rule(index=sessions, job=st.sampled_from(JOBS), seq=seqs)
    def unregister_job(self, index: int, job: str, seq: int | None) -> None:
        self.change(self.pick(index), seq, lambda jobs: jobs.pop(job, None) and None, "unregister_job", job)

    @precondition(lambda self: self.sessions)
    @rule(
        index=sessions,
        job=st.sampled_from(JOBS),
        pid=pids,
        state=st.sampled_from(["ready", "draining"]),
        seq=seqs,
    )
    def put_process(self, index: int, job: str, pid: int, state: ProcessState, seq: int | None) -> None:
        self.change(
            self.pick(index),
            seq,
            lambda jobs: jobs[job].update({pid: state}) if job in jobs else 404,
            "put_process",
            job,
            Process(pid, state),
        )

    @precondition(lambda self: self.sessions)
    @rule(index=sessions, job=st.sampled_from(JOBS), pid=pids, seq=seqs)
    def drop_process(self, index: int, job: str, pid: int, seq: int | None) -> None:
        self.change(
            self.pick(index),
            seq,
            lambda jobs: (jobs[job].pop(pid, None) and None) if job in jobs else 404,
            "drop_process",
            job,
            pid,
        )

    @precondition(lambda self: self.sessions)
    @rule(index=sessions, seq=st.integers(0, 6), table=tables)
    def snapshot(self, index: int, seq: int, table: dict[str, dict[int, ProcessState]]) -> None:
        session = self.pick(index)
        announced = {job: [Process(pid, state) for pid, state in found.items()] for job, found in table.items()}

        def send() -> None:
            self.lookup.registry.tables.replace(self.lookup.registry.identified(session), seq, announced)

        assert self.refused(send) == self.model.snapshot(session, seq, table)

    @precondition(lambda self: self.model.nodes)
    @rule(index=sessions, seq=st.integers(0, 6))
    def ping_or_drain(self, index: int, seq: int) -> None:
        node = self.model.nodes[index % len(self.model.nodes)]
        if not node["session"]:
            return
        real = self.lookup.registry.identified(node["session"])
        if seq == 0:
            node["draining"] = True
            self.lookup.registry.tables.set_draining(real, True)
        else:
            node["resync"] |= seq != node["seq"]
            self.lookup.registry.tables.check_seq(real, seq)
        assert real.resync == node["resync"]

    @precondition(lambda self: self.sessions)
    @rule(index=sessions)
    def hang_up(self, index: int) -> None:
        self.model.hang_up(self.pick(index))
        self.lookup.disconnect(self.pick(index))

    @precondition(lambda self: self.sessions)
    @rule(index=sessions)
    def leave(self, index: int) -> None:
        session = self.pick(index)
        node = self.model.of(session)
        if node:
            self.model.bury(node)
        assert self.refused(self.lookup.registry.leave, session, self.lookup.now) == (None if node else 404)

    @rule(id=st.sampled_from(IDS))
    def delete(self, id: str) -> None:
        node = self.model.by_id(id)
        if node:
            self.model.bury(node)
        assert self.refused(self.lookup.registry.delete, id, self.lookup.now) == (None if node else 404)

    def pass_time(self, seconds: float) -> None:
        self.lookup.now += seconds
        self.model.now = self.lookup.now
        self.lookup.tick()
        self.model.tick()

    @rule(ticks=st.integers(1, 40))
    def wait(self, ticks: int) -> None:
        for _ in range(ticks):
            self.pass_time(TICK)

    @rule(seconds=st.sampled_from([0.5, 1.7, 1.9, 6.5, 30.0]))
    def pause(self, seconds: float) -> None:
        self.pass_time(seconds)

    @precondition(lambda self: self.model.preserving)
    @rule(ticks=st.sampled_from([100, 320]))
    def wait_long_for_the_silent(self, ticks: int) -> None:
        self.wait(ticks)

    @invariant()
    def agrees_with_the_model(self) -> None:
        registry = self.lookup.registry
        # What is answered, not what the nodes would say: a change that was not published shows as a difference.
        found = {
            node.key: (
                node.info["name"],
                node.identity.incarnation,
                node.seq if node.info["seq"] is None else node.info["seq"],
                node.info["status"],
                node.info["conflict"],
                {job: {p.pid: p.state for p in known.values()} for job, known in node.jobs.items()},
            )
            for node in registry.nodes
        }
        assert found == self.model.view()
        assert registry.stale == (self.model.preserving is not None)
        assert {t["id"]: t["incarnation"] for t in registry.tombstones} == {
            id: inc for id, (inc, _) in self.model.graves.items()
        }

    @invariant()
    def answers_follow_from_the_nodes(self) -> None:
        expected: dict[str, list[tuple[str, list[int]]]] = {}
        for node in self.model.nodes:
            for job, processes in node["jobs"].items():
                live = [] if node["draining"] else [p for p, state in processes.items() if state == "ready"]
                expected.setdefault(job, []).append((node["name"], sorted(live)))
        found = {
            job["name"]: sorted((source["name"], sorted(source["pids"])) for source in job["sources"])
            for job in self.lookup.ask("jobs")["jobs"]
        }
        assert found == {job: sorted(sources) for job, sources in expected.items()}

    @rule()
    def follow_anew(self) -> None:
        self.follower = Follower(self.lookup.snapshot())
        self.followed = self.lookup.registry.seq

    @invariant()
    def the_tables_are_counted(self) -> None:
        registry = self.lookup.registry
        assert registry.tables.entries == sum(node.entries for node in registry.nodes)

    @invariant()
    def a_follower_of_the_changes_knows_as_much(self) -> None:
        """A snapshot and the changes after it say the same as the queries, ages aside."""
        records = self.lookup.changes.read(self.followed, 10_000)
        for change in records.items:
            self.followed += 1
            assert change.seq == self.followed
            self.follower.take(json(change.to_json()))
        assert self.followed == self.lookup.registry.seq
        answer = self.lookup.ask("jobs")
        assert in_order(self.follower.jobs()) == in_order(jobs_without_ages(answer))
        now = Follower(self.lookup.snapshot())
        graves = self.follower.tombstones
        for known in (answer, self.lookup.ask("nodes")):
            assert known["stale"] == now.stale == self.follower.stale
            assert all(grave == graves[grave["id"]] for grave in known["tombstones"])
        assert {grave["id"] for grave in known["tombstones"]} == graves.keys() == now.tombstones.keys()
        assert now.nodes == self.follower.nodes
        assert {node["name"] for node in known["nodes"]} == {node["info"]["name"] for node in now.nodes.values()}


RegistryMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@pytest.mark.timeout(120)
class TestRegistry(RegistryMachine.TestCase):  # type: ignore[valid-type, misc]  # made by hypothesis
    """Runs the machine."""
