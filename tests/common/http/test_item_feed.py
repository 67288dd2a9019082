"""Feeds of changes: how often events come, what they contain, and what a slow reader gets."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gaffer.http.item_feed import INTERVAL, MOST_RECORDS, ItemFeed, News
from gaffer.http.search import Tally
from gaffer.streams.rings import Log


class Reader:
    """A reader of a feed of numbers, which are the items; `events` are those it got, each with the time."""

    def __init__(self, source: Log[int], after: str | None = None, heartbeat: str = "false") -> None:
        self.feed = ItemFeed(source, "e", after, heartbeat)
        self.events: list[tuple[float, str]] = []
        self.may_send = asyncio.Event()
        self.may_send.set()

    async def find(self, records: list[int]) -> News | None:
        return None if -1 in records else News(sorted(set(records)), [], Tally(0, {}), {})

    async def send(self, event: bytes) -> None:
        await self.may_send.wait()
        self.events.append((time.monotonic(), event.decode()))

    async def wait(self, text: str) -> None:
        async with asyncio.timeout(20):
            while not any(text in event for _, event in self.events):  # noqa: ASYNC110 - what it waits for is I/O
                await asyncio.sleep(0.01)


@asynccontextmanager
async def running(reader: Reader) -> AsyncIterator[Reader]:
    task = asyncio.create_task(reader.feed.run(reader.find, reader.send))
    try:
        yield reader
    finally:
        reader.may_send.set()
        reader.feed.end()
        async with asyncio.timeout(20):
            await task


async def test_many_changes_are_few_events() -> None:
    source: Log[int] = Log(5000)
    async with running(Reader(source)) as reader:
        for number in range(1, 60):
            source.append(number)
            await asyncio.sleep(0.01)
        await reader.wait(f"id: e:{source.end}\n")
    times = [at for at, _ in reader.events]
    assert len(times) >= 2
    # Of the times of two events only the last parts may be early: that of the second, by what the first was late.
    assert len(times) <= (times[-1] - times[0]) / INTERVAL + 2
    found = [event.split("data: ")[1] for _, event in reader.events]
    assert all(f"{number}" in "".join(found) for number in range(1, 60))


async def test_the_first_change_comes_at_once() -> None:
    source: Log[int] = Log(10)
    async with running(Reader(source)) as reader:
        source.append(7)
        await reader.wait('"changed":[7]')


async def test_the_end_waits_for_no_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gaffer.http.item_feed.INTERVAL", 1000.0)
    source: Log[int] = Log(10)
    async with running(Reader(source)) as reader:
        source.append(1)
        await reader.wait('"changed":[1]')
        source.append(2)
        await asyncio.sleep(0)
    assert '"changed":[2]' in reader.events[-1][1]


async def test_a_slow_reader_holds_nothing_and_starts_again() -> None:
    source: Log[int] = Log(10)
    reader = Reader(source)
    reader.may_send.clear()
    async with running(reader):
        source.append(1)
        await asyncio.sleep(0)
        for number in range(2, 100):
            source.append(number)
            await asyncio.sleep(0)
        reader.may_send.set()
        await reader.wait("event: reset\nid: e:99\n")
        source.append(100)
        await reader.wait('"changed":[100]')


async def test_more_records_than_an_event_may_have_reset() -> None:
    source: Log[int] = Log(2 * MOST_RECORDS)
    reader = Reader(source, after="e:0")
    for number in range(MOST_RECORDS + 200):
        source.append(number + 1)
    async with running(reader):
        await reader.wait(f"event: reset\nid: e:{source.end}\n")
    assert len(reader.events) == 1


async def test_what_is_too_much_to_find_resets() -> None:
    source: Log[int] = Log(10)
    async with running(Reader(source)) as reader:
        source.append(-1)
        await reader.wait("event: reset\nid: e:1\n")


async def test_a_reader_continues_where_it_was() -> None:
    source: Log[int] = Log(10)
    for number in range(5):
        source.append(number)
    async with running(Reader(source, after="e:3")) as reader:
        await reader.wait('"changed":[3,4]')
        assert "id: e:5\n" in reader.events[0][1]
