"""The console: what people see of events and output, on streams that are fast, slow or gone."""

import asyncio
import io
import itertools
import os
import pty
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from gaffer import Manager
from gaffer.console_output import GAFFER_COLORS, Color, ConsoleOutput, colored, status_bar
from gaffer.errors import BadValue
from gaffer.process import ProcessConfig
from support.managers import running_manager
from support.poll import eventually

HUES = ("cyan", "yellow", "green", "magenta", "red", "blue")


class Screen(io.StringIO):
    """A stream without a descriptor, as a test or a notebook has; says that it is a terminal when asked to."""

    def __init__(self, terminal: bool = False) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    def lines(self) -> list[str]:
        return self.getvalue().splitlines()

    def texts(self, name: str) -> list[str]:
        """What stands behind the name, of lines of this name."""
        return [line.partition(" | ")[2] for line in self.lines() if line.partition(" | ")[0].endswith(f" {name}")]


def shell(name: str, script: str, **settings: Any) -> ProcessConfig:
    return ProcessConfig(
        name,
        "/bin/sh",
        args=["-c", script],
        redirect_output=["out", "err"],
        **{"backoff": 30, "startsecs": 30, **settings},
    )


@contextmanager
def screen_of(
    *configs: ProcessConfig, terminal: bool = False, colorize: bool = False, **options: Any
) -> Iterator[Screen]:
    screen = Screen(terminal)
    with running_manager([ConsoleOutput(colorize, stream=screen, **options)]) as manager:
        manager.load_all(configs, "default")
        yield screen


@contextmanager
def started_later(console: ConsoleOutput, manager: Manager) -> Iterator[None]:
    """Start the console in a manager that runs already."""

    async def start() -> None:
        console.start(manager.loop, manager)

    asyncio.run_coroutine_threadsafe(start(), manager.loop).result(5)
    yield
    asyncio.run_coroutine_threadsafe(console.stop(), manager.loop).result(5)


def settled(screen: Screen, name: str) -> list[str]:
    """The texts of a process that ends by itself, once its end is shown."""
    eventually(lambda: any(text.startswith("exit process") for text in screen.texts(name)))
    return screen.texts(name)


@pytest.mark.row("GF-21", "MISC-CO-01", "MISC-CO-08", "CHG-21")
def test_a_process_is_shown_from_spawn_to_exit_with_its_os_pid_and_its_output_between() -> None:
    with screen_of(shell("web", "echo I am $$; echo trouble >&2; exit 3")) as screen:
        texts = settled(screen, "web")
    found = re.search(r"I am (\d+)", screen.getvalue())
    assert found is not None
    pid = found[1]
    assert texts[:2] == ["start", f"spawn process with pid {pid}"]
    assert sorted(texts[2:4]) == [f"I am {pid}", "trouble"]
    assert texts[4] == f"exit process with pid {pid} (exit code 3)"
    assert all(re.fullmatch(r"\d\d:\d\d:\d\d web \| .+", line) for line in screen.lines() if " web " in line)


def test_names_can_be_aligned_and_numbered_where_there_is_no_terminal() -> None:
    several = shell("web", "echo I am $GAFFER_INSTANCE; sleep 1000", numprocesses=2)
    with screen_of(several, shell("worker", "echo hello; sleep 1000"), align=True, numbered=True) as screen:
        eventually(lambda: all(text in screen.getvalue() for text in ("I am 1", "I am 2", "hello")))
    assert all(f"web.{n} | I am {n}" in screen.getvalue() for n in (1, 2))
    assert "worker | hello" in screen.getvalue()


@pytest.mark.row("MISC-CO-01")
def test_not_one_process_is_missed_however_short_it_lives() -> None:
    jobs = [shell(f"job{n}", f"echo {n}") for n in range(40)]
    with screen_of(*jobs) as screen:
        eventually(lambda: screen.getvalue().count("exit process") == 40)
    for n in range(40):
        assert str(n) in screen.texts(f"job{n}")


@pytest.mark.row("GF-21")
@pytest.mark.parametrize(
    ("script", "ending"), [("exit 0", ""), ("exit 7", " (exit code 7)"), ("kill -9 $$", " (SIGKILL)")]
)
def test_the_reason_of_an_exit_is_shown(script: str, ending: str) -> None:
    with screen_of(shell("web", script)) as screen:
        assert re.fullmatch(r"exit process with pid \d+" + re.escape(ending), settled(screen, "web")[-1])


def test_probes_that_fail_are_shown_with_the_error_and_as_the_reason_of_the_exit() -> None:
    config = shell("web", "sleep 1000", live="exec:sh -c 'exit 3'", live_interval=0.1, live_failures=1, startsecs=0)
    with screen_of(config, actions=["exit", "not_live", "ready"]) as screen:
        texts = settled(screen, "web")
    assert re.sub(r"\d+", "N", "\n".join(texts[:3])) == (
        "process with pid N is ready\nprocess with pid N is not live: exited with N\n"
        "exit process with pid N (SIGTERM, not live)"
    )


def test_a_program_can_show_lines_about_jobs() -> None:
    screen = Screen()
    console = ConsoleOutput(False, stream=screen)
    with running_manager() as manager:
        console.show("web", "too early")
        with started_later(console, manager):
            manager.loop.call_soon_threadsafe(console.show, "web", "restarting")
            eventually(lambda: screen.texts("web"))
    assert screen.texts("web") == ["restarting"]


def test_a_program_that_is_not_there_is_told_when_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL", "gaffer.manager")
    with screen_of(ProcessConfig("web", "no-such-program"), actions=["start_failed"]) as screen:
        eventually(lambda: screen.texts("web") == ["can't be started: there is no program 'no-such-program'"])


@pytest.mark.row("MISC-CO-08")
@pytest.mark.parametrize(
    ("script", "lines"),
    [
        (r"printf '\377\376 caf\303\251\n'", ["\ufffd\ufffd café"]),
        ("printf 'no end'", ["no end"]),
        ("printf 'half '; sleep 0.1; printf 'whole\\n'", ["half whole"]),
        (r"printf 'dos\r\nlines\r\n'", ["dos", "lines"]),
        (r"printf '10%%\r20%%\rdone\n'", ["done"]),
        (r"printf '\n\nempty\n'", ["", "", "empty"]),
        (r"printf '\033[31mred\n'", ["\x1b[31mred\x1b[0m"]),
    ],
)
def test_whatever_a_process_writes_becomes_lines(script: str, lines: list[str]) -> None:
    with screen_of(shell("web", script), actions=["spawn", "exit"]) as screen:
        assert settled(screen, "web")[1:-1] == lines


def test_a_line_that_does_not_end_is_shown_in_pieces() -> None:
    with screen_of(shell("web", "head -c 200000 /dev/zero | tr '\\0' x; sleep 100")) as screen:
        eventually(lambda: sum(text.count("x") for text in screen.texts("web")) > 100_000)


@pytest.mark.row("MISC-CO-02")
def test_without_output_streams_only_events_are_shown() -> None:
    with screen_of(shell("web", "echo hidden"), output_streams=False) as screen:
        assert "hidden" not in settled(screen, "web")


@pytest.mark.row("MISC-CO-01")
def test_output_that_is_not_redirected_is_not_shown() -> None:
    with screen_of(ProcessConfig("web", "/bin/sh", args=["-c", "echo hidden"], backoff=30)) as screen:
        assert "hidden" not in settled(screen, "web")


@pytest.mark.row("MISC-CO-03")
def test_actions_choose_the_events() -> None:
    assert ConsoleOutput.DEFAULT_ACTIONS == ["start", "stop", "spawn", "reap", "exit", "stop_pid"]
    with screen_of(shell("web", "true"), actions=["exit"]) as screen:
        assert [text.split()[0] for text in settled(screen, "web")] == ["exit"]


@pytest.mark.row("MISC-CO-03")
def test_a_point_shows_every_event_once() -> None:
    with screen_of(shell("web", "true"), actions=["."]) as screen:
        kinds = [text.split()[0] for text in settled(screen, "web")]
    assert kinds == ["create", "start", "spawn", "exit"]


@pytest.mark.row("MISC-CO-03")
def test_stops_are_shown() -> None:
    screen = Screen()
    with running_manager([ConsoleOutput(False, stream=screen)]) as manager:
        manager.load(ProcessConfig("web", "sleep", args=["100"], numprocesses=2))
        eventually(lambda: len(manager.pids("web")) == 2)
        manager.scale("web", -1)
        eventually(lambda: len(manager.running) == 1)
        manager.stop_job("web")
        eventually(lambda: not manager.running)
    kinds = [text.split()[0] for text in screen.texts("web")]
    assert kinds == ["start", "spawn", "spawn", "reap", "exit", "stop", "stop", "exit", "stop"]


def test_a_job_that_is_disabled_says_why() -> None:
    screen = Screen()
    with running_manager([ConsoleOutput(False, stream=screen, actions=["disabled", "enabled"])]) as manager:
        manager.load(ProcessConfig("web", "sleep", args=["100"]), start=False)
        manager.disable("web", "disk is replaced")
        manager.disable("web", "moved", 3600)
        manager.enable("web")
        eventually(lambda: len(screen.texts("web")) == 3)
    first, second, third = screen.texts("web")
    assert first == "disabled: disk is replaced"
    assert re.fullmatch(r"disabled until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC: moved", second)
    assert third == "enabled"


@pytest.mark.row("MISC-CO-02", "MISC-CO-04", "MISC-CO-06")
def test_each_template_has_its_colour_and_they_rotate() -> None:
    jobs = [shell(f"job{n:02}", "echo hello") for n in range(14)]
    with screen_of(*jobs, colorize=True) as screen:
        eventually(lambda: screen.getvalue().count("exit process") == 14)
    for n in range(14):
        prefixes = {line.partition(" ")[2].partition("|")[0] for line in screen.lines() if f"job{n:02}" in line}
        assert prefixes == {colored(GAFFER_COLORS[n % 12], f"job{n:02} |").partition("|")[0]}


@pytest.mark.parametrize(("terminal", "names"), [(True, {"a      |", "longer |"}), (False, {"a |", "longer |"})])
def test_names_are_aligned_on_a_terminal_and_only_there(terminal: bool, names: set[str]) -> None:
    screen = Screen(terminal)
    with running_manager() as manager:
        manager.load_all([shell("a", "echo hello"), shell("longer", "echo hello")], "default", start=False)
        with started_later(ConsoleOutput(False, stream=screen), manager):
            manager.start_job("a")
            manager.start_job("longer")
            eventually(lambda: screen.getvalue().count("exit process") == 2)
    assert {line[9:].partition("|")[0] + "|" for line in screen.lines()} == names


@pytest.mark.row("MISC-CO-05", "MISC-CO-06")
def test_colors() -> None:
    assert (*HUES, *(f"intense_{hue}" for hue in HUES)) == GAFFER_COLORS
    assert len({colored(name, "x") for name in GAFFER_COLORS}) == 12
    assert colored("cyan", "x") == Color().output("cyan", "x") == "\x1b[36mx\x1b[0m"
    assert colored("intense_red", ["one", "two"]) == "\x1b[1;31mone\ntwo\x1b[0m"
    with pytest.raises(BadValue, match="unknown colour 'pink'"):
        colored("pink", "x")


@pytest.mark.row("MISC-CO-07")
def test_status_bar() -> None:
    assert status_bar("all well") == "\x1b[1;37;40mall well\x1b[0m"


def test_restart_goes_on_printing() -> None:
    screen = Screen()
    with running_manager([ConsoleOutput(False, stream=screen)]) as manager:
        manager.load(shell("web", "echo hello; exec sleep 100"))
        eventually(lambda: "hello" in screen.texts("web"))
        manager.restart()
        eventually(lambda: screen.texts("web").count("hello") == 2)


def test_of_processes_that_run_already_what_they_wrote_is_shown() -> None:
    screen = Screen()
    with running_manager() as manager:
        manager.load(shell("web", "echo early; exec sleep 100"))
        eventually(lambda: any(process.ring("out").end for process in manager.list("web")))
        with started_later(ConsoleOutput(False, stream=screen), manager):
            eventually(lambda: screen.texts("web") == ["early"])


# Streams that are slow or gone


def test_a_console_that_does_not_read_holds_up_neither_the_loop_nor_the_processes_nor_the_stop() -> None:
    reading, writing = os.pipe()
    with open(writing, "w") as stream:
        with running_manager([ConsoleOutput(False, stream=stream)]) as manager:
            manager.load(shell("web", "yes | head -c 3000000; exec sleep 100"))
            eventually(lambda: any(process.ring("out").end >= 3_000_000 for process in manager.list("web")))
            turned = threading.Event()
            manager.loop.call_soon_threadsafe(turned.set)
            assert turned.wait(1)
        os.close(reading)  # lets the thread out of its write


def test_what_a_slow_console_missed_is_counted() -> None:
    size = 60_000_000  # more than is kept of an output that comes fast
    reading, writing = os.pipe()
    with open(writing, "w") as stream:
        with running_manager([ConsoleOutput(False, stream=stream, actions=["spawn"])]) as manager:
            manager.load(shell("web", f"yes {'y' * 99} | head -c {size}; echo end; exec sleep 100"))
            eventually(lambda: any(process.ring("out").end >= size + 4 for process in manager.list("web")))
            with open(reading, closefd=False) as reader:
                lines = list(itertools.takewhile(lambda line: not line.endswith("| end\n"), reader))
        os.close(reading)
    skips = [int(found[1]) for line in lines if (found := re.search(r"\| \.\.\. (\d+) bytes skipped", line))]
    shown = sum(100 for line in lines if line.endswith(f"| {'y' * 99}\n"))
    assert sum(skips) > 1_000_000
    assert abs(sum(skips) + shown - size) <= 200 * len(skips)  # each may have cut a line on both sides


@pytest.mark.parametrize("how", ["pipe", "terminal"])
def test_when_the_reader_is_gone_it_says_so_once_and_goes_on(how: str) -> None:
    reading, writing = os.pipe() if how == "pipe" else pty.openpty()
    told: list[str] = []
    with open(writing, "w") as stream:
        console = ConsoleOutput(False, stream=stream, on_broken=lambda error: told.append("broken"))
        with running_manager([console]) as manager:
            os.close(reading)
            manager.load(shell("web", "while :; do echo hello; sleep 0.01; done"))
            eventually(lambda: told)
            eventually(lambda: any(process.ring("out").end > 60 for process in manager.list("web")))
    assert told == ["broken"]
