"""`gaffer top` on a terminal, against a real cluster; its board and keys by themselves."""

import json
import re
import shlex
import signal
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from gaffer_client import Server
from gaffer_client.cli.board import Board, Row
from gaffer_client.cli.screen import fit, split_keys, width
from support.client import Commands
from support.daemons import Daemon, command_path, gafferd, lookupd
from support.needs import needs_tmux
from support.poll import eventually
from support.tmux import Tmux, tmux

HOSTILE = "printf 'one\\n\\033[2J\\033]0;owned\\007two\\302\\2332J\\n'; exec sleep 1000"


@pytest.fixture(scope="module")
def registry() -> Iterator[Daemon]:
    with lookupd("--ttl", "60", "--interval", "20") as registry:
        yield registry


@pytest.fixture(scope="module")
def node(registry: Daemon) -> Iterator[Daemon]:
    """A node with three jobs, of which one fails again and again, and one tries to clear the screen."""
    with gafferd("--lookupd-address", registry.url, "--node-name", "one") as node, Server(node.url) as server:
        server.load({"name": "web", "cmd": "sleep 1000", "numprocesses": 2}, "shop")
        server.load({"name": "bad", "cmd": "sh -c 'exit 3'"}, "shop")
        server.load({"name": "evil", "cmd": f"sh -c {json.dumps(HOSTILE)}"}, "shop")
        eventually(lambda: server.get_job("shop.web").info()["state"] == "running")
        eventually(lambda: server.get_job("shop.bad").info()["state"] == "backoff")
        yield node


@pytest.fixture
def terminal(tmp_path: Path, node: Daemon, registry: Daemon) -> Iterator[Tmux]:
    with tmux(tmp_path, GAFFER_ENDPOINT=node.url, GAFFER_LOOKUPD=registry.url) as terminal:
        yield terminal


TOP = (command_path("gaffer"), "top", "--interval", "0.2")


def row(screen: str, job: str) -> str:
    return next(line for line in screen.splitlines() if job in line)


@needs_tmux
def test_jobs_are_shown_live_and_keys_act_on_them(terminal: Tmux, node: Daemon) -> None:
    terminal.run(*TOP)
    screen = terminal.shows("shop.web", "shop.bad", "shop.evil", "q quit")
    assert re.search(r"JOB +STATE +RUN +CPU% +MEM% +RESTARTS +UP +DETAILS", screen)
    assert re.search(r"shop\.web +running +2/2 ", screen)
    assert re.search(r"shop\.bad +backoff +0/1 .* crash loop", screen)
    with Server(node.url) as server:
        job = server.get_job("shop.web")
        job.scale("=3")
        terminal.shows("3/3")
        terminal.type("End")
        eventually(lambda: row(terminal.screen, "shop.web").startswith(">"))
        eventually(lambda: "\x1b[33mbackoff" in terminal.styled)
        before = job.pids
        terminal.type("r")
        terminal.shows("restart shop.web on")
        terminal.type("n")
        terminal.hides("y/n")
        assert job.pids == before
        terminal.type("r", "y")
        terminal.shows("done")
        eventually(lambda: set(job.pids).isdisjoint(before))
        terminal.type("s", "y")
        terminal.shows("stopped", "0/3")
        job.start()
        terminal.shows("2/2")
    assert "shop.bad" in terminal.shows("(by state)", "1 in backoff").splitlines()[2]
    terminal.type("o")
    terminal.shows("(by cpu)")
    terminal.type("o", "o")
    assert "shop.bad" in terminal.shows("(by restarts)").splitlines()[2]
    terminal.type("q")
    eventually(lambda: terminal.value("#{alternate_on}") == "0")


@needs_tmux
def test_logs_are_followed_and_do_not_steer_the_terminal(terminal: Tmux, node: Daemon) -> None:
    terminal.run(*TOP, "--cluster")
    terminal.shows("one", "shop.evil")
    terminal.type("o", "o", "o", "o", "Home", "Down")
    terminal.shows("(by name)")
    eventually(lambda: row(terminal.screen, "shop.evil").startswith(">"))
    terminal.type("l")
    screen = terminal.shows("log of shop.evil on one", "1 | one", "two")
    assert "\N{REPLACEMENT CHARACTER}[2J" in screen
    assert terminal.value("#{pane_title}") != "owned"
    terminal.type("q")
    terminal.shows("RESTARTS")


@needs_tmux
def test_no_screen_is_drawn_where_it_would_show_nothing(terminal: Tmux, closed: str) -> None:
    terminal.run(*TOP, "-g", closed)
    terminal.shows("can't reach", "gaffer doctor")
    terminal.type("clear", "Enter")
    terminal.type("TERM=dumb ")
    terminal.run(*TOP)
    terminal.shows("this terminal can't move its cursor, as TERM says")


@needs_tmux
def test_a_terminal_of_any_size_is_used(terminal: Tmux) -> None:
    terminal.run(*TOP)
    terminal.shows("DETAILS")
    terminal.resize(40, 8)
    terminal.hides("RESTARTS")
    assert re.search(r"> shop\.\w+ ", terminal.shows("JOB"))
    terminal.resize(10, 3)
    terminal.shows("JOB")
    terminal.resize(3, 1)
    eventually(lambda: terminal.screen == "q q\n")
    terminal.resize(160, 12)
    terminal.shows("DETAILS", "crash loop", "the last process exited with 3")


@needs_tmux
def test_the_terminal_is_restored_whatever_ends_the_command(terminal: Tmux) -> None:
    crash = "from gaffer_client.cli.screen import Screen\nwith Screen(): raise ValueError('crashed')"
    for words, keys, status in (
        (TOP, "q", 0),
        (TOP, "C-c", 130),
        (TOP, signal.SIGTERM, 143),
        (TOP, signal.SIGHUP, 129),
        ((sys.executable, "-c", crash), "", 1),
    ):
        terminal.type("clear", "Enter")
        # Not by bash, which sets the modes of the terminal itself.
        terminal.run("sh", "-c", f"trap : INT; {shlex.join(words)}; echo status $?; stty; echo end")
        if keys:
            terminal.shows("q quit")
        if isinstance(keys, signal.Signals):
            psutil.Process(int(terminal.value("#{pane_pid}"))).children(recursive=True)[-1].send_signal(keys)
        elif keys:
            terminal.type(keys)
        screen = terminal.shows(f"status {status}\n", "end\n")
        assert terminal.value("#{alternate_on} #{cursor_flag}") == "0 1"
        assert "speed" in screen
        assert not {"-icanon", "-echo"} & set(screen.split())
        assert "ValueError: crashed" in screen or keys
    terminal.type("clear", "Enter")
    terminal.run(*TOP)
    terminal.shows("q quit")
    terminal.type("C-z")
    terminal.shows("Stopped")
    assert terminal.value("#{alternate_on} #{cursor_flag}") == "0 1"
    terminal.type("fg", "Enter")
    terminal.shows("q quit")
    terminal.type("q")
    eventually(lambda: terminal.value("#{alternate_on}") == "0")


@needs_tmux
def test_a_node_that_goes_and_comes_back(tmp_path: Path, registry: Daemon, node: Daemon) -> None:
    options = ("--lookupd-address", registry.url, "--node-name", "two")
    with tmux(tmp_path, NO_COLOR="1", GAFFER_LOOKUPD=registry.url) as terminal:
        first = gafferd(*options, state_dir=tmp_path / "two")
        with first as two:
            with Server(two.url) as server:
                server.load({"name": "db", "cmd": "sleep 1000"}, "shop")
            terminal.run(*TOP, "--cluster")
            terminal.shows("shop.db", "shop.web")
            assert "\x1b" not in terminal.styled.replace("\x1b[39m", "").replace("\x1b[49m", "")
            two.kill()
            terminal.shows("! two: can't reach", "1 unreachable", "shop.web")
            with gafferd(*options, "--bind", f"127.0.0.1:{two.port}", state_dir=tmp_path / "two"):
                terminal.hides("unreachable")
                terminal.shows("shop.db")


def test_without_a_terminal(
    gaffer: Commands, node: Daemon, registry: Daemon, closed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAFFER_LOOKUPD", registry.url)
    ran = gaffer("top", "-g", node.url)
    assert (ran.status, ran.out) == (2, "")
    assert "--once" in ran.err
    ran = gaffer("top", "-g", node.url, "--once")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith(f"{node.url}: 3 jobs, 1 in backoff, ")
    assert gaffer("top", "-g", "one", "--once").out.startswith("one: 3 jobs, ")
    assert re.search(r"^  shop\.web +running +2/2", ran.out, re.MULTILINE)
    assert "\x1b" not in ran.out
    ran = gaffer("top", "--cluster", "--once", "--json")
    [found] = json.loads(ran.out)["nodes"]
    assert found["node"] == "one"
    assert {job["name"] for job in found["jobs"]} == {"shop.web", "shop.bad", "shop.evil"}
    ran = gaffer("top", "-g", closed, "--once")
    assert ran.status == 3
    assert "can't reach" in ran.out
    assert gaffer("top", "-g", node.url, "--once", "--interval", "0").status == 2


def a_row(**fields: Any) -> Row:
    usual = Row("one", "shop.web", "running", 1, 1, 0, 1.0, 2.0, 3.0, "")
    return usual._replace(**fields)


WORDS = st.text(st.characters(codec="utf-8"), max_size=12)
ROWS = st.builds(a_row, node=WORDS, job=WORDS, state=WORDS, details=WORDS, uptime=st.none() | st.floats(0, 1e9))


@settings(max_examples=60, phases=(Phase.explicit, Phase.generate))
@given(
    st.lists(ROWS, max_size=12),
    st.dictionaries(WORDS, WORDS, max_size=3),
    st.lists(st.sampled_from(["up", "down", "page down", "end", "o", "r", "y", "l", "escape", "s"]), max_size=8),
    st.integers(1, 120),
    st.integers(1, 20),
    st.booleans(),
)
def test_every_screen_is_filled_exactly_and_has_no_control_characters(
    rows: list[Row], failures: dict[str, str], keys: list[str], columns: int, height: int, several: bool
) -> None:
    board = Board("title", several=several, colour=False)
    board.update(rows, failures)
    for key in keys:
        board.press(key)
        lines = board.render(columns, height)
        assert len(lines) == height
        assert all(line.isprintable() and width(line) == columns for line in lines)


def test_the_selected_job_stays_selected_and_visible() -> None:
    board = Board("title", several=False, colour=False)
    board.update([a_row(job=f"shop.j{index:02}") for index in range(30)], {})
    for _ in range(20):
        board.press("down")
    assert any(line.startswith("> shop.j20") for line in board.render(80, 10))
    board.update([a_row(job=f"shop.j{index:02}", cpu=float(index)) for index in range(30)], {})
    assert any(line.startswith("> shop.j20") for line in board.render(80, 10))
    board.update([a_row(job="shop.j01")], {})
    assert any(line.startswith("> shop.j01") for line in board.render(80, 10))
    board.update([], {})
    assert not any(line.startswith(">") for line in board.render(80, 10))
    assert board.press("r") is None


def test_jobs_that_need_attention_come_first_and_then_those_that_use_most() -> None:
    def listed(job: str, state: str, reason: str | None = None, **more: Any) -> Row:
        numbers = {"running": 1, "max_processes": 1, "restarts": 3, "instances": [], "stats": None, **more}
        info: Any = {"name": job, "state": state, "reason": reason, **numbers}
        return Row.of("one", info)

    stats = {"cpu": 9.0, "mem": 1.0}
    waiting: Any = [{"pid": None, "state": "backoff", "retry_in": 6.04}, {"pid": None, "state": "backoff"}]
    board = Board("cluster", several=False, colour=False, live=False)
    rows = [
        listed("s.idle", "running"),
        listed("s.busy", "running", stats=stats),
        listed("s.loop", "running", "crash loop, 3 times in a row"),
        listed("s.back", "backoff", "it exited with 3", instances=waiting),
        listed("s.dead", "failed", "given up"),
    ]
    board.update(rows, {})
    lines = board.render(120, 8)[2:7]
    assert [line.split()[0] for line in lines] == ["s.dead", "s.back", "s.loop", "s.busy", "s.idle"]
    assert lines[1].rstrip().endswith("it exited with 3; next start in 6.0 s")


def test_a_narrow_screen_shows_what_is_wrong_and_what_is_asked() -> None:
    board = Board("cluster", several=True, colour=False)
    why = "crash loop, 7 times in a row: the last process exited with 3 after 0.3 s"
    board.update([a_row(), a_row(job="shop.worker", state="backoff", running=0, details=why, cpu=0.0)], {})
    board.press("end")
    wide = board.render(160, 10)
    assert wide[0].startswith("cluster: 2 jobs, 1 in backoff, 1 process, cpu 1.0%, 0 restarts")
    assert wide[3].endswith(f"  {why}".ljust(160 - wide[3].index("  crash")))
    assert not wide[-2].strip()
    assert board.render(80, 10)[-2:] == [
        why.ljust(80),
        "q quit  r restart  s stop  l logs  o order  (by state)".ljust(80),
    ]
    assert board.render(40, 10)[-2:] == [why[:40], "q quit  r restart  s stop  l logs".ljust(40)]
    narrow = [line.rstrip() for line in board.render(20, 10)]
    assert narrow[:4] == ["cluster: 2 jobs", "  JOB", "  shop.web", ">!shop.worker"]
    assert narrow[-2:] == ["one backoff 0/1: cra", "q quit  r restart"]
    board.press("s")
    feet = [board.render(columns, 10)[-1].rstrip() for columns in (40, 24, 12)]
    assert feet == ["stop shop.worker on one? y/n", "stop shop.worker? y/n", "stop? y/n"]
    assert [line.strip() for line in board.render(20, 4)] == [*narrow[:1], "JOB", ">!shop.worker", "stop? y/n"]


def test_a_long_line_of_a_log_goes_on_on_the_next_one() -> None:
    board = Board("title", several=False, colour=False)
    board.update([a_row()], {})
    board.press("down")
    assert board.press("l") is not None
    board.add_lines(["first", "1 | abcdefghijkl", "日本日本日本", "x          y"])
    shown = ["first", "1 | abcdef", "ghijkl", "日本日本日", "本", "x", " y"]
    for rows in range(3, 11):
        assert [line.rstrip() for line in board.render(10, rows)[1:-1] if line.strip()] == shown[-(rows - 2) :]


def test_columns_are_left_out_from_the_right() -> None:
    board = Board("title", several=True, colour=False)
    board.update([a_row(details="why")], {})
    seen = [board.render(columns, 5)[1].split() for columns in (80, 60, 40, 30, 20, 12)]
    assert seen[0] == ["NODE", "JOB", "STATE", "RUN", "CPU%", "MEM%", "RESTARTS", "UP", "DETAILS"]
    assert all(set(later) <= set(earlier) for earlier, later in pairwise(seen))
    assert seen[-1] == ["JOB"]


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"q", ["q"]),
        (b"\x1b[A\x1b[Bq", ["up", "down", "q"]),
        (b"\x1b", ["escape"]),
        (b"\x1b[5~\x1b[6~\r", ["page up", "page down", "enter"]),
        (b"\x1b[99;1R", []),
        (b"\x00\xc3\xa4r", ["r"]),
    ],
)
def test_keys(data: bytes, keys: list[str]) -> None:
    assert list(split_keys(data)) == keys


def test_texts_are_cut_by_the_columns_they_take() -> None:
    assert fit("abc", 5) == "abc  "
    assert fit("abc", 2) == "ab"
    assert fit("日本", 3) == "日 "
    assert fit("e\u0301x", 2) == "e\u0301x"
