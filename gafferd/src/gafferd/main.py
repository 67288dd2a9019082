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
from gaffer.runtime.usage import parse_command_line
from gafferd.config.file import find_config, load_config, show_problem
from gafferd.config.settings import resolve
from gafferd.state.directory import default_path

logger = logging.getLogger(__name__)

USAGE = """\
Run the jobs of this host and control them over HTTP.

Usage:
  gafferd [options] [-v]... [--lookupd-address=URL]... [--allowed-host=HOST]... [--allowed-origin=ORIGIN]... [<config>]
  gafferd (-h | --help)
  gafferd --version

Options:
  -h --help                 show this help and exit
  --version                 show the version and exit
  -c FILE --config=FILE     configuration file, or a directory with a gafferd.ini (also: GAFFERD_CONFIG);
                            by default ~/.gaffer or, for root, /etc/gaffer
  -p DIR --plugins-dir=DIR  the folder of plugins (also: GAFFER_PLUGIN_DIR);
                            by default ~/.gafferd/plugins, else ~/.gaffer/plugins
  --plugin-dir=DIR          the same
  -v                        show on the console what happens to jobs and processes
  --vv                      the same, and what processes with redirected output write (also: -vv)
  --daemon                  go to the background once listening
  --pidfile=FILE            write the process id to FILE

  --bind=ADDRESS            where to listen: HOST:PORT, [V6]:PORT or unix:PATH, several with commas;
                            by default 127.0.0.1:5000
  --backlog=N               connections that may wait to be accepted; by default 128
  --certfile=FILE           serve --bind over TLS with this certificate
  --keyfile=FILE            the private key of the certificate
  --api-key-file=FILE       a key in FILE may do everything; `gaffer key:new` makes one
  --insecure                listen beyond loopback without TLS
  --allowed-host=HOST       a name that callers may use for this host, beside its own
  --allowed-origin=ORIGIN   web pages of this origin may control the node, as https://ops.example.com

  --state-dir=DIR           identity and processes of the node (also: GAFFER_STATE_DIR);
                            by default ~/.local/state/gaffer or, for root, /var/lib/gaffer
  --lookupd-address=URL     announce this node's jobs to that gaffer_lookupd
  --cluster-key-file=FILE   the key that the lookupds want of nodes (also: GAFFER_CLUSTER_KEY_FILE)
  --node-name=NAME          how the node is called there; by default the host's full name
  --broadcast-address=URL   how others reach this node; by default found out from --bind
  --broadcast-port=N        its port, when it is not that of --broadcast-address or --bind
  --cacert=FILE             trust lookupds with a certificate signed by this authority
  --client-certfile=FILE    the certificate to show to lookupds
  --client-keyfile=FILE     the private key of that certificate

  --error-log=FILE          log there, not on stderr
  --log-level=LEVEL         debug, info, warning, error or critical; by default info
  --loop=KIND               auto, uvloop or asyncio; by default auto

Examples:
  gafferd
  gafferd -c /etc/gaffer/gafferd.ini --lookupd-address=http://lookup1:5010

Signals: TERM, INT and QUIT stop the jobs and exit, a second INT kills them; HUP reads the configuration again.
"""


def main() -> None:
    """Run gafferd until a signal ends it, then exit with the code of `command`."""
    startup.exit_on_signals()
    try:
        code = command(sys.argv[1:], os.environ)
    finally:
        startup.ignore_signals()
    sys.exit(code)


def command(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run gafferd; returns 2 for a wrong command line or configuration, 1 for what else keeps it from running.

    A signal before it runs ends it with 130 (SIGINT) or 0.
    """
    try:
        run(parse_options(argv), environ)
    except ConfigError as error:
        return _fail(2, error.problems)
    except GafferError as error:
        return _fail(2 if error.errno == 400 else 1, [Problem("gafferd", error.message, error.hint)])
    except startup.Interrupted as interrupted:
        return interrupted.status
    except MemoryError:
        return _fail(1, [Problem("gafferd", "out of memory")])
    return 0


def parse_options(argv: Sequence[str]) -> dict[str, Any]:
    """The options of a command line by name; raises ConfigError. `--help` and `--version` print and exit."""
    leftover = "an option is unknown or given twice, or there is more than one configuration file"
    return parse_command_line("gafferd", USAGE, argv, leftover=leftover)


def run(options: Mapping[str, Any], environ: Mapping[str, str]) -> None:
    """Serve as the options, the environment and the configuration file say; raises GafferError."""
    from gafferd.server import make_server  # after the cheap checks: it brings in Tornado

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
        server.serve(ready)


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        raise GafferError("this user has no home directory", hint="set the variable HOME") from None


def _stay() -> None:
    """In the foreground there is nothing to do once the node is ready."""


def _fail(code: int, problems: Iterable[Problem]) -> int:
    for problem in problems:
        print(show_problem(problem), file=sys.stderr)
    return code
