"""What people see: columns, units, colours, names of nodes."""

import io
import json
import os
import pty
import re
import subprocess
import sys
import termios
from contextlib import redirect_stdout
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaffer_client.cli.output import (
    abridged,
    age,
    cause_of,
    clock,
    coloured,
    moment,
    print_json,
    print_json_line,
    printable,
    signal_name,
    size,
    table,
)
from gaffer_client.cli.topology import job_table, node_table
from gaffer_client.naming import display_name

NODE: Any = {"name": "one", "origin": "http://10.0.0.7:5000", "version": "0.1"}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


TABLE = """
from gaffer_client.cli.output import table
why = "crash loop, 7 times in a row: the last process exited with 3"
print(table(("JOB", "RUN", "DETAILS"), [("shop.worker", "0/1", why), ("shop.web", "1/1", "-")]))
"""


def printed(columns: int | None) -> list[str]:
    """Return the lines of a table on a terminal of this width, or in a pipe."""
    ours, theirs = pty.openpty()
    if columns is not None:
        termios.tcsetwinsize(theirs, (24, columns))
    out = subprocess.PIPE if columns is None else theirs
    ran = subprocess.run([sys.executable, "-c", TABLE], stdout=out, check=True, timeout=50)
    os.close(theirs)
    with open(ours, "rb", buffering=0) as terminal:
        shown = ran.stdout if columns is None else terminal.read(4096)
    return shown.decode().splitlines()


def test_long_cells_of_the_last_column_are_continued_on_a_narrow_terminal() -> None:
    whole = printed(None)
    assert [len(line) for line in whole] == [25, 78, 18 + 1]
    assert printed(0) == printed(78) == printed(20) == whole
    assert printed(60) == [
        "JOB          RUN  DETAILS",
        "shop.worker  0/1  crash loop, 7 times in a row: the last",
        "                  process exited with 3",
        "shop.web     1/1  -",
    ]
    assert printed(41) == [  # no room in the last column
        "JOB          RUN",
        "shop.worker  0/1",
        "    crash loop, 7 times in a row: the",
        "    last process exited with 3",
        "shop.web     1/1",
    ]


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert table(("A", "LONG"), [("wide cell", 1), ("x", "")]) == "A          LONG\nwide cell  1\nx"


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (None, "?"),
        (0, "0.0 s"),
        (420, "0.4 s"),
        (9_949, "9.9 s"),
        (9_999, "10 s"),
        (12_300, "12 s"),
        (119_000, "119 s"),
        (120_000, "2 min"),
        (7_200_000, "2 h"),
        (172_800_000, "2 d"),
    ],
)
def test_ages(milliseconds: float | None, text: str) -> None:
    assert age(milliseconds) == text


@pytest.mark.row("STAT-09")
@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00.00"), (0.44, "0:00.44"), (59.999, "1:00.00"), (61.5, "1:01.50"), (7325, "122:05.00")],
)
def test_clocks(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_long_lists_are_abridged() -> None:
    assert abridged([]) == ""
    assert abridged([1, 2, 3, 4]) == "1 2 3 4"
    assert abridged([1, 2, 3, 4, 5, 6]) == "1 2 3 4 +2"


def test_control_characters_are_replaced() -> None:
    assert printable("a\x1b[2Jb\nc\u202e") == "a\ufffd[2Jb\ufffdc\ufffd"


@pytest.mark.row("GF-27")
def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert coloured("x", "cyan", Terminal()) == "\x1b[36mx\x1b[0m"
    assert coloured("x", "cyan", io.StringIO()) == "x"
    monkeypatch.setenv("NO_COLOR", "1")
    assert coloured("x", "cyan", Terminal()) == "x"


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ({}, "one"),
        ({"conflict": False}, "one"),
        ({"conflict": True}, "one@10.0.0.7:5000"),
        ({"conflict": True, "origin": "http://[bad"}, "one@http://[bad"),
        ({"conflict": True, "origin": "nonsense"}, "one@nonsense"),
    ],
)
def test_the_name_of_a_node_tells_it_from_others(more: dict[str, Any], name: str) -> None:
    assert display_name(NODE | more) == name


def test_a_job_on_a_node() -> None:
    processes = [
        {"pid": 3, "state": "ready", "endpoints": [{"name": "http", "address": "10.0.0.7", "port": 8000}]},
        {"pid": 5, "state": "starting", "endpoints": [{"name": "http", "address": "fe80::1", "port": 8001}]},
        {"pid": 4, "state": "draining", "endpoints": []},
    ]
    source: Any = {"name": "one", "pids": [5, 3], "node_info": NODE | {"status": "alive"}, "age_ms": 500}
    source["processes"] = processes
    text = job_table({"shop.web": [source]})
    assert text is not None
    assert re.split(" {2,}", text.splitlines()[1]) == [
        "one",
        "shop.web",
        "3 5",
        "10.0.0.7:8000 [fe80::1]:8001",
        "alive, 1 starting, 1 draining",
        "0.5 s",
    ]
    old: Any = {"name": "one", "pids": [], "node_info": NODE}
    assert (job_table({"shop.web": [old]}) or "").splitlines()[1].split() == ["one", "shop.web", "-", "-", "alive", "?"]


def test_no_rows_no_table() -> None:
    assert job_table({}) is None
    assert job_table({"shop.web": []}) is None
    assert node_table([]) is None


@given(st.dictionaries(st.text(), st.lists(st.text(), max_size=3), max_size=3))
def test_json_holds_nothing_that_steers_a_terminal(document: dict[str, list[str]]) -> None:
    for show, ends in ((print_json, "\n"), (print_json_line, "")):
        with redirect_stdout(io.StringIO()) as out:
            show(document)
        text = out.getvalue()
        assert json.loads(text) == document
        assert text.endswith("\n")
        assert all(char.isprintable() or char in ends for char in text[:-1])


@pytest.mark.parametrize("char", "\x1b\x7f\x9b\u202e\u2066\u200b\u2028\ufeff\U000e0001")
def test_json_escapes_controls_and_marks_of_direction(char: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"name": f"n{char}", "umlaut": "ä😀"})
    text = capsys.readouterr().out
    assert char not in text
    assert "ä😀" in text
    assert json.loads(text)["name"] == f"n{char}"


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 * 2**20 + 2**19, "5.5 MiB"), (2**43, "8192.0 GiB")],
)
def test_sizes(number: int, text: str) -> None:
    assert size(number) == text


def test_times_and_signals_of_any_server() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", moment(1.8e9))
    assert moment(1e300) == "?"
    assert (signal_name(9), signal_name(12345)) == ("SIGKILL", "signal 12345")
    assert [cause_of(reason) for reason in (None, "exited", "signaled", "oom")] == [None, None, None, "oom"]
