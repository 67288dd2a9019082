"""Queries that are answered without a handler: the same answers, whatever form the request has."""

import asyncio
import re
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from gaffer.schemas.messages import Endpoint, Process
from support.other_lookupd import http_server
from support.registry import json
from support.served_lookup import ServedLookup, both_ways, slow_reader

PLAIN = "GET {path} HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture
async def served() -> AsyncIterator[ServedLookup]:
    lookup = ServedLookup()
    lookup.registry.tables.replace(lookup.identify(), 1, {"shop.web": [], "a b.c": []})
    async with http_server(lookup.application) as lookup.url:
        yield lookup


async def ask(url: str, *requests: str) -> list[tuple[str, dict[str, str], bytes]]:
    """Send requests on one connection, at once; returns status line, headers and body of each answer."""
    answers = []
    async with slow_reader(url) as (reader, writer):
        writer.write("".join(request + "\r\n" for request in requests).encode())
        for request in requests:
            head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode()
            status, *lines = head.strip().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines)
            size = 0 if request.startswith("HEAD") else int(headers["Content-Length"])
            answers.append((status, headers, await reader.readexactly(size)))
    return answers


def without_ages(body: bytes) -> dict[str, Any]:
    answer = json(body)
    for node in answer["nodes"]:
        assert node.pop("age_ms") >= 0
    return answer


@pytest.mark.parametrize(
    "request_text",
    [
        PLAIN + "Connection: keep-alive\r\n",
        PLAIN + "Connection: close\r\n",
        PLAIN + "Origin: http://localhost\r\n",
        PLAIN + "Content-Length: 0\r\n",
        PLAIN.replace("1.1", "1.0"),
    ],
)
async def test_every_form_of_a_request_has_the_same_answer(served: ServedLookup, request_text: str) -> None:
    plain, other = [(await ask(served.url, text.format(path="/nodes")))[0] for text in (PLAIN, request_text)]
    assert plain[0] == other[0] == "HTTP/1.1 200 OK"
    assert without_ages(plain[2]) == without_ages(other[2])
    same = ("Content-Type", "Cache-Control", "X-Content-Type-Options")
    assert [plain[1][name] for name in same] == [other[1][name] for name in same]
    assert plain[1].keys() - {"Connection"} == other[1].keys() - {"Connection"}


async def test_head_has_the_headers_alone(served: ServedLookup) -> None:
    request = PLAIN.format(path="/findJob?name=shop.web")
    ((_, get, _),) = await ask(served.url, request)
    ((status, head, body),) = await ask(served.url, request.replace("GET", "HEAD"))
    assert (status, body) == ("HTTP/1.1 200 OK", b"")
    assert head["Content-Type"] == get["Content-Type"]


async def test_several_requests_may_come_at_once(served: ServedLookup) -> None:
    paths = ("/findJob?name=shop.web", "/findJob", "/findJob?name=a%20b.c", "/nope", "/jobs", "/findJob?name=%ff")
    answers = await ask(served.url, *(PLAIN.format(path=path) for path in paths))
    assert [status.split()[1] for status, _, _ in answers] == ["200", "400", "200", "404", "200", "400"]
    found = json(answers[0][2])["sources"], json(answers[2][2])["sources"], json(answers[4][2])["jobs"]
    assert [len(sources) for sources in found] == [1, 1, 2]


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_large_answer_comes_in_parts_and_lets_others_in_between(served: ServedLookup, version: str) -> None:
    tables, (node,) = served.registry.tables, served.registry.nodes
    tables.replace(node, 2, {f"shop.{number}": [] for number in range(9000)})

    async def read_to_the_end() -> tuple[bytes, bytes, bytes]:
        async with slow_reader(served.url) as (reader, writer):
            request = PLAIN.replace("1.1", version).format(path="/jobs") + "Connection: close\r\n\r\n"
            writer.write(request.encode())
            return (await reader.read(-1)).partition(b"\r\n\r\n")

    async with asyncio.TaskGroup() as group:
        large = group.create_task(read_to_the_end())
        small = group.create_task(ask(served.url, PLAIN.format(path="/findJob?name=shop.1")))
        await asyncio.wait([large, small], return_when=asyncio.FIRST_COMPLETED)
        assert small.done()
        assert not large.done()
    head, _, body = large.result()
    assert head.startswith(b"HTTP/1.1 200 OK")
    if version == "1.1":
        body = re.sub(rb"(?:^|\r\n)[0-9a-f]+\r\n", b"", body)  # the heads of chunks
    assert [job["name"] for job in json(body)["jobs"]] == [f"shop.{number}" for number in range(9000)]
    ((_, headers, _),) = await ask(served.url, PLAIN.format(path="/jobs").replace("GET", "HEAD"))
    assert int(headers["Content-Length"]) > 1_000_000


async def test_a_job_with_very_many_processes_is_not_held_whole_for_each_reader(served: ServedLookup) -> None:
    tables, (node,) = served.registry.tables, served.registry.nodes
    endpoints = (Endpoint(200 * "x", "10.0.0.7", 8000),)
    tables.replace(node, 2, {"shop.web": [Process(pid, "ready", endpoints) for pid in range(30_000)]})
    whole = b"".join(served.application.queries.find_job("shop.web", 0.0))
    request = (PLAIN.format(path="/findJob?name=shop.web") + "\r\n").encode()
    async with AsyncExitStack() as stack:
        tracemalloc.start()
        try:
            for _ in range(10):
                reader, writer = await stack.enter_async_context(slow_reader(served.url))
                writer.write(request)
                assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
                both_ways(writer).pause_reading()
            now = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        assert now < 4 * len(whole)


async def test_who_asks_and_does_not_read_costs_no_memory(served: ServedLookup) -> None:
    tables, (node,) = served.registry.tables, served.registry.nodes
    tables.replace(node, 2, {f"shop.{number}": [] for number in range(5000)})
    size = sum(map(len, served.application.queries.jobs(0.0)))
    assert size > 1_000_000
    async with slow_reader(served.url) as (reader, writer):
        both_ways(writer).pause_reading()
        tracemalloc.start()
        try:
            writer.write(50 * (PLAIN.format(path="/jobs") + "\r\n").encode())
            for _ in range(100):
                await asyncio.sleep(0)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < size
        both_ways(writer).resume_reading()
        assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
