"""`gaffer lookup:*`: questions to the lookups of a cluster."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gaffer.names import check_name, parse_job_name

from gaffer_client.answers import NodeInfo, Source
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import CommandFailed, Exit
from gaffer_client.cli.output import abridged, age, print_json, table, warn
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.table import Command
from gaffer_client.lookup import Lookup
from gaffer_client.naming import display_name

JOB_HEADER = ("NODE", "JOB", "PROCESSES", "ENDPOINT", "STATE", "AGE")


def nodes(context: Context, args: Arguments) -> int:
    with context.lookup() as lookup:
        answer = lookup.nodes()
    rows = [
        (
            display_name(node),
            node["origin"],
            _node_state(node),
            age(node.get("age_ms")),
            node["version"],
            " ".join(f"{key}={value}" for key, value in sorted(node.get("labels", {}).items())),
        )
        for node in answer["nodes"]
    ]
    return _show(
        context, lookup, answer, table(("NODE", "ORIGIN", "STATE", "AGE", "PROTOCOL", "LABELS"), rows) if rows else None
    )


def jobs(context: Context, args: Arguments) -> int:
    with context.lookup() as lookup:
        answer = lookup.jobs()
    return _show(context, lookup, answer, job_table({job["name"]: job["sources"] for job in answer["jobs"]}))


def sessions(context: Context, args: Arguments) -> int:
    node = args.text("<node>")
    with context.lookup() as lookup:
        answer = lookup.sessions(node)
    found = {name: sources for session in answer["sessions"] for name, sources in session["jobs"].items()}
    return _show(context, lookup, answer, job_table(found))


def job(context: Context, args: Arguments) -> int:
    name = str(parse_job_name(args.required("<job>")))
    with context.lookup() as lookup:
        answer = lookup.find_job(name)
    status = _show(context, lookup, answer, job_table({name: answer["sources"]}))
    if not answer["sources"]:
        raise CommandFailed(f"no node has the job {name}", status=Exit.NOT_FOUND)
    return status


def session(context: Context, args: Arguments) -> int:
    name = check_name(args.required("<session>"), "session")
    with context.lookup() as lookup:
        answer = lookup.find_session(name)
    status = _show(context, lookup, answer, job_table({job["name"]: job["sources"] for job in answer["jobs"]}))
    if not answer["jobs"]:
        raise CommandFailed(f"no node has the session {name}", status=Exit.NOT_FOUND)
    return status


def job_table(found: Mapping[str, Sequence[Source]]) -> str | None:
    """A row for each job on each node; None when there is none."""
    rows = [
        (
            display_name(source["node_info"]),
            name,
            abridged(source["pids"]) or "-",
            abridged(list(_addresses(source)), 2) or "-",
            _state(source),
            age(source.get("age_ms")),
        )
        for name, sources in found.items()
        for source in sources
    ]
    return table(JOB_HEADER, rows) if rows else None


def _addresses(source: Source) -> Iterable[str]:
    for process in source.get("processes", []):
        for endpoint in process["endpoints"]:
            address = f"[{endpoint['address']}]" if ":" in endpoint["address"] else endpoint["address"]
            yield f"{address}:{endpoint['port']}"


def _state(source: Source) -> str:
    """The state of the node, and how many processes are in another state than ready."""
    others = Counter(process["state"] for process in source.get("processes", []) if process["state"] != "ready")
    return ", ".join([_node_state(source["node_info"]), *(f"{count} {state}" for state, count in others.items())])


def _node_state(node: NodeInfo) -> str:
    return node.get("status", "alive") + (", conflict" if node.get("conflict") else "")


def _show(context: Context, lookup: Lookup, answer: Mapping[str, Any], text: str | None) -> int:
    if context.json:
        print_json(answer)
    elif text is not None:
        print(text)
    for error in lookup.failures.values():
        warn(error.message)
    if answer.get("stale"):
        warn("many nodes fell silent at once: the answer may be out of date")
    return Exit.OK


COMMANDS = (
    Command("lookup:nodes", "List the nodes of the cluster", nodes, "lookup"),
    Command("lookup:jobs", "List all jobs and the nodes that have them", jobs, "lookup"),
    Command("lookup:sessions", "List all sessions with their jobs, or those of a node", sessions, "lookup", "[<node>]"),
    Command(
        "lookup:job",
        "Tell which nodes have a job, as SESSION.NAME",
        job,
        "lookup",
        "<job>",
        details="""
            PROCESSES are the node's numbers for the processes that take work, STATE is that of the node, AGE is how
            long ago the lookup heard of it. The exit status is 4 when no node has the job, 3 when no lookup answers.
        """,
    ),
    Command("lookup:session", "Tell which nodes have the jobs of a session", session, "lookup", "<session>"),
)
