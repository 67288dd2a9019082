"""Log files of jobs over HTTP."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gaffer.api.logs import parse_since
from gaffer.errors import BadRequest
from gaffer.http.access import Grant, Policy, Scope
from gaffer.process import ProcessConfig
from support.http_node import HttpNode, running_node, script
from support.poll import eventually_async


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[HttpNode]:
    async with running_node(of_manager={"capture_all": True, "log_dir": tmp_path}) as node:
        yield node


async def run(node: HttpNode, name: str, cmd: str, **settings: Any) -> None:
    description = {"name": name, "cmd": f"sh -c '{cmd}'", **settings}
    assert (await node.call("POST", "/jobs/default", description)).status == 200


async def logged(node: HttpNode, path: str, expected: str, key: str = "") -> dict[str, str]:
    """Wait until a response has this text; return its headers."""

    async def headers() -> dict[str, str]:
        answer = await node.call("GET", path, headers={"X-Api-Key": key})
        assert (answer.status, answer.body.decode()) == (200, expected)
        return answer.headers

    return await eventually_async(headers)


async def test_the_output_is_there_by_stream_and_slot(node: HttpNode) -> None:
    await run(node, "j", "echo out $GAFFER_INSTANCE; echo err >&2; sleep 1000", numprocesses=2)
    path = "/jobs/default/j/logs"
    headers = await logged(node, f"{path}?slot=2", "out 2\n")
    assert headers["content-type"] == "text/plain; charset=utf-8"
    epoch, _, end = headers["x-gaffer-offset"].partition(":")
    assert (len(epoch), end) == (16, "6")
    await logged(node, f"{path}?stream=err&slot=1,2", "err\nerr\n")
    assert sorted((await node.call("GET", path)).body.split(b"\n")) == [b"", b"out 1", b"out 2"]
    assert (await node.call("GET", f"{path}?slot=2&offset=4")).body == b"2\n"
    assert (await node.call("GET", f"{path}?slot=2&offset={epoch}:6")).body == b""
    pid = node.manager.pids("j")[1]
    await logged(node, f"/{pid}/logs?stream=out,err&tail=1", "out 2\nerr\n")
    assert (await node.call("HEAD", f"{path}?slot=2")).headers["x-gaffer-offset"] == headers["x-gaffer-offset"]


async def test_tail_counts_lines_or_bytes_of_each_log(node: HttpNode) -> None:
    await run(node, "j", "for i in 1 2 3 4; do echo $i; echo $i >&2; done; sleep 1000")
    path = "/jobs/default/j/logs"
    await logged(node, path, "1\n2\n3\n4\n")
    await logged(node, f"{path}?tail=2", "3\n4\n")
    await logged(node, f"{path}?tail=3b", "\n4\n")
    await logged(node, f"{path}?tail=0", "")
    await logged(node, f"{path}?tail=1&stream=err,out", "4\n4\n")


WRITER = """import os, sys
for line in sys.stdin:
    os.write(int(line[0]), line[1:-1].replace("/", chr(10)).encode())
"""


async def write(node: HttpNode, tmp_path: Path, *pieces: str) -> None:
    """Let a process write pieces one by one, each to its descriptor; `/` stands for the end of a line."""
    if not node.manager.jobs():
        assert (await node.call("POST", "/jobs/default", script("j", WRITER, redirect_input=True))).status == 200
    pid = (await eventually_async(lambda: node.manager.pids("j")))[0]
    for piece in pieces:
        log = tmp_path / f"default.j.1.{'out' if piece[0] == '1' else 'err'}.log"
        expected = _size(log) + len(piece) - 1
        node.manager.send(pid, f"{piece}\n")
        await eventually_async(lambda log=log, expected=expected: _size(log) == expected)  # type: ignore[misc]


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


async def test_of_several_logs_the_older_piece_comes_first(
    node: HttpNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gaffer.streams.log_place.SEGMENT", 0.0)
    await write(node, tmp_path, "2a/", "1b/", "2c/", "1d/", "1e/", "2f/")
    await logged(node, "/jobs/default/j/logs?stream=out,err", "a\nb\nc\nd\ne\nf\n")


async def test_an_offset_that_was_rotated_away_is_a_gap(node: HttpNode) -> None:
    loop = "i=10; while [ $i -lt 30 ]; do echo line $i; i=$((i+1)); done"
    await run(node, "j", f"{loop}; sleep 1000", log_max_bytes=20, log_backups=1)
    path = "/jobs/default/j/logs"
    headers = await logged(node, f"{path}?offset=3", "line 26\nline 27\nline 28\nline 29\n")
    assert headers["x-gaffer-gap"] == "3-128"
    events = (await node.call("GET", f"{path}?offset=3&feed=eventsource")).body.decode()
    epoch = headers["x-gaffer-offset"].partition(":")[0]
    assert events.startswith('event: gap\ndata: {"log":"1.out","from":3,"to":128}\n\nevent: 1.out\n')
    assert events.endswith(f"id: 1.out@{epoch}:160\ndata: line 28\ndata: line 29\ndata: \n\n")
    elsewhere = await node.call("GET", f"{path}?offset=0123456789abcdef:150")
    assert (elsewhere.headers["x-gaffer-gap"], elsewhere.body[:7]) == ("0-128", b"line 26")
    assert "x-gaffer-gap" not in (await node.call("GET", f"{path}?offset=128")).headers


async def test_following_continues_as_files_grow_and_are_rotated(node: HttpNode, tmp_path: Path) -> None:
    code = "import sys\nfor line in sys.stdin: print(line, end='', flush=True)"
    job = script("j", code, redirect_input=True, log_max_bytes=20, log_backups=1)
    assert (await node.call("POST", "/jobs/default", job)).status == 200
    pid = (await eventually_async(lambda: node.manager.pids("j")))[0]
    feed = await node.follow("/jobs/default/j/logs?follow=true&slot=1")
    events = await node.follow("/jobs/default/j/logs?follow=true&feed=eventsource&heartbeat=0.1")
    for number in range(10):
        node.manager.send(pid, b"line %d\n" % number)
        await feed.read_until(b"line %d\n" % number)
        text = (await events.read_until(b"data: line %d\ndata: \n\n" % number)).decode()
    assert await feed.read_until(b"9\n") == b"".join(b"line %d\n" % number for number in range(10))
    assert "gap" not in text
    await events.read_until(b":\n\n:\n\n")
    position = text.rpartition("id: ")[2].partition("\n")[0]
    assert position.startswith("1.out@")
    node.manager.send(pid, b"more\n")
    resumed = await node.follow(
        "/jobs/default/j/logs?follow=true", {"Accept": "text/event-stream", "Last-Event-ID": position}
    )
    assert (await resumed.read_until(b"more")).startswith(b"event: 1.out\n")


async def test_slots_join_while_a_job_is_followed_and_the_node_ends_it(node: HttpNode) -> None:
    await run(node, "j", "echo $GAFFER_INSTANCE; sleep 1000")
    feed = await node.follow("/jobs/default/j/logs?follow=true&stream=out,err")
    only_first = await node.follow("/jobs/default/j/logs?follow=true&slot=1")
    await feed.read_until(b"1\n")
    assert (await node.call("POST", "/jobs/default/j/numprocesses", {"scale": "+1"})).status == 200
    assert await feed.read_until(b"2\n") == b"1\n2\n"
    assert await only_first.read_until(b"1\n") == b"1\n"
    await node.stop()
    assert await feed.read_all() == b"1\n2\n"
    assert await only_first.read_all() == b"1\n"


async def test_lines_of_several_logs_are_not_mixed(node: HttpNode, tmp_path: Path) -> None:
    await write(node, tmp_path, "1a", "2b")
    feed = await node.follow("/jobs/default/j/logs?follow=true&stream=out,err")
    await write(node, tmp_path, "1c", "2d", "1/", "2e", "1f", "2/")
    assert await feed.read_until(b"bde\n") == b"ac\nbde\n"
    await node.stop()
    assert await feed.read_all() == b"ac\nbde\nf"


async def test_formats_are_as_in_the_files(node: HttpNode) -> None:
    await run(node, "t", "echo a; sleep 1000", log_format="timestamps")
    await run(node, "j", "echo b >&2; sleep 1000", log_format="json")
    pid = (await eventually_async(lambda: node.manager.pids("j")))[0]

    async def stamped() -> str:
        return (await node.call("GET", "/jobs/default/t/logs")).body.decode()

    line = await eventually_async(stamped)
    assert line.endswith("Z a\n")
    parsed = json.loads(await eventually_async(lambda: _body(node, "/jobs/default/j/logs?stream=err&since=1h")))
    assert parsed == {"time": parsed["time"], "stream": "err", "pid": pid, "message": "b"}
    assert (await node.call("GET", f"/jobs/default/t/logs?since={line[:24]}")).body.decode() == line
    assert (await node.call("GET", "/jobs/default/t/logs?since=2999-01-01T00:00:00Z")).body == b""


async def _body(node: HttpNode, path: str) -> bytes:
    return (await node.call("GET", path)).body


async def test_the_logs_of_a_job_that_is_gone_are_there_while_its_files_are(node: HttpNode, tmp_path: Path) -> None:
    await run(node, "j", "echo last words; sleep 1000")
    await logged(node, "/jobs/default/j/logs", "last words\n")
    assert (await node.call("DELETE", "/jobs/default/j")).status == 200
    await logged(node, "/jobs/default/j/logs", "last words\n")
    _remove(tmp_path)
    answer = await node.call("GET", "/jobs/default/j/logs")
    assert (answer.status, answer.error) == (404, "not_found")


def _remove(logs: Path) -> None:
    for path in logs.iterdir():
        path.unlink()


async def test_a_job_without_logs_says_why(node: HttpNode) -> None:
    await run(node, "off", "echo a; sleep 1000", logs=False)
    await run(node, "silent", "sleep 1000")
    answer = await node.call("GET", "/jobs/default/off/logs")
    assert (answer.status, answer.error, answer.json["hint"]) == (404, "no_logs", "set `logs = on` in the job")
    assert (await node.call("GET", "/jobs/default/silent/logs")).body == b""
    async with running_node() as other:
        assert (await other.call("GET", "/jobs/default/j/logs")).error == "no_logs"


WRONG = [
    "stream=both",
    "slot=x",
    "slot=1,",
    "offset=x",
    "offset=7",
    "offset=1.out@1,1.out@2",
    "offset=0&tail=1",
    "offset=0&since=1",
    "tail=x",
    "since=yesterday",
    "since=2026-13-01T00:00:00Z",
    "since=2026-11-01T00:00:00",
    "follow=perhaps",
    "feed=longpoll",
    "encoding=base64",
    "heartbeat=x",
]


async def test_a_wrong_query_is_explained(node: HttpNode) -> None:
    await run(node, "j", "echo a; sleep 1000")
    await logged(node, "/jobs/default/j/logs", "a\n")
    for query in WRONG:
        answer = await node.call("GET", f"/jobs/default/j/logs?{query}")
        assert (answer.status, answer.error) == (400, "bad_value"), query
        assert answer.json["hint"]


async def test_an_offset_of_several_logs_names_them(node: HttpNode) -> None:
    await run(node, "j", "echo out; echo err >&2; sleep 1000")
    path = "/jobs/default/j/logs?stream=out,err"
    headers = await eventually_async(lambda: _complete(node, path))
    answer = await node.call("GET", f"{path}&offset=1")
    assert (answer.status, answer.error) == (400, "bad_value")
    assert "1.out, 1.err" in answer.json["message"]
    assert (await node.call("GET", f"{path}&offset={headers['x-gaffer-offset']}")).body == b""
    assert (await node.call("GET", f"{path}&offset=1.out@4,1.err@2")).body == b"r\n"


async def _complete(node: HttpNode, path: str) -> dict[str, str]:
    answer = await node.call("GET", path)
    assert sorted(answer.body.split()) == [b"err", b"out"]
    return answer.headers


@pytest.mark.parametrize("query", ["tail=5", "since=99999"])
async def test_a_search_ends_when_its_caller_goes_away(node: HttpNode, tmp_path: Path, query: str) -> None:
    # A tail of files without the end of a line, or a time after all timestamps of a large file, are searched for long.
    file = tmp_path / "default.gone.1.out.log"
    file.write_text("2026-01-01T00:00:00.000Z first\n")
    os.truncate(file, 1 << 40)
    application = node.handler._application
    assert application is not None
    exchange = asyncio.create_task(node.follow(f"/jobs/default/gone/logs?{query}"))
    await eventually_async(lambda: application.feeds)
    exchange.cancel()
    await eventually_async(lambda: not application.feeds)


async def test_what_can_not_be_read_is_an_error(node: HttpNode, tmp_path: Path) -> None:
    await run(node, "j", "echo a; sleep 1000")
    await logged(node, "/jobs/default/j/logs", "a\n")
    log = tmp_path / "default.j.1.out.log"
    log.rename(tmp_path / "moved")
    log.symlink_to(tmp_path / "moved")
    answer = await node.call("GET", "/jobs/default/j/logs")
    assert (answer.status, answer.error) == (503, "log_unreadable")
    assert "it is a symbolic link" in answer.json["message"]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90", 2e9 - 90),
        ("0.5", 2e9 - 0.5),
        ("5m", 2e9 - 300),
        ("1800000000.5", 1800000000.5),
        ("2026-11-29T10:15:00Z", 1795947300.0),
        ("2026-11-29T10:15:00.25+01:00", 1795943700.25),
        ("2026-11-29t10:15:00 01:00", 1795943700.0),  # a plus sign in a URL is a space
    ],
)
def test_a_time_is_an_age_or_a_moment(text: str, moment: float) -> None:
    assert parse_since(text, 2e9) == pytest.approx(moment, abs=1e-6)


def test_a_time_that_is_none_is_explained() -> None:
    with pytest.raises(BadRequest, match="since='1x'"):
        parse_since("1x", 2e9)


async def test_several_jobs_are_one_log_in_the_order_of_time(node: HttpNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gaffer.streams.log_place.SEGMENT", 0.0)
    await run(node, "first", "echo one; read go; echo three; sleep 1000", redirect_input=True)
    await logged(node, "/jobs/default/first/logs", "one\n")
    await run(node, "second", "echo two; sleep 1000")
    await logged(node, "/jobs/default/second/logs", "two\n")
    node.manager.send(node.manager.pids("first")[0], "go\n")
    headers = await logged(node, "/logs?job=default.second,default.first,default.second", "one\ntwo\nthree\n")
    second, first = headers["x-gaffer-offset"].split(",")
    assert second.startswith("default.second.1.out@")
    assert second.endswith(":4")
    assert first.startswith("default.first.1.out@")
    assert first.endswith(":10")
    await logged(node, f"/logs?job=default.first,default.second&offset={first[:-2]}4", "two\nthree\n")
    assert (await node.call("GET", f"/logs?job=default.first,default.second&offset={second},{first}")).body == b""
    only = await node.call("GET", "/logs?job=default.first&tail=1")
    assert (only.body, only.headers["x-gaffer-offset"]) == (b"three\n", first)


async def test_several_jobs_are_followed_under_their_names(node: HttpNode) -> None:
    await run(node, "early", "echo early; sleep 1000")
    await logged(node, "/jobs/default/early/logs", "early\n")
    await run(node, "late", "read go; echo late >&2; sleep 1000", redirect_input=True)
    feed = await node.follow("/logs?job=default.early,default.late&stream=out,err&follow=true&feed=eventsource")
    assert (await feed.read_until(b"data: early")).startswith(b"event: default.early.1.out\nid: default.early.1.out@")
    node.manager.send(node.manager.pids("late")[0], "go\n")
    text = await feed.read_until(b"data: late\ndata: \n\n")
    _, _, event = text.rpartition(b"event: ")
    assert event.startswith(b"default.late.1.err\nid: default.early.1.out@")
    assert b",default.late.1.err@" in event


async def test_a_key_reads_the_logs_of_its_sessions_only(tmp_path: Path) -> None:
    keys = {"shop": Grant(frozenset({Scope.READ}), frozenset({"shop"}))}
    options = {"capture_all": True, "log_dir": tmp_path}
    async with running_node(of_manager=options, access=Policy(verify=keys.get)) as node:
        for session in ("shop", "blog"):
            node.manager.load(ProcessConfig("web", "echo hello"), session)
        await logged(node, "/logs?job=shop.web", "hello\n", key="shop")
        answer = await node.call("GET", "/logs?job=shop.web,blog.web", headers={"X-Api-Key": "shop"})
        assert (answer.status, answer.error) == (403, "forbidden")


@pytest.mark.parametrize(
    ("query", "status", "reason"),
    [
        ("", 400, "bad_value"),
        ("?job=web", 400, "bad_value"),
        ("?job=a.b,", 400, "bad_value"),
        (f"?job={','.join(f'a.b{number}' for number in range(101))}", 400, "bad_value"),
        ("?job=default.nobody,default.quiet", 404, "not_found"),
        ("?job=default.quiet", 404, "no_logs"),
    ],
)
async def test_jobs_without_logs_and_wrong_names_are_refused(
    node: HttpNode, query: str, status: int, reason: str
) -> None:
    await run(node, "quiet", "sleep 1000", logs=False)
    answer = await node.call("GET", f"/logs{query}")
    assert (answer.status, answer.error) == (status, reason)
