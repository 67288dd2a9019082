"""The keeper as a process, above a gafferd that the test directs."""

import os
import random
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from gafferd import keeper
from support.kept import Directed, Kept, await_zombie, is_gone, is_zombie, kept, pipe
from support.needs import needs_root
from support.poll import eventually

ENDS = {
    "zero": "sys.exit(0)",
    "code": "sys.exit(42)",
    "signal": "os.kill(os.getpid(), signal.SIGUSR1)",
    "core": "os.kill(os.getpid(), signal.SIGABRT)",
}


def wait_status(code: str) -> int:
    """The wait status of a Python program."""
    pid = os.posix_spawn(sys.executable, [sys.executable, "-I", "-S", "-c", code], os.environ)
    return os.waitpid(pid, 0)[1]


def register(gafferd: Directed, pid: int, name: str, *settings: object) -> None:
    gafferd.send(f"CHILD={pid} {name}{''.join(f' {each}' for each in settings)}")


def successor(above: Kept, gafferd: Directed) -> Directed:
    """Kill a gafferd; return the next one."""
    gafferd.kill()
    return above.gafferd()


@pytest.mark.parametrize("status", [0, 1, 2])
def test_the_end_of_a_gafferd_that_never_was_ready_is_that_of_the_keeper(status: int) -> None:
    with kept() as above:
        above.gafferd().exit(status)
        assert above.wait() == status


def test_gafferd_is_started_again_until_it_ends_well() -> None:
    with kept() as above:
        first = above.gafferd()
        first.send("READY=1")
        first.exit(3)
        second = above.gafferd()
        assert second.dump().fields["LAST"] == f"gafferd (pid {first.pid}) exited with status 3"
        third = successor(above, second)
        fields = third.dump().fields
        assert (fields["LAST"], fields["STARTS"]) == (f"gafferd (pid {second.pid}) was killed by signal 9", "3")
        third.send("READY=1")
        third.exit(75)
        fourth = above.gafferd()
        assert "starting it again" in above.messages.read_text()
        fourth.send("READY=1")
        fourth.exit(0)
        assert above.wait() == 0


def test_the_exit_statuses_of_processes_that_end_without_gafferd_are_exact(tmp_path: Path) -> None:
    begin = (
        "import os, resource, signal, sys\n"
        "most = resource.getrlimit(resource.RLIMIT_CORE)[1]; resource.setrlimit(resource.RLIMIT_CORE, (most, most))\n"
        f"os.chdir({str(tmp_path)!r})\n"
    )
    expected = {name: wait_status(begin + end) for name, end in ENDS.items()}
    assert [os.waitstatus_to_exitcode(expected[name]) for name in ENDS] == [0, 42, -signal.SIGUSR1, -signal.SIGABRT]
    with kept() as above:
        gafferd = above.gafferd()
        gafferd.send("READY=1")
        reader, _ = gafferd.do("result = os.pipe()")
        pids = {}
        for name, end in ENDS.items():
            code = f"{begin}os.read({reader}, 1)\n{end}"
            pids[name] = int(
                gafferd.do(
                    f"result = subprocess.Popen({[sys.executable, '-I', '-S', '-c', code]!r}, process_group=0,"
                    f" pass_fds=[{reader}]).pid"
                )
            )
            register(gafferd, pids[name], name)
        gafferd.dump()
        gafferd = successor(above, gafferd)  # which also ends their pipe
        for pid in pids.values():
            await_zombie(pid)
        exits = [line for line in gafferd.dump().lines if line.startswith("EXITED=")]
        assert sorted(exits) == sorted(f"EXITED={pids[name]} {expected[name]}" for name in ENDS)
        for pid in pids.values():
            os.killpg(pid, 0)  # its group is pinned
            gafferd.send(f"ACK={pid}")
        gafferd.dump()
        assert all(map(is_zombie, pids.values()))
        for pid in pids.values():
            gafferd.send(f"REAP={pid}")
        assert gafferd.dump().lines == []
        assert all(map(is_gone, pids.values()))


def test_an_exit_is_repeated_until_it_is_acknowledged() -> None:
    with kept() as above:
        gafferd = above.gafferd()
        gafferd.send("READY=1")
        pid = gafferd.spawn("sleep", "1000")
        register(gafferd, pid, "a")
        gafferd = successor(above, gafferd)
        assert gafferd.dump().lines == [f"CHILD={pid} a 60 15"]
        os.kill(pid, signal.SIGTERM)
        assert [gafferd.receive() for _ in range(3)] == [f"EXITED={pid} {signal.SIGTERM}"] * 3
        gafferd.send(f"ACK={pid}")
        gafferd.send(f"REAP={pid}")
        eventually(lambda: is_gone(pid))


def test_a_process_that_gafferd_had_reaped_has_an_unknown_status() -> None:
    with kept() as above:
        gafferd = above.gafferd()
        gafferd.send("READY=1")
        pid = gafferd.do("process = subprocess.Popen(['true'], process_group=0); process.wait(); result = process.pid")
        register(gafferd, pid, "a")
        assert successor(above, gafferd).dump().lines == [f"CHILD={pid} a 60 15", f"EXITED={pid} unknown"]


def test_the_last_messages_of_a_gafferd_that_did_not_read_count() -> None:
    with kept() as above:
        gafferd = above.gafferd()
        gafferd.send("READY=1")
        pid = gafferd.spawn("sleep", "1000")
        gafferd.send("nonsense")  # the answer to which it does not read
        eventually(lambda: select.select([gafferd.connection], [], [], 0)[0])
        above.signal(signal.SIGSTOP)
        register(gafferd, pid, "a")
        gafferd.kill()
        await_zombie(gafferd.pid)
        above.signal(signal.SIGCONT)
        assert above.gafferd().dump().lines == [f"CHILD={pid} a 60 15"]


def test_the_keeper_replaces_itself_by_the_code_on_disk(tmp_path: Path) -> None:
    code = tmp_path / "keeper.py"
    shutil.copy(keeper.__file__, code)
    with kept(code=code) as above, pipe(b"unread") as reader:
        gafferd = above.gafferd()
        gafferd.send("READY=1")
        pids = [gafferd.spawn("sleep", "1000") for _ in range(2)]
        for pid, name in zip(pids, "ab", strict=True):
            register(gafferd, pid, name)
        gafferd.send("CHILD=9999999 c\nRECORD=text\nFDSTORE=1\nFDNAME=c/stdout", [reader])
        gafferd.dump().close()
        before = above.descriptors
        code.write_text(code.read_text().replace("DUMPED=1", "DUMPED=2"))
        gafferd.exit(75)
        gafferd = above.gafferd()
        with gafferd.dump("DUMPED=2") as dump:
            assert os.read(dump.descriptors["c/stdout"][0], 9) == b"unread"
            assert dump.lines == [*(f"CHILD={pid} {name} 60 15" for pid, name in zip(pids, "ab", strict=True)), *GONE]
        assert above.descriptors == before
        os.kill(pids[0], signal.SIGKILL)
        assert gafferd.receive() == f"EXITED={pids[0]} {signal.SIGKILL}"
        gafferd.send("READY=1")
        code.write_text("nonsense =")
        gafferd.exit(75)
        with above.gafferd().dump("DUMPED=2") as dump:
            assert len(dump.lines) == 6
        above.messages.read_text().index("the keeper on disk does not work: going on with the old one")
        above.signal(signal.SIGTERM)
        assert above.wait() == 0
        assert all(map(is_gone, pids))


GONE = ["CHILD=9999999 c 60 15", "RECORD=text", "EXITED=9999999 unknown"]


def test_orphans_that_gafferd_did_not_register_are_reaped() -> None:
    with kept() as above:
        gafferd = above.gafferd()
        gafferd.send("READY=1")
        registered, other = gafferd.spawn("sleep", "1000"), gafferd.spawn("sleep", "1000")
        register(gafferd, registered, "a")
        gafferd = successor(above, gafferd)
        for pid in (registered, other):
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: is_gone(other))
        await_zombie(registered)
        gafferd.send("GONE=a")
        eventually(lambda: is_gone(registered))


def test_descriptors_outlive_gafferd_with_their_content() -> None:
    reader, writer = os.pipe()
    try:
        with kept() as above:
            gafferd = above.gafferd()
            gafferd.send("READY=1")
            before = above.descriptors
            for first in range(0, 1000, 100):
                names = "\n".join(f"FDNAME=job/{k}" for k in range(first, first + 100))
                gafferd.send(f"FDSTORE=1\n{names}", [reader] * 100)
            os.close(reader)
            os.write(writer, b"unread")
            os.close(writer)
            reader = writer = -1
            gafferd = successor(above, gafferd)
            found = gafferd.dump().descriptors
            assert sorted(found) == sorted(f"job/{k}" for k in range(1000))
            assert above.descriptors == before + 1000
            assert os.read(found["job/999"][0], 100) == b"unread"
            for [descriptor] in found.values():
                os.close(descriptor)
            gafferd.send("GONE=job")
            eventually(lambda: above.descriptors == before)
    finally:
        for descriptor in {reader, writer} - {-1}:
            os.close(descriptor)


def test_descriptors_beyond_the_limit_are_refused() -> None:
    with kept() as above, open(os.devnull, "rb") as null:
        gafferd = above.gafferd()
        gafferd.dump()
        before = above.descriptors
        resource.prlimit(above.pid, resource.RLIMIT_NOFILE, (32, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        gafferd.send("FDSTORE=1\nFDNAME=a", [null.fileno()] * 100)
        assert gafferd.receive().startswith("ERR=the message is longer than 8192 bytes, or has too many descriptors")
        eventually(lambda: above.descriptors == before)


@needs_root
def test_a_gafferd_that_processes_wait_for_starts_with_priority() -> None:
    with kept() as above:
        gafferd = above.gafferd()
        gafferd.send("READY=1")
        assert psutil.Process(gafferd.pid).nice() == os.nice(0)
        register(gafferd, gafferd.spawn("sleep", "1000"), "a")
        assert psutil.Process(successor(above, gafferd).pid).nice() == -10


def test_gafferd_has_the_limits_of_its_user() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    own = Path("/proc/self/oom_score_adj")
    score = own.read_text()
    limits = "import resource; result = resource.getrlimit(resource.RLIMIT_NOFILE)"
    try:
        own.write_text("500")
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard - 100, hard))
        with kept() as above:
            gafferd = above.gafferd()
            gafferd.send("READY=1")
            for after in ("a crash", "a handover", ""):
                assert gafferd.do(limits) == [hard - 100, hard]
                assert gafferd.do("result = open('/proc/self/oom_score_adj').read()") == "500\n"
                gafferd.send("READY=1")
                if after == "a handover":
                    gafferd.exit(75)
                    gafferd = above.gafferd()
                else:
                    gafferd = successor(above, gafferd)
            assert resource.prlimit(above.pid, resource.RLIMIT_NOFILE) == (hard, hard)
            assert int(Path(f"/proc/{above.pid}/oom_score_adj").read_text()) < 500
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        own.write_text(score)


def test_hostile_datagrams_are_refused_and_leak_nothing() -> None:
    randomness = random.Random(7)
    with kept() as above, open(os.devnull, "rb") as null:
        gafferd = above.gafferd()
        gafferd.send("READY=1")
        gafferd.dump()
        before = above.descriptors
        hostile = [
            b"\0",
            b"\n" * keeper.MAX_MESSAGE,
            b"x" * 60000,
            b"FDSTORE=1\nFDNAME=" + b"n" * 8000,
            *(randomness.randbytes(randomness.randrange(1, 300)) for _ in range(100)),
        ]
        for data in hostile:
            for count in (0, 1, 253):
                socket.send_fds(gafferd.connection, [data], [null.fileno()] * count)
                assert gafferd.receive().startswith("ERR=")
        eventually(lambda: above.descriptors == before)
        gafferd.send("BEAT=1")
        assert gafferd.dump().fields["DUMPED"] == "1"


def test_a_gafferd_that_does_not_read_does_not_block_the_keeper() -> None:
    with kept() as above:
        gafferd = above.gafferd()
        gafferd.send("READY=1")
        for _ in range(keeper.MAX_QUEUE + 1000):
            gafferd.send("nonsense")
        eventually(lambda: "gafferd does not read" in above.messages.read_text())
        assert successor(above, gafferd).dump().fields["DUMPED"] == "1"


def test_signals_reach_gafferd() -> None:
    with kept() as above:
        gafferd = above.gafferd()
        gafferd.do(
            "seen = []\n"
            "for name in 'TERM INT HUP QUIT USR1 USR2'.split():\n"
            "    signal.signal(getattr(signal, 'SIG' + name), lambda number, frame: seen.append(number))"
        )
        gafferd.send("READY=1")
        gafferd.dump()  # it is ready
        for name in ("USR1", "USR2", "HUP", "QUIT", "INT", "TERM"):
            number = signal.Signals[f"SIG{name}"]
            above.signal(number)
            eventually(lambda number=number: number in gafferd.do("result = seen"))  # type: ignore[misc]
        gafferd.exit(5)
        assert above.wait() == 5


def test_a_gafferd_that_hangs_is_replaced() -> None:
    with kept() as above:
        gafferd = above.gafferd()
        gafferd.do("import faulthandler; faulthandler.enable()")
        gafferd.send("READY=1\nWATCHDOG=0.3")
        os.kill(gafferd.pid, signal.SIGSTOP)
        assert above.gafferd().dump().fields["LAST"] == f"gafferd (pid {gafferd.pid}) was killed by signal 6"
        messages = above.messages.read_text()
        assert "has been hanging for 0.3 s: replacing it" in messages
        assert "Fatal Python error: Aborted" in messages


def test_a_gafferd_that_survives_sigabrt_is_killed() -> None:
    with kept() as above:
        gafferd = above.gafferd()
        gafferd.do("signal.signal(signal.SIGABRT, signal.SIG_IGN)")
        gafferd.send("READY=1\nWATCHDOG=0.2")
        assert above.gafferd().dump().fields["LAST"] == f"gafferd (pid {gafferd.pid}) was killed by signal 9"


@pytest.mark.parametrize("successor_is", ["broken", "starting", "hanging"])
def test_without_a_working_gafferd_sigterm_ends_whole_groups(successor_is: str) -> None:
    with kept() as above:
        gafferd = above.gafferd()
        gafferd.send("READY=1\nWATCHDOG=1")
        stubborn = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.fork(); time.sleep(1000)"
        heeds = "import os, time; os.fork(); time.sleep(1000)"
        pids = [gafferd.python(stubborn), gafferd.python(heeds)]
        members: list[int] = []
        for pid, timeout in zip(pids, (0.5, 30), strict=True):
            register(gafferd, pid, f"j{pid}", timeout)
            members += [pid, *eventually(lambda pid=pid: children(pid))]  # type: ignore[misc]
        gafferd.dump()
        if successor_is == "broken":
            above.script.unlink()
            gafferd.kill()
            eventually(lambda: "starting it again in 0.2 s" in above.messages.read_text())
        else:
            other = successor(above, gafferd)  # it knows nothing of them yet
            if successor_is == "hanging":
                other.do("signal.signal(signal.SIGTERM, signal.SIG_IGN)")
        above.signal(signal.SIGTERM)
        assert above.wait() == 0
        assert len(members) == 4
        eventually(lambda: all(map(is_gone, members)))
        messages = above.messages.read_text()
        assert f"killing process {pids[0]}: it ignored signal 15" in messages
        assert f"killing process {pids[1]}" not in messages


def test_without_a_working_gafferd_sigterm_ends_members_that_have_left_their_group() -> None:
    def leave(mark: str) -> str:
        environ = f"os.environ['{keeper.MARK}'] = {mark!r}"
        escaped = (
            "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(99)"
        )
        start = f"subprocess.Popen([sys.executable, '-c', {escaped!r}], start_new_session=True, stdout=subprocess.PIPE)"
        return f"import os, subprocess, sys, time; {environ}; {start}.stdout.readline(); time.sleep(99)"

    with kept() as above:
        gafferd = above.gafferd()
        gafferd.send("READY=1")
        pids = [gafferd.python(leave(mark)) for mark in ("node:1:7", "node:1:8", "node:1:9:detached")]
        escaped = [child for pid in pids for child in eventually(lambda pid=pid: children(pid))]  # type: ignore[misc]
        register(gafferd, pids[0], "7", 0.5)
        register(gafferd, pids[1], "8", 30)
        gafferd.dump().close()
        above.script.unlink()
        gafferd.kill()
        eventually(lambda: "starting it again in 0.2 s" in above.messages.read_text())
        above.signal(signal.SIGTERM)
        eventually(lambda: is_gone(escaped[0]))
        assert above.running
        above.signal(signal.SIGTERM)  # hurry
        assert above.wait() == 0
        assert is_gone(escaped[1])
        assert not is_gone(escaped[2])
        assert f"killing process {escaped[0]}: it ignored signal 15" in above.messages.read_text()
        for pid in (pids[2], escaped[2]):
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: is_gone(escaped[2]))


def test_a_group_whose_leader_gafferd_has_reaped_is_ended_too() -> None:
    with kept() as above:
        gafferd = above.gafferd()
        gafferd.send("READY=1")
        leader = "import os, sys; os.fork() and os._exit(7); import time; time.sleep(1000)"
        pid = gafferd.do(
            f"process = subprocess.Popen({[sys.executable, '-c', leader]!r}, process_group=0); result = process.pid"
        )
        register(gafferd, pid, "7")
        gafferd.do("result = process.wait()")
        gafferd.send(f"EXITED={pid} {7 << 8}")
        [member] = [each.pid for each in psutil.process_iter() if os.getpgid(each.pid) == pid]
        stranger = subprocess.Popen(["sleep", "1000"], process_group=0)
        try:
            register(gafferd, stranger.pid, "8")
            gafferd.dump()
            above.script.unlink()
            gafferd.kill()
            eventually(lambda: "starting it again in 0.1 s" in above.messages.read_text())
            above.signal(signal.SIGTERM)
            assert above.wait() == 0
            eventually(lambda: is_gone(member))
            assert stranger.poll() is None
        finally:
            stranger.kill()
            stranger.wait()


@pytest.mark.parametrize("away", [True, False])
def test_a_process_that_is_not_a_child_is_known_by_its_pidfd(away: bool) -> None:
    """As one that an earlier keeper had adopted."""
    other = subprocess.Popen(["sleep", "1000"], process_group=0)
    pidfd = os.pidfd_open(other.pid)
    try:
        with kept() as above:
            gafferd = above.gafferd()
            gafferd.send("READY=1")
            gafferd.send(f"CHILD={other.pid} 7\nFDSTORE=1\nFDNAME=7/pidfd", [pidfd])
            gafferd.dump().close()
            if away:
                above.script.unlink()
                gafferd.kill()
                eventually(lambda: "0.2 s, while 1 processes run on" in above.messages.read_text())
                above.signal(signal.SIGTERM)
            else:
                gafferd = successor(above, gafferd)
                with gafferd.dump() as dump:
                    assert dump.lines == [f"CHILD={other.pid} 7 60 15"]
                other.terminate()
                assert gafferd.receive() == f"EXITED={other.pid} unknown"
                gafferd.send(f"REAP={other.pid}")
                gafferd.send("STOPPING=1")
                gafferd.exit(0)
            assert other.wait(20) == -signal.SIGTERM
            assert above.wait() == 0
    finally:
        os.close(pidfd)
        other.kill()
        other.wait()


def writer(gafferd: Directed, size: int) -> int:
    """Start a process that writes so much to a pipe, which the keeper gets, once gafferd is dead; return its pid."""
    code = f"import os\nos.read(0, 1)\nleft = {size}\nwhile left: left -= os.write(1, b'x' * min(left, 99))"
    pid, output = gafferd.do(
        "output, start = os.pipe(), os.pipe()\n"
        f"process = subprocess.Popen([sys.executable, '-c', {code!r}], stdout=output[1], stdin=start[0],"
        " process_group=0)\n"
        "result = process.pid, output[0]\n"
        "os.close(output[1])"
    )
    register(gafferd, pid, str(pid))
    with open(f"/proc/{gafferd.pid}/fd/{output}", "rb") as pipe:
        gafferd.send(f"FDSTORE=1\nFDNAME={pid}/stdout", [pipe.fileno()])
    return int(pid)


def test_the_output_of_processes_is_kept_while_gafferd_can_not_start() -> None:
    with kept() as above:
        gafferd = above.gafferd()
        gafferd.send("READY=1")
        quiet, small, large = (writer(gafferd, size) for size in (0, 300_000, keeper.MAX_OUTPUT + 100_000))
        gafferd.dump().close()
        script = above.script.read_bytes()
        above.script.unlink()
        gafferd.kill()  # which lets them write
        await_zombie(small)
        eventually(lambda: "what writes more waits for gafferd" in above.messages.read_text())
        assert not is_zombie(large)
        above.script.write_bytes(script)
        above.signal(signal.SIGHUP)  # try now
        gafferd = above.gafferd()
        dump = gafferd.dump()
        found = dump.descriptors
        assert f"{quiet}/stdout.journal" not in found
        for pid, size in ((small, 300_000), (large, keeper.MAX_OUTPUT)):
            [journal] = found[f"{pid}/stdout.journal"]
            assert os.lseek(journal, 0, os.SEEK_CUR) == os.fstat(journal).st_size == keeper.HEADER + size
            assert os.pread(journal, 10_000, 0) == bytes(4096) + b"x" * (10_000 - 4096)
        [pipe] = found[f"{large}/stdout"]
        left = 100_000
        while data := os.read(pipe, 65536):
            left -= len(data)
        assert left == 0
        await_zombie(large)
        dump.close()
        messages = above.messages.read_text()
        assert messages.count("gafferd is away: keeping the output of 3 streams") == 1
        assert messages.count("what writes more waits") == 1


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_in_the_background_the_log_file_has_the_messages(tmp_path: Path) -> None:
    log = tmp_path / "gafferd.log"
    with kept("background", str(log)) as above:
        gafferd = above.gafferd()
        assert os.readlink(f"/proc/{above.pid}/fd/2") == str(above.messages)
        gafferd.send("READY=1")
        gafferd.dump()
        assert os.readlink(f"/proc/{above.pid}/fd/2") == str(log)
        log.rename(tmp_path / "rotated")
        gafferd = successor(above, gafferd)
        gafferd.do("os.write(2, b'said by gafferd')")
        assert "said by gafferd" in log.read_text()
        assert "was killed by signal 9" in (tmp_path / "rotated").read_text()


def test_the_service_manager_watches_the_keeper(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        with kept(env={"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "300000"}) as above:
            gafferd = above.gafferd()
            assert [manager.recv(999) for _ in range(3)] == [b"WATCHDOG=1"] * 3
            gafferd.send("READY=1")
            gafferd.kill()
            while (message := manager.recv(999)) == b"WATCHDOG=1":
                pass
            assert message.startswith(b"STATUS=gafferd (pid %d) was killed by signal 9" % gafferd.pid)


def test_wrong_arguments() -> None:
    command = [sys.executable, "-I", "-S", str(keeper.__file__), "-1"]
    assert subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 2
