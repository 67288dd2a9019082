"""Runs a command in the foreground of the terminal for `gaffer run`, also as the init process of a container."""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from gaffer.runtime import dispositions

# The shell's exit statuses for a command that was not found or can't be executed.
NOT_FOUND, NOT_EXECUTABLE = 127, 126

# The terminal sends these to the whole foreground group, including the children.
_OF_THE_TERMINAL = frozenset({signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH})
_FORWARDED = frozenset(
    {
        *_OF_THE_TERMINAL,
        *(signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGPWR),
        *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
    }
)
_AWAITED = _FORWARDED | {signal.SIGCHLD}
_SI_KERNEL = 0x80  # the si_code of signals from the kernel, here the terminal (sigaction(2))

Children = dict[int, "subprocess.Popen[bytes]"]  # by pid


def run_command(words: Sequence[str], cwd: str, env: Mapping[str, str], copies: int = 1) -> int:
    """Run `copies` of a command with the terminal and streams of this process, and wait for all.

    Return the first nonzero status, 128 + N for signal N. Raises OSError if the command can't be started. Signals are
    forwarded to the children, and adopted processes are reaped.
    """
    ignored = dispositions.reset_inherited()
    hup_ignored = signal.SIGHUP in ignored  # nohup(1) is meant for the command

    def prepare() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if hup_ignored:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    children: Children = {}
    with _held_signals():
        try:
            for _ in range(copies):
                # Only one thread runs, so `prepare` can't deadlock.
                child = subprocess.Popen(words, cwd=cwd, env=dict(env), preexec_fn=prepare)
                children[child.pid] = child
        except OSError:
            for child in children.values():
                child.terminate()
            raise
        finally:
            _wait(children, _FORWARDED - {signal.SIGHUP} if hup_ignored else _FORWARDED)
    codes = [child.returncode for child in children.values()]
    return next((code if code > 0 else 128 - code for code in codes if code), 0)


def _wait(children: Children, forwarded: frozenset[int]) -> None:
    """Wait for all children to exit; the signals must be held."""
    _reap(children)
    while any(child.returncode is None for child in children.values()):
        received = signal.sigwaitinfo(_AWAITED)
        if received.si_signo == signal.SIGCHLD:
            _reap(children)
        elif received.si_signo in forwarded and not (
            received.si_signo in _OF_THE_TERMINAL and received.si_code == _SI_KERNEL
        ):
            for child in children.values():
                _forward(child, received.si_signo)


def _forward(child: "subprocess.Popen[bytes]", signum: int) -> None:
    if child.returncode is None:  # else the pid may have been reused
        os.kill(child.pid, signum)
        if signum == signal.SIGTERM:
            os.kill(child.pid, signal.SIGCONT)  # a stopped process handles nothing else


def _reap(children: Children) -> None:
    """Reap all exited children, including orphans that an init process adopts."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if pid in children:
            children[pid].returncode = os.waitstatus_to_exitcode(status)


@contextmanager
def _held_signals() -> Iterator[None]:
    """Block signals, for sigwaitinfo(2). An init process receives blocked signals even without a handler."""
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    try:
        yield
    finally:
        while signal.sigtimedwait(_AWAITED, 0) is not None:
            pass  # meant for the children, which have exited
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
