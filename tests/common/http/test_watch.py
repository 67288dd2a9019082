"""Following the events of a node over HTTP: R-72, R-73."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gaffer.http.access import ALL_SCOPES, Grant, make_policy
from gaffer.streams.event_log import LIMIT
from support.http_node import Exchange, HttpNode, running_node, sleeper
from support.poll import eventually_async

row = pytest.mark.row


async def watched(node: HttpNode, readers: int) -> None:
    await eventually_async(lambda: node.manager.event_log.watchers == readers)


def position(node: HttpNode, number: int) -> str:
    """What resumes after an event."""
    return str(node.manager.event_log.position(number))


async def run(node: HttpNode, name: str = "dummy", session: str = "default") -> int:
    """Load a job and wait for its process; returns the pid."""
    assert (await node.call("POST", f"/jobs/{session}", sleeper(name, startsecs=0))).status == 200

    def pid() -> int | None:
        pids = node.manager.pids(f"{session}.{name}")
        return pids[0] if pids else None

    return await eventually_async(pid)


async def lines(feed: Exchange, count: int) -> list[dict[str, Any]]:
    """The first messages of a feed of lines."""
    body = b""
    while body.count(b"\n") < count:
        more = await asyncio.wait_for(feed.read_some(), 10)
        assert more, f"the feed ended with {body!r}"
        body += more
    return [json.loads(line) for line in body.splitlines()[:count]]


def names(messages: list[dict[str, Any]]) -> list[str]:
    return [message["event"] for message in messages]


@row("EVT-27", "R-72", "HTTP-37")
async def test_all_events_come_under_their_documented_names_the_short_one_first(node: HttpNode) -> None:
    pid = await run(node)
    feed = await node.follow("/watch?feed=continuous")
    assert feed.headers["content-type"] == "application/json"
    os_pid = node.manager.running[pid].os_pid
    await node.call("POST", f"/{pid}/signal", {"signal": "KILL"})
    messages = await lines(feed, 4)
    assert names(messages) == ["kill", "proc.dummy.kill", "exit", "proc.dummy.exit"]
    assert {"name": "dummy", "pid": pid, "os_pid": os_pid, "term_signal": 9}.items() <= messages[3].items()


@row("R-73")
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/watch/exit", ["exit"]),
        ("/watch/proc/dummy", ["proc.dummy.stop_pid", "proc.dummy.exit"]),
        ("/watch/proc.dummy.exit", ["proc.dummy.exit"]),
        ("/watch/proc/dummy/exit", ["proc.dummy.exit"]),
        ("/watch/job/default/dummy", ["job.default.dummy.stop_pid", "job.default.dummy.exit"]),
        ("/watch/proc/{pid}", ["proc.{pid}.stop_pid", "proc.{pid}.exit"]),
        ("/watch/stop_process", ["stop_process"]),
        ("/watch/unload", ["unload"]),
        ("/watch/anything%20else", ["anything else.at.all"]),
    ],
)
async def test_a_path_picks_events(node: HttpNode, path: str, expected: list[str]) -> None:
    pid = await run(node)
    feed = await node.follow(path.format(pid=pid) + "?feed=continuous")
    await node.call("DELETE", f"/{pid}")
    await eventually_async(lambda: pid not in node.manager.running)
    await node.call("DELETE", "/jobs/default/dummy")
    node.manager.events.publish("anything else.at.all", {"size": 1})
    found = names(await lines(feed, len(expected)))
    assert found == [name.format(pid=pid) for name in expected]


@row("R-72")
async def test_a_longpoll_answers_the_next_event_and_tells_how_to_go_on(node: HttpNode) -> None:
    waiting = asyncio.create_task(node.call("GET", "/watch"))
    await watched(node, 1)
    pid = await run(node)
    first = await waiting
    assert (first.status, first.headers["content-type"]) == (200, "application/json")
    assert (first.json["event"], first.json["name"]) == ("create", "dummy")
    seen: list[dict[str, Any]] = []
    offset = first.headers["x-gaffer-offset"]
    while not seen or seen[-1]["event"] != "proc.dummy.spawn":
        answer = await node.call("GET", f"/watch?feed=longpoll&after={offset}")
        seen.append(answer.json)
        offset = answer.headers["x-gaffer-offset"]
    assert names(seen) == ["start", "proc.dummy.start", "spawn", "proc.dummy.spawn"]
    assert seen[-1]["pid"] == pid
    assert (await node.call("GET", f"/watch/proc?after={first.headers['x-gaffer-offset']}")).json == seen[1]


@row("R-72")
async def test_an_eventsource_names_its_events_and_goes_on_after_the_last(node: HttpNode) -> None:
    feed = await node.follow("/watch/create?feed=eventsource")
    assert feed.headers["content-type"] == "text/event-stream"
    await run(node, "a")
    event, identity, data, *_ = (await feed.read_until(b"\n\n")).decode().split("\n")
    assert (event, json.loads(data.removeprefix("data: "))["name"]) == ("event: create", "a")
    feed.close()
    await run(node, "b")
    again = await node.follow("/watch/create?feed=eventsource", {"Last-Event-ID": identity.removeprefix("id: ")})
    text = (await again.read_until(b"\n\n")).decode()
    assert text.count("event: create") == 1
    assert '"name":"b"' in text


async def test_an_eventsource_that_outlived_the_node_begins_anew(node: HttpNode) -> None:
    await run(node)
    for query, headers in (
        ("", {"Last-Event-ID": "an0ther:1"}),
        ("", {"Last-Event-ID": "1"}),
        ("&after=an0ther:1", {}),
    ):
        feed = await node.follow(f"/watch?feed=eventsource{query}", headers)
        expected = f'event: gap\ndata: {{"from":0,"to":0}}\n\nevent: create\nid: {position(node, 1)}\n'
        assert (await feed.read_until(b'data: {"event"')).startswith(expected.encode())


async def test_other_feeds_that_outlived_the_node_begin_anew_with_a_gap(node: HttpNode) -> None:
    await run(node)
    gap = {"event": "gap", "from": 0, "to": 0}
    feed = await node.follow("/watch/create?feed=continuous&after=an0ther:1000")
    first, second, *_ = await lines(feed, 2)
    assert (first, second["event"]) == (gap, "create")
    answer = await node.call("GET", "/watch/create?after=an0ther:1000")
    assert (answer.json, answer.headers["x-gaffer-offset"]) == (gap, position(node, 0))
    assert (await node.call("GET", f"/watch/create?after={position(node, 0)}")).json["event"] == "create"


@pytest.mark.parametrize(
    ("tail", "expected"), [("1", ["c", "d"]), ("2", ["b", "c", "d"]), ("99", ["a", "b", "c", "d"]), ("0", ["d"])]
)
async def test_a_feed_can_begin_with_events_of_before(node: HttpNode, tail: str, expected: list[str]) -> None:
    for name in "abc":
        node.manager.events.publish(name)
    await eventually_async(lambda: node.manager.event_log.end == 3)
    feed = await node.follow(f"/watch?feed=continuous&tail={tail}")
    node.manager.events.publish("d")
    assert names(await lines(feed, len(expected))) == expected


async def test_lost_events_are_told(node: HttpNode) -> None:
    for _ in range(LIMIT + 5):
        node.manager.events.publish("tick", {})
    await eventually_async(lambda: node.manager.event_log.end == LIMIT + 5)
    gap = {"event": "gap", "from": 2, "to": 5}
    feed = await node.follow("/watch/none?feed=continuous&after=2")
    assert await lines(feed, 1) == [gap]
    feed = await node.follow("/watch/none?feed=eventsource&after=2")
    assert await feed.read_until(b"\n\n") == b'event: gap\ndata: {"from":2,"to":5}\n\n'
    answer = await node.call("GET", "/watch?after=2")
    assert [json.loads(line) for line in answer.body.splitlines()] == [gap, {"event": "tick"}]
    assert answer.headers["x-gaffer-offset"] == position(node, 6)


@row("STR-03", "HTTP-37")
@pytest.mark.parametrize(("kind", "beat"), [("longpoll", b"\n"), ("continuous", b"\n"), ("eventsource", b":\n\n")])
async def test_heartbeats(node: HttpNode, kind: str, beat: bytes) -> None:
    feed = await node.follow(f"/watch/create?feed={kind}&heartbeat=0.1")
    assert (await feed.read_until(beat * 2)) == beat * 2
    await run(node)
    await feed.read_until(b'"create"')


async def test_a_heartbeat_ends_a_longpoll_that_has_seen_something(node: HttpNode) -> None:
    node.manager.events.publish("a")
    await eventually_async(lambda: node.manager.event_log.end == 1)
    answer = await node.call("GET", "/watch/b?after=0&heartbeat=0.1")
    assert (answer.body, answer.headers["x-gaffer-offset"]) == (b"", position(node, 1))


@row("R-72")
@pytest.mark.parametrize("query", ["feed=nope", "feed=normal", "heartbeat=nope", "after=1", "after=x", "tail=3b"])
async def test_what_cannot_be_watched(node: HttpNode, query: str) -> None:
    answer = await node.call("GET", f"/watch?{query}")
    assert (answer.status, answer.error) == (400, "bad_value")


async def test_head_says_what_would_come(node: HttpNode) -> None:
    answer = await node.call("HEAD", "/watch?feed=eventsource")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
    assert answer.headers["cache-control"] == "no-store, no-transform"
    assert (await node.call("HEAD", "/watch?feed=nope")).status == 400


@pytest.mark.parametrize("kind", ["longpoll", "continuous", "eventsource"])
async def test_a_client_that_leaves_is_forgotten(node: HttpNode, kind: str) -> None:
    feeds = [asyncio.create_task(node.follow(f"/watch/none?feed={kind}")) for _ in range(5)]
    await watched(node, 5)
    for feed in feeds:
        if kind == "longpoll":
            feed.cancel()
        else:
            (await feed).close()
    await watched(node, 0)


async def test_a_watch_gets_the_last_events_when_the_node_stops(node: HttpNode) -> None:
    await run(node)
    feed = await node.follow("/watch?feed=continuous")
    await node.stop()
    body = await asyncio.wait_for(feed.read_all(), 10)
    found = names([json.loads(line) for line in body.splitlines()])
    assert found[0] == "stopping"
    assert found[-2:] == ["exit", "proc.dummy.exit"]


@pytest.fixture
async def limited() -> AsyncIterator[HttpNode]:
    """A node with a key for all sessions, and one for the session blog."""
    keys = {"all": Grant(ALL_SCOPES), "blog": Grant(ALL_SCOPES, frozenset({"blog"}))}
    policy = make_policy(own_uid=os.getuid(), own_names=[], trust_local=False, verify=keys.get)
    async with running_node(access=policy) as node:
        yield node


async def test_a_key_for_some_sessions_gets_their_events_alone(limited: HttpNode) -> None:
    feed = await limited.follow("/watch?feed=continuous", {"X-Api-Key": "blog"})
    for session in ("shop", "blog", "default"):
        await limited.call("POST", f"/jobs/{session}", sleeper("web", start=False), {"X-Api-Key": "all"})
    limited.manager.events.publish("of nobody", {})
    await limited.call("DELETE", "/jobs/blog/web", headers={"X-Api-Key": "all"})
    messages = await lines(feed, 4)
    assert names(messages) == ["create", "stop", "proc.blog.web.stop", "delete"]
    assert {message["session"] for message in messages} == {"blog"}
