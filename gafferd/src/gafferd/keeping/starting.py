"""Starting the keeper, joining the one that started this process, and taking its place."""

import contextlib
import faulthandler
import os
import resource
import signal
import socket
import sys
import termios
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

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
    write_past_tostop()
    sys.stdout.flush()
    sys.stderr.flush()
    keeper = os.getpid()
    # A signal during the fork waits for the keeper, which forwards it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    child = os.fork()
    program = Program.current(background, log)
    if child:
        theirs.set_inheritable(True)
        try:
            program.execute(str(theirs.fileno()), str(child))
        except OSError as error:
            os.write(2, f"gafferd: can't run {sys.executable}: {error.strerror}\n".encode())
        os._exit(1)
    # The keeper forwards signals, so those for the group of a terminal must not reach this process too.
    os.setpgid(0, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    link = _connect(ours, keeper, watchdog, program)
    link.store_passed(passed)
    return link


def write_past_tostop() -> None:
    """Write all the same to a terminal that stops writers from other groups: `stty tostop`."""
    for descriptor in (1, 2):
        with contextlib.suppress(termios.error):
            if termios.tcgetattr(descriptor)[3] & termios.TOSTOP:
                signal.signal(signal.SIGTTOU, signal.SIG_IGN)


def join_keeper(
    environ: MutableMapping[str, str], watchdog: float, *, background: bool = False, log: str | None = None
) -> KeeperLink | None:
    """Return the connection to the keeper that started this process, None if none did.

    `background` and `log` are for another keeper, should that one die, as for `start_keeper`.

    Raises ConfigError if the variable does not name its socket, and GafferError if the keeper does not answer.
    """
    text = environ.pop(VARIABLE, None)
    if text is None:
        return None
    write_past_tostop()
    try:
        os.set_inheritable(int(text), False)
        connection = socket.socket(fileno=int(text))
        found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _SO_PEERCRED_SIZE)
    except (OSError, ValueError):
        message = f"expected the descriptor of a socket, got {text!r}"
        raise ConfigError([Problem(VARIABLE, message, "only the keeper of gafferd sets this variable")]) from None
    pid = int.from_bytes(found[:4], sys.byteorder)
    return _connect(connection, pid, watchdog, Program.current(background, log))


def take_priority(keeper: int) -> None:
    """Give all threads of this process the priority of its keeper, which raises it for the start.

    Call it before processes are started, which inherit it.
    """
    try:
        usual = os.getpriority(os.PRIO_PROCESS, keeper)
    except ProcessLookupError:
        usual = 0
    for thread in map(int, os.listdir("/proc/self/task")):
        with contextlib.suppress(ProcessLookupError):  # it has ended
            if os.getpriority(os.PRIO_PROCESS, thread) < usual:
                os.setpriority(os.PRIO_PROCESS, thread, usual)


def _connect(connection: socket.socket, keeper: int, watchdog: float, program: "Program") -> KeeperLink:
    faulthandler.enable(2)  # the keeper ends a gafferd that hangs by SIGABRT
    link = KeeperLink(connection, keeper, watchdog)
    link.replace_keeper = lambda: become_keeper(link, program)
    return link


class Program(NamedTuple):
    """How to run a keeper whose gafferd is run as this process was; `files` is its limit of open files."""

    mode: str
    log: str
    environ: dict[str, str]
    files: int

    @classmethod
    def current(cls, background: bool, log: str | None) -> "Program":
        """Note what is true at the start of this process."""
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return cls("background" if background else "foreground", log or "", dict(os.environ), files)

    def write_table(self, table: str, descriptors: Sequence[int]) -> str:
        """Write a table for `execute("--table", ...)`, and let it inherit its descriptors; raise OSError."""
        file = os.memfd_create("table", 0)
        with open(file, "wb", closefd=False) as writer:
            writer.write(f"LIMIT={self.files}\nOOM=\nLEFT={int(self.mode == 'background')}\n{table}".encode())
        for each in (*descriptors, file):
            os.set_inheritable(each, True)
        return str(file)

    def execute(self, *source: str) -> NoReturn:
        """Become the keeper; raise OSError."""
        boot = [sys.executable, "-I", "-S", "-c", _BOOT, str(Path(gafferd.__file__).parent)]
        command = [sys.executable, *sys.orig_argv[1:]]
        os.execve(boot[0], [*boot, *source, self.mode, self.log, *command], self.environ)


def become_keeper(link: KeeperLink, program: Program) -> str:
    """Become the keeper of what the lost one kept; return why that is not possible.

    Our children become those of the new keeper. The processes that the lost one had adopted are nobody's: that they
    have exited will be known, their exit status will not. The gafferd that the new keeper starts adopts all, just as
    after a crash of this process, and nothing more than by that is lost.
    """
    environ = program.environ
    address = environ.get("NOTIFY_SOCKET")
    if address and not _notify(address, f"MAINPID={os.getpid()}"):
        return "the service manager can't be told of another one"
    if "WATCHDOG_PID" in environ:
        environ["WATCHDOG_PID"] = str(os.getpid())
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    table, descriptors = link.table()
    try:
        program.execute("--table", program.write_table(table, descriptors))
    except OSError as error:
        for each in descriptors:
            os.set_inheritable(each, False)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return str(error)


def _notify(address: str, message: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as connection:
        try:
            connection.sendto(message.encode(), f"\0{address[1:]}" if address.startswith("@") else address)
        except OSError:
            return False
    return True
