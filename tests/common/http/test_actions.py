"""Actions over HTTP: commands of a job on request, their output and exit status, and when they end."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gaffer.api import actions
from gaffer.http.access import Scope
from gaffer.processes import procfs
from support.commands import STUBBORN
from support.http_node import Answer, Exchange, HttpNode, open_exchange, running_node, sleeper
from support.metrics import parse_metrics
from support.poll import eventually_async

ACTIONS = {
    "greet": "sh -c 'echo hello $WHO; echo error >&2; exit 3'",
    "wait": "sh -c 'echo $$; exec sleep 1000'",
    "silent": "sh -c 'exec >&- 2>&-; sleep 0.5; exit 5'",
    "much": "sh -c 'head -c 10000000 /dev/zero | tr \"\\0\" x; echo; echo end'",
    "bytes": "printf '\\377\\0'",
    "missing": "/no/such/program",
    "stubborn": STUBBORN,
}


@pytest.fixture
async def node() -> AsyncIterator[HttpNode]:
    async with running_node() as node:
        job = sleeper("web", env={"WHO": "world"}, action=ACTIONS, start=False, graceful_timeout=0.3)
        assert (await node.call("POST", "/jobs/shop", job)).status == 200
        yield node


async def act(node: HttpNode, action: str, query: str = "", headers: dict[str, str] | None = None) -> Answer:
    return await node.call("POST", f"/jobs/shop/web/actions/{action}{query}", b"", headers)


async def begin(node: HttpNode, action: str, query: str = "") -> Exchange:
    async with asyncio.timeout(20):
        return await open_exchange(node.address, "POST", f"/jobs/shop/web/actions/{action}{query}", b"")


def events(body: bytes) -> list[tuple[str, str]]:
    """Name and data of each server-sent event."""
    found = []
    for block in body.decode().split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if lines:
            name = lines[0].removeprefix("event: ")
            found.append((name, "\n".join(line.removeprefix("data: ").removeprefix("data:") for line in lines[1:])))
    return found


def output(body: bytes) -> str:
    return "".join(data for name, data in events(body) if name == "output")


def exit_of(body: bytes) -> Any:
    name, data = events(body)[-1]
    assert name == "exit"
    return json.loads(data)


def alive(pid: int) -> bool:
    stat = procfs.read_stat(pid)
    return stat is not None and stat.state not in "ZX"


async def test_the_actions_of_a_job_are_listed(node: HttpNode) -> None:
    assert (await node.call("GET", "/jobs/shop/web/actions")).json == {"actions": ACTIONS}
    assert (await node.call("GET", "/jobs/shop/nope/actions")).status == 404


async def test_output_is_streamed_and_followed_by_the_exit_status(node: HttpNode) -> None:
    answer = await act(node, "greet")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
    assert output(answer.body) == "hello world\nerror\n"
    ended = exit_of(answer.body)
    assert {**ended, "uptime": 0} == {"outcome": "failed", "exit_code": 3, "term_signal": 0, "uptime": 0}
    assert ended["uptime"] > 0


async def test_output_comes_while_the_action_runs(node: HttpNode) -> None:
    exchange = await begin(node, "wait")
    try:
        async with asyncio.timeout(20):
            [(_, pid)] = events(await exchange.read_until(b"\n\n"))
            os.kill(int(pid), signal.SIGKILL)
            ended = exit_of(await exchange.read_all())
        assert (ended["outcome"], ended["exit_code"], ended["term_signal"]) == ("failed", None, 9)
    finally:
        exchange.close()


@pytest.mark.parametrize(
    ("query", "headers"), [("?stream=false", {}), ("", {"Accept": "application/json"})], ids=["query", "header"]
)
async def test_one_answer_at_the_end(node: HttpNode, query: str, headers: dict[str, str]) -> None:
    answer = await act(node, "greet", query, headers)
    assert answer.headers["content-type"] == "application/json"
    assert {**answer.json, "uptime": 0} == {
        "outcome": "failed",
        "exit_code": 3,
        "term_signal": 0,
        "uptime": 0,
        "output": "hello world\nerror\n",
        "omitted": 0,
    }
    assert answer.json["uptime"] > 0


async def test_a_client_that_accepts_both_gets_the_stream(node: HttpNode) -> None:
    answer = await act(node, "greet", headers={"Accept": "text/event-stream, application/json"})
    assert answer.headers["content-type"] == "text/event-stream"


@pytest.mark.parametrize("query", ["?heartbeat=0.1", "?stream=false"])
async def test_an_action_that_closes_its_output_is_waited_for(node: HttpNode, query: str) -> None:
    answer = await act(node, "silent", query)
    streamed = "heartbeat" in query
    ended = exit_of(answer.body) if streamed else answer.json
    assert (ended["exit_code"], ended["outcome"]) == (5, "failed")
    assert (b":\n\n" in answer.body) is streamed


async def test_a_lot_of_output(node: HttpNode) -> None:
    streamed = await act(node, "much")
    size = 10_000_005  # the `x`, a newline, `end` and a newline
    lost = sum(
        json.loads(data)["to"] - json.loads(data)["from"] for name, data in events(streamed.body) if name == "gap"
    )
    assert len(output(streamed.body)) + lost == size
    assert exit_of(streamed.body)["exit_code"] == 0
    whole = (await act(node, "much", "?stream=false")).json
    assert len(whole["output"]) + whole["omitted"] == size
    assert 100_000 < len(whole["output"]) <= 256 * 1024
    assert whole["output"].endswith("xx\nend\n")


async def test_output_that_is_not_text(node: HttpNode) -> None:
    assert output((await act(node, "bytes", "?encoding=base64")).body) == "/wA="
    assert output((await act(node, "bytes")).body) == "\ufffd\0"


async def test_an_action_is_stopped_when_its_time_is_up(node: HttpNode) -> None:
    ended = (await act(node, "wait", "?timeout=300ms&stream=false")).json
    assert (ended["outcome"], ended["exit_code"], ended["term_signal"]) == ("timed_out", None, 15)
    ended = exit_of((await act(node, "stubborn", "?timeout=0.5")).body)
    assert ended["outcome"] == "timed_out"


@pytest.mark.parametrize("query", ["?heartbeat=0.1", "?heartbeat=false", "?stream=false"])
async def test_an_action_continues_when_the_client_disconnects(node: HttpNode, tmp_path: Path, query: str) -> None:
    begun, go, done = (tmp_path / name for name in ("begun", "go", "done"))
    command = f"sh -c 'touch {begun}; while ! test -e {go}; do sleep 0.01; done; touch {done}'"
    await node.call("PUT", "/jobs/shop/web", {"cmd": "sleep 1000", "start": False, "action": {"long": command}})
    sending = asyncio.create_task(begin(node, "long", query))
    await eventually_async(begun.exists)
    if "stream" in query:
        sending.cancel()  # closes the connection: no head has come
        await asyncio.wait([sending])
    else:
        (await sending).close()
    go.touch()
    await eventually_async(done.exists)
    assert (await act(node, "long", "?stream=false")).json["exit_code"] == 0


@pytest.mark.parametrize(
    ("action", "query", "status", "error"),
    [
        ("gret", "", 404, "action_not_found"),
        ("missing", "", 400, "program_not_found"),
        ("greet", "?timeout=0", 400, "bad_value"),
        ("greet", "?timeout=25h", 400, "bad_value"),
        ("greet", "?timeout=soon", 400, "bad_value"),
        ("greet", "?stream=maybe", 400, "bad_value"),
        ("greet", "?encoding=utf16", 400, "bad_value"),
        ("greet", "?heartbeat=often", 400, "bad_value"),
        ("greet", "?feed=longpoll", 400, "bad_value"),
    ],
)
async def test_what_is_refused(node: HttpNode, action: str, query: str, status: int, error: str) -> None:
    answer = await act(node, action, query)
    assert (answer.status, answer.error) == (status, error)
    if action == "gret":
        assert answer.json["hint"] == "did you mean 'greet'?"
    if action == "missing":
        assert answer.json["path"] == "$.action.missing"


async def test_a_job_has_only_so_many_actions_at_a_time(node: HttpNode) -> None:
    running = [await begin(node, "wait") for _ in range(16)]
    try:
        answer = await act(node, "wait")
        assert (answer.status, answer.error) == (429, "too_many_commands")
    finally:
        for exchange in running:
            exchange.close()


async def test_commands_are_counted(node: HttpNode) -> None:
    running = await begin(node, "wait")
    try:
        for action in ("greet", "greet", "missing"):
            await act(node, action)
        samples = parse_metrics((await node.call("GET", "/metrics")).body.decode())
    finally:
        running.close()
    about = ("purpose", "action")
    assert samples["gaffer_commands", frozenset([about])] == 1
    assert samples["gaffer_commands_total", frozenset([about, ("outcome", "failed")])] == 2
    assert samples["gaffer_commands_total", frozenset([about, ("outcome", "not_started")])] == 1
    assert samples["gaffer_commands_total", frozenset([about, ("outcome", "refused")])] == 0


async def test_the_end_of_the_job_ends_its_actions(node: HttpNode) -> None:
    exchange = await begin(node, "wait")
    try:
        assert (await node.call("DELETE", "/jobs/shop/web")).status == 200
        async with asyncio.timeout(20):
            ended = exit_of(await exchange.read_all())
        assert (ended["outcome"], ended["term_signal"]) == ("cancelled", 15)
    finally:
        exchange.close()


@pytest.mark.parametrize("now", [False, True])
async def test_the_stop_of_the_node_ends_its_actions(node: HttpNode, now: bool) -> None:
    exchange = await begin(node, "stubborn")
    waiting = asyncio.create_task(act(node, "wait", "?stream=false"))
    try:
        async with asyncio.timeout(20):
            await exchange.read_until(b"ready")
            await eventually_async(lambda: len(node.manager.commands) == 2)
            node.manager.stop(now=now)
            ended = exit_of(await exchange.read_all())
            assert (ended["outcome"], ended["term_signal"]) == ("cancelled", 9)
            assert (await waiting).json["term_signal"] == (9 if now else 15)
        await eventually_async(lambda: not node.manager.started)
    finally:
        exchange.close()


async def test_a_stopping_or_drained_node_runs_no_actions(node: HttpNode) -> None:
    await node.call("POST", "/drain")
    assert (await act(node, "greet")).error == "draining"


async def test_an_event_reports_the_end_of_an_action(node: HttpNode) -> None:
    watch = await node.follow("/watch/action_ended?feed=continuous")
    async with asyncio.timeout(20):
        await act(node, "greet")
        message = json.loads(await watch.read_until(b"}\n"))
    assert {key: message[key] for key in ("event", "name", "action", "outcome", "exit_code", "term_signal")} == {
        "event": "action_ended",
        "name": "shop.web",
        "action": "greet",
        "outcome": "failed",
        "exit_code": 3,
        "term_signal": 0,
    }


def test_listing_is_reading_and_running_is_controlling() -> None:
    assert [route.methods for route in actions.ROUTES] == [{"GET": Scope.READ}, {"POST": Scope.CONTROL}]
