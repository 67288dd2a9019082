"""What is set in a process before its program runs: file mode mask, priority, resource limits, passed sockets."""

import asyncio
import contextlib
import ctypes
import json
import os
import pwd
import resource
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gaffer.errors import StartFailed
from gaffer.jobs.names import JobName
from gaffer.process import Process, ProcessConfig
from gaffer.processes import launch
from support.managers import Recording, running_manager
from support.needs import needs_linux, needs_root
from support.poll import eventually, eventually_async

JOB = JobName("shop", "web")
CAP_SYS_NICE, CAP_SYS_RESOURCE = 23, 24
PR_CAPBSET_DROP = 24


async def output(config: ProcessConfig, **settings: Any) -> str:
    process = Process(asyncio.get_running_loop(), config, pid=1, job=JOB, **settings)
    process.spawn()
    await eventually_async(lambda: process.closed)
    return process.ring("out").read(0).data.decode()


def shell(line: str, **settings: Any) -> ProcessConfig:
    return ProcessConfig("web", line, shell=True, redirect_output=["out"], **settings)


def by_the_stub(by_stub: bool) -> dict[str, Any]:
    return {"custom_streams": ["x"]} if by_stub else {}


@pytest.mark.parametrize("by_stub", [False, True])
@pytest.mark.parametrize("umask", ["027", "0"])
async def test_umask(umask: str, by_stub: bool) -> None:
    config = shell("umask", umask=umask, **by_the_stub(by_stub))
    assert int(await output(config), 8) == int(umask, 8)


async def test_without_settings_a_process_has_what_the_manager_has() -> None:
    before = os.umask(0o013)
    try:
        assert await output(shell("umask; nice; ulimit -n")) == (
            f"0013\n{os.getpriority(os.PRIO_PROCESS, 0)}\n{resource.getrlimit(resource.RLIMIT_NOFILE)[0]}\n"
        )
    finally:
        os.umask(before)


async def test_nice_is_absolute() -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert await output(shell("nice", nice=min(own + 3, 19))) == f"{min(own + 3, 19)}\n"


SHOW_LIMITS = """
import json, resource
print(json.dumps({name[7:].lower(): resource.getrlimit(number) for name, number in vars(resource).items()
    if name.startswith("RLIMIT_")}))
"""


async def test_resource_limits() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = {
        "as": str(2**36),
        "core": "0",
        "cpu": "100:200",
        "data": str(2**35),
        "fsize": "1000000",
        "memlock": "4096",
        "nofile": f"64:{hard}",
        "nproc": "5000",
        "stack": "4194304:8388608",
    }
    settings: dict[str, Any] = {f"rlimit_{name}": limit for name, limit in limits.items()}
    config = ProcessConfig(
        "web", sys.executable, args=["-I", "-S", "-c", SHOW_LIMITS], redirect_output=["out"], **settings
    )
    found = json.loads(await output(config))
    expected = {
        name: [int(part) for part in (limit if ":" in limit else f"{limit}:{limit}").split(":")]
        for name, limit in limits.items()
    }
    assert {name: found[name] for name in expected} == expected
    _, core = resource.getrlimit(resource.RLIMIT_CORE)
    unlimited = {**settings, "rlimit_core": "0:unlimited" if core == -1 else "0"}
    found = json.loads(await output(config.replace(**unlimited)))
    assert found["core"] == [0, core if core == -1 else 0]


@needs_root
async def test_what_needs_privileges_is_set_before_the_user_is_switched() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = hard + 1 if has_capability(CAP_SYS_RESOURCE) else hard  # containers lack it
    config = shell("id -u; nice; ulimit -Hn", uid="nobody", nice=-5, rlimit_nofile=f"64:{highest}", cwd="/")
    assert await output(config) == f"{pwd.getpwnam('nobody').pw_uid}\n-5\n{highest}\n"


def has_capability(number: int) -> bool:
    lines = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines())
    return bool(int(lines["CapEff"], 16) >> number & 1)


def without_capability(number: int, call: Callable[[], object]) -> None:
    """Call `call` in a thread whose children lack a capability, if they would have it."""
    libc = ctypes.CDLL(None)

    def run() -> None:
        if os.geteuid() == 0:
            assert libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0) == 0
        call()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


def start_failure(config: ProcessConfig) -> StartFailed:
    before = os.listdir("/dev/fd")
    with pytest.raises(StartFailed) as caught:
        launch.launch(config, ["/bin/true"], {})
    assert os.listdir("/dev/fd") == before
    return caught.value


@needs_linux
def test_a_limit_or_priority_that_is_not_permitted() -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found: list[StartFailed] = []
    launch.null_device()
    nice, nofile = ProcessConfig("j", "true", nice=own - 1), ProcessConfig("j", "true", rlimit_nofile=str(hard + 1))
    without_capability(CAP_SYS_NICE, lambda: found.append(start_failure(nice)))
    without_capability(CAP_SYS_RESOURCE, lambda: found.append(start_failure(nofile)))
    assert [(error.reason, error.path) for error in found] == [
        ("not_permitted", "$.nice"),
        ("not_permitted", "$.rlimit_nofile"),
    ]
    assert found[0].message == f"can't set nice to {own - 1}: Permission denied"
    assert found[1].message == f"can't set rlimit_nofile to {hard + 1}: Operation not permitted"
    assert all(error.hint for error in found)


@pytest.mark.expects_errors("can't be started: can't set rlimit_core to 9999999999999999999")
def test_an_impossible_limit_is_an_event() -> None:
    recording = Recording()
    with running_manager([recording]) as manager:
        manager.load(ProcessConfig("j", "true", rlimit_core="9999999999999999999"))
        eventually(lambda: recording.of("start_failed"))
        assert recording.of("start_failed")[0]["reason"] == "bad_limit"


async def test_the_smallest_limits_end_the_program_and_not_the_manager() -> None:
    config = shell("echo up", rlimit_as="1", rlimit_data="0", rlimit_stack="1", rlimit_cpu="0", rlimit_nofile="3")
    process = Process(asyncio.get_running_loop(), config, pid=1, job=JOB)
    with contextlib.suppress(StartFailed):
        process.spawn()
        await eventually_async(lambda: process.closed)
        assert process.exit_status is not None
        assert process.exit_status.exit_code != 0


@contextlib.contextmanager
def listening(count: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]


SERVES = """
import os, socket
names = os.environ["LISTEN_FDNAMES"].split(":")
assert os.environ["LISTEN_PID"] == str(os.getpid())
assert os.environ["LISTEN_FDS"] == str(len(names))
fds = sorted(map(int, os.listdir("/proc/self/fd")))[:-1]
for fd, name in enumerate(names, 3):
    connection, _ = socket.socket(fileno=fd).accept()
    connection.sendall(f"{name} {fds}".encode())
    connection.close()
"""


@pytest.mark.parametrize("channels", [0, 1])
async def test_sockets_are_descriptors_from_3_on(channels: int) -> None:
    others = [os.open(os.devnull, os.O_RDONLY) for _ in range(channels)]
    with listening(2) as sockets:
        config = ProcessConfig("web", sys.executable, args=["-I", "-S", "-c", SERVES], custom_channels=others)
        passed = [(name, each.fileno()) for name, each in zip(("http", "admin"), sockets, strict=True)]
        process = Process(asyncio.get_running_loop(), config, pid=1, job=JOB, sockets=passed)
        process.spawn()
        fds = list(range(5 + channels))
        for each, name in zip(sockets, ("http", "admin"), strict=True):
            reader, writer = await asyncio.open_connection(*each.getsockname())
            assert (await reader.read()).decode() == f"{name} {fds}"
            writer.close()
            await writer.wait_closed()
        await eventually_async(lambda: process.closed)
        assert process.exit_status is not None
        assert process.exit_status.exit_code == 0
    for fd in others:
        os.close(fd)


async def test_without_sockets_no_variable_promises_any(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET"):
        monkeypatch.setenv(name, "1")
    line = "env | grep -c -e LISTEN_ -e NOTIFY_"
    assert await output(shell(line, os_env=True)) == "0\n"
    assert await output(shell(line, os_env=True, custom_streams=["x"])) == "0\n"


async def test_the_notify_socket_is_that_of_the_process() -> None:
    config = shell("echo $NOTIFY_SOCKET", env={"NOTIFY_SOCKET": "/other"})
    assert await output(config, notify_socket="/run/gaffer/notify") == "/run/gaffer/notify\n"
