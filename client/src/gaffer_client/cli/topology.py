"""Lookup responses as tables."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from gaffer_client.cli.output import abridged, age, table
from gaffer_client.naming import display_name

if TYPE_CHECKING:
    from gaffer.schemas.lookup import AgedNodeInfo, JobSource


def node_table(nodes: "Sequence[AgedNodeInfo]") -> str | None:
    """Return a table with a row for each node, or None if there are no nodes."""
    rows = [
        (
            display_name(node),
            node["origin"],
            _node_state(node),
            age(node.get("age_ms")),
            node["version"],
            " ".join(f"{key}={value}" for key, value in sorted(node.get("labels", {}).items())),
        )
        for node in nodes
    ]
    return table(("NODE", "ORIGIN", "STATE", "AGE", "PROTOCOL", "LABELS"), rows) if rows else None


def job_table(found: "Mapping[str, Sequence[JobSource]]", endpoints: int = 2) -> str | None:
    """Return a table with a row for each job on each node, or None without jobs; `endpoints` limits those shown."""
    rows = [
        (
            display_name(source["node_info"]),
            name,
            abridged(sorted(source["pids"])) or "-",
            abridged(list(_addresses(source)), endpoints) or "-",
            _state(source),
            age(source.get("age_ms")),
        )
        for name, sources in found.items()
        for source in sources
    ]
    return table(("NODE", "JOB", "PROCESSES", "ENDPOINT", "STATE", "AGE"), rows) if rows else None


def _addresses(source: "JobSource") -> Iterable[str]:
    for process in source.get("processes", []):
        for endpoint in process["endpoints"]:
            address = f"[{endpoint['address']}]" if ":" in endpoint["address"] else endpoint["address"]
            yield f"{address}:{endpoint['port']}"


def _state(source: "JobSource") -> str:
    """Return the state of the node, that of the job unless its processes show it, and how many are not ready."""
    job = source.get("state")
    others = Counter(process["state"] for process in source.get("processes", []) if process["state"] != "ready")
    shown = [] if job in (None, "running", "starting") else [f"job {job}"]
    counted = [f"{count} {state}" for state, count in others.items()]
    return ", ".join([source["node_info"].get("status", "alive"), *shown, *counted])


def _node_state(node: "AgedNodeInfo") -> str:
    return node.get("status", "alive") + (", duplicate name" if node.get("conflict") else "")
