"""Machines that have what this one has installed and are empty otherwise: file system, processes, users and network.

Changes of a machine's files are in memory and end with it. Its first process is systemd, or a command. Needs root,
util-linux and overlayfs; systemd, if it is asked for, and control groups of version 2.
"""

import os
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from support.daemons import clean_env
from support.needs import SYSTEMD
from support.network import Host
from support.poll import eventually

_SETUP = """
set -eu
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs {home}
mkdir {home}/upper {home}/work {home}/root
mount -t overlay -o lowerdir=/,upperdir={home}/upper,workdir={home}/work overlay {home}/root
cd {home}/root
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount --rbind /dev dev
mount -t tmpfs -o mode=755 tmpfs run
# Nothing of this is a machine's own business: settings of the kernel, and units that someone enabled here.
mount --bind -o ro proc/sys proc/sys
mount -o remount,bind,ro proc/sys
rm -rf etc/systemd/system/*.wants lib/systemd/system/sysinit.target.wants var/log/journal
rm -rf etc/gaffer var/lib/gaffer opt/gaffer opt/gaffer_lookupd
echo {name} > etc/hostname
hostname {name}
mkdir -p host
pivot_root . host
umount --lazy /host
# As systemd makes it where it is not in a container: credentials of services are mounted elsewhere first.
mount --make-rshared /
exec env -i container=gaffer PATH={path} {command}
"""


class Machine:
    """A running machine; `pid` of its first process, `address` in its network."""

    def __init__(self, process: psutil.Process, address: str) -> None:
        self.pid = process.pid
        self.address = address

    def run(self, *command: str) -> str:
        """Run a command as root to its end; return its stdout. AssertionError with all it wrote when it fails."""
        done = subprocess.run(
            ["nsenter", "--target", str(self.pid), "--all", *command],
            env=clean_env(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def path(self, name: str) -> Path:
        """A path of the machine, as this process can use it."""
        return Path(f"/proc/{self.pid}/root{name}")


@contextmanager
def machine(name: str, host: Host, command: Sequence[str] = (SYSTEMD, "--unit=basic.target")) -> Iterator[Machine]:
    """A machine on a host of `support.network` until the block ends, when all in it is killed.

    Its first process runs `command`; systemd has started its basic units when the block begins.
    """
    group = _cgroup_root() / f"gaffer-machine-{os.getpid()}-{name}"
    group.mkdir()
    namespaces = ("--mount", "--uts", "--ipc", "--pid", "--cgroup", "--fork", "--kill-child")
    with TemporaryDirectory(prefix="machine-") as home:
        log = Path(home).with_suffix(".log")
        setup = _SETUP.format(home=home, name=name, path=os.environ["PATH"], command=shlex.join(command))
        enter = shlex.join([*host.enter, "unshare", *namespaces, "sh", "-c", setup])
        try:
            with open(log, "wb") as output:
                outside = subprocess.Popen(
                    ["sh", "-c", f"echo $$ > {group}/cgroup.procs && exec {enter}"],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                )
            try:
                first = eventually(lambda: _first(outside, command), timeout=20)
                running = Machine(first, host.address)
                if command[0] == SYSTEMD:
                    eventually(lambda: running.run("systemctl", "is-system-running"), timeout=40)
                yield running
            except AssertionError:
                print(log.read_text())
                raise
            finally:
                outside.kill()
                outside.wait()
                eventually(lambda: _remove(group), timeout=20)
        finally:
            log.unlink()


def _first(outside: subprocess.Popen[bytes], command: Sequence[str]) -> psutil.Process | None:
    """The first process of a machine, once it runs its command."""
    assert outside.poll() is None
    for child in psutil.Process(outside.pid).children():
        if child.cmdline()[: len(command)] == list(command):
            return child
    return None


def _cgroup_root() -> Path:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return Path(next(line.split()[4] for line in lines if "- cgroup2 " in line))


def _remove(group: Path) -> bool:
    """Remove a control group and those below it, if no process is in them."""
    if "populated 1" in (group / "cgroup.events").read_text():
        return False
    for folder, _, _ in os.walk(group, topdown=False):
        os.rmdir(folder)
    return True
