"""Signals of the daemons and tools from their first moment to the last: a status of their own, never a traceback."""

import fcntl
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from support.daemons import Daemon, clean_env, command_path, gafferd, run_command
from support.poll import eventually

SIGNALS = (signal.SIGQUIT, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

# Ends itself by a signal at the time when the command is being imported.
SHOOTS_ITSELF = "import os; os.kill(os.getpid(), {}); from time import sleep; sleep(10)"


def statuses(signum: signal.Signals) -> tuple[int, ...]:
    return (130,) if signum == signal.SIGINT else (0,)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("command", ["gafferd", "gaffer_lookupd"])
def test_a_signal_during_the_imports_of_a_daemon(tmp_path: Path, command: str, signum: signal.Signals) -> None:
    (tmp_path / "msgspec.py").write_text(SHOOTS_ITSELF.format(int(signum)))
    done = run_command(command, env={"PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stdout, done.stderr) == (statuses(signum)[0], "", "")


@pytest.mark.parametrize("command", ["gaffer", "gafferctl"])
def test_an_interrupt_during_the_imports_of_a_tool(tmp_path: Path, command: str) -> None:
    (tmp_path / "docopt.py").write_text(SHOOTS_ITSELF.format(int(signal.SIGINT)))
    done = run_command(command, "ps", env={"PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def options(name: str, folder: Path) -> tuple[str, ...]:
    return ("--bind=127.0.0.1:0", *([f"--state-dir={folder}"] if name == "gafferd" else ()))


def caught(pid: int) -> int:
    found = re.search(r"SigCgt:\s*([0-9a-f]+)", Path(f"/proc/{pid}/status").read_text())
    return found is not None and int(found[1], 16) & 1 << (signal.SIGTERM - 1)


@pytest.mark.parametrize("name", ["gafferd", "gaffer_lookupd"])
def test_a_signal_at_any_time_of_the_start_and_repeated_to_the_end(tmp_path: Path, name: str) -> None:
    """The first one ends the daemon, what comes later changes nothing of how."""
    first = {signal.SIGTERM: 0, signal.SIGINT: 130}
    for delay in (0, 0.1, 0.2, 0.3):
        running = {signum: Daemon(name, *options(name, tmp_path / f"{delay}{int(signum)}")) for signum in first}
        for daemon in running.values():
            eventually(partial(caught, daemon.pid))
        time.sleep(delay)  # the moment is what is tried, nothing waits for it
        for signum, daemon in running.items():
            daemon.signal(signum)
        deadline = time.monotonic() + 20
        while any(daemon.returncode is None for daemon in running.values()) and time.monotonic() < deadline:
            for daemon in running.values():
                for signum in (signal.SIGTERM, signal.SIGHUP):
                    daemon.signal(signum)
            time.sleep(0.002)
        for signum, daemon in running.items():
            assert daemon.wait() in (0, first[signum]), daemon.stderr
            assert "Traceback" not in daemon.stderr
            assert "Exception" not in daemon.stderr


@pytest.mark.parametrize("name", ["gafferd", "gaffer_lookupd"])
def test_an_inherited_mask_keeps_no_signal_away(tmp_path: Path, name: str) -> None:
    launcher = (
        "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals());"
        "[signal.signal(s, signal.SIG_IGN) for s in (1, 2, 3, 15)]; os.execv(sys.argv[1], sys.argv[1:])"
    )
    daemon = subprocess.Popen(
        [sys.executable, "-c", launcher, command_path(name), *options(name, tmp_path / "state")],
        env=clean_env({"HOME": str(tmp_path)}),
        stderr=subprocess.PIPE,
        text=True,
    )
    with daemon:
        assert daemon.stderr is not None
        assert daemon.stderr.readline().startswith("listening on ")
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(20) == 0


IGNORES_TERM = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(1000)"


def test_signals_while_leftovers_are_ended(tmp_path: Path) -> None:
    """What ends the daemon does not wait for processes that ignore SIGTERM; a reload waits for the start."""
    config, state = tmp_path / "gafferd.ini", tmp_path / "state"
    job = f'[process:deaf]\ncmd = {sys.executable} -c "{IGNORES_TERM}"\ngraceful_timeout = 2\n'
    config.write_text(job)
    with gafferd(str(config), state_dir=state) as node:
        eventually(lambda: "deaf" in (state / "logs/default.deaf.1.out.log").read_text(), retry_on=(OSError,))
        node.kill()
        for signum, status in ((signal.SIGTERM, 0), (signal.SIGINT, 130), (signal.SIGHUP, None)):
            successor = Daemon("gafferd", str(config), *options("gafferd", state))
            successor.wait_for_line("left by an earlier gafferd")
            config.write_text(job + "[process:new]\ncmd = sleep 1000\n")
            successor.signal(signum)
            if status is None:
                successor.wait_for_line("reloaded: add default.new")
                successor.stop()
            else:
                assert successor.wait() == status
            assert "Traceback" not in successor.stderr
            config.write_text(job)


def test_a_signal_during_the_start_in_the_background_ends_the_daemon(tmp_path: Path) -> None:
    config, state = tmp_path / "gafferd.ini", tmp_path / "state"
    config.write_text(f'[process:deaf]\ncmd = {sys.executable} -c "{IGNORES_TERM}"\ngraceful_timeout = 1000\n')
    with gafferd(str(config), state_dir=state) as node:
        eventually(lambda: "deaf" in (state / "logs/default.deaf.1.out.log").read_text(), retry_on=(OSError,))
        node.kill()
        starter = Daemon("gafferd", str(config), "--daemon", *options("gafferd", state))
        starter.wait_for_line("left by an earlier gafferd")
        starter.signal(signal.SIGTERM)
        assert starter.wait() == 1
        assert "Traceback" not in starter.stderr
        assert starter.urls == []
        with (state / "lock").open() as lock:
            eventually(lambda: fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB) is None, retry_on=(BlockingIOError,))
