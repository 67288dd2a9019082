"""Runs jobs in the foreground for `gaffer start`: the console shows their output, Ctrl-C stops them."""

import asyncio
import errno
import logging
import os
import signal
import sys
import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from gaffer import Manager
from gaffer.console_output import ConsoleOutput, wants_color
from gaffer.jobs.names import DEFAULT_SESSION, parse_job_name
from gaffer.jobs.ordering import dependencies
from gaffer.jobs.slot import SlotState
from gaffer.jobs.states import JobState
from gaffer.loop import new_loop
from gaffer.process import ProcessConfig
from gaffer.processes.cgroups import own_cgroup
from gaffer.runtime import dispositions
from gaffer.runtime.descriptors import raise_descriptors
from gaffer.schemas.responses import JobInfo
from gaffer.schemas.views import ExitInfo
from gaffer.sig_handler import SigHandler
from gaffer.supervision.file_watch import FileWatcher, Watched
from gaffer_client.cli.errors import Exit
from gaffer_client.cli.output import ending, warn

_EVENTS = (
    *("spawn", "exit", "start_failed", "flap", "not_ready", "not_live"),
    *("completed", "failed", "limit_exceeded", "run_skipped"),
)
_MORE_EVENTS = ("start", "stop", "restart", "reap", "stop_pid", "ready")

_ENDED = (JobState.COMPLETED, JobState.FAILED, JobState.STOPPED)


def run_in_foreground(configs: Sequence[ProcessConfig], *, verbose: bool = False, watch: bool = True) -> int:
    """Run the jobs until they have ended, a signal arrives, the terminal closes or the output can't be written.

    The jobs that run are then stopped gracefully; a second Ctrl-C kills them. `verbose` shows all events of the jobs,
    `watch` restarts jobs whose files change. Returns the exit status of the command: if it ended by itself, that of the
    essential job that ended it, or of the first job that failed.
    """
    dispositions.reset_inherited()
    logging.getLogger("gaffer.manager").setLevel(logging.ERROR)  # its warnings are shown on the console
    raise_descriptors()
    loop = new_loop()
    # The id marks the processes, so that those that left their process group can be found.
    manager = Manager(loop, subreaper=True, cgroup=own_cgroup(), node_id=uuid.uuid4().hex)
    signals = _Signals()
    probed = [f"proc.{config.name}.ready" for config in configs if config.ready]  # others are ready after `startsecs`
    console = ConsoleOutput(
        wants_color(sys.stdout),
        actions=[*_EVENTS, *(_MORE_EVENTS if verbose else probed)],
        on_broken=signals.output_broke,
        align=True,
        numbered=True,
    )
    watching = _Watching(console, configs if watch else ())
    progress = _Progress(console, {config.name for config in configs if config.essential}, watching.names)
    try:
        manager.load_all(configs, DEFAULT_SESSION)
        manager.start([signals, console, progress, watching])
        manager.run()
    finally:
        loop.close()
    if signals.error is not None:
        raise signals.error
    return signals.status or manager.exit_code or progress.exit_code


class _Signals(SigHandler):
    """Stops the manager on INT, TERM, QUIT, HUP or broken output; `status` is the exit status of the command.

    `error` is why the output broke, unless its reader or terminal is gone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.status = Exit.OK
        self.error: OSError | None = None

    def handle_quit(self, handle: object, *args: Any) -> None:
        assert self.manager is not None
        if args != (signal.SIGINT,):
            self.manager.stop()
            return
        again = self.status is Exit.INTERRUPTED
        self.status = Exit.INTERRUPTED
        self.manager.stop(now=again)
        if not again and sys.stderr.isatty():
            print("\nstopping; press Ctrl-C again to kill all processes", file=sys.stderr)

    def handle_reload(self, handle: object, *args: Any) -> None:
        if self._previous.get(signal.SIGHUP) is not dispositions.ignore:  # nohup(1)
            self.handle_quit(handle, signal.SIGHUP)

    def output_broke(self, error: Exception) -> None:
        assert self.manager is not None
        self.status = Exit.BROKEN_PIPE
        if isinstance(error, OSError) and error.errno not in (errno.EPIPE, errno.EIO):
            self.error = error
        self.manager.stop()


class _Progress:
    """Shows what jobs wait for, and stops the manager once no job can run any more.

    `exit_code` is then that of the first job that failed. The manager stops when one in `essential` has ended; jobs in
    `restartable` run again when files change.
    """

    def __init__(self, console: ConsoleOutput, essential: Collection[str], restartable: Collection[str]) -> None:
        self.exit_code = 0
        self._console = console
        self._essential = essential
        self._restartable = restartable
        self._manager: Manager | None = None
        self._shown: dict[str, str] = {}
        self._handlers = (
            *(("completed", self._on_end), ("failed", self._on_end)),
            *(("exit", self._on_exit), ("start_failed", self._on_exit), ("ready", self._on_ready)),
        )
        # Of processes by job and slot:
        self._exited: dict[tuple[str, int], int] = {}  # pids whose exits are shown
        self._failing: set[tuple[str, int]] = set()  # those that were in back-off and are not ready again

    def start(self, loop: asyncio.AbstractEventLoop, manager: Manager) -> None:
        self._manager = manager
        manager.on_change(self._on_change)
        for event, handler in self._handlers:
            manager.events.subscribe(event, handler)

    def stop(self) -> None:
        if self._manager is not None:
            self._manager.off_change(self._on_change)
            for event, handler in self._handlers:
                self._manager.events.unsubscribe(event, handler)

    def restart(self) -> None:
        """Do nothing; there is nothing to begin again."""

    def _on_end(self, event: str, message: Mapping[str, Any]) -> None:
        if message["name"] in self._essential:
            self._console.show(message["name"], "is essential: stopping all jobs")

    def _on_change(self) -> None:
        assert self._manager is not None
        if not self._manager.active:
            return
        infos = {name: self._manager.info(name) for name in self._manager.jobs()}
        for name, info in infos.items():
            waiting = info["reason"] if info["state"] == JobState.WAITING else None
            self._show_waiting(parse_job_name(name).display, waiting or "")
            self._show_backoff(parse_job_name(name).display, info)
        states = {name: JobState(info["state"]) for name, info in infos.items()}
        if not any(self._can_run(name, states) for name in states):
            failures = [info["last_exit"] for info in infos.values() if info["state"] == JobState.FAILED]
            if failures:
                self.exit_code = _status(min(failures, key=lambda last: last["at"] if last else 0.0))
            self._manager.stop()

    def _show_waiting(self, name: str, reason: str) -> None:
        text = reason.partition(":")[0]  # what follows changes often
        if text != self._shown.get(name, ""):
            self._shown[name] = text
            if reason:
                self._console.show(name, reason.partition(" (")[0])  # the rest is shown for the other job

    def _on_exit(self, event: str, message: Mapping[str, Any]) -> None:
        """Note that the console shows an exit or a failed start."""
        assert self._manager is not None
        if not self._manager.active:
            return
        name, pid, slot = message["name"], message.get("pid", 0), message.get("slot")
        info = self._manager.info(name)
        # A start that failed has no slot any more.
        for each in info["instances"]:
            if each["slot"] == slot or not slot:
                self._exited[name, each["slot"]] = pid
        self._show_backoff(name, info)

    def _show_backoff(self, name: str, info: JobInfo) -> None:
        """Show which processes are in back-off, once the console shows the exits that are the reason."""
        for each in info["instances"]:
            slot, delay = each["slot"], each["retry_in"]
            if each["state"] == SlotState.STOPPING:
                continue
            pid = self._exited.pop((name, slot), None)
            if pid is None or delay is None or each["state"] != SlotState.BACKOFF:
                continue
            last, why = info["last_exit"], info["reason"]
            if last is not None and not why:  # other processes of the job run
                why = f"the last process ended with {ending(last['exit_code'], last['term_signal'])}"
            self._console.show(name, f"in back-off, next start in {delay:.1f} s: {why}", slot, after=pid)
            self._failing.add((name, slot))

    def _on_ready(self, event: str, message: Mapping[str, Any]) -> None:
        """Show that a process that was in back-off works again."""
        name, slot = message["name"], message.get("slot", 0)
        if (name, slot) in self._failing:
            self._failing.discard((name, slot))
            self._console.show(name, "is back", slot, after=message.get("pid", 0))

    def _can_run(self, name: str, states: dict[str, JobState]) -> bool:
        """Return whether a job runs, or can run later without anybody's help."""
        assert self._manager is not None
        job = parse_job_name(name)
        if job.name in self._restartable:
            return True
        if states[name] in _ENDED:
            return False
        if states[name] != JobState.WAITING:
            return True
        others = [str(each.job) for each in dependencies(self._manager.get(name).after, job.session)]
        return all(states[other] == JobState.COMPLETED or self._can_run(other, states) for other in others)


def _status(last: ExitInfo | None) -> int:
    """Return the exit status of a command for the last exit of a failed job, as in a shell."""
    if last is None:
        return Exit.FAILED
    return 128 + last["term_signal"] if last["term_signal"] else last["exit_code"] or Exit.FAILED


class _Watching:
    """Restarts jobs whose files change; `names` are those of the jobs that watch files."""

    def __init__(self, console: ConsoleOutput, configs: Sequence[ProcessConfig]) -> None:
        self._console = console
        self._folders = {config.name: config.cwd or os.getcwd() for config in configs if config.watch}
        self._patterns = {config.name: config.watch for config in configs if config.watch}
        self._manager: Manager | None = None
        self._watcher: FileWatcher[str] | None = None

    @property
    def names(self) -> list[str]:
        return list(self._patterns)

    def start(self, loop: asyncio.AbstractEventLoop, manager: Manager) -> None:
        self._manager = manager
        if self._patterns:
            jobs = {name: Watched(patterns, self._folders[name]) for name, patterns in self._patterns.items()}
            self._watcher = FileWatcher(loop, jobs, self._on_change, warn)
            self._watcher.start()

    async def stop(self) -> None:
        if self._watcher is not None:
            await self._watcher.stop()

    def restart(self) -> None:
        """Do nothing; files are watched all the time."""

    def _on_change(self, name: str, paths: Sequence[str]) -> None:
        assert self._manager is not None
        if not self._manager.active:
            return
        first = os.path.relpath(paths[0], self._folders[name])
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        self._console.show(name, f"restarting, {first}{more} changed")
        self._manager.restart_job(name)
