"""What is adopted is what was left: no process of another boot, and no stranger that has the number of one of ours."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import requests

from support.daemons import gafferd, run_command
from support.failpoints import FailPoint
from support.needs import needs_mount, needs_pidns
from support.poll import eventually
from support.survival import TIMEOUT, Node, kept_node, kill_daemons, ping, without_gafferd

OTHER_BOOT = 'mount --bind "$0" /proc/sys/kernel/random/boot_id; exec "$@"'

# Process 1 of a namespace: runs the command, and again when it gets SIGUSR1. It ends when the command ends well.
INIT = """
import os, signal, sys, time
def run(*_):
    global current
    current = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
signal.signal(signal.SIGUSR1, run)
run()
while True:
    try:
        pid, status = os.wait()
    except ChildProcessError:
        time.sleep(0.01)
        continue
    if pid == current and status == 0:
        break
"""

# Start a process that leads a group and has this number.
REUSE = """
import os, sys
wanted = int(sys.argv[1])
for _ in range(100):
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write(str(wanted - 1))
    pid = os.fork()
    if not pid:
        os.setsid()
        os.execv(sys.executable, ["stranger", "-I", "-S", "-c", "import time; time.sleep(1000)"])
    if pid == wanted:
        break
    os.kill(pid, 9)
    os.wait()
else:
    sys.exit("the number is taken")
"""


def test_no_other_gafferd_gets_the_processes_while_theirs_is_away(tmp_path: Path) -> None:
    config = tmp_path / "gafferd.ini"
    config.write_text("[gaffer]\n")
    with kept_node(tmp_path, str(config)) as node:
        node.load({"name": "s", "cmd": "sleep 1000", "numprocesses": 2})
        before = node.running("s", 2)
        with without_gafferd(node, config):
            other = run_command("gafferd", "--no-keeper", "--bind", "127.0.0.1:0", "--state-dir", str(node.state))
            assert other.returncode == 1
            assert "is in use by the keeper of gafferd" in other.stderr
        assert ping(node.url)
        assert node.instances("s") == before
        assert node.info("s")["restarts"] == 0


@needs_mount
def test_nothing_of_another_boot_is_adopted(tmp_path: Path) -> None:
    job = {"name": "s", "cmd": "sleep 1000", "numprocesses": 2}
    with kept_node(tmp_path) as node:
        node.load(job)
        before = node.running("s", 2)
        kill_daemons(node.state)
        other = tmp_path / "boot_id"
        other.write_text("00000000-0000-4000-8000-000000000000\n")
        enter = ("unshare", "--mount", "sh", "-c", OTHER_BOOT, str(other))
        with gafferd("--keeper", state_dir=node.state, enter=enter) as keeper:
            again = Node(keeper, node.state)
            after = again.running("s", 2)
            assert not {each.os_pid for each in before} & {each.os_pid for each in after}


class Namespace:
    """Processes with numbers of their own; `node` runs below its process 1. Numbers are those inside."""

    def __init__(self, node: Node, point: FailPoint) -> None:
        self.node = node
        self.point = point
        [self.init] = psutil.Process(node.keeper.pid).children()

    def process(self, number: int) -> psutil.Process | None:
        """The living process with this number, None if there is none."""
        for each in (self.init, *self.init.children(recursive=True)):
            with suppress(OSError, psutil.NoSuchProcess):
                status = Path(f"/proc/{each.pid}/status").read_text()
                numbers = next(line.split() for line in status.splitlines() if line.startswith("NSpid"))
                if numbers[-1] == str(number) and each.status() != psutil.STATUS_ZOMBIE:
                    return each
        return None

    def reuse(self, number: int) -> psutil.Process:
        """Start a stranger with this number."""
        eventually(lambda: self.process(number) is None, timeout=TIMEOUT)
        enter = ["nsenter", f"--target={self.init.pid}", "--pid", "--mount", "--", sys.executable, "-c", REUSE]
        subprocess.run([*enter, str(number)], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        return eventually(lambda: self.process(number))

    def kill_daemons(self) -> None:
        """Kill gafferd and its keeper at once."""
        found = [self.process(number) for number in (self.node.get("/health")["keeper"]["pid"], self.node.pid)]
        for signum in (signal.SIGSTOP, signal.SIGKILL):
            for process in found:
                assert process is not None
                process.send_signal(signum)
        eventually(lambda: not any(process and process.is_running() for process in found), timeout=TIMEOUT)


@pytest.fixture
def namespace(tmp_path: Path) -> Iterator[Namespace]:
    point = FailPoint(str(tmp_path / "failpoint"))
    enter = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-c", INIT, *point.enter)
    config = tmp_path / "gafferd.ini"
    config.write_text("[gaffer]\n")
    with kept_node(tmp_path, str(config), env=point.env, enter=enter) as node:
        found = Namespace(node, point)
        yield found
        eventually(lambda: node.get("/health"), timeout=TIMEOUT, retry_on=(OSError,))
        keeper = found.process(node.get("/health")["keeper"]["pid"])
        assert keeper is not None
        keeper.terminate()
        node.keeper.wait()


@needs_pidns
def test_a_stranger_with_the_number_of_a_dead_process_is_left_alone(namespace: Namespace) -> None:
    node = namespace.node
    node.load({"name": "s", "cmd": "sleep 1000", "graceful_timeout": 0.1})
    [first] = node.running("s", 1)

    # gafferd and the keeper die, then the process, and a stranger gets its number.
    namespace.kill_daemons()
    ours = namespace.process(first.os_pid)
    assert ours is not None
    ours.kill()
    strangers = [namespace.reuse(first.os_pid)]
    namespace.init.send_signal(signal.SIGUSR1)
    eventually(lambda: ping(node.url), timeout=TIMEOUT, retry_on=(OSError,))
    [second] = node.running("s", 1)
    assert second.os_pid != first.os_pid

    # gafferd dies when it has seen the exit of the process, and before the keeper may forget it.
    namespace.point.arm("gafferd before send:GONE")
    ours = namespace.process(second.os_pid)
    assert ours is not None
    ours.kill()
    eventually(lambda: not namespace.point.armed, timeout=TIMEOUT)
    strangers.append(namespace.reuse(second.os_pid))
    assert ping(node.url)
    assert node.running("s", 1)[0].os_pid != second.os_pid
    requests.delete(f"{node.url}/jobs/default/s", timeout=TIMEOUT).raise_for_status()
    assert [each.status() for each in strangers] == [psutil.STATUS_SLEEPING] * 2
