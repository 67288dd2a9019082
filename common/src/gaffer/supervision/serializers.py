"""Serializers of jobs: the dicts of `Manager.info` and `Manager.stats`, and announcements to lookupds."""

import time
from collections.abc import Mapping
from typing import Any

import msgspec

from gaffer.jobs.exits import ExitRecord
from gaffer.jobs.job import Job
from gaffer.jobs.names import JobName
from gaffer.jobs.rollout import Rollout
from gaffer.jobs.slot import Slot, SlotState
from gaffer.jobs.states import JobState
from gaffer.process import Process
from gaffer.schemas.common import EndpointInfo
from gaffer.schemas.responses import JobInfo, JobStatus
from gaffer.schemas.views import DriftInfo, ExitInfo, Instance, JobSummary, RolloutInfo


class Announcement(msgspec.Struct, frozen=True):
    """The public state of a process: `state` is starting, ready or draining."""

    state: str
    endpoints: list[EndpointInfo]


class JobAnnouncement(msgspec.Struct, frozen=True):
    """What a job does, for people: its visible state, the reason, and how many processes it should have now."""

    state: str
    reason: str | None
    expected: int


_ANNOUNCED = {
    SlotState.SPAWNING: "starting",
    SlotState.STARTING: "starting",
    SlotState.READY: "ready",
    SlotState.DRAINING: "draining",
    SlotState.STOPPING: "draining",
}


def endpoints_of(job: Job, process: Process | None, host: str) -> list[EndpointInfo]:
    """The endpoints of a process as `{"name", "address", "port"}`; `host` is where the node is reached."""
    port = process.port if process is not None else None
    return [
        {"name": endpoint.name, "address": host, "port": endpoint.port} for endpoint in job.config.endpoints_of(port)
    ]


def announcements(job: Job, running: Mapping[int, Process], host: str) -> dict[int, Announcement]:
    """The processes of `job` from their spawn to their exit, by pid."""
    found = {}
    for slot in (*job.slots.values(), *job.committed.values()):
        process = running.get(slot.pid) if slot.pid is not None else None
        if process is not None and process.active:
            endpoints = endpoints_of(job, process, host) if slot.index else []
            found[process.pid] = Announcement(_ANNOUNCED[slot.state], endpoints)
    return found


def job_announcement(job: Job) -> JobAnnouncement:
    """What lookupds show of the job itself."""
    return JobAnnouncement(job.state.value, _reason(job), job.expected)


def job_status(job: Job) -> JobStatus:
    """The status of a job, as in `GET /status/<name>`."""
    return {
        "active": job.active and not job.disabled,
        "running": len(job.pids(committed=True)),
        "numprocesses": job.target,
        "max_processes": job.target,
    }


def job_info(
    job: Job,
    running: Mapping[int, Process],
    host: str,
    sockets: list[dict[str, str | int]],
    drift: list[DriftInfo],
    lost_logs: int,
) -> JobInfo:
    """The info of a job, as in `GET /jobs/<session>/<job>`.

    `sockets` says where it listens, `lost_logs` how many bytes of its output are missing in its log files.
    """
    pids = job.pids(committed=True)
    return {
        "name": str(job.name),
        "active": job.active and not job.disabled,
        "running": len(pids),
        "running_out": len(pids) - len(job.pids()),
        "max_processes": job.target,
        "expected": job.expected,
        "processes": pids,
        "config": job.config.to_dict(),
        "state": job.state,
        "reason": _reason(job),
        "disabled": msgspec.to_builtins(job.disabled),
        "restarts": job.restarts,
        "instances": [
            _instance(job, slot, running, host)
            for slot in (*sorted(job.slots.values(), key=lambda slot: slot.index), *job.committed.values())
            if slot.state is not SlotState.EMPTY
        ],
        "last_exit": _exit(job.last_exit) if job.last_exit else None,
        "generation": job.definitions.generation,
        "rollout": _rollout(job.rollout) if job.rollout else None,
        "last_run": job.last_run,
        "next_run": job.next_run,
        "sockets": sockets,
        "drift": drift,
        "log_lost_bytes": lost_logs,
    }


def job_summary(job: Job, running: Mapping[int, Process]) -> JobSummary:
    """A job in a list, without its settings."""
    pids = job.pids(committed=True)
    uptime = max((running[pid].uptime for pid in pids if pid in running), default=None)
    last = job.last_exit
    return {
        "name": str(job.name),
        "session": job.name.session,
        "state": job.state,
        "reason": _reason(job),
        "active": job.active and not job.disabled,
        "running": len(pids),
        "max_processes": job.target,
        "expected": job.expected,
        "processes": pids,
        "restarts": job.restarts,
        "uptime": round(uptime, 3) if uptime is not None else None,
        "next_run": job.next_run,
        "retry_in": _seconds_until(
            min((at for slot in job.slots.values() if (at := job.retry_at(slot)) is not None), default=None)
        ),
        "last_exit": None
        if last is None
        else {
            "exit_code": last.exit_code,
            "term_signal": last.term_signal,
            "reason": last.reason,
            "oom": last.oom,
            "uptime": last.uptime,
            "at": round(last.at, 3),
        },
    }


def job_instances(job: Job, running: Mapping[int, Process], host: str) -> list[Instance]:
    """The processes of a job that run, in a list."""
    return [
        _instance(job, slot, running, host)
        for slot in (*job.slots.values(), *job.committed.values())
        if slot.pid is not None and slot.pid in running
    ]


def _seconds_until(at: float | None) -> float | None:
    return None if at is None else round(max(0.0, at - time.monotonic()), 3)


def _reason(job: Job) -> str | None:
    crash_loop = job.crash_loop(time.monotonic())
    return crash_loop if crash_loop and job.state is JobState.BACKOFF else job.reason or crash_loop


def _instance(job: Job, slot: Slot, running: Mapping[int, Process], host: str) -> Instance:
    process = running.get(slot.pid) if slot.pid is not None else None
    return {
        "pid": slot.pid,
        "os_pid": process.os_pid if process else None,
        "slot": slot.index,
        "state": slot.visible_state,
        "probe_error": slot.probe_error or None,
        "retry_in": _seconds_until(job.retry_at(slot)),
        "started_at": round(process.started_at, 3) if process else None,
        "uptime": round(process.uptime, 3) if process else 0.0,
        "port": process.port if process else None,
        "endpoints": endpoints_of(job, process, host) if process and slot.index else [],
    }


def job_exits(job: Job) -> list[dict[str, Any]]:
    """The last exits of a job, newest first, as in `GET /jobs/<session>/<job>/exits`."""
    return [dict(_exit(record)) for record in job.exits]


def _exit(record: ExitRecord) -> ExitInfo:
    return {
        "pid": record.pid,
        "slot": record.slot,
        "exit_code": record.exit_code,
        "term_signal": record.term_signal,
        "reason": record.reason,
        "oom": record.oom,
        "uptime": record.uptime,
        "at": round(record.at, 3),
        "output": record.output,
        "rusage": msgspec.to_builtins(record.usage),
    }


def _rollout(rollout: Rollout) -> RolloutInfo:
    return {
        "kind": rollout.kind,
        "state": rollout.state,
        "processes": rollout.total,
        "replaced": rollout.replaced,
        "reason": rollout.reason or None,
    }


def job_stats(name: JobName, found: list[dict[str, Any]]) -> dict[str, Any]:
    """The stats of a job: those of each process, and sums and extremes of memory and CPU share (MGR-51)."""
    result: dict[str, Any] = {"name": str(name), "stats": found}
    for key in ("mem", "cpu"):
        values = [stat[key] for stat in found if isinstance(stat[key], int | float)]
        result[key] = round(sum(values), 2) if values else "N/A"
        result[f"max_{key}"] = max(values) if values else "N/A"
        result[f"min_{key}"] = min(values) if values else "N/A"
    return result
