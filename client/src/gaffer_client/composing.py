"""Builds the documents of the routes of gaffer_lookupd from merged views. Pure."""

from collections.abc import Mapping
from typing import Any, cast

from gaffer.jobs.names import split_job_name
from gaffer.schemas.lookup import JobSource
from gaffer_client.merge import Merged
from gaffer_client.responses import JobAnswer, JobsAnswer, NodesAnswer, SessionsAnswer

Rest = Mapping[str, Any]
"""The other fields of a response: `stale`, `lookups`, and `epoch` and `seq` if there is only one lookup."""


def nodes_answer(merged: Merged, rest: Rest) -> NodesAnswer:
    """Return the document of `/nodes`."""
    return cast(NodesAnswer, {**rest, "nodes": merged.nodes})


def sessions_answer(merged: Merged, rest: Rest) -> SessionsAnswer:
    """Return the document of `/sessions`."""
    sessions: dict[str, dict[str, list[JobSource]]] = {}
    for name, sources in merged.jobs.items():
        sessions.setdefault(session_of(name), {})[name] = sources
    listed = [{"sessionid": session, "jobs": jobs} for session, jobs in sessions.items()]
    return cast(SessionsAnswer, {**rest, "nb_sessions": len(listed), "sessions": listed})


def jobs_answer(merged: Merged, rest: Rest) -> JobsAnswer:
    """Return the document of `/jobs` and `/findSession`."""
    listed = [{"name": name, "sources": sources} for name, sources in merged.jobs.items()]
    return cast(JobsAnswer, {**rest, "nb_jobs": len(listed), "jobs": listed})


def job_answer(merged: Merged, rest: Rest, name: str) -> JobAnswer:
    """Return the document of `/findJob`."""
    return cast(JobAnswer, {**rest, "sources": merged.jobs.get(name, [])})


def session_of(job_name: str) -> str:
    """Return the session of a job from its qualified name."""
    return split_job_name(job_name)[0]
