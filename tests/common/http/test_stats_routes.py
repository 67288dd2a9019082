"""What jobs and processes use, over HTTP: R-74, R-75, R-76, R-48, R-61."""

import asyncio
import json
from typing import Any

import pytest

from gaffer.api.stats import KEPT
from support.http_node import Exchange, HttpNode, script, sleeper
from support.poll import eventually_async

row = pytest.mark.row
pytestmark = row("STAT-12", "HTTP-38")

SUMS = {"mem", "max_mem", "min_mem", "cpu", "max_cpu", "min_cpu"}


async def run(node: HttpNode, name: str = "dummy", count: int = 1, **settings: Any) -> list[int]:
    """Load a job and wait for its processes; returns their pids."""
    assert (await node.call("POST", "/processes", sleeper(name, numprocesses=count, **settings))).status == 200

    await eventually_async(lambda: len(node.manager.pids(name)) == count)
    return node.manager.pids(name)


async def lines(feed: Exchange, count: int) -> list[dict[str, Any]]:
    body = b""
    while body.count(b"\n") < count:
        more = await asyncio.wait_for(feed.read_some(), 10)
        assert more, f"the feed ended with {body!r}"
        body += more
    return [json.loads(line) for line in body.splitlines()[:count]]


def listeners(node: HttpNode) -> int:
    return node.manager._executor.sampler.listeners


@row("R-74")
async def test_the_stats_of_all_jobs(node: HttpNode) -> None:
    pids = [*await run(node, "one"), *await run(node, "shop:two", 2)]
    answer = (await node.call("GET", "/stats")).json
    assert [job["name"] for job in answer] == ["default.one", "shop.two"]
    assert [stat["pid"] for job in answer for stat in job["stats"]] == pids
    assert all(job.keys() >= SUMS for job in answer)
    await run(node, "three", count=0)
    [*_, idle] = (await node.call("GET", "/stats")).json
    assert (idle["name"], idle["stats"], idle["mem"]) == ("default.three", [], "N/A")


@row("R-75", "R-48")
@pytest.mark.parametrize("path", ["/stats/dummy", "/stats/dummy?feed=normal", "/jobs/default/dummy/stats"])
async def test_the_stats_of_a_job_once(node: HttpNode, path: str) -> None:
    pids = await run(node, count=2)
    answer = (await node.call("GET", path)).json
    assert answer.keys() == {"name", "stats"} | SUMS
    assert [stat["pid"] for stat in answer["stats"]] == pids
    assert answer["mem"] == round(sum(stat["mem"] for stat in answer["stats"]), 2)


@row("R-76", "R-61")
async def test_the_stats_of_a_process_once(node: HttpNode) -> None:
    pids = await run(node, "shop.two", 2)
    answer = (await node.call("GET", f"/stats/shop.two/{pids[1]}")).json
    assert (answer["pid"], answer["cmdline"]) == (pids[1], "sleep 1000")
    assert answer["os_pid"] == node.manager.running[pids[1]].os_pid
    assert (await node.call("GET", f"/{pids[1]}/stats")).json["stats"].keys() == answer.keys()


@row("R-75", "STAT-02")
async def test_the_stats_of_a_job_as_they_change(node: HttpNode) -> None:
    pids = await run(node, count=2)
    feed = await node.follow("/stats/dummy?feed=continuous")
    assert feed.headers["content-type"] == "application/json"
    messages = await lines(feed, 6)
    assert [message["pid"] for message in messages] == pids * 3
    await node.call("DELETE", "/processes/dummy")
    await asyncio.wait_for(feed.read_all(), 10)
    assert listeners(node) == 0


@row("R-76")
async def test_the_stats_of_a_process_until_it_ends(node: HttpNode) -> None:
    pids = await run(node, count=2)
    feed = await node.follow(f"/stats/dummy/{pids[1]}?feed=continuous")
    assert {message["pid"] for message in await lines(feed, 3)} == {pids[1]}
    await node.call("POST", f"/{pids[1]}/signal", {"signal": "KILL"})
    await asyncio.wait_for(feed.read_all(), 10)
    await eventually_async(lambda: listeners(node) == 0)


@row("R-75", "R-76")
@pytest.mark.parametrize("path", ["/stats/dummy", "/stats/dummy/{pid}"])
async def test_a_longpoll_answers_the_next_message(node: HttpNode, path: str) -> None:
    [pid] = await run(node)
    answer = await node.call("GET", path.format(pid=pid) + "?feed=longpoll")
    assert answer.json["pid"] == pid
    assert "x-gaffer-offset" not in answer.headers, "there is nothing to go back to"


@row("R-75", "R-76", "STAT-03")
@pytest.mark.parametrize("path", ["/stats/dummy", "/stats/dummy/{pid}"])
async def test_an_eventsource_of_stats(node: HttpNode, path: str) -> None:
    [pid] = await run(node)
    feed = await node.follow(path.format(pid=pid) + "?feed=eventsource")
    assert feed.headers["content-type"] == "text/event-stream"
    event, data, *_ = (await feed.read_until(b"\n\n")).decode().split("\n")
    assert event == "event: STATS"
    assert json.loads(data.removeprefix("data: "))["pid"] == pid


async def test_a_heartbeat_while_there_is_no_process(node: HttpNode) -> None:
    await run(node, count=0)
    feed = await node.follow("/stats/dummy?feed=continuous&heartbeat=0.1")
    assert await feed.read_until(b"\n\n") == b"\n\n"


@row("STAT-07")
@pytest.mark.parametrize("kind", ["longpoll", "continuous", "eventsource"])
async def test_nothing_is_measured_for_a_client_that_left(node: HttpNode, kind: str) -> None:
    await run(node, count=0)
    feeds = [asyncio.create_task(node.follow(f"/stats/dummy?feed={kind}")) for _ in range(5)]
    await eventually_async(lambda: listeners(node) == 5)
    for feed in feeds:
        if kind == "longpoll":
            feed.cancel()
        else:
            (await feed).close()
    await eventually_async(lambda: listeners(node) == 0)


async def test_arguments_that_are_no_text_are_shown(node: HttpNode) -> None:
    code = "import os; os.execv('/bin/sleep', [b'\\xff', b'1000'])"
    assert (await node.call("POST", "/processes", script("dummy", code))).status == 200

    async def shown() -> bool:
        found = (await node.call("GET", "/stats/dummy")).json["stats"]
        return [stat["cmdline"] for stat in found] == ["\ufffd 1000"]

    await eventually_async(shown)


async def test_a_client_that_does_not_read_gets_the_newest_and_learns_what_it_lost(node: HttpNode) -> None:
    [pid] = await run(node)
    feed = await node.follow("/stats/dummy?feed=continuous")
    await lines(feed, 1)
    tell = node.manager._executor.sampler._listeners[node.manager.running[pid].job]
    [listener] = tell
    for number in range(100 * KEPT):  # as of a thousand processes for a while
        listener("STATS", {"number": number, "padding": "x" * 1000})
        if number % KEPT == 0:
            await asyncio.sleep(0)
    listener("STATS", {"number": "last"})
    body = (await feed.read_until(b'"last"}\n')).decode()
    messages = [json.loads(line) for line in body.splitlines()]
    gaps = [message for message in messages if message.get("event") == "gap"]
    assert gaps, "nothing was lost"
    got = [message for message in messages if "number" in message]
    assert len(got) + sum(gap["to"] - gap["from"] for gap in gaps) >= 100 * KEPT


@row("R-75", "R-76")
@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/stats/nope", 404, "not_found"),
        ("/stats/nope?feed=continuous", 404, "not_found"),
        ("/stats/a.b.c", 400, "bad_name"),
        ("/stats/dummy/abc", 400, "bad_value"),
        ("/stats/dummy/999", 404, "not_found"),
        ("/stats/dummy/999?feed=longpoll", 404, "not_found"),
        ("/stats/other/{pid}", 404, "not_found"),
        ("/stats/dummy?feed=nope", 400, "bad_value"),
        ("/stats/dummy?feed=longpoll&after=0", 400, "bad_value"),
        ("/stats/dummy/{pid}?feed=continuous&tail=1", 400, "bad_value"),
    ],
)
async def test_what_has_no_stats(node: HttpNode, path: str, status: int, code: str) -> None:
    [pid] = await run(node)
    await run(node, "other", count=0)
    answer = await node.call("GET", path.format(pid=pid))
    assert (answer.status, answer.error) == (status, code)


@row("R-48", "R-61", "R-74", "R-75", "R-76")
@pytest.mark.parametrize(
    "path", ["/stats", "/stats/dummy", "/stats/dummy/{pid}", "/jobs/default/dummy/stats", "/{pid}/stats"]
)
async def test_others_have_their_turns_while_many_are_measured(
    node: HttpNode, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid, *_ = await run(node, count=20)
    monkeypatch.setattr("gaffer.http.batches.SLICE", 0.0)
    loop, turns = asyncio.get_running_loop(), 0

    def turn() -> None:
        nonlocal turns
        turns += 1
        if not answered.done():
            loop.call_soon(turn)

    answered = asyncio.create_task(node.call("GET", "/ping"))
    turn()
    await answered
    of_a_ping, turns = turns, 0
    answered = asyncio.create_task(node.call("GET", path.format(pid=pid)))
    turn()
    assert (await answered).status == 200
    # One at least for each process that there is.
    assert turns > of_a_ping + 20
