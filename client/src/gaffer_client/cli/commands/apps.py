"""`gaffer load`, `unload` and `apps`: applications on a node."""

from typing import TYPE_CHECKING, Any

from gaffer.errors import did_you_mean
from gaffer.jobs.names import parse_job_name, split_job_name
from gaffer.runtime.options import Option
from gaffer_client.cli.checking import checked_on_failure, items
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import CommandFailed, Exit, UsageError
from gaffer_client.cli.jobnames import suggesting
from gaffer_client.cli.output import print_error, print_json, printable, table
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.places import app_name
from gaffer_client.cli.several import DRY_RUN
from gaffer_client.cli.table import Command
from gaffer_client.errors import Conflict, NotFound, StatusError
from gaffer_client.jobs import Job
from gaffer_client.node import Server

if TYPE_CHECKING:
    from gaffer_client.cli.ports import Span


def load(context: Context, args: Arguments) -> int:
    name = args.text("<name>")
    with context.server() as server:
        if name is not None and (name == "-" or name.endswith(".json") or "/" in name):
            return _load_file(context, args, server, name)
        return _load_procfile(context, args, server, app_name(args, name))


def _load_file(context: Context, args: Arguments, server: Server, path: str) -> int:
    if args.words("--concurrency") or args.text("--port"):
        raise UsageError("-c and -p apply only to Procfiles", hint="set numprocesses and port in the job description")
    from gaffer_client.cli.jobfile import read_jobs

    jobs = read_jobs(path)
    session = jobs.session(args.text("--app"))
    return _load(context, args, server, session, jobs.descriptions)


def _load_procfile(context: Context, args: Arguments, server: Server, session: str) -> int:
    if args.text("--app"):
        raise UsageError(
            "--app applies only to JSON files", hint="give the application name as an argument: gaffer load NAME"
        )
    from gaffer_client.cli.procfile_app import choose_ports, concurrency, open_application  # imports settings of jobs

    app = open_application(args)
    numbers = app.numbers(concurrency(args.words("--concurrency"), app.types))
    app.describe(numbers, choose_ports("auto", app, numbers), session)  # mistakes are reported before the node is asked
    chosen = choose_ports(args.text("--port"), app, numbers, lambda: taken_ports(server, session), whole=True)
    return _load(context, args, server, session, app.describe(numbers, chosen, session))


def taken_ports(server: Server, session: str) -> "list[Span]":
    """Return the ports that jobs of other applications on the node use."""
    from gaffer_client.cli import ports

    others = [info for info in server.list_jobs() if split_job_name(info["name"])[0] != session]
    spans = [ports.span(info["config"], info["max_processes"]) for info in others]
    return [span for span in spans if span]


def plan_load(context: Context, args: Arguments, command: Command) -> int:
    """Show what `load` would do."""
    return load(context, args)


def _load(context: Context, args: Arguments, server: Server, session: str, jobs: list[dict[str, Any]]) -> int:
    if args.flag(DRY_RUN.long):
        return _show_plan(context, server, session, jobs)
    start = False if args.flag("--nostart") else None
    try:
        server.load_all(jobs, session, start=start)
    except Conflict as error:
        raise _already_loaded(error.message, session) from None
    if context.json:
        print_json({"ok": True})
        return Exit.OK
    print(printable(f"{'Loaded' if start is False else 'Loaded and started'} {session} on {server.url}:"))
    for job in jobs:
        port = (job.get("env") or {}).get("PORT") or job.get("port")
        shown = f", port {str(port).removesuffix('+')}" if port else ""
        print(printable(f"  {job['name']}: {job.get('numprocesses', 1)}{shown}"))
    return Exit.OK


def _already_loaded(message: str, session: str) -> CommandFailed:
    return CommandFailed(
        f"{message}; nothing was loaded", hint=f"`gaffer unload {session}` removes it; use another name to keep both"
    )


def _show_plan(context: Context, server: Server, session: str, jobs: list[dict[str, Any]]) -> int:
    """Show the number of processes of each type, as for several nodes."""
    names = [parse_job_name(job["name"], session) for job in jobs]  # in a JSON file, they may have their session
    loaded = set(map(str, names)) & set(server.jobs())
    if loaded:
        raise _already_loaded(f"the job {min(loaded)} already exists", session)
    node = context.node_name(server)
    numbers = {name.name: job.get("numprocesses", 1) for name, job in zip(names, jobs, strict=True)}
    if context.json:
        print_json({"plan": [{"node": node, "origin": server.url, "numprocesses": numbers}]})
    else:
        print(table(("NODE", *numbers), [(node, *numbers.values())]))
    return Exit.OK


def unload(context: Context, args: Arguments) -> int:
    name = args.text("<name>")
    with context.server() as server:
        if name is not None and split_job_name(name, "")[0]:
            names = [str(parse_job_name(name))]
        else:
            names = jobs_of(server, app_name(args, name))
        unloaded: list[str] = []
        failures: list[StatusError] = []
        for qualified in reversed(names):
            try:
                with suggesting(Job(server, qualified)):
                    server.unload(qualified)
                unloaded.append(qualified)
            except StatusError as error:
                failures.append(error)
    if failures and not unloaded:
        raise failures[0]
    for failure in failures:
        print_error(context.program.name, failure.message, failure.hint)
    if context.json:
        print_json({"ok": not failures})
    else:
        print(printable(" ".join(["Unloaded", *unloaded])))
    return Exit.PARTIAL if failures else Exit.OK


def jobs_of(server: Server, session: str) -> list[str]:
    """Return the names of an application's jobs; raise CommandFailed if the node does not have the application."""
    try:
        return server.jobs(session)
    except NotFound:
        raise no_application(server, session) from None


def no_application(server: Server, session: str) -> CommandFailed:
    """Return the error for an application that the node does not have."""
    from gaffer_client.cli.diagnosis import hint_at

    hint = (
        hint_at(server.url, "node")
        or did_you_mean(session, server.sessions())
        or "run `gaffer apps` to list the applications, or `gaffer status` for all jobs"
    )
    return CommandFailed(f"{session!r} not found on {server.url}", hint=hint, status=Exit.NOT_FOUND)


def apps(context: Context, args: Arguments) -> int:
    with context.server() as server:
        document = server.transport.read("/sessions")
        if "epoch" in document:  # a gaffer_lookupd lists sessions too
            from gaffer_client.cli.diagnosis import hint_at

            raise CommandFailed(f"{server.url} is not a node", hint=hint_at(server.url, "node"))
    if context.json:
        print_json(document)
        return Exit.OK
    with checked_on_failure(server.transport, document, "SessionList"):
        text = "".join(f"{printable(session)}\n" for session in items(document, "sessions"))
    print(text, end="")
    return Exit.OK


COMMANDS = (
    Command(
        "load",
        "Load an application onto a node and start it",
        load,
        "node",
        "[<name>]",
        effect="write",
        scope="define",
        on_several="spread:load",
        plan="apps:plan_load",
        options=(
            Option(
                "-c SPEC, --concurrency=SPEC",
                "number of processes of each type, as type=number,type=number or all=number (default: 1 each)",
                repeat=True,
            ),
            Option("-p PORT, --port=PORT", "the first port of the first type, or auto for any free port"),
            Option(
                "--spread=SPEC",
                "spread the processes over the chosen nodes, or all: type=number over all nodes, as for -c",
                repeat=True,
            ),
            Option("--nostart", "load the jobs without starting them"),
            Option("--app=NAME", "the session for the jobs of a JSON file"),
        ),
        details="""
            Loads all types of the Procfile as jobs of the application <name> (default: the name of the
            directory). Either all jobs are loaded or none. They run in the directory of the application with
            the variables of its .env file and the settings in gaffer.yml or gaffer.ini next to the Procfile.

            Each type gets a range of 100 ports, starting at 8000, or the next free block if other applications on
            the node use these ports. Each process gets its port in the variable PORT. The ports of `web`, and of
            types whose command uses $PORT, are announced as endpoints.

            If <name> is a path, NAME.json or - (stdin), it is read as a JSON job description, or several of them as
            {"jobs": [...]}.
        """,
        examples=("load", "load -c web=2 -e production.env", "load shop2 -p auto", "load shop.json"),
        uses=("--procfile", "--directory", "--env"),
    ),
    Command(
        "unload",
        "Stop an application and remove it from a node",
        unload,
        "node",
        "[<name>]",
        effect="destructive",
        scope="define",
        on_several="fleet:unload",
        details="<name> is an application (default: the name of the directory), or a single job as SESSION.NAME.",
        examples=("unload", "unload shop", "unload shop.worker"),
        uses=("--procfile", "--directory"),
    ),
    Command(
        "apps",
        "List the applications on a node",
        apps,
        "node",
        effect="read",
        examples=("apps", "apps -g https://node1.example.com:5000"),
    ),
)
