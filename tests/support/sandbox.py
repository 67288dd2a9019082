"""A gafferd that may be told to run anything: as nobody, with namespaces and a state directory of its own.

What its jobs run sees no network, no other process and few programs, and may write to its own folder only, which is in
memory and bounded. Needs root.
"""

import asyncio
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from support.daemons import command_path
from support.http_node import Answer, open_exchange
from support.poll import eventually
from support.strangers import STRANGER

REPOSITORY = Path(__file__).parents[2]
PORT = 5000
KEY = "a-key-for-everything-that-there-is"
PLUGIN = "hello"  # it has a site with an index.html
PROGRAMS = ("cat", "echo", "false", "sh", "sleep", "true")  # what jobs find on their PATH

_SETUP = """
set -eu
mount --make-rprivate /
ip link set lo up
# Mounts of the kernel that refuse are none that nobody may write to.
awk '{{ print $5 }}' /proc/self/mountinfo | while read -r point; do
    mount -o remount,bind,ro "$point" 2>/dev/null || true
done
mount -t tmpfs -o size=64m,mode=755 tmpfs {home}
mkdir {home}/bin {home}/shown {home}/state
mkdir -p {home}/plugins/{plugin}/_site
echo hello > {home}/plugins/{plugin}/_site/index.html
for program in {programs}; do ln -s "$(command -v $program)" {home}/bin; done
echo {key} > {home}/key
printf '[gaffer]\nrequire_key = true\napi_key_file = {home}/key\nplugin_dir = {home}/plugins\n' > {home}/gafferd.ini
chown {nobody}:{nobody} {home}/state {home}/key
chmod 400 {home}/key
{show}
become="$(command -v setpriv) --reuid {nobody} --regid {nobody} --clear-groups --no-new-privs"
for folder in /tmp /var/tmp /dev/shm /run/lock; do
    if $become test -w $folder; then echo "$folder is writable" >&2; exit 1; fi
done
cd {home}/state
exec env -i PATH={home}/bin HOME={home}/state LANG=C.UTF-8 $become {command}
"""

# The interpreter may be where only root can read, such as in its home: other users get a view of that with no more
# than the interpreter in it.
_SHOW = """
mkdir {home}/shown/{number}
mount --bind {path} {home}/shown/{number}
"""
_HIDE = """
mount -t tmpfs -o mode=755 tmpfs {closed}
"""
_PLACE = """
mkdir -p {path}
mount --bind {home}/shown/{number} {path}
"""


class Sandbox:
    """A running node; `url` is valid inside its network namespace, where `run` runs a program as root."""

    url = f"http://127.0.0.1:{PORT}"

    def __init__(self, pid: int, home: Path, log: Path) -> None:
        self.pid = pid  # of gafferd, outside
        self._socket = f"unix:/proc/{pid}/root{home}/state/gafferd.sock"
        self._log = log

    @property
    def stderr(self) -> str:
        """What gafferd wrote."""
        return self._log.read_text(errors="replace")

    def get(self, path: str) -> Answer:
        """One request from outside."""
        return asyncio.run(self._get(path))

    async def _get(self, path: str) -> Answer:
        async with asyncio.timeout(20):
            exchange = await open_exchange(self._socket, "GET", path, headers={"X-Api-Key": KEY})
            try:
                return Answer(exchange.status, exchange.headers, await exchange.read_all())
            finally:
                exchange.close()

    def run(self, argv: list[str], *, cwd: Path, timeout: float, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a program, of this side but for the network, to its end."""
        return subprocess.run(
            ["nsenter", f"--net=/proc/{self.pid}/ns/net", "--", *argv],
            cwd=cwd,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )


@contextmanager
def sandboxed_gafferd() -> Iterator[Sandbox]:
    """A gafferd that wants KEY and is listening when the block begins; it must still run when it ends."""
    home = Path(tempfile.mkdtemp(prefix="gaffer-sandbox-"))
    log = home.with_suffix(".log")
    namespaces = ["unshare", "--net", "--mount", "--pid", "--ipc", "--fork", "--mount-proc", "--kill-child"]
    try:
        with open(log, "wb") as stderr:
            process = subprocess.Popen(
                [*namespaces, "sh", "-c", _script(home)], stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr
            )
        gafferd = None
        try:
            eventually(lambda: b"listening on" in log.read_bytes() or process.poll(), timeout=20)
            assert process.poll() is None, log.read_text()
            [gafferd] = psutil.Process(process.pid).children()
            yield Sandbox(gafferd.pid, home, log)
            assert process.poll() is None, f"gafferd ended:\n{log.read_text(errors='replace')[-4000:]}"
            # Fuzzed jobs may ignore SIGTERM for as long as they please: a second SIGINT waits for none.
            eventually(lambda: _interrupt(gafferd) or process.poll() is not None, timeout=20)
            assert process.returncode == 0, log.read_text(errors="replace")[-4000:]
        finally:
            if gafferd is not None and process.poll() is None:
                gafferd.kill()  # and with it all that is in its namespace
            process.kill()
            process.wait()
    finally:
        shutil.rmtree(home)
        log.unlink(missing_ok=True)


def _interrupt(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGINT)


def _script(home: Path) -> str:
    command = [command_path("gafferd"), "--state-dir", f"{home}/state", "--bind", f"127.0.0.1:{PORT}"]
    command += [f"--config={home}/gafferd.ini", "--no-keeper"]
    shown = list(dict.fromkeys([Path(sys.base_prefix), Path(sys.prefix), REPOSITORY]))
    hidden = [(number, path) for number, path in enumerate(shown) if _closed(path)]
    show = "".join(_SHOW.format(home=home, number=number, path=path) for number, path in hidden)
    show += "".join(_HIDE.format(closed=each) for each in dict.fromkeys(_closed(path) for _, path in hidden))
    show += "".join(_PLACE.format(home=home, number=number, path=path) for number, path in hidden)
    return _SETUP.format(
        home=home,
        programs=" ".join(PROGRAMS),
        plugin=PLUGIN,
        nobody=STRANGER,
        key=KEY,
        show=show,
        command=shlex.join(command),
    )


def _closed(path: Path) -> Path | None:
    """The outermost folder on the way that other users can't enter."""
    return next((folder for folder in reversed(path.parents) if not folder.stat().st_mode & 0o001), None)
