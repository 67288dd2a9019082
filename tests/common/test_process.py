"""One process: made without a manager, its streams, and what it finds when it starts through the stub."""

import asyncio
import json
import os
import pwd
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gaffer.errors import ConfigError, NotRedirected, ProcessError, StartFailed
from gaffer.process import Process, ProcessConfig
from gaffer.streams.rings import Cursor
from support.managers import running_manager
from support.needs import needs_linux, needs_root
from support.poll import eventually, eventually_async

row = pytest.mark.row


def python(code: str, name: str = "j", **settings: Any) -> ProcessConfig:
    return ProcessConfig(name, sys.executable, args=["-I", "-u", "-c", code], **settings)


def made(config: ProcessConfig, **settings: Any) -> Process:
    return config.make_process(asyncio.get_running_loop(), 1, "s.j", **settings)


async def ended(process: Process) -> None:
    await eventually_async(lambda: process.closed)


# Without a manager


@row("TPL-27", "PROC-04", "PROC-06", "PROC-01")
async def test_a_process_lives_without_a_manager() -> None:
    exits: list[tuple[Process, int, int]] = []
    config = python("import os; print(os.environ['A'], os.environ['B']); os._exit(3)", redirect_output=["out"])
    process = made(config, env={"A": "a"}, on_exit=lambda *args: exits.append(args))
    assert (process.status, process.active, process.closed) == ("not started", False, False)
    process.spawn(once=True, env={"B": "b"})
    assert process.os_pid not in (0, process.pid)
    await ended(process)
    assert exits == [(process, 3, 0)]
    assert process.ring("out").read(0).data == b"a b\n"
    assert (process.status, process.active, process.once) == ("exited", False, True)
    with pytest.raises(ProcessError) as caught:
        process.spawn()
    assert caught.value.reason == "already_started"


async def test_a_process_that_can_not_start_raises_when_nobody_looks_after_it() -> None:
    process = made(ProcessConfig("j", "/no/such/program"))
    with pytest.raises(StartFailed) as caught:
        process.spawn()
    assert caught.value.reason == "program_not_found"
    process.close()
    await ended(process)


@row("PROC-04")
async def test_stop_terminates_and_kills_what_is_left_after_the_graceful_timeout() -> None:
    exits: list[int] = []
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, lambda *_: print('asked')); print('up'); time.sleep(1000)"
    )
    process = made(python(code, redirect_output=["out"]), on_exit=lambda _, code, signum: exits.append(signum))
    process.spawn(graceful_timeout=0.2)
    await eventually_async(lambda: process.ring("out").end == 3)
    process.stop()
    process.stop()
    await ended(process)
    assert exits == [signal.SIGKILL]
    assert process.ring("out").read(0).data == b"up\nasked\n"


@row("PROC-04")
async def test_kill_sends_the_signal_and_close_ends_the_whole_tree() -> None:
    process = made(
        python(
            "import signal, subprocess, time\nsignal.signal(signal.SIGUSR1, lambda *_: print('usr1'))\n"
            "print(subprocess.Popen(['sleep', '1000']).pid)\nwhile True: time.sleep(1000)",
            redirect_output=["out"],
        )
    )
    process.spawn()
    await eventually_async(lambda: process.ring("out").read(0).data.endswith(b"\n"))
    process.kill("usr1")
    await eventually_async(lambda: process.ring("out").read(0).data.endswith(b"usr1\n"))
    with pytest.raises(ValueError):
        process.kill("nope")
    child = int(process.ring("out").read(0).data.split()[0])
    process.close()
    await ended(process)
    assert process.exit_status is not None
    assert process.exit_status.term_signal == signal.SIGKILL
    process.kill(9)  # nothing to hit any more
    await eventually_async(lambda: not Path(f"/proc/{child}").exists())  # once its new parent has reaped it


LISTENS = """
import signal, time
for name in ("TERM", "INT", "QUIT"):
    signal.signal(getattr(signal, "SIG" + name), lambda number, frame: print(signal.Signals(number).name))
print("up")
while True: time.sleep(1000)
"""


@pytest.mark.parametrize("kill_group", [True, False])
async def test_stop_sends_the_stop_signal_even_to_a_stopped_process(kill_group: bool) -> None:
    process = made(python(LISTENS, redirect_output=["out"], stop_signal="INT", kill_group=kill_group))
    process.spawn()
    await eventually_async(lambda: process.ring("out").end == 3)
    process.kill("STOP")
    await eventually_async(lambda: process.status == "stopped")
    process.stop()
    await eventually_async(lambda: process.ring("out").read(0).data == b"up\nSIGINT\n")
    process.close()
    await ended(process)


def shows(process: Process, word: str) -> bool:
    return word in process.ring("out").read(0).data.decode().split()


async def test_the_stop_signal_and_sigterm_continue_a_stopped_process() -> None:
    process = made(python(LISTENS, redirect_output=["out"], stop_signal="INT"))
    process.spawn()
    await eventually_async(lambda: process.ring("out").end == 3)
    for number in (signal.SIGINT, signal.SIGTERM):
        process.kill("STOP")
        await eventually_async(lambda: process.status == "stopped")
        process.kill(number)
        await eventually_async(partial(shows, process, number.name))
    process.kill("STOP")
    await eventually_async(lambda: process.status == "stopped")
    process.kill("QUIT")
    assert process.status == "stopped"
    process.close()
    await ended(process)


@row("PROC-02")
async def test_the_attributes_of_a_process() -> None:
    config = ProcessConfig(
        "j",
        "sleep",
        args=["$LONG"],
        env={"LONG": "1000"},
        cwd="/",
        redirect_output=["out"],
        redirect_input=True,
        custom_streams=["extra"],
    )
    process = made(config)
    process.spawn()
    assert (process.name, process.pid, process.cmd, process.args) == ("s.j", 1, "sleep", ["1000"])
    assert (process.env, process.uid, process.gid, process.cwd) == ({"LONG": "1000"}, None, None, "/")
    assert (process.detach, process.once, process.active, process.closed) == (False, False, True, False)
    assert (process.redirect_output, process.redirect_input, process.custom_streams) == (["out"], True, ["extra"])
    assert list(process.streams) == ["stdin", "out", "extra"]
    await eventually_async(lambda: process.status == "sleeping")
    assert process.info["args"] == ["1000"]
    assert process.stats["os_pid"] == process.os_pid
    process.close()
    await ended(process)


# Streams


@row("IO-03", "IO-04", "IO-05")
async def test_all_outputs_at_once_and_several_listeners() -> None:
    every: list[tuple[str, bytes]] = []
    one: list[bytes] = []
    other: list[bytes] = []
    process = made(
        ProcessConfig(
            "j", "sh -c 'read x; echo out; echo err >&2; cat'", redirect_input=True, redirect_output=["a", "b"]
        )
    )

    def note(label: str, message: dict[str, Any]) -> None:
        every.append((label, message["data"]))

    def note_other(label: str, message: dict[str, Any]) -> None:
        other.append(message["data"])

    process.monitor_io(".", note)
    process.monitor_io("a", lambda label, message: one.append(message["data"]))
    process.monitor_io("a", note_other)
    process.spawn()
    process.write("go\n")
    await eventually_async(lambda: sorted(every) == [("a", b"out\n"), ("b", b"err\n")])
    assert (one, other) == ([b"out\n"], [b"out\n"])
    process.unmonitor_io(".", note)
    process.unmonitor_io("a", note_other)
    process.unmonitor_io("a", print)
    process.write("more\n")
    await eventually_async(lambda: one == [b"out\n", b"more\n"])
    assert (len(every), other) == (2, [b"out\n"])
    process.close()
    await ended(process)


@pytest.mark.expects_errors("a listener of a stream failed")
async def test_a_listener_that_fails_disturbs_nobody() -> None:
    seen: list[bytes] = []
    process = made(ProcessConfig("j", "echo x", redirect_output=["out"]))
    process.monitor_io("out", lambda label, message: 1 / 0)
    process.monitor_io("out", lambda label, message: seen.append(message["data"]))
    process.spawn()
    await ended(process)
    await eventually_async(lambda: seen == [b"x\n"])


@row("IO-06", "IO-10")
async def test_what_is_not_redirected_is_an_io_error() -> None:
    process = made(ProcessConfig("j", "sleep 1000"))
    process.spawn()
    refused: list[tuple[Callable[[], Any], int, str]] = [
        (lambda: process.monitor_io("out", print), 400, "io_not_redirected"),
        (lambda: process.monitor_io(".", print), 400, "io_not_redirected"),
        (lambda: process.write("x"), 403, "forbidden_write"),
        (lambda: process.writelines(["x"]), 403, "forbidden_write"),
    ]
    for call, status, reason in refused:
        with pytest.raises(IOError) as caught:
            call()
        assert isinstance(caught.value, NotRedirected)
        assert (caught.value.errno, caught.value.reason) == (status, reason)
        assert reason in str(caught.value.to_dict())
    process.close()
    await ended(process)


async def test_an_unknown_label_is_not_found_and_an_output_takes_no_input() -> None:
    process = made(ProcessConfig("j", "cat", redirect_output=["out"], redirect_input=True))
    process.spawn()
    refused: list[tuple[Callable[[], object], int, str]] = [
        (lambda: process.ring("nope"), 404, "io_not_found"),
        (lambda: process.streams["stdin"].subscribe(print), 404, "io_not_found"),
        (lambda: process.streams["out"].write("x"), 403, "forbidden_write"),
        (lambda: process.writelines(["x"], "nope"), 404, "stream_not_found"),
    ]
    for call, status, reason in refused:
        with pytest.raises(ProcessError) as caught:
            call()
        assert (caught.value.errno, caught.value.reason) == (status, reason)
    process.close()
    await ended(process)


@row("IO-12", "IO-11")
def test_what_many_threads_write_is_never_mixed() -> None:
    """Each piece is longer than a pipe holds."""
    code = (
        "import itertools, sys\n"
        "lines = itertools.islice(sys.stdin, 80)\n"
        "good = sum(len(line) == 100_001 and len(set(line)) == 2 for line in lines)\n"
        "print(good, flush=True)\n"
    )
    with running_manager() as manager:
        manager.load(python(code, redirect_input=True, redirect_output=["out"], backoff=100))
        process = eventually(lambda: manager.running.get(1))

        def write(letter: str) -> None:
            for _ in range(10):
                process.writelines([letter * 50_000, letter.encode() * 50_000, "\n"])

        threads = [threading.Thread(target=write, args=(letter,)) for letter in "abcdefgh"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        eventually(lambda: process.ring("out").read(0).data == b"80\n")


@row("IO-18")
async def test_streams_and_who_reads_them_end_with_the_process() -> None:
    seen: list[bytes] = []
    process = made(
        python(
            "import sys; sys.stdout.write('last words\\n')",
            redirect_output=["out"],
            redirect_input=True,
            custom_streams=["extra"],
        )
    )
    process.monitor_io(".", lambda label, message: seen.append(message["data"]))
    cursor = Cursor(process.ring("out"))
    process.spawn()
    first = await asyncio.wait_for(cursor.next(), 10)
    assert first is not None
    assert first.data == b"last words\n"
    assert await asyncio.wait_for(cursor.next(), 10) is None
    await ended(process)
    await eventually_async(lambda: seen == [b"last words\n"])
    for label in ("out", "extra"):
        assert process.ring(label).closed
        assert process.ring(label).watchers == 0
    for label in ("stdin", "extra"):
        with pytest.raises(ProcessError) as caught:
            process.streams[label].write("x")
        assert (caught.value.errno, caught.value.reason) == (410, "stream_closed")


# Custom streams and channels

REPORT = """
import json, os, signal, sys
found = {
    "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd"))[:-1],
    "pid": os.getpid(), "group": os.getpgrp(), "cwd": os.getcwd(), "ids": [os.getuid(), os.getgid(), os.getgroups()],
    "argv": open("/proc/self/cmdline").read().split("\\0")[:-1], "exe": os.readlink("/proc/self/exe"),
    "env": dict(os.environ),
    "ignored": [s for s in (signal.SIGPIPE, signal.SIGXFSZ) if int(
        open("/proc/self/status").read().split("SigIgn:")[1].split()[0], 16) >> (s - 1) & 1],
}
with open(sys.argv[1], "w") as file:
    json.dump(found, file)
"""


def report(path: Path, **settings: Any) -> ProcessConfig:
    words = ["-I", "-S", "-X", "utf8=0", "-c", REPORT, str(path)]
    return ProcessConfig("j", "/usr/bin/env", args=["-u", "X", sys.executable, *words], **settings)


@needs_linux
@row("TPL-18")
async def test_the_stub_leaves_no_trace_but_the_descriptors(tmp_path: Path) -> None:
    """A process with custom streams finds what one without them finds, and fds 3 and 4."""
    reports = []
    settings = {"env": {"A": "b", "ODD": "\udcff", "LANG": "C"}, "cwd": "/"}
    for number, streams in enumerate(([], ["x", "y"])):
        path = tmp_path / str(number)
        process = made(report(path, custom_streams=streams, **settings))
        process.spawn()
        await ended(process)
        found = json.loads(path.read_text())
        assert (found.pop("pid"), found.pop("group")) == (process.os_pid, process.os_pid)
        assert found.pop("fds") == list(range(3 + len(streams)))
        found["argv"].pop()
        reports.append(found)
    assert reports[0] == reports[1]


@row("TPL-18", "IO-17", "MGR-43")
def test_custom_streams_are_descriptors_from_3_on_and_go_both_ways() -> None:
    code = (
        "import os, threading\n"
        "def echo(fd):\n"
        "    while data := os.read(fd, 100): os.write(fd, b'%d: %s' % (fd, data))\n"
        "for fd in (3, 4): threading.Thread(target=echo, args=(fd,)).start()\n"
    )
    with running_manager() as manager:
        manager.load(python(code, custom_streams=["first", "second"]))
        process = eventually(lambda: manager.running.get(1))
        first, second = process.streams["first"], process.streams["second"]
        seen: list[tuple[str, dict[str, Any]]] = []

        def listen(label: str, message: dict[str, Any]) -> None:
            seen.append((label, message))

        manager.loop.call_soon_threadsafe(first.subscribe, listen)
        manager.loop.call_soon_threadsafe(second.subscribe, listen)
        first.write(b"one")
        second.writelines(["t", b"wo"])
        eventually(lambda: sorted(message["data"] for _, message in seen) == [b"3: one", b"4: two"])
        by_label = dict(seen)
        assert by_label["first"] == {"event": "first", "name": "j", "pid": 1, "data": b"3: one"}
        manager.loop.call_soon_threadsafe(second.unsubscribe, listen)
        manager.send(1, "three", stream="second")
        ring = second.ring
        assert ring is not None
        eventually(lambda: ring.read(0).data == b"4: two4: three")
        assert len(seen) == 2


@row("TPL-19")
async def test_open_channels_follow_the_custom_streams() -> None:
    reading, writing = os.pipe()
    null = os.fdopen(os.open(os.devnull, os.O_RDONLY))
    code = "import os; os.write(4, os.readlink('/proc/self/fd/5').encode())"
    process = made(python(code, custom_streams=["x"], custom_channels=[writing, null]))
    assert "custom_channels" not in process.config.to_dict()
    process.spawn()
    os.close(writing)
    null.close()
    await ended(process)
    assert os.read(reading, 100) == b"/dev/null"
    assert os.read(reading, 100) == b""
    os.close(reading)


def test_labels_must_tell_streams_apart() -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"custom_streams": ["a"], "redirect_output": ["a"]}, "$.custom_streams"),
        ({"custom_streams": ["stdin"]}, "$.custom_streams"),
        ({"custom_channels": ["x"]}, "$.custom_channels[0]"),
    ]
    for settings, path in wrong:
        with pytest.raises(ConfigError) as caught:
            ProcessConfig("j", "true", **settings)
        assert caught.value.path == path


@row("PROC-05", "TPL-18")
@needs_root
async def test_the_stub_becomes_another_user_who_need_not_be_able_to_read_it() -> None:
    """The interpreter that runs it may be in a place that only we can enter."""
    account = pwd.getpwnam("nobody")
    command = "sh -c '(id -u; id -g; id -G; pwd; echo $HOME $A) >&3'"
    process = made(ProcessConfig("j", command, uid="nobody", custom_streams=["x"], cwd="/usr", env={"A": "a"}))
    process.spawn()
    await ended(process)
    groups = " ".join(map(str, os.getgrouplist("nobody", account.pw_gid)))
    assert process.ring("x").read(0).data.decode().splitlines() == [
        str(account.pw_uid),
        str(account.pw_gid),
        groups,
        "/usr",
        f"{account.pw_dir} a",
    ]
