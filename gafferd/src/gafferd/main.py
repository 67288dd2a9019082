"""The command `gafferd`."""

import logging
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gaffer.errors import ConfigError, GafferError, Problem
from gaffer.pidfile import hold_pidfile
from gaffer.runtime import startup
from gaffer.runtime.daemonize import daemonize, setproctitle_
from gaffer.runtime.log import setup_logging
from gaffer.runtime.options import Option
from gaffer.runtime.settings import option_groups
from gaffer.runtime.usage import parse_command_line, usage_text
from gafferd.config.file import find_config, load_config, show_problem
from gafferd.config.settings import Settings, resolve
from gafferd.state.directory import default_path

logger = logging.getLogger(__name__)

_COMMAND_OPTIONS = (
    Option("-h, --help", "show this help and exit"),
    Option("--version", "show the version and exit"),
    Option(
        "-c FILE, --config=FILE",
        "configuration file, or a directory with a gafferd.ini"
        " (GAFFERD_CONFIG; default: ~/.gaffer or, for root, /etc/gaffer)",
    ),
    Option("-v", "show events of jobs and processes on the console", repeat=True),
    Option("--vv", "like -v, and show the output of processes with redirected streams (also -vv)"),
)

USAGE = usage_text(
    "gafferd",
    "Run the jobs of this host and control them over HTTP.",
    option_groups(Settings, _COMMAND_OPTIONS),
    arguments="[<config>]",
    epilog="""
Examples:
  gafferd
  gafferd -c /etc/gaffer/gafferd.ini --lookupd-address=http://lookup1:5010

Signals: TERM, INT and QUIT stop the jobs and exit; a second INT kills the jobs; HUP reloads the configuration.
""",
)


def command(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run gafferd; return 2 for an invalid command line or configuration, and 1 for other startup failures.

    The exit code of an essential job that ended the daemon becomes its own. A signal during startup ends it with
    status 130 (SIGINT) or 0.
    """
    try:
        return run(parse_options(argv), environ)
    except ConfigError as error:
        return _fail(2, error.problems)
    except GafferError as error:
        return _fail(2 if error.errno == 400 else 1, [Problem("gafferd", error.message, error.hint)])
    except startup.Interrupted as interrupted:
        return interrupted.status
    except MemoryError:
        return _fail(1, [Problem("gafferd", "out of memory")])


def parse_options(argv: Sequence[str]) -> dict[str, Any]:
    """Return the options of a command line by name; raise ConfigError. `--help` and `--version` print and exit."""
    leftover = "an option is unknown or given twice, or more than one configuration file is given"
    return parse_command_line("gafferd", USAGE, argv, leftover=leftover)


def run(options: Mapping[str, Any], environ: Mapping[str, str]) -> int:
    """Run with the given options, environment and configuration file; return the exit code, or raise GafferError."""
    from gafferd.server import make_server  # imports Tornado, so only after the cheap checks

    root = os.geteuid() == 0
    home = _home()
    path = find_config(options["<config>"] or options["--config"], environ, home, root)
    config = load_config(path) if path else None
    settings = resolve(options, environ, config.settings if config else {})
    state_path = Path(settings.state_dir or default_path(root, home, environ.get("XDG_STATE_HOME")))
    server = make_server(settings, home, state_path, path, config, verbosity=2 if options["--vv"] else options["-v"])

    ready = daemonize(wait=True) if settings.daemon else _stay
    setup_logging(settings.log_level, settings.error_log)
    setproctitle_("gafferd")
    for warning in config.warnings if config else ():
        logger.warning("%s", show_problem(warning))
    startup.hold_signals()
    with hold_pidfile(settings.pidfile):
        startup.raise_signals()
        return server.serve(ready)


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        raise GafferError("this user has no home directory", hint="set HOME") from None


def _stay() -> None:
    """Do nothing once the node is ready, in the foreground."""


def _fail(code: int, problems: Iterable[Problem]) -> int:
    for problem in problems:
        print(show_problem(problem), file=sys.stderr)
    return code
