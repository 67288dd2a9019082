"""What a node reports of its jobs, and which changes a lookupd still lacks."""

from typing import NamedTuple

import pytest

from gaffer.jobs.names import JobName
from gaffer.schemas.messages import MAX_REASON, JobReport, Report, decode_request, encode
from gafferd.announce.job_states import JobStates

pytestmark = pytest.mark.pure

WEB, DB = JobName("shop", "web"), JobName("shop", "db")


class Job(NamedTuple):
    state: str
    reason: str | None = None
    expected: int = 1


UP, FAILING = Job("running"), Job("backoff", "the last process exited with 3")


def lacking(states: JobStates, number: int) -> dict[str, str]:
    return {job.name.name: job.report.state for job in states.after(number)}


def test_of_many_changes_of_a_job_the_last_one_is_left() -> None:
    states = JobStates()
    states.update({WEB: UP, DB: UP})
    assert (states.end, lacking(states, 0), lacking(states, states.end)) == (2, {"web": "running", "db": "running"}, {})
    for count in range(100):
        states.update({WEB: Job("backoff", f"crash loop, {count} times in a row")}, {WEB})
    assert (states.end, lacking(states, 2)) == (102, {"web": "backoff"})
    assert lacking(states, 0) == {"db": "running", "web": "backoff"}
    [job] = states.after(2)
    assert job.report == JobReport("backoff", "crash loop, 99 times in a row", 1)


def test_what_is_as_it_was_is_no_change() -> None:
    states = JobStates()
    states.update({WEB: FAILING, DB: UP})
    states.update({WEB: FAILING})
    assert (states.end, lacking(states, 0)) == (2, {"web": "backoff"})
    states.update({}, {WEB})
    assert lacking(states, 0) == {}
    states.update({WEB: FAILING}, {WEB})
    assert lacking(states, 2) == {"web": "backoff"}
    states.forget(str(WEB))
    states.update({WEB: FAILING}, {WEB})
    assert lacking(states, 3) == {"web": "backoff"}


@pytest.mark.parametrize(
    ("job", "unsettled"),
    [
        (UP, False),
        (Job("starting"), False),
        (Job("starting", "crash loop"), True),
        (Job("running", "crash loop"), True),
        (FAILING, False),
        (Job("failed", "given up"), False),
    ],
)
def test_a_reason_can_end_by_time_alone_while_the_job_is_up(job: Job, unsettled: bool) -> None:
    states = JobStates()
    states.update({WEB: job})
    assert states.unsettled == ({WEB} if unsettled else set())


@pytest.mark.parametrize(
    ("reason", "sent"),
    [
        (None, None),
        ("x" * MAX_REASON, "x" * MAX_REASON),
        ("x" * (MAX_REASON + 1), "x" * (MAX_REASON - 3) + "..."),
        ("can't execute b\udcffd", "can't execute b?d"),
        ("<b>\x1b[31m", "<b>\x1b[31m"),
    ],
)
def test_every_reason_is_one_that_lookupds_accept(reason: str | None, sent: str | None) -> None:
    states = JobStates()
    states.update({WEB: Job("failed", reason, 0)})
    jobs = {str(job.name): job.report for job in states.after(0)}
    received = decode_request(encode(Report("m", 1.0, jobs=jobs)))
    assert isinstance(received, Report)
    assert received.jobs == {"shop.web": JobReport("failed", sent, 0)}
