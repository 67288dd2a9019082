"""`logs`, and `Job.logs` and `Process.logs` of the library, against a real node."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gaffer_client import Server
from gaffer_client.errors import NotFound
from gaffer_client.jobs import Job
from gaffer_client.logs import LogPiece
from support.client import Commands, answering_server
from support.daemons import Daemon, clean_env, command_path, gafferd
from support.poll import eventually


@pytest.fixture(scope="module")
def node() -> Iterator[Daemon]:
    with gafferd() as node:
        yield node


@pytest.fixture
def server(node: Daemon, monkeypatch: pytest.MonkeyPatch, gaffer: Commands, tmp_path: Path) -> Iterator[Server]:
    """The node, which the commands find in the environment; what a test loads is unloaded."""
    monkeypatch.setenv("GAFFER_ENDPOINT", node.url)
    monkeypatch.chdir(tmp_path)
    with Server(node.url) as server:
        yield server
        for name in server.jobs():
            server.unload(name)


def load(server: Server, name: str, script: str, **settings: object) -> None:
    job = server.load({"name": name, "cmd": f"sh -c '{script}; sleep 1000'", **settings}, "shop")
    eventually(lambda: b"end\n" in b"".join(piece.data for piece in job.logs(streams=["err"])))


@pytest.mark.row("CL-32")
def test_the_lines_of_all_processes_with_their_names(gaffer: Commands, gafferctl: Commands, server: Server) -> None:
    load(server, "two", "echo out; echo end >&2", numprocesses=2)
    eventually(lambda: gaffer("logs", "shop.two").out.count("\n") == 4)
    ran = gaffer("logs", "shop.two")
    assert (ran.status, ran.err) == (0, "")
    assert sorted(ran.out.splitlines()) == [f"shop.two.{n} | {text}" for n in (1, 2) for text in ("end", "out")]
    assert gafferctl("logs", "shop.two", "--slot=2", "--stream=out").out == "shop.two.2 | out\n"
    assert gaffer("logs", "shop.two", "--slot=2", "--stream=out", "--plain").out == "out\n"
    lines = [
        json.loads(line) for line in gaffer("logs", "shop.two", "--slot=1", "--stream=err", "--json").out.splitlines()
    ]
    assert lines == [{"job": "shop.two", "slot": 1, "stream": "err", "line": "end"}]


def test_chosen_lines_of_several_jobs(gaffer: Commands, server: Server, node: Daemon) -> None:
    load(server, "one", "echo first error; echo fine; echo end >&2")
    load(server, "two", "echo second error; echo end >&2")
    eventually(lambda: gaffer("logs", "shop.*", "--grep=err.r$").out.count("\n") == 2)
    ran = gaffer("logs", "shop.*", "--grep=err.r$")
    assert (ran.err, ran.out.splitlines()) == ("", ["shop.one.1 | first error", "shop.two.1 | second error"])
    words = [command_path("gaffer"), "logs", "shop.one", "shop.two", "-f", "-t", "--grep", "error|late"]
    env = clean_env({"GAFFER_ENDPOINT": node.url})
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as following:
        assert following.stdout is not None
        shown = sorted(following.stdout.readline().split(" ", 1)[1] for _ in range(2))
        assert shown == ["shop.one.1 | first error\n", "shop.two.1 | second error\n"]
        server.unload("shop.two")
        load(server, "two", "echo late; echo end >&2")
        line = following.stdout.readline()
        following.terminate()
    assert re.fullmatch(r"\d\d:\d\d:\d\d shop\.two\.1 \| late\n", line)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--grep=["], "--grep: '[' is not a regular expression: unterminated character set at position 0"),
        (["--plain", "--grep=x"], "--plain and --grep are mutually exclusive"),
        (["-t"], "--timestamps needs --follow"),
    ],
)
def test_lines_that_can_t_be_chosen(gaffer: Commands, server: Server, options: list[str], message: str) -> None:
    ran = gaffer("logs", "shop.web", *options)
    assert (ran.status, ran.err.splitlines()[0]) == (2, f"gaffer: {message}")


def test_where_to_start(gaffer: Commands, server: Server) -> None:
    load(server, "many", 'for i in $(seq 150); do echo $i; done; printf "\\033[2J"; echo end >&2')
    one = ("logs", "shop.many", "--stream=out")
    lines = gaffer(*one).out.splitlines()
    assert (len(lines), lines[0]) == (100, "shop.many.1 | 52")
    assert lines[-1] == "shop.many.1 | \N{REPLACEMENT CHARACTER}[2J"
    assert len(gaffer(*one, "--tail=all").out.splitlines()) == 151
    assert gaffer(*one, "-n", "6b", "--plain").out == "0\n\x1b[2J"
    assert len(gaffer(*one, "--since=1h").out.splitlines()) == 151
    assert len(gaffer(*one, "--since=2026-01-31T06:00").out.splitlines()) == 151
    assert gaffer(*one, "--since=2999-01-01T00:00:00Z").out == gaffer(*one, "--since=2999-01-01").out == ""


@pytest.mark.parametrize(
    ("args", "status", "text"),
    [
        (("shop.none",), 4, "no job"),
        (("shop.x", "--stream=both"), 2, "use out or err"),
        (("shop.x", "--slot=one"), 2, "--slot"),
        (("shop.x", "-n", "few"), 2, "--tail: 'few' is not an amount of a log"),
        (("shop.x", "--since=yesterday"), 2, "--since: 'yesterday' is neither an age nor a time"),
    ],
)
def test_what_is_wrong_is_explained(
    gaffer: Commands, server: Server, args: tuple[str, ...], status: int, text: str
) -> None:
    ran = gaffer("logs", *args)
    assert ran.out == ""
    assert text in ran.err
    assert ran.status == status


def test_a_server_that_has_no_logs(gaffer: Commands, server: Server) -> None:
    with answering_server() as other:
        other.answer("/jobs/shop/x/logs", "hello")
        ran = gaffer("-g", other.url, "logs", "shop.x")
    assert (ran.status, ran.out) == (1, "")
    assert f"{other.url} sent something else than a log" in ran.err


def test_following_prints_what_is_added_and_ends_with_an_interrupt(
    node: Daemon, server: Server, tmp_path: Path
) -> None:
    load(server, "live", f"echo one; echo end >&2; while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; echo two")
    words = [command_path("gaffer"), "logs", "shop.live", "-f", "--stream=out"]
    process = subprocess.Popen(
        words, env={**clean_env(), "GAFFER_ENDPOINT": node.url}, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "shop.live.1 | one\n"
        (tmp_path / "go").touch()
        assert process.stdout.readline() == "shop.live.1 | two\n"
        process.send_signal(2)
        assert process.wait(20) == 130
    finally:
        process.kill()
        process.communicate()


def test_pieces_have_a_position_that_continues(server: Server) -> None:
    load(server, "j", 'printf "\\377one\\n"; echo end >&2')
    job = server.get_job("shop.j")
    (piece,) = job.logs()
    assert piece == LogPiece(1, "out", b"\xffone\n", 0, piece.position)
    assert list(job.logs(offset=piece.position)) == []
    assert [piece.data for piece in server.get_process(job.pids[0]).logs(tail="4b")] == [b"one\n"]
    followed = job.logs(streams=["out", "err"], follow=True)
    assert {next(followed).data, next(followed).data} == {b"\xffone\n", b"end\n"}
    assert list(job.logs(slots=[7])) == []
    with pytest.raises(NotFound):
        list(Job(server, "shop.none").logs())


def test_bytes_that_are_no_longer_kept_are_counted(gaffer: Commands, server: Server) -> None:
    load(server, "big", "for i in 10 11 12 13; do echo line $i; done; echo end >&2", log_max_bytes=16, log_backups=0)
    (piece,) = eventually(lambda: [p for p in server.get_job("shop.big").logs(offset=0) if p.data.endswith(b"13\n")])
    assert (piece.data, piece.lost) == (b"line 12\nline 13\n", 16)
