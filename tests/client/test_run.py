"""`gaffer run` gives its command the terminal, all signals and a parent that reaps, also as the init of a container."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from gaffer.processes import procfs
from support.daemons import clean_env, command_path
from support.dispositions import ignored
from support.needs import needs_pidns
from support.poll import eventually

AS_INIT = ("unshare", "--pid", "--fork", "--kill-child")

# Writes down the signals that it gets and ends with the last one; leaves an orphan behind first.
LISTENER = """
import os, signal, sys
def note(signum, frame):
    with open("signals", "a") as file:
        print(signal.Signals(signum).name, file=file)
    if signum == signal.SIGTERM:
        os._exit(7)
for name in sys.argv[1:]:
    signal.signal(signal.Signals[name], note)
if os.fork() == 0:
    if os.fork() == 0:
        os.setsid()
    os._exit(0)
os.wait()
open("up", "w").close()
while True:
    signal.pause()
"""
SIGNALS = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGALRM", "SIGRTMIN", "SIGTERM")


@contextmanager
def gaffer_run(folder: Path, *words: str, enter: Sequence[str] = ()) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """`gaffer run` in `folder`, as an init process by `enter`; gives it and the pid of gaffer."""
    (folder / "Procfile").write_text("web: true\n")
    command = [*enter, command_path("gaffer"), "-d", str(folder), "run", "--", *words]
    with subprocess.Popen(command, env=clean_env(), stdin=subprocess.DEVNULL) as running:
        try:
            yield running, eventually(lambda: procfs.children(running.pid)).pop() if enter else running.pid
        finally:
            running.kill()


@pytest.mark.parametrize("enter", [(), pytest.param(AS_INIT, marks=needs_pidns)], ids=["plain", "init"])
def test_signals_are_forwarded_and_orphans_are_reaped(tmp_path: Path, enter: Sequence[str]) -> None:
    with gaffer_run(tmp_path, sys.executable, "-c", LISTENER, *SIGNALS, enter=enter) as (running, pid):
        written = tmp_path / "signals"

        def caught(count: int) -> bool:
            return written.read_text().split() == list(SIGNALS[:count])

        eventually((tmp_path / "up").exists)
        (child,) = eventually(lambda: len(found := procfs.children(pid)) == 1 and found)
        for count, name in enumerate(SIGNALS, 1):
            if name == "SIGTERM":
                os.kill(child, signal.SIGSTOP)
            os.kill(pid, signal.Signals[name])
            eventually(partial(caught, count), retry_on=(OSError,))
        assert running.wait(10) == 7


@needs_pidns
@pytest.mark.parametrize(("command", "status"), [("gafferd", 0), ("gaffer_lookupd", 0), ("gaffer", 143)])
def test_an_init_process_does_not_lose_a_signal_during_the_imports(tmp_path: Path, command: str, status: int) -> None:
    (tmp_path / "msgspec.py").write_text("import os, time; os.kill(os.getpid(), 15); time.sleep(10)")
    done = subprocess.run(
        [*AS_INIT, command_path(command), *(["start"] if command == "gaffer" else [])],
        env=clean_env({"PYTHONPATH": str(tmp_path)}),
        check=False,
        timeout=20,
    )
    assert done.returncode == status


SHOW = "grep -h Sig[BI] /proc/self/status > inherited"


def test_the_command_inherits_no_mask_and_ignores_only_what_nohup_asks_for(tmp_path: Path) -> None:
    def set_up() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})

    (tmp_path / "Procfile").write_text("web: true\n")
    command = [command_path("gaffer"), "-d", str(tmp_path), "run", "--", "sh", "-c", f"{SHOW}; exit 3"]
    done = subprocess.run(command, env=clean_env(), preexec_fn=set_up, check=False, timeout=20)
    assert done.returncode == 3
    _, blocked, _, ignoring = (tmp_path / "inherited").read_text().split()
    assert (blocked, ignored(ignoring)) == ("0" * 16, 1)
