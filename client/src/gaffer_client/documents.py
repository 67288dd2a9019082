"""The documents that nodes send, as `Server`, `Job` and `Process` check them."""

from typing import Any, TypedDict

from gaffer.schemas.bodies import (
    ActionExit,
    ActionList,
    DoneGeneration,
    DrainState,
    HealthInfo,
    JobList,
    NewPid,
    PidList,
    ProcessCount,
    SessionList,
    VersionInfo,
)
from gaffer.schemas.common import Later
from gaffer.schemas.history import HistoryPage
from gaffer.schemas.keys import KeyInfo, KeyList, NewKey
from gaffer.schemas.stats import JobStats, OneProcessStats, ProcessStats
from gaffer.schemas.upgrade import UpgradeStarted
from gaffer.schemas.views import JobView

__all__ = [
    "ActionExit",
    "ActionList",
    "DoneGeneration",
    "DrainState",
    "HealthInfo",
    "HistoryPage",
    "JobList",
    "JobListing",
    "JobStats",
    "KeyInfo",
    "KeyList",
    "ListedJob",
    "NewKey",
    "NewPid",
    "OneProcessStats",
    "PidList",
    "ProcessCount",
    "ProcessStats",
    "SessionList",
    "UpgradeStarted",
    "VersionInfo",
]


class ListedJob(JobView):
    """A job: its state, its settings, and its resource usage if that was asked for.

    It is JobInfo of gaffer.schemas.responses, whose types of settings take long to import.
    """

    config: dict[str, Any]
    stats: Later[JobStats]


class JobListing(TypedDict):
    """The jobs of a node, or of a session."""

    jobs: list[ListedJob]
