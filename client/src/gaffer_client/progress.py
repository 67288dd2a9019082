"""How far a job has replaced its processes, or has become ready again. Pure."""

from typing import TYPE_CHECKING, NamedTuple

from gaffer_client.naming import drift_lines, job_state

if TYPE_CHECKING:
    from gaffer.schemas.views import Instance, JobView, RolloutInfo
    from gaffer_client.documents import ListedJob

_READY = "ready"
_ON_CONNECTION = "on-connection"

ROLLOUTS = {"restart": "rolling restart", "update": "rolling update", "rollback": "rollback", "recycle": "recycling"}
"""What the kinds of rollouts are called."""


class Progress(NamedTuple):
    """`text` describes how far it is; `failure` is why it failed."""

    text: str
    done: bool = False
    failure: str | None = None


def readiness(info: "ListedJob") -> Progress:
    """Return whether all processes of a job are ready; those that are to be replaced are not, once that is ordered.

    A job that has completed, or that needs no processes now, is as ready as it can be.
    """
    ready = [each for each in _wanted(info) if each["state"] == _READY]
    number = info["max_processes"]
    state = job_state(info["state"], info["reason"])
    if info["state"] == "failed":
        return Progress(state, failure=f"the job has failed: {info['reason'] or 'no reason given'}")
    if info["state"] == "completed" or (info["state"] == "waiting" and _starts_later(info)):
        return Progress(state, done=True)
    if info["state"] in ("stopped", "stopping") and not info["active"]:
        return Progress(state, failure=f"the job is {state if info.get('disabled') else 'stopped'}")
    text = f"{len(ready)} of {number} ready"
    if len(ready) == number:
        return Progress(text, done=True)
    return Progress(f"{text}; {_hold_up(info)}" if info["reason"] else text)


class RolloutWatch:
    """Follows the rollout of a `kind` that an order has begun after `before`, the rollout of the job until then."""

    def __init__(self, kind: str, before: "RolloutInfo | None" = None) -> None:
        self._kind = kind
        self._before = before
        self._begun = False

    def judge(self, info: "ListedJob") -> Progress:
        """Return the progress according to the info of the job after the order."""
        rollout = info.get("rollout")
        if rollout is None or not self._is_it(rollout):
            return self._without(info)
        self._begun = True
        ready = sum(each["state"] == _READY and each.get("slot", 1) > 0 for each in info["instances"])
        text = f"{rollout['replaced']} of {rollout['processes']} replaced, {ready} ready"
        if rollout["state"] == "failed":
            return Progress(text, failure=rollout["reason"] or "a new process did not become ready")
        if rollout["state"] == "done":
            return Progress(text, done=True)
        return Progress(f"{text}; {_hold_up(info)}" if info["reason"] else text)

    def _is_it(self, rollout: "RolloutInfo") -> bool:
        return rollout["kind"] == self._kind and (
            self._begun or rollout["state"] == "running" or rollout != self._before
        )

    def _without(self, info: "ListedJob") -> Progress:
        """Judge a job that needed no rollout, or whose rollout was ended."""
        progress = readiness(info)
        if self._begun and progress.failure is None:
            return progress._replace(
                done=False, failure=f"another command or a restart of the node ended the {ROLLOUTS[self._kind]}"
            )
        return progress


def rollout_text(rollout: "RolloutInfo | None") -> str | None:
    """Return the state of a rollout that goes on or has failed as text, else None."""
    if rollout is None or rollout["state"] == "done":
        return None
    name = ROLLOUTS.get(rollout["kind"], rollout["kind"])
    far = f"{rollout['replaced']} of {rollout['processes']} processes replaced"
    if rollout["state"] == "failed":
        return f"{name} stopped, {far}: {rollout['reason'] or 'a new process did not become ready'}"
    return f"{name}: {far}"


def retry_text(info: "JobView") -> str | None:
    """Return when the next process of a job starts after failures as text, else None."""
    delay = min((delay for each in info["instances"] if (delay := each.get("retry_in")) is not None), default=None)
    return None if delay is None else f"next start in {_span(delay)}"


def details_of(info: "JobView") -> list[str]:
    """Return what is known of a job besides its numbers: its reason, its next start, its rollout and its drift."""
    found = [info["reason"], retry_text(info), rollout_text(info.get("rollout")), *drift_lines(info)]
    return [text for text in found if text]


def _span(seconds: float) -> str:
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def _hold_up(info: "ListedJob") -> str:
    """Return why a job is not ready, without states that the numbers show as well."""
    return (
        info["reason"] or "" if info["state"] in ("starting", "running") else job_state(info["state"], info["reason"])
    )


def _wanted(info: "ListedJob") -> "list[Instance]":
    """Return the instances that the job should have, without those of a surge and those that run once."""
    return [each for each in info["instances"] if 1 <= each.get("slot", 1) <= info["max_processes"]]


def _starts_later(info: "ListedJob") -> bool:
    config = info["config"]
    return bool(config.get("schedule") or config.get("every")) or config.get("start") == _ON_CONNECTION
