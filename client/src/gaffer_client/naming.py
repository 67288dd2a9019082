"""Names of jobs in paths; names of nodes, and states and drift of jobs, for display."""

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gaffer.errors import GafferError
from gaffer.jobs.names import DEFAULT_SESSION, JobName, parse_job_name
from gaffer_client.errors import BadRequest

if TYPE_CHECKING:
    from gaffer.schemas.lookup import NodeInfo
    from gaffer.schemas.views import JobView

_STATES = ("failed", "backoff", "stopping", "starting", "waiting", "stopped", "completed", "running")
_DISABLED = ("disabled: ", "disabled until ")


def checked_job_name(name: object, url: str, session: str | None = None) -> JobName:
    """Return the parsed job name, in the session `default` if it has none; raise BadRequest if it is invalid."""
    try:
        return parse_job_name(str(name or ""), session or DEFAULT_SESSION)
    except GafferError as error:
        raise BadRequest(
            error.message, url=url, errno=error.errno, reason=error.reason, path=error.path, hint=error.hint
        ) from None


def in_state(state: str) -> str:
    """Return the state of a job for use after "is": `running`, `in backoff`."""
    return f"in {state}" if state == "backoff" else state


def job_state(state: str, reason: str | None) -> str:
    """Return the state of a job with its reason, for use after "is": `waiting for shop.db`, `in backoff: ...`.

    Of a disabled job it is only that: `disabled: ...`.
    """
    if not reason:
        return in_state(state)
    return reason if reason.startswith((f"{state} ", *_DISABLED)) else f"{in_state(state)}: {reason}"


def urgency(state: str, reason: str | None) -> float:
    """Return the rank of a job in a list that begins with those that need attention, as in `GET /search`.

    A job that is up has a reason for it only if something is wrong, such as a crash loop.
    """
    if reason and state in ("starting", "running"):
        return _STATES.index("backoff") + 0.5
    return _STATES.index(state) if state in _STATES else 0.0


def drift_lines(info: "JobView") -> list[str]:
    """Return a line for each difference between a job and the files of its configuration and program."""
    return [f"Drift: {drift['reason']}" for drift in info.get("drift", ())]


def display_name(node: "NodeInfo") -> str:
    """Return the name of a node, with its address (`web1@10.0.0.7:5000`) if the name is not unique."""
    if not node.get("conflict"):
        return node["name"]
    try:
        address = urlsplit(node["origin"]).netloc
    except ValueError:
        address = ""
    return f"{node['name']}@{address or node['origin']}"
