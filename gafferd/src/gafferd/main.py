"""The command `gafferd`."""

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from gaffer.errors import ConfigError, GafferError, Problem
from gaffer.pidfile import hold_pidfile
from gaffer.runtime import startup
from gaffer.runtime.activation import PassedSocket, take_sockets
from gaffer.runtime.daemonize import ProcessTitle, daemonize
from gaffer.runtime.descriptors import raise_descriptors
from gaffer.runtime.log import setup_logging
from gaffer.runtime.options import Option
from gaffer.runtime.settings import option_groups
from gaffer.runtime.usage import parse_command_line, usage_text
from gafferd.config.effective import Effective, read_effective
from gafferd.config.file import InvalidConfig, show_problem
from gafferd.config.settings import Settings
from gafferd.keeping.claiming import take_over
from gafferd.keeping.link import HANDOVER, KeeperLink
from gafferd.keeping.starting import Program, join_keeper, start_keeper
from gafferd.plugins.folder import PluginFolder, plugin_folders
from gafferd.state.directory import default_path, lock_directory
from gafferd.state.lock import StateLock, find_owner

logger = logging.getLogger(__name__)

_LOCK = "lock"  # the name of its descriptor in the keeper

_COMMAND_OPTIONS = (
    Option("-h, --help", "show this help and exit"),
    Option("--version", "show the version and exit"),
    Option(
        "-c FILE, --config=FILE",
        "configuration file, or a directory with a gafferd.ini or gafferd.yaml"
        " (GAFFERD_CONFIG; default: ~/.gaffer or, for root, /etc/gaffer)",
    ),
    Option("--check-config", "check the configuration as a start would, without starting anything, and exit"),
    Option("--print-config", "print the configuration in effect with the source of each value, and exit"),
    Option("--show-secrets", "with `--print-config`: print variables of jobs and passwords in URLs"),
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

Signals: TERM, INT and QUIT stop the jobs and exit; a second TERM or INT kills the jobs; HUP reloads the configuration;
USR1 reopens the log files; USR2 upgrades: the program on disk continues with the processes.
""",
)


def command(argv: Sequence[str], environ: MutableMapping[str, str]) -> int:
    """Run gafferd; return 2 for an invalid command line or configuration, and 1 for other startup failures.

    The exit code of an essential job that ended the daemon becomes its own. A signal during startup ends it with
    status 130 (SIGINT) or 0.
    """
    try:
        return run(parse_options(argv), environ)
    except ConfigError as error:
        for warning in error.warnings if isinstance(error, InvalidConfig) else ():
            print(f"warning: {show_problem(warning)}", file=sys.stderr)
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


def run(options: Mapping[str, Any], environ: MutableMapping[str, str]) -> int:
    """Run with the given options, environment and configuration file; return the exit code, or raise GafferError."""
    _check_together(options)
    root = os.geteuid() == 0
    home = _home()
    effective = read_effective(options, environ, home, root)
    if options["--print-config"]:
        return _print_config(effective, home, secrets=options["--show-secrets"])
    settings = effective.settings
    state_path = Path(settings.state_dir or default_path(root, home, environ.get("XDG_STATE_HOME")))
    verbosity = 2 if options["--vv"] else options["-v"]
    if options["--check-config"]:
        from gafferd.server import make_server

        server = make_server(effective, home, state_path)
        return _check_config(effective, environ, server.plugin_folder, len(server.endpoints))

    title = ProcessTitle("gafferd", sys.argv[1:])
    log = os.path.abspath(settings.error_log) if settings.error_log else None
    keeper = join_keeper(environ, settings.watchdog, background=settings.daemon, log=log)
    if keeper is not None:
        raise_descriptors()  # for all that it sends
    passed = keeper.passed() if keeper is not None else take_sockets(environ)
    if keeper is None and not settings.daemon:  # before the slow imports, while there is little to copy
        keeper = _start_keeper(settings, state_path, log, passed, lambda: _check(effective, home, state_path, passed))
    from gafferd.server import make_server

    server = make_server(effective, home, state_path, verbosity, passed)
    ready = daemonize(wait=True) if settings.daemon and keeper is None else _stay
    if keeper is None and settings.daemon:
        keeper = _start_keeper(settings, state_path, log, passed, _stay, ready)
    startup.hold_signals()
    # The lock comes first: a second gafferd touches neither the log nor the pidfile of the one that holds it.
    with contextlib.closing(_lock(state_path, keeper)) as lock:
        title.show("starting")
        setup_logging(settings.log_level, settings.error_log, settings.log_format)
        for warning in effective.file.warnings:
            logger.warning("%s", show_problem(warning))
        with hold_pidfile(settings.pidfile, keeper.pid if keeper is not None else None):
            startup.raise_signals()
            status = server.serve(lock, title, ready, keeper)
            if status == HANDOVER:
                _make_way()
            return status


def _stay() -> None:
    """Do nothing once the node is ready, in the foreground."""


def _lock(state_path: Path, keeper: KeeperLink | None) -> StateLock:
    """Lock the state directory; a keeper holds the lock as long as it holds processes, also without gafferd."""
    if keeper is None:
        return lock_directory(state_path)
    kept = keeper.take_descriptors(_LOCK)
    if keeper.follows_killed and any(os.fstat(each).st_nlink == 0 for each in kept):
        raise GafferError(f"the keeper was killed, and {state_path} removed")  # which the keeper finds too
    lock = lock_directory(state_path, keeper.pid, kept)
    keeper.store_descriptors(_LOCK, [lock.fileno()])
    return lock


def _make_way() -> NoReturn:
    """Exit at once for the next gafferd, which keeps the pidfile; no thread is waited for."""
    logging.shutdown()
    os._exit(HANDOVER)


def _start_keeper(
    settings: Settings,
    state_path: Path,
    log: str | None,
    passed: Sequence[PassedSocket],
    check: Callable[[], None],
    leave: Callable[[], None] = _stay,
) -> KeeperLink | None:
    if not settings.keeper:
        return None
    take_over(state_path / "lock", find_owner, Program.current(settings.daemon, log), passed, check, leave)
    return start_keeper(watchdog=settings.watchdog, background=settings.daemon, log=log, passed=passed)


def _check(effective: Effective, home: Path, state_path: Path, passed: Sequence[PassedSocket]) -> None:
    """Raise the error of a node that can't be made of the settings."""
    from gafferd.server import make_server

    make_server(effective, home, state_path, 0, passed)


def _check_together(options: Mapping[str, Any]) -> None:
    if options["--check-config"] and options["--print-config"]:
        raise ConfigError([Problem("--print-config", "conflicts with --check-config", "give only one of them")])
    if options["--show-secrets"] and not options["--print-config"]:
        raise ConfigError([Problem("--show-secrets", "requires --print-config", "add --print-config")])


def _check_config(effective: Effective, environ: Mapping[str, str], plugins: PluginFolder, endpoints: int) -> int:
    """Print warnings, and what the valid configuration contains. Nothing of a plugin is run."""
    from gafferd.config.checking import find_faults
    from gafferd.plugins import candidates as found_plugins

    file = effective.file
    candidates = found_plugins.find_candidates(plugins)
    for warning in (*file.warnings, *find_faults(file, environ), *found_plugins.find_faults(candidates)):
        print(f"warning: {show_problem(warning)}", file=sys.stderr)
    counts = {"job": len(file.jobs), "endpoint": endpoints, "webhook": len(file.webhooks)}
    counts |= {"plugin": usable} if (usable := sum(each.fault is None for each in candidates)) else {}
    found = ", ".join(f"{count} {noun}{'' if count == 1 else 's'}" for noun, count in counts.items())
    print(f"OK: {effective.path or 'no configuration file'}: {found}")
    return 0


def _print_config(effective: Effective, home: Path, *, secrets: bool) -> int:
    from gafferd.config.printing import render
    from gafferd.plugins.candidates import comments, find_candidates

    settings = effective.settings
    candidates = find_candidates(PluginFolder(plugin_folders(settings.plugin_dir, home), settings.plugins))
    sys.stdout.write(render(effective, secrets=secrets) + "".join(comments(candidates)))
    return 0


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        raise GafferError("this user has no home directory", hint="set HOME") from None


def _fail(code: int, problems: Iterable[Problem]) -> int:
    for problem in problems:
        print(show_problem(problem), file=sys.stderr)
    return code
