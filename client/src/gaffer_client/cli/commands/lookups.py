"""`gaffer lookup:*`: queries to the lookups of a cluster."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gaffer.errors import did_you_mean
from gaffer.jobs.names import check_name, parse_job_name
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import Exit
from gaffer_client.cli.output import print_error, print_json, warn
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.table import Command
from gaffer_client.cli.topology import job_table, node_table

if TYPE_CHECKING:
    from gaffer_client.lookup import Lookup
    from gaffer_client.responses import JobsAnswer


def nodes(context: Context, args: Arguments) -> int:
    with context.lookup() as lookup:
        answer = lookup.nodes()
    return _show(context, lookup, answer, node_table(answer["nodes"]), "no nodes")


def jobs(context: Context, args: Arguments) -> int:
    with context.lookup() as lookup:
        answer = lookup.jobs()
    return _show(context, lookup, answer, _table_of(answer), "no node has a job")


def sessions(context: Context, args: Arguments) -> int:
    node = args.text("<node>")
    with context.lookup() as lookup:
        answer = lookup.sessions(node)
    found = {name: sources for session in answer["sessions"] for name, sources in session["jobs"].items()}
    nothing = "no node has a job" if node is None else f"no node {node} has a job"
    return _show(context, lookup, answer, job_table(found), nothing)


def job(context: Context, args: Arguments) -> int:
    name = str(parse_job_name(args.required("<job>")))
    with context.lookup() as lookup:
        answer = lookup.find_job(name)
        hint = None if answer["sources"] else did_you_mean(name, [each["name"] for each in lookup.jobs()["jobs"]])
    text = job_table({name: answer["sources"]})
    return _show(context, lookup, answer, text, f"no node has the job {name}", Exit.NOT_FOUND, hint)


def session(context: Context, args: Arguments) -> int:
    name = check_name(args.required("<session>"), "session")
    with context.lookup() as lookup:
        answer = lookup.find_session(name)
        known = [] if answer["jobs"] else [each["name"].partition(".")[0] for each in lookup.jobs()["jobs"]]
    nothing, hint = f"no node has the session {name}", did_you_mean(name, known)
    return _show(context, lookup, answer, _table_of(answer), nothing, Exit.NOT_FOUND, hint)


def _table_of(answer: "JobsAnswer") -> str | None:
    return job_table({job["name"]: job["sources"] for job in answer["jobs"]})


def _show(
    context: Context,
    lookup: "Lookup",
    answer: Mapping[str, Any],
    text: str | None,
    nothing: str,
    status: Exit = Exit.OK,
    hint: str | None = None,
) -> int:
    """Print a response and warnings about it. Without `text`, print `nothing` with a hint and return `status`.

    If all lookups are warming up, an empty result is not conclusive, and the status is that of no response.
    """
    if context.json:
        print_json(answer)
    elif text is not None:
        print(text)
    for error in lookup.failures.values():
        warn(error.message)
    warming = answer.get("warming", False)
    if warming:
        warn("gaffer_lookupd has just started: the response may lack some nodes")
    elif answer["stale"]:
        warn("many nodes became unreachable at once: the response may be out of date")
    if text is not None:
        return Exit.OK
    print_error(context.program.name, f"{nothing} yet" if warming else nothing, None if warming else hint)
    return Exit.UNREACHABLE if warming else status


COMMANDS = (
    Command(
        "lookup:nodes",
        "List the nodes of the cluster",
        nodes,
        "lookup",
        effect="read",
        examples=("lookup:nodes", "lookup:nodes -L http://lookup1:5010,http://lookup2:5010"),
    ),
    Command(
        "lookup:jobs",
        "List all jobs and the nodes that run them",
        jobs,
        "lookup",
        effect="read",
        examples=("lookup:jobs", "lookup:jobs --json"),
    ),
    Command(
        "lookup:sessions",
        "List all sessions and their jobs, or those of one node",
        sessions,
        "lookup",
        "[<node>]",
        effect="read",
        examples=("lookup:sessions", "lookup:sessions node1"),
    ),
    Command(
        "lookup:job",
        "Show which nodes run a job, given as SESSION.NAME",
        job,
        "lookup",
        "<job>",
        effect="read",
        details="""
            PROCESSES lists Gaffer's pids of the processes in service, STATE is the state of the node, and AGE is the
            time since the lookup last heard from it. The exit status is 4 if no node has the job, and 3 if no lookup
            responds or if the job is not found but all lookups have just started.
        """,
        examples=("lookup:job shop.web",),
    ),
    Command(
        "lookup:session",
        "Show which nodes run the jobs of a session",
        session,
        "lookup",
        "<session>",
        effect="read",
        examples=("lookup:session shop",),
    ),
)
