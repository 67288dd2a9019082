"""Sockets that are open when a daemon starts, as a service manager passes them: sd_listen_fds(3).

with gafferd(enter=passing("api=tcp:127.0.0.1:0", "=unix:/run/g.sock")) as node: ...
"""

import sys

# Opens what its arguments before `--` describe, from descriptor 3 on, and becomes the command after it.
_LAUNCHER = """
import fcntl, os, socket, sys
end = sys.argv.index("--")
pid, *specs = sys.argv[1:end]
opened = []
for spec in specs:
    kind, _, address = spec.partition("=")[2].partition(":")
    host, _, port = address.rpartition(":")
    if kind == "unix":
        sock = socket.socket(socket.AF_UNIX)
        sock.bind("\\0" + address[1:] if address.startswith("@") else address)
    elif kind in ("tcp", "silent"):
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        sock.bind((host, int(port)))
    elif kind == "udp":
        sock = socket.socket(type=socket.SOCK_DGRAM)
    if kind in ("unix", "tcp"):
        sock.listen()
    opened.append(os.open("/dev/null", os.O_RDONLY) if kind == "file" else None if kind == "closed" else sock.detach())
moved = [None if fd is None else fcntl.fcntl(fd, fcntl.F_DUPFD, 50) for fd in opened]
os.closerange(3, 50)
for number, fd in enumerate(moved, 3):
    if fd is not None:
        os.dup2(fd, number)
os.closerange(50, 100)
os.environ.update(LISTEN_FDS=str(len(moved)), LISTEN_PID=pid or str(os.getpid()))
os.environ["LISTEN_FDNAMES"] = ":".join(spec.partition("=")[0] for spec in specs)
os.execv(sys.argv[end + 1], sys.argv[end + 1:])
"""


def passing(*specs: str, pid: str = "") -> list[str]:
    """The words that start a command with these descriptors: `NAME=tcp:HOST:PORT`, `NAME=unix:PATH`, and faulty ones.

    `NAME=silent:HOST:PORT` does not listen, `NAME=udp`, `NAME=file` and `NAME=closed` are what they say. `pid`
    replaces the right value of LISTEN_PID.
    """
    return [sys.executable, "-c", _LAUNCHER, pid, *specs, "--"]
