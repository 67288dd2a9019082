"""`gaffer start`, `run` and `export`: Procfile commands that need no node."""

from gaffer.runtime.options import Option
from gaffer_client.cli.config import Context
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.table import Command


def _names_jobs(args: Arguments) -> bool:
    """Whether a node is named, or jobs by their sessions, rather than types of a Procfile."""
    names = args.words("<type>")
    return bool(names) and (args.text("--endpoint") is not None or any("." in name for name in names))


def start(context: Context, args: Arguments) -> int:
    if _names_jobs(args):
        from gaffer_client.cli.commands.jobs import start_jobs

        return start_jobs(context, args, args.words("<type>"))
    from gaffer_client.cli import local  # imports the framework

    return local.start(context, args)


def plan(context: Context, args: Arguments, command: Command) -> int:
    """Show what `start` would do."""
    if _names_jobs(args):
        from gaffer_client.cli.commands import fleet

        return fleet.start(context, args, command)
    from gaffer_client.cli import local

    return local.plan(context, args)


def run(context: Context, args: Arguments) -> int:
    from gaffer_client.cli import local

    return local.run(context, args)


def export(context: Context, args: Arguments) -> int:
    from gaffer_client.cli import export

    return export.export(context, args)


_CONCURRENCY = Option(
    "-c SPEC, --concurrency=SPEC",
    "number of processes of each type, as type=number,type=number or all=number (default: 1 each)",
    repeat=True,
)
_PORT = Option("-p PORT, --port=PORT", "the first port of the first type, or auto for any free port (default: 8000)")

COMMANDS = (
    Command(
        "start",
        "Run an application on this host, in the foreground, or start jobs on a node",
        start,
        "node",
        "[<type>...]",
        effect="write",
        on_several="fleet:start",
        plan="local:plan",
        options=(
            _CONCURRENCY,
            _PORT,
            Option("--no-watch", "don't restart processes when the files that they watch change"),
            Option("-v, --verbose", "show all events, such as start and stop"),
            Option(
                "--wait", "with jobs of a node: return when they are ready; on several nodes, when one has each ready"
            ),
            Option("--timeout=SECONDS", "give up waiting after SECONDS and exit with status 1 (default: 300)"),
        ),
        details="""
            Runs all types of the Procfile, or the given ones, in the directory of the application with the variables
            of the shell and of its .env file, and shows their output. Processes that exit are restarted.

            gaffer.yml or gaffer.ini next to the Procfile has settings of the types, such as `ready`, `after` and
            `watch`. A given type is run with the types it comes after, unless -c sets them to 0. When no process is
            left that could run, the command ends with the exit code of the first job that failed; an `essential` job
            ends it with its own.

            Each type gets a range of 100 ports, in the order of the Procfile, starting at 8000, or the next free block
            if these ports are in use. Each process gets its port in the variable PORT. A PORT set in an env file takes
            precedence. Standard input of the processes stays open without data.

            Ctrl-C stops all processes; a second Ctrl-C kills them at once.

            Names with a session, SESSION.NAME or SESSION.*, and with -g all names, are jobs of a node, which are
            started there.
        """,
        aliases=("dev:start",),
        examples=(
            "start",
            "start web worker",
            "start -c web=2,worker=3",
            "start -e production.env -p 9000",
            "start shop.web --wait",
        ),
        uses=("--procfile", "--directory", "--env"),
    ),
    Command(
        "run",
        "Run a command once in the environment of an application",
        run,
        "none",
        "[<args>...]",
        effect="write",
        options=(
            Option("-c NUMBER, --concurrency=NUMBER", "number of copies to run at once (default: 1)", repeat=True),
        ),
        details="""
            Runs the command in this terminal, in the directory of the application, with the variables of the shell and
            of its .env file, and exits with the status of the command. All arguments after the command, including
            options, are passed to it.
        """,
        aliases=("dev:run",),
        passes_on=True,
        examples=("run python manage.py migrate", "-e production.env run ./task --verbose"),
        uses=("--procfile", "--directory", "--env"),
    ),
    Command(
        "export",
        "Export an application as configuration of gafferd, systemd or compose, or as JSON",
        export,
        "none",
        "[<name>]",
        effect="write",
        options=(
            _CONCURRENCY,
            _PORT,
            Option(
                "--format=FORMAT",
                "ini or yaml for gafferd, json for `gaffer load`, systemd for its units, compose (default: ini)",
            ),
            Option("--out=PATH", "write to a file; for systemd, to files in a directory"),
        ),
        details="""
            <name> is the type to export (default: all types). With ini, yaml and json, jobs run as if loaded by `gaffer
            load`. The units of systemd are a template for each type, whose instances are named after their port, and a
            target; for compose, the image is built in the directory. A warning names the settings that have no place in
            these formats.
        """,
        examples=(
            "export --out=shop.ini",
            "export --format=json --out=shop.json",
            "export web -c web=3",
            "export --format=systemd --out=units",
        ),
        uses=("--procfile", "--directory", "--env"),
    ),
)
