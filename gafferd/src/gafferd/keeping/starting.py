"""Starting the keeper, and joining the one that started this process."""

import faulthandler
import os
import signal
import socket
import sys
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import NoReturn

import gafferd
from gaffer.errors import ConfigError, Problem
from gaffer.runtime.activation import PassedSocket
from gafferd.keeping.link import KeeperLink

VARIABLE = "GAFFERD_KEEPER_FD"
"""The variable with the number of the socket that connects a gafferd to the keeper that started it."""

# Imported rather than run by path: Python then keeps the compiled file, which saves the keeper 2 MB.
_BOOT = "import sys; sys.path.append(sys.argv.pop(1)); from keeper import main; sys.exit(main())"

_SO_PEERCRED_SIZE = 12  # struct ucred: pid, uid, gid


def start_keeper(
    *, watchdog: float, background: bool = False, log: str | None = None, passed: Sequence[PassedSocket] = ()
) -> KeeperLink:
    """Fork: this process becomes the keeper, and the call returns in its child, connected to it.

    The keeper holds the `passed` sockets, leaves the standard streams once the node is ready if `background`, and then
    writes to the file `log`. Call it before there are threads, locks or a loop. Raises GafferError if the keeper does
    not start.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sys.stdout.flush()
    sys.stderr.flush()
    keeper = os.getpid()
    # A signal during the fork waits for the keeper, which forwards it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    child = os.fork()
    if child:
        _become_keeper(theirs, child, "background" if background else "foreground", log)
    # The keeper forwards signals, so those for the group of a terminal must not reach this process too.
    os.setpgid(0, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    link = _connect(ours, keeper, watchdog)
    link.store_passed(passed)
    return link


def join_keeper(environ: MutableMapping[str, str], watchdog: float) -> KeeperLink | None:
    """Return the connection to the keeper that started this process, None if none did.

    Raises ConfigError if the variable does not name its socket, and GafferError if the keeper does not answer.
    """
    text = environ.pop(VARIABLE, None)
    if text is None:
        return None
    try:
        os.set_inheritable(int(text), False)
        connection = socket.socket(fileno=int(text))
        found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _SO_PEERCRED_SIZE)
    except (OSError, ValueError):
        message = f"expected the descriptor of a socket, got {text!r}"
        raise ConfigError([Problem(VARIABLE, message, "only the keeper of gafferd sets this variable")]) from None
    return _connect(connection, int.from_bytes(found[:4], sys.byteorder), watchdog)


def _connect(connection: socket.socket, keeper: int, watchdog: float) -> KeeperLink:
    faulthandler.enable(2)  # the keeper ends a gafferd that hangs by SIGABRT
    return KeeperLink(connection, keeper, watchdog)


def _become_keeper(connection: socket.socket, child: int, mode: str, log: str | None) -> NoReturn:
    directory = str(Path(gafferd.__file__).parent)
    connection.set_inheritable(True)
    command = [sys.executable, *sys.orig_argv[1:]]
    arguments = [str(connection.fileno()), str(child), mode, log or "", *command]
    try:
        os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", _BOOT, directory, *arguments])
    except OSError as error:
        os.write(2, f"gafferd: can't run {sys.executable}: {error.strerror}\n".encode())
    os._exit(1)
