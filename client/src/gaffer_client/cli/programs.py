"""The two programs: their commands and options."""

from gaffer_client.cli.commands import (
    apps,
    changes,
    control,
    draining,
    general,
    keys,
    local,
    lookups,
    scaling,
    watching,
    why,
)
from gaffer_client.cli.config import CONNECTION_OPTIONS, DEFAULT_LOOKUP
from gaffer_client.cli.table import Option, Program
from gaffer_client.transport import DEFAULT_URL

GAFFER = Program(
    name="gaffer",
    summary="Run Procfile applications, here or on Gaffer nodes, and ask a cluster which node runs what.",
    commands=(
        *local.COMMANDS,
        *apps.COMMANDS,
        *scaling.COMMANDS,
        *lookups.COMMANDS,
        *changes.COMMANDS,
        *why.COMMANDS,
        *draining.COMMANDS,
        *keys.COMMANDS,
        *general.GAFFER_COMMANDS,
    ),
    options=(
        Option("-f FILE, --procfile=FILE", "the Procfile (default: Procfile in the root)"),
        Option(
            "-d DIR, --directory=DIR",
            "the root of the application (default: the folder of the Procfile)",
            aliases=("--root",),
        ),
        Option(
            "-e X, --env=X", "an env file to read after .env, or a variable as KEY=VALUE; may be repeated", repeat=True
        ),
        Option(
            "-g URL, --endpoint=URL",
            f"the node: http://, https:// or unix:/path (GAFFER_ENDPOINT; default: {DEFAULT_URL})",
            aliases=("--gafferd-http-address",),
        ),
        Option(
            "-L URLS, --lookupd=URLS",
            f"the lookups, a comma list (GAFFER_LOOKUPD; default: {DEFAULT_LOOKUP})",
            repeat=True,
        ),
        *CONNECTION_OPTIONS,
        Option("--version", "show the version"),
    ),
    examples=("start", "load", "ps", "scale web=3", "lookup:job shop.web"),
    elsewhere={
        **dict.fromkeys(("status", "list"), "use `gaffer ps` for an application, `gafferctl status` for a job"),
        **dict.fromkeys(
            ("stop", "restart", "kill"),
            "use `gafferctl stop`, `start` or `kill` for a job, `gaffer unload` to remove all",
        ),
        "logs": "use the files in `logs` of the node's state directory, or its /streams",
    },
)

GAFFERCTL = Program(
    name="gafferctl",
    summary="Administer one Gaffer node.",
    commands=(*control.COMMANDS, *watching.COMMANDS, *general.GAFFERCTL_COMMANDS),
    options=(
        Option(
            "--connect=URL",
            f"the node: http://, https:// or unix:/path (GAFFER_ENDPOINT; default: {DEFAULT_URL})",
            aliases=("--endpoint",),
        ),
        *CONNECTION_OPTIONS,
        Option("-v, --version", "show the version"),
    ),
    examples=("processes", "status shop.web", "stop shop.web", "add shop.web 2", "watch exit"),
    elsewhere={
        **dict.fromkeys(("ps", "scale", "unload", "apps"), "that is a command of `gaffer`: see `gaffer help`"),
        "restart": "use `gafferctl stop` and `gafferctl start`, or `gafferctl kill NAME TERM`",
        "list": "use `gafferctl processes`",
    },
)
