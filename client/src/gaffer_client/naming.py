"""Names: of jobs before they become a part of a path, of nodes in front of people."""

from urllib.parse import urlsplit

from gaffer.errors import GafferError
from gaffer.jobs.names import DEFAULT_SESSION, JobName, parse_job_name
from gaffer.schemas.lookup import NodeInfo
from gaffer_client.errors import BadRequest


def checked_job_name(name: object, url: str, session: str | None = None) -> JobName:
    """The name of a job on the node at `url`, of the session `default` unless it says another; raises BadRequest."""
    try:
        return parse_job_name(str(name or ""), session or DEFAULT_SESSION)
    except GafferError as error:
        raise BadRequest(
            error.message, url=url, errno=error.errno, reason=error.reason, path=error.path, hint=error.hint
        ) from None


def in_state(state: str) -> str:
    """The state of a job as it follows "is": `running`, `in backoff`."""
    return f"in {state}" if state == "backoff" else state


def display_name(node: NodeInfo) -> str:
    """The name of a node, with its address (`web1@10.0.0.7:5000`) when another node has the same name."""
    if not node.get("conflict"):
        return node["name"]
    try:
        address = urlsplit(node["origin"]).netloc
    except ValueError:
        address = ""
    return f"{node['name']}@{address or node['origin']}"
