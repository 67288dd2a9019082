"""What changes in a node's table, as numbered messages."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaffer.schemas.common import ProcessState
from gaffer.schemas.messages import (
    Endpoint,
    Process,
    RegisterJob,
    RegisterProcess,
    Snapshot,
    UnregisterJob,
    UnregisterProcess,
    UpdateProcess,
)
from gafferd.announce.journal import Change, Journal, plain

pytestmark = pytest.mark.pure


@dataclass
class Found:
    state: ProcessState = "ready"
    endpoints: list[dict[str, Any]] = field(default_factory=list)


# The states of a process only go forward.
STATES: list[ProcessState] = ["starting", "ready", "draining"]

endpoints = st.lists(st.fixed_dictionaries({"name": st.just("http"), "address": st.just("h"), "port": st.just(80)}))
found = st.builds(Found, st.sampled_from(STATES), endpoints)


def settled(history: list[dict[str, dict[int, Found]]]) -> list[dict[str, dict[int, Found]]]:
    """The history without processes that go back to an earlier state."""
    before: dict[str, dict[int, Found]] = {}
    for table in history:
        for job, pids in table.items():
            for pid, found in pids.items():
                if pid in before.get(job, ()):
                    found.state = max(found.state, before[job][pid].state, key=STATES.index)
        before = table
    return history


tables = st.dictionaries(st.sampled_from(["s.a", "s.b", "t.c"]), st.dictionaries(st.integers(1, 4), found, max_size=3))


def follow(jobs: dict[str, dict[int, Process]], messages: list[Change]) -> None:
    """Do to `jobs` what a lookupd does."""
    for message in messages:
        match message:
            case RegisterJob():
                assert message.job_name not in jobs
                jobs[message.job_name] = {}
            case UnregisterJob():
                del jobs[message.job_name]
            case RegisterProcess() | UpdateProcess():
                jobs[message.job_name][message.pid] = message.process
            case UnregisterProcess():
                jobs[message.job_name].pop(message.pid, None)


@given(st.lists(tables, max_size=5).map(settled))
def test_the_changes_lead_from_each_table_to_the_next(history: list[dict[str, dict[int, Found]]]) -> None:
    journal = Journal()
    jobs: dict[str, dict[int, Process]] = {}
    plain_jobs: dict[str, dict[int, Process]] = {}
    numbers: list[int | None] = []
    for table in history:
        changes = journal.update(table)
        numbers += [change.seq for change in changes]
        follow(jobs, changes)
        follow(plain_jobs, [message for change in changes if (message := plain(change))])
        expected = {
            job: {
                pid: Process(pid, found.state, tuple(Endpoint(**endpoint) for endpoint in found.endpoints))
                for pid, found in pids.items()
            }
            for job, pids in table.items()
        }
        assert jobs == expected
        snapshot = journal.snapshot("1")
        assert (snapshot.seq, snapshot.draining) == (len(numbers), False)
        assert {job: {p.pid: p for p in known} for job, known in snapshot.jobs.items()} == expected
        live = {job: {pid for pid, found in pids.items() if found.state != "draining"} for job, pids in table.items()}
        assert {job: set(pids) for job, pids in plain_jobs.items()} == live
        anew: dict[str, dict[int, Process]] = {}
        follow(anew, journal.plain_snapshot())
        assert {job: set(pids) for job, pids in anew.items()} == live
        follow(anew, journal.plain_withdrawals())
        assert anew == {job: {} for job in table}
        follow(anew, journal.plain_offers())
        assert {job: set(pids) for job, pids in anew.items()} == live
    assert numbers == list(range(1, len(numbers) + 1))


def test_an_unchanged_table_is_no_change() -> None:
    journal = Journal()
    journal.update({"s.a": {1: Found()}})
    assert journal.update({"s.a": {1: Found()}}) == []


def test_what_begins_is_told_before_what_ends() -> None:
    journal = Journal()
    journal.update({"s.a": {1: Found()}})
    changes = journal.update({"s.a": {2: Found()}})
    assert [type(change) for change in changes] == [RegisterProcess, UnregisterProcess]


def test_a_lookupd_of_0_5_gets_no_field_it_does_not_know() -> None:
    journal = Journal()
    register, process = journal.update({"s.a": {1: Found(endpoints=[{"name": "x", "address": "h", "port": 1}])}})
    (draining,) = journal.update({"s.a": {1: Found("draining")}})
    assert isinstance(draining, UpdateProcess)
    assert plain(register) == RegisterJob("1", "s.a")
    assert plain(process) == RegisterProcess("2", "s.a", 1)
    assert plain(draining) == UnregisterProcess("3", "s.a", 1)


def test_a_node_that_drains_has_no_processes_for_a_lookupd_of_0_5() -> None:
    journal = Journal()
    journal.update({"s.a": {1: Found()}})
    journal.draining = True
    changes = journal.plain_changes(journal.update({"s.a": {1: Found(), 2: Found()}, "s.b": {}}))
    assert [type(change) for change in changes] == [RegisterJob]
    assert [type(change) for change in journal.plain_snapshot()] == [RegisterJob, RegisterJob]
    journal.draining = False
    assert [change.pid for change in journal.plain_offers() if isinstance(change, RegisterProcess)] == [1, 2]


def test_draining_resuming_and_leaving_are_changes() -> None:
    journal = Journal()
    journal.update({"s.a": {}})
    journal.drain()
    assert journal.snapshot("1") == Snapshot("1", 2, {"s.a": []}, draining=True)
    journal.resume()
    assert journal.snapshot("2") == Snapshot("2", 3, {"s.a": []}, draining=False)
    journal.leave()
    assert journal.seq == 4


@pytest.mark.parametrize("limit", ["MAX_NODE_JOBS", "MAX_NODE_PROCESSES", "MAX_NODE_ENDPOINTS"])
def test_a_snapshot_leaves_out_the_last_jobs_over_the_limits(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"gafferd.announce.journal.{limit}", 2)
    served = Found(endpoints=[{"name": "x", "address": "h", "port": 1}])
    journal = Journal()
    journal.update({"s.a": {1: served}, "s.b": {2: served}, "s.c": {3: served}})
    assert journal.oversize() == ["s.c"]
    assert list(journal.snapshot("1", without=journal.oversize()).jobs) == ["s.a", "s.b"]
