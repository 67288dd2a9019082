"""ConsoleOutput: an application that prints process events and output to the console.

Each line is `HH:MM:SS name | text`.
"""

import asyncio
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from gaffer.applications.console_lines import RESET, ProcessOutput, now
from gaffer.applications.printer import Printer
from gaffer.errors import BadValue, did_you_mean
from gaffer.jobs.names import parse_job_name
from gaffer.jobs.states import Disabled
from gaffer.process import Process

if TYPE_CHECKING:
    from gaffer.manager import Manager

__all__ = ["GAFFER_COLORS", "Color", "ConsoleOutput", "colored", "status_bar", "wants_color"]

_HUES = {"cyan": 36, "yellow": 33, "green": 32, "magenta": 35, "red": 31, "blue": 34}
_CODES = {
    **{name: f"\x1b[{code}m" for name, code in _HUES.items()},
    **{f"intense_{name}": f"\x1b[1;{code}m" for name, code in _HUES.items()},
}

GAFFER_COLORS = tuple(_CODES)
"""The names of the colours, in the order in which jobs are assigned them."""

_TURNS = 4  # pieces of output that are printed before others have a turn; as many as are read from a pipe
_FLUSH_TIMEOUT = 1.5  # seconds allowed for printing the last lines when the manager stops


def wants_color(stream: TextIO) -> bool:
    """Return whether to use colours: `stream` is a terminal, and NO_COLOR is not set in the environment."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class Color:
    """Text in ANSI colours; prefer `colored`."""

    def output(self, color_name: str, lines: str | Iterable[str]) -> str:
        """Return `lines`, a string or several to join with newlines, in a colour; BadValue for an unknown colour."""
        if color_name not in _CODES:
            raise BadValue(
                f"unknown colour {color_name!r}",
                reason="bad_color",
                hint=did_you_mean(color_name, GAFFER_COLORS) or f"choose one of {', '.join(GAFFER_COLORS)}",
            )
        text = lines if isinstance(lines, str) else "\n".join(lines)
        return f"{_CODES[color_name]}{text}{RESET}"


def colored(name_of_color: str, lines: str | Iterable[str]) -> str:
    """Return `lines`, a string or several to join with newlines, in one of GAFFER_COLORS; BadValue for others."""
    return Color().output(name_of_color, lines)


def status_bar(s: str) -> str:
    """Return `s` in bright white on black."""
    return f"\x1b[1;37;40m{s}{RESET}"


class ConsoleOutput:
    """An application that prints the events of a manager and the redirected output of its processes.

    colorize: give each job its own colour, whether or not the stream supports colours. output_streams: print the output
    of processes, not only events. actions: the events to print, DEFAULT_ACTIONS when None, `["."]` for all. stream:
    where to print, sys.stdout when None. on_broken: called on the loop, with the error, when the stream can't be
    written to any more.
    align: pad the names to equal width, by default on a terminal only; elsewhere names are right-aligned, so that
    `name | text` can be searched for. numbered: label a process `name.SLOT` if its job has several.

    Printing never slows processes down: when they write faster than the console accepts, the oldest output is skipped
    and a line reports how much.
    """

    DEFAULT_ACTIONS = ["start", "stop", "spawn", "reap", "exit", "stop_pid"]  # noqa: RUF012 (documented as a list)

    def __init__(
        self,
        colorize: bool = True,
        output_streams: bool = True,
        actions: Sequence[str] | None = None,
        *,
        stream: TextIO | None = None,
        on_broken: Callable[[Exception], object] = lambda error: None,
        align: bool | None = None,
        numbered: bool = False,
    ) -> None:
        self.colorize = colorize
        self.output_streams = output_streams
        self.actions = list(self.DEFAULT_ACTIONS if actions is None else actions)
        self._stream = stream
        self._on_broken = on_broken
        self._align = align
        self._numbered = numbered
        self._manager: Manager | None = None
        self._printer: Printer | None = None
        self._labels = _Labels()
        self._outputs: dict[int, ProcessOutput] = {}  # by pid
        self._due: deque[ProcessOutput] = deque()
        self._news = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None
        self._skipped = 0  # event lines dropped because the queue was full

    def start(self, loop: asyncio.AbstractEventLoop, manager: "Manager") -> None:
        """Start printing, beginning with the output of running processes that is still buffered."""
        stream = sys.stdout if self._stream is None else self._stream
        self._manager = manager
        terminal = stream.isatty()
        self._labels = _Labels(
            colorize=self.colorize,
            align=terminal if self._align is None else self._align,
            justify=str.ljust if terminal else str.rjust,
            numbered=self._numbered,
        )
        for name in manager.jobs():
            self._labels.reserve(parse_job_name(name).display, manager.get(name).numprocesses)
        self._printer = Printer(loop, stream, self._broken)
        for action in self.actions:
            manager.events.subscribe(action, self._on_event)
        if self.output_streams:
            self._pump = loop.create_task(self._print_outputs(self._printer))
            for process in manager.running.values():
                self._follow(process, held=False)
            manager.on_spawn(self._follow)

    async def stop(self) -> None:
        """Print what is left, waiting at most 1.5 seconds for the console."""
        if self._printer is None:
            return
        self._detach()
        ending = asyncio.ensure_future(self._end(self._printer))
        _, late = await asyncio.wait([ending], timeout=_FLUSH_TIMEOUT)
        if late:
            ending.cancel()
            await asyncio.wait([ending])

    def restart(self) -> None:
        """Do nothing; printing continues."""

    def show(self, name: str, text: str, slot: int = 0, *, after: int = 0) -> None:
        """Print `text` on a line of the job `name`, or of its process in a slot; call on the loop.

        The line follows what the process with the pid `after` has written so far. Ignored unless started.
        """
        if self._manager is not None:
            self._print_after(after, f"{now()} {self._labels.of(name, slot)} {text}\n")

    async def _end(self, printer: Printer) -> None:
        if self._pump is not None:
            await self._pump
        await printer.close()

    def _detach(self) -> None:
        if self._manager is not None:
            for action in self.actions:
                self._manager.events.unsubscribe(action, self._on_event)
            self._manager.off_spawn(self._follow)
            self._manager = None
        self._news.set()

    def _broken(self, error: Exception) -> None:
        self._detach()
        self._outputs.clear()
        self._due.clear()
        self._on_broken(error)

    def _on_event(self, evtype: str, message: Any = None, *_: object) -> None:
        if "." in self.actions and evtype.startswith(("proc.", "job.")):
            return  # already printed under its short name
        event = message if isinstance(message, dict) else {}
        kind = evtype.rpartition(".")[2]
        label = self._labels.of(str(event.get("name", "gaffer")), event.get("slot", 0))
        self._print_after(event.get("pid", 0), f"{now()} {label} {_describe(kind, event)}\n", last=kind == "exit")

    def _print_after(self, pid: int, line: str, *, last: bool = False) -> None:
        """Print a line after the output of a process so far; `last`: no more of its output follows."""
        output = self._outputs.get(pid)
        if output is None:
            self._print(line)
            return
        if output.held:
            self._print(line)
            output.held = False
        else:
            output.add_event(line, last=last)
        self._mark(output)

    def _print(self, line: str) -> None:
        assert self._printer is not None
        if self._skipped and self._printer.put(f"... {self._skipped} lines skipped\n"):
            self._skipped = 0
        if not self._printer.put(line):
            self._skipped += 1

    def _follow(self, process: Process, held: bool | None = None) -> None:
        if not process.rings:
            return
        self._labels.reserve(process.name, process.config.numprocesses)
        label = self._labels.of(process.name, process.slot)
        output = self._outputs[process.pid] = ProcessOutput(process, label)
        # Hold its output back until the line that announces it is printed.
        output.held = bool({"spawn", "."} & set(self.actions)) if held is None else held
        for stream in output.streams:
            stream.ring.watch(lambda: self._mark(output))
        self._mark(output)

    def _mark(self, output: ProcessOutput) -> None:
        if output.pid in self._outputs and not output.marked and not output.held:
            output.marked = True
            self._due.append(output)
            self._news.set()

    async def _print_outputs(self, printer: Printer) -> None:
        turn = 0
        while not printer.broken:
            if self._due:
                output = self._due.popleft()
                output.marked = False
                await printer.write(output.take())
                if output.waiting:
                    self._mark(output)
                elif output.ended:
                    self._outputs.pop(output.pid, None)
                turn = (turn + 1) % _TURNS
                if not turn:
                    await asyncio.sleep(0)
            elif self._manager is None:
                return
            else:
                self._news.clear()
                await self._news.wait()


class _Labels:
    """The names at the start of lines, each job's in its own colour."""

    def __init__(
        self,
        *,
        colorize: bool = False,
        align: bool = False,
        justify: Callable[[str, int], str] = str.ljust,
        numbered: bool = False,
    ) -> None:
        self._colorize = colorize
        self._align = align
        self._justify = justify
        self._numbered = numbered
        self._colors: dict[str, str] = {}
        self._highest: dict[str, int] = {}  # slots, of each name
        self._width = 0

    def reserve(self, name: str, processes: int) -> None:
        """Number the processes of `name` if there are several, and make room for their labels."""
        self._highest[name] = max(processes, self._highest.get(name, 0))
        self.of(name, processes)

    def of(self, name: str, slot: int = 0) -> str:
        """Return `name |`, or `name.SLOT |` for one of several processes, padded to the longest label so far."""
        color = self._colors.setdefault(name, GAFFER_COLORS[len(self._colors) % len(GAFFER_COLORS)])
        self._highest[name] = max(slot, self._highest.get(name, 0))
        label = f"{name}.{slot}" if self._numbered and slot and self._highest[name] > 1 else name
        if self._align:
            self._width = max(self._width, len(label))
        text = f"{self._justify(label, self._width)} |"
        return colored(color, text) if self._colorize else text


def _describe(kind: str, event: dict[str, Any]) -> str:
    pid = event.get("os_pid") or event.get("pid")
    match kind:
        case "spawn" | "reap":
            return f"{kind} process with pid {pid}"
        case "exit":
            return f"exit process with pid {pid}{_ending(event)}"
        case "stop_pid" | "stop_process":
            why = f": {event['message']}" if event.get("message") else ""
            return f"stop process with pid {pid}{why}"
        case "start_failed":
            return f"can't be started: {event.get('message')}"
        case "flap":
            return "exits too often"
        case "not_ready" | "not_live":
            return f"process with pid {pid} is {kind.replace('_', ' ')}: {event.get('error')}"
        case "ready":
            return f"process with pid {pid} is ready"
        case "failed":
            return f"failed: {event.get('reason')}"
        case "limit_exceeded":
            return f"process with pid {pid} is replaced: {event.get('message')}"
        case "disabled":
            return str(Disabled(str(event.get("reason")), 0.0, event.get("until")))
        case "run_skipped":
            return f"run skipped: {event.get('reason')}"
        case _:
            return kind


# Reasons for an exit that the status, or the line before, shows as well.
_PLAIN_REASONS = frozenset(("exited", "signaled", "stopped", "unknown"))


def _ending(event: dict[str, Any]) -> str:
    parts = []
    if number := event.get("term_signal"):
        try:
            parts.append(signal.Signals(number).name)
        except ValueError:  # a real-time signal
            parts.append(f"signal {number}")
    elif code := event.get("exit_code"):
        parts.append(f"exit code {code}")
    if (reason := event.get("reason")) and reason not in _PLAIN_REASONS:
        parts.append("out of memory" if reason == "oom" else str(reason).replace("_", " "))
    return f" ({', '.join(parts)})" if parts else ""
