"""Records the audit of the node and the notable events of its jobs."""

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from gaffer import Manager, __version__
from gaffer.jobs.states import exit_failed
from gaffer.runtime.repeats import PERIOD, Repeats
from gaffer.schemas.history import AUDIT, AuditEntry, HistoryPage, Outcome, new_entry
from gafferd.history.store import Store

# The events of jobs that are recorded, and what they say about the outcome.
EVENTS: Mapping[str, Outcome] = {
    "exit": "failed",  # unless it was expected
    "failed": "failed",
    "flap": "failed",
    "completed": "ok",
    "limit_exceeded": "failed",
    "not_live": "failed",
    "start_failed": "failed",
    "rollout": "ok",
    "rollout_done": "ok",
    "rollout_failed": "failed",
    "run_skipped": "failed",
    "disabled": "ok",
    "enabled": "ok",
}

_MAX_JOBS = 32  # jobs and events with an entry of their own a minute
_MAX_TEXT = 500  # characters of a value
_WRITE_DELAY = 0.02  # seconds for which entries are collected: waking a thread for each costs more than the entry
_MAX_UNWRITTEN = 500  # entries that are collected
_NOT_SHOWN = ("event", "name", "job", "session", "pid", "env", "output", "exit_status", "once", "stopped", "rusage")


def _ignore(_entry: AuditEntry) -> None:
    """Do nothing."""


class History:
    """Application that records the entries `audit` of the manager and the events of jobs; see EVENTS.

    Starting before the HTTP API and stopping after it, it misses none of its calls. `on_entry` is called with each
    entry.
    """

    def __init__(self, path: Path, on_entry: Callable[[AuditEntry], None] = _ignore) -> None:
        self._on_entry = on_entry
        self._store = Store(path)
        self._repeats: Repeats[AuditEntry] = Repeats(_MAX_JOBS)
        self._reader = ThreadPoolExecutor(1, "history")
        self._manager: Manager | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._unwritten: list[AuditEntry] = []
        self._writing: asyncio.TimerHandle | None = None

    @property
    def lost(self) -> int:
        """The number of entries that could not be written."""
        return self._store.lost

    async def read(self, **wanted: Any) -> HistoryPage:
        """Return entries, see Store.read."""
        self._write()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._reader, partial(self._store.read, **wanted))

    def note(self, action: str, *, outcome: Outcome = "ok", caller: str | None = None, **details: Any) -> None:
        """Record something that happened to the node without a call, and publish it."""
        assert self._manager is not None
        entry = new_entry(time.time(), "node", action, outcome=outcome, caller=caller, details=details)
        self._manager.events.publish_unlisted(AUDIT, {"event": AUDIT, **entry})

    def start(self, loop: asyncio.AbstractEventLoop, manager: Manager) -> None:
        """Start recording."""
        self._manager = manager
        self._store.start()
        self._reader.submit(int)  # starts the thread, for which there may be no memory later; see Workers
        manager.events.subscribe(AUDIT, self._on_audit)
        for event in EVENTS:
            manager.events.subscribe(event, self._on_event)
        self.note("start", version=__version__)

    def quiesce(self) -> None:
        """Record that the node stops, unless it hands over."""
        assert self._manager is not None
        if not self._manager.handing_over:
            self.note("stop")

    async def stop(self) -> None:
        """Record the last entries and close the file."""
        assert self._manager is not None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._manager.events.flush()
        self._collect(all_periods=True)
        self._write()
        for event in (AUDIT, *EVENTS):
            self._manager.events.unsubscribe(event, self._on_audit if event == AUDIT else self._on_event)
        await asyncio.get_running_loop().run_in_executor(self._reader, self._store.close)
        self._reader.shutdown(wait=False)

    def _on_audit(self, _name: str, message: Mapping[str, Any]) -> None:
        entry: Any = {key: value for key, value in message.items() if key != "event"}
        self._append(entry)

    def _on_event(self, name: str, message: Mapping[str, Any]) -> None:
        assert self._manager is not None
        if name == "exit" and not exit_failed(message["exit_code"], message["reason"], stopped=message["stopped"]):
            return
        entry = new_entry(
            time.time(),
            "job",
            name,
            session=message["session"],
            job=message["job"],
            pid=message.get("pid"),
            outcome=EVENTS[name],
            details={key: _shortened(value) for key, value in message.items() if key not in _NOT_SHOWN},
        )
        loop = self._manager.loop
        self._timer = self._timer or loop.call_later(PERIOD, self._again)
        if self._repeats.admit((message["job"], name), entry, loop.time()):
            self._append(entry)

    def _append(self, entry: AuditEntry) -> None:
        self._on_entry(entry)
        self._unwritten.append(entry)
        if len(self._unwritten) >= _MAX_UNWRITTEN:
            self._write()
        elif self._writing is None:
            assert self._manager is not None
            self._writing = self._manager.loop.call_later(_WRITE_DELAY, self._write)

    def _write(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
        if self._unwritten:
            self._store.append(*self._unwritten)
            self._unwritten.clear()

    def _again(self) -> None:
        assert self._manager is not None
        self._collect()
        self._timer = None if self._repeats.idle else self._manager.loop.call_later(PERIOD, self._again)

    def _collect(self, *, all_periods: bool = False) -> None:
        assert self._manager is not None
        for summary in self._repeats.collect(self._manager.loop.time(), all_periods=all_periods):
            entry: AuditEntry = {**summary.last, "count": summary.count}
            if summary.mixed:
                entry = {**entry, "session": None, "job": None, "pid": None, "details": {}}
            self._append(entry)


def _shortened(value: Any) -> Any:
    return value[:_MAX_TEXT] if isinstance(value, str) else value
