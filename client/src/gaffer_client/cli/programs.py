"""The two programs: their commands and options."""

from dataclasses import replace

from gaffer.runtime.options import Option
from gaffer_client.cli.commands import (
    apps,
    audit,
    changes,
    control,
    disabling,
    draining,
    fleet,
    fleet_feeds,
    general,
    history,
    keys,
    local,
    logs,
    lookups,
    rollouts,
    scaling,
    spread,
    watching,
    why,
)
from gaffer_client.cli.config import CONNECT, CONNECTION_OPTIONS, ENDPOINT, LOOKUPD
from gaffer_client.cli.members import OPTIONS as ON_SEVERAL_NODES
from gaffer_client.cli.procfile_app import app_name
from gaffer_client.cli.table import Command, Program


def _job_commands(job_help: str, verbose: str) -> tuple[Command, ...]:
    """Return the commands for jobs, which both programs have."""
    return (
        *rollouts.commands(job_help),
        *disabling.commands(job_help),
        *history.commands(job_help, verbose),
        *logs.commands(job_help),
        *audit.commands(job_help),
    )


_APPLICATION_COMMANDS = (
    *local.COMMANDS,
    *apps.COMMANDS,
    *scaling.COMMANDS,
    *_job_commands(
        "<job> is SESSION.NAME, or the NAME of a type of the application in this directory.", "-v, --verbose"
    ),
    *watching.GAFFER_COMMANDS,
    *lookups.COMMANDS,
    *changes.COMMANDS,
    *why.COMMANDS,
    *draining.COMMANDS,
    *keys.COMMANDS,
)
_NODE_COMMANDS = (
    *control.COMMANDS,
    *_job_commands("<job> is SESSION.NAME, or the NAME of a job of the session `default`.", "--verbose"),
    *watching.COMMANDS,
)
_ON_SEVERAL = {
    "load": spread.load,
    "ps": fleet.ps,
    "scale": fleet.scale,
    "start": fleet.start,
    "stop": fleet.stop,
    "restart": fleet.restart,
    "reload": fleet.reload,
    "kill": fleet.kill,
    "unload": fleet.unload,
    "enable": fleet.enable,
    "disable": fleet.disable,
    "info": fleet.info,
    "logs": fleet_feeds.logs,
    "events": fleet_feeds.events,
}
"""What commands of `gaffer` do on several nodes."""


_OPTIONS_ON_SEVERAL = {
    "load": (
        Option(
            "--spread=SPEC",
            "spread the processes over the chosen nodes, or all: type=number over all nodes, as for -c",
            repeat=True,
        ),
    ),
    "start": (
        Option("--wait", "on several nodes: return when a process of each job is ready on one of them"),
        Option("--timeout=SECONDS", "give up waiting after SECONDS and exit with status 1 (default: 300)"),
    ),
}


def _on_several(command: Command) -> Command:
    options = (*command.options, *_OPTIONS_ON_SEVERAL.get(command.name, ()))
    return replace(command, on_several=_ON_SEVERAL.get(command.name), options=options)


_SUPERVISORCTL = {
    **dict.fromkeys(("update", "reread"), "use `gafferctl reload_config` to apply a changed configuration file"),
    "tail": "use `gaffer logs -f` or `gafferctl logs -f`",
    "signal": "use `gafferctl kill`",
    "shutdown": "stop the service of gafferd, or send it SIGTERM",
}

GAFFER = Program(
    name="gaffer",
    summary="Run Procfile applications on this host or on Gaffer nodes, and look up which node runs which job.",
    commands=tuple(map(_on_several, (*_APPLICATION_COMMANDS, *general.GAFFER_COMMANDS))),
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
        **{command.name: f"use `gafferctl {command.name}`" for command in _NODE_COMMANDS},
        **_SUPERVISORCTL,
        **dict.fromkeys(
            ("status", "list", "stats", "info"), "use `gaffer ps` for an application or `gafferctl status` for all jobs"
        ),
        **dict.fromkeys(
            ("stop", "kill"),
            "use `gafferctl stop`, `start` or `kill` for a job, or `gaffer unload` to remove an application",
        ),
    },
    session=lambda args: app_name(args, None),
)

GAFFERCTL = Program(
    name="gafferctl",
    summary="Administer one Gaffer node.",
    commands=(*_NODE_COMMANDS, *general.GAFFERCTL_COMMANDS),
    options=(
        CONNECT.option,
        *CONNECTION_OPTIONS,
        Option("-v, --version", "show the version"),
    ),
    endpoint=CONNECT,
    examples=("status", "status shop.web", "stop shop.web", "add shop.web 2", "watch exit"),
    elsewhere={
        **{command.name: f"use `gaffer {command.name}`" for command in _APPLICATION_COMMANDS},
        **dict.fromkeys(
            ("list", "jobs", "ps"), "use `gafferctl status` for all jobs or `gaffer ps` for an application"
        ),
        **_SUPERVISORCTL,
        "stats": "use `gaffer ps`",
    },
)
