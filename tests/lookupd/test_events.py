"""GET /events: a snapshot, then every change, and no gap whatever the follower does."""

import asyncio
import signal
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import requests

from gaffer_lookupd import application
from support.daemons import Daemon, lookupd
from support.event_source import Event, event_source
from support.follower import Follower, in_order, jobs_without_ages
from support.other_lookupd import http_server
from support.peer import peer
from support.registry import json
from support.served_lookup import ServedLookup, both_ways, slow_reader

ENDPOINT = {"name": "http", "address": "10.0.0.7", "port": 8000}


@pytest.fixture(scope="module")
def server() -> Iterator[Daemon]:
    with lookupd("--ttl", "3", "--interval", "1") as running:
        yield running


def get(server: Daemon, path: str) -> requests.Response:
    return requests.get(server.url + path, timeout=10)


@pytest.mark.row("LP-41", "LP-42", "LP-43")
def test_a_snapshot_and_the_changes_after_it_are_what_the_queries_say(server: Daemon) -> None:
    with peer(server.url) as before, event_source(server.url + "/events") as events, peer(server.url) as node:
        first = events.next()
        assert first.event == first.data["event"] == "snapshot"
        follower = Follower(first.data)

        def follow(last: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
            message: dict[str, Any]
            while True:
                name, position, message = events.next()
                assert name == message["event"]
                follower.take(message)
                if last(message):
                    break
            answer = get(server, "/jobs").json()
            assert position == f"{answer['epoch']}:{answer['seq']}"
            assert in_order(follower.jobs()) == in_order(jobs_without_ages(answer))
            return message

        before.identify("old")
        before.ask("REGISTER_JOB", job_name="shop.web")
        before.ask("REGISTER_PROCESS", job_name="shop.web", pid=4)
        message = follow(lambda message: message["event"] == "add_process")
        assert (message["node"]["name"], message["job_name"], message["pid"]) == ("old", "shop.web", 4)
        node.identify("new", id="a1", incarnation=7, labels={"zone": "z"})
        node.ask("SNAPSHOT", seq=1, jobs={"shop.web": [{"pid": 1, "state": "starting", "endpoints": [ENDPOINT]}]})
        follow(lambda message: message["event"] == "add_process")
        node.ask("UPDATE_PROCESS", job_name="shop.web", pid=1, seq=2, state="ready", endpoints=[ENDPOINT])
        message = follow(lambda message: message["event"] == "update_process")
        assert (message["state"], message["endpoints"], message["node"]["incarnation"]) == ("ready", [ENDPOINT], 7)
        before.ask("UNREGISTER_PROCESS", job_name="shop.web", pid=4)
        before.ask("UNREGISTER_JOB", job_name="shop.web")
        follow(lambda message: message["event"] == "remove_job")
        node.ask("DRAIN")
        message = follow(lambda message: message["event"] == "update_node")
        assert (message["name"], message["origin"], message["status"]) == ("new", "http://new:5000", "draining")
        node.ask("LEAVE")
        message = follow(lambda message: message["event"] == "remove_node")
        assert (message["version"], message["reason"]) == ("0.1", "left")
        assert [grave["id"] for grave in get(server, "/jobs").json()["tombstones"]] == list(follower.tombstones)


@pytest.mark.parametrize("how", ["header", "parameter", "header before parameter"])
def test_it_goes_on_after_the_last_event_that_the_client_has(server: Daemon, how: str) -> None:
    with peer(server.url) as node, event_source(server.url + "/events") as events:
        node.identify("n1")
        for job in ("s.a", "s.b", "s.c"):
            node.ask("REGISTER_JOB", job_name=job)
        seen: list[Event] = []
        while not seen or seen[-1].data.get("job_name") != "s.c":
            seen.append(events.next())
        at, rest = seen[-3].id, seen[-2:]
        url = server.url + "/events"
        headers: dict[str, str] = {}
        if how != "header":
            url += f"?since={at if how == 'parameter' else seen[-1].id}"
        if how != "parameter":
            headers = {"Last-Event-ID": at}
        with event_source(url, headers) as later:
            assert [later.next(), later.next()] == rest
            node.ask("REGISTER_JOB", job_name="s.d")
            assert later.next().data["job_name"] == "s.d"


@pytest.mark.parametrize("since", ["0123456789abcdef:1", "{epoch}:999999999"])
def test_a_position_of_another_start_or_still_to_come_gives_a_snapshot(server: Daemon, since: str) -> None:
    since = since.format(epoch=get(server, "/nodes").json()["epoch"])
    with event_source(f"{server.url}/events?since={since}") as events:
        assert events.next().event == "snapshot"


def test_silence_is_filled_with_comments(server: Daemon) -> None:
    with event_source(server.url + "/events?heartbeat=0.1") as events:
        events.next()
        assert next(line for line in events.lines() if line.startswith(":")) == ":"


@pytest.mark.parametrize("query", ["since=5", "since=x:y", "heartbeat=0", "heartbeat=soon", "heartbeat=nan"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_wrong_parameter_is_an_error(server: Daemon, query: str, method: str) -> None:
    answer = requests.request(method, f"{server.url}/events?{query}", timeout=10)
    assert answer.status_code == 400
    assert method == "HEAD" or query.partition("=")[0] in answer.json()["message"]


def test_the_stream_ends_with_lookupd_and_tells_nothing_of_nodes_that_this_cuts_off() -> None:
    with lookupd() as server, peer(server.url) as node:
        node.identify("n1", id="a1")
        with event_source(server.url + "/events") as events:
            assert events.next().event == "snapshot"
            server.signal(signal.SIGTERM)
            assert node.is_closed()
            with pytest.raises(EOFError):
                events.next()


# Followers that are overtaken


async def change_often(served: ServedLookup) -> None:
    """Make 10,000 changes of 350 bytes."""
    node, name = served.identify(), "s." + 150 * "x"
    for number in range(5000):
        served.registry.tables.replace(node, node.seq + 1, {f"{name}{number}": []})
        if number % 40 == 0:
            await asyncio.sleep(0)


async def read_events(reader: asyncio.StreamReader, last: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """Read raw server-sent events from a socket until `last(message)`; returns their messages."""
    messages: list[dict[str, Any]] = []
    data: list[str] = []
    while True:
        line = (await asyncio.wait_for(reader.readline(), 10)).decode()
        if not line:
            raise EOFError
        if line.startswith("data: "):
            data.append(line.removeprefix("data: "))
        elif line == "\n" and data:
            messages.append(json("".join(data).encode()))
            data = []
            if last(messages[-1]):
                return messages


@asynccontextmanager
async def reading_slowly(url: str, query: str = "") -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.Transport]]:
    """A follower with small buffers; gives what it reads from and its transport."""
    async with slow_reader(url) as (reader, writer):
        writer.write(f"GET /events{query} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        yield reader, both_ways(writer)


async def test_who_is_overtaken_gets_the_map_again_and_costs_no_memory() -> None:
    served = ServedLookup(limit=100)
    async with http_server(served.application) as url, reading_slowly(url) as (reader, transport):
        await reader.readuntil(b"event: snapshot")
        transport.pause_reading()
        tracemalloc.start()
        try:
            await change_often(served)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 2_000_000
        transport.resume_reading()
        messages = await read_events(reader, lambda message: message.get("seq") == served.registry.seq)
        snapshots = [number for number, message in enumerate(messages) if message["event"] == "snapshot"]
        assert len(snapshots) >= 2
        follower = Follower(messages[snapshots[-1]])
        for message in messages[snapshots[-1] + 1 :]:
            follower.take(message)
        assert in_order(follower.jobs()) == in_order(jobs_without_ages(json(served.application.queries.jobs(0.0))))


async def test_who_takes_nothing_for_long_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application, "SEND_TIMEOUT", 0.1)
    served = ServedLookup(limit=100)
    async with http_server(served.application) as url, reading_slowly(url) as (reader, transport):
        transport.pause_reading()
        began = time.monotonic()
        while time.monotonic() < began + 0.8:
            await change_often(served)
        transport.resume_reading()
        with pytest.raises(EOFError):
            await read_events(reader, lambda message: message.get("seq") == served.registry.seq)


async def test_changes_that_are_no_longer_kept_are_not_passed_off_as_all() -> None:
    served = ServedLookup(limit=3)
    node = served.identify()  # two changes
    for number in range(3):
        served.registry.tables.register_job(node, f"s.j{number}")
    async with http_server(served.application) as url:
        for since, expected in [("e:1", "snapshot"), ("e:2", "add_job"), ("e:4", "add_job")]:
            async with reading_slowly(url, f"?since={since}") as (reader, _):
                assert await reader.readline() == f"event: {expected}\n".encode()
