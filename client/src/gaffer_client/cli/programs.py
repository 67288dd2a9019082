"""The two programs: their commands and options."""

from gaffer.runtime.options import Option
from gaffer_client.cli.config import CONNECT, CONNECTION_OPTIONS, ENDPOINT, LOOKUPD
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.several import OPTIONS as ON_SEVERAL_NODES
from gaffer_client.cli.table import Family, Program


def _job_families(job_help: str, verbose: str) -> tuple[Family, ...]:
    """Return the commands for jobs, which both programs have."""
    return (
        Family("rollouts", "restart reload rollback", attribute="commands", arguments=(job_help,)),
        Family("disabling", "disable enable", attribute="commands", arguments=(job_help,)),
        Family("history", "exits definitions exec", attribute="commands", arguments=(job_help, verbose)),
        Family("logs", "logs", attribute="commands", arguments=(job_help,)),
        Family("audit", "history", attribute="commands", arguments=(job_help,)),
    )


_APPLICATION_FAMILIES = (
    Family("local", "start run export", aliases="dev:start dev:run"),
    Family("apps", "load unload apps"),
    Family("jobs", "status info ps:start stop kill commit", aliases="ps:info ps:stop ps:kill"),
    Family("channels", "send recv attach"),
    Family("scaling", "ps scale", aliases="ps:scale"),
    *_job_families(
        "<job> is SESSION.NAME, or the NAME of a type of the application in this directory.", "-v, --verbose"
    ),
    Family("watching", "events", attribute="GAFFER_COMMANDS"),
    Family("top", "top"),
    Family("doctor", "doctor"),
    Family("mcp", "mcp"),
    Family("lookups", "lookup:nodes lookup:jobs lookup:sessions lookup:job lookup:session"),
    Family("registry", "lookup:list lookup:history"),
    Family("changes", "lookup"),
    Family("why", "why"),
    Family("draining", "drain undrain"),
    Family("upgrading", "upgrade", attribute="GAFFER_COMMANDS"),
    Family("keys", "key:create key:list key:revoke"),
)
_NODE_FAMILIES = (
    Family(
        "control",
        "processes load_process add_process update_process get_process del_process start stop add sub status running"
        " numprocesses pids kill reload_config",
        aliases="load",
    ),
    *_job_families("<job> is SESSION.NAME, or the NAME of a job of the session `default`.", "--verbose"),
    Family("upgrading", "upgrade"),
    Family("watching", "watch"),
)
_SUPERVISORCTL = {
    **dict.fromkeys(("update", "reread"), "use `gafferctl reload_config` to apply a changed configuration file"),
    "tail": "use `gaffer logs -f` or `gafferctl logs -f`",
    "signal": "use `kill`",
    "shutdown": "stop the service of gafferd, or send it SIGTERM",
}


def _named(families: tuple[Family, ...], program: str) -> dict[str, str]:
    """Return hints to use commands of another program."""
    return {name: f"use `{program} {name}`" for family in families for name in family.names.split()}


def _session_of_directory(args: Arguments) -> str:
    from gaffer_client.cli.places import app_name

    return app_name(args, None)


GAFFER = Program(
    name="gaffer",
    summary="Run Procfile applications on this host or on Gaffer nodes, and look up which node runs which job.",
    families=(
        *_APPLICATION_FAMILIES,
        Family("settings", "context config"),
        Family("general", "key:new completion help", attribute="GAFFER_COMMANDS"),
    ),
    options=(
        Option("-f FILE, --procfile=FILE", "the Procfile (default: Procfile in the root directory)"),
        Option(
            "-d DIR, --directory=DIR",
            "the root directory of the application (default: the directory of the Procfile)",
            aliases=("--root",),
        ),
        Option(
            "-e X, --env=X",
            "an env file to read after .env, a comma-separated list of files, or KEY=VALUE; may be repeated",
            repeat=True,
        ),
        ENDPOINT.option,
        LOOKUPD.option,
        *ON_SEVERAL_NODES,
        *CONNECTION_OPTIONS,
        Option("--version", "show the version"),
    ),
    endpoint=ENDPOINT,
    examples=("start", "load", "ps", "scale web=3", "lookup:job shop.web"),
    elsewhere={
        **_named(_NODE_FAMILIES, "gafferctl"),
        **_SUPERVISORCTL,
        **dict.fromkeys(("list", "stats"), "use `gaffer ps` for an application or `gaffer status` for all jobs"),
    },
    session=_session_of_directory,
)

GAFFERCTL = Program(
    name="gafferctl",
    summary="Administer one Gaffer node.",
    families=(*_NODE_FAMILIES, Family("general", "completion help version", attribute="GAFFERCTL_COMMANDS")),
    options=(
        CONNECT.option,
        *CONNECTION_OPTIONS,
        Option("-v, --version", "show the version"),
    ),
    endpoint=CONNECT,
    examples=("status", "status shop.web", "stop shop.web", "add shop.web 2", "watch exit"),
    elsewhere={
        **_named(_APPLICATION_FAMILIES, "gaffer"),
        **dict.fromkeys(
            ("list", "jobs", "ps"), "use `gafferctl status` for all jobs or `gaffer ps` for an application"
        ),
        **_SUPERVISORCTL,
        "stats": "use `gaffer ps`",
    },
)
