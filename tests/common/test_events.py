import asyncio
import logging
import sys
import threading
from typing import Any

import pytest

from gaffer.events import EventEmitter
from gaffer.loop import new_loop
from support.poll import eventually_async

row = pytest.mark.row


@pytest.fixture
async def emitter() -> Any:
    emitter = EventEmitter(asyncio.get_running_loop())
    yield emitter
    emitter.close()


class Listener:
    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __call__(self, event: str, *args: Any, **kwargs: Any) -> None:
        self.calls.append((event, args, kwargs))

    @property
    def events(self) -> list[str]:
        return [event for event, _, _ in self.calls]


async def turn() -> None:
    await asyncio.sleep(0)
    await asyncio.sleep(0)


@row("EMT-03", "EMT-04", "EMT-05")
@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a", ["a", "a.b", "a.b.c"]),
        ("a.", ["a", "a.b", "a.b.c"]),
        ("a.b", ["a.b", "a.b.c"]),
        ("a.b.c", ["a.b.c"]),
        (".", ["a", "a.b", "a.b.c", "ab", "b.a"]),
        ("b", ["b.a"]),
        ("c", []),
    ],
)
async def test_patterns_are_dotted_prefixes(emitter: EventEmitter, pattern: str, expected: list[str]) -> None:
    listener = Listener()
    emitter.subscribe(pattern, listener)
    for event in ("a", "a.b", "a.b.c", "ab", "b.a"):
        emitter.publish(event)
    await turn()
    assert listener.events == expected


@row("EMT-06", "EMT-07")
async def test_publishing_never_calls_back_at_once_and_passes_the_arguments(emitter: EventEmitter) -> None:
    listener = Listener()
    emitter.subscribe("a", listener)
    emitter.publish("a.b", 1, named=2)
    assert listener.calls == []
    await turn()
    assert listener.calls == [("a.b", (1,), {"named": 2})]


@row("EMT-02", "EMT-08", "EMT-10")
async def test_once_is_once(emitter: EventEmitter) -> None:
    once, by_argument, always, undone = Listener(), Listener(), Listener(), Listener()
    emitter.subscribe("a", always)
    emitter.subscribe("a", by_argument, once=True)
    emitter.subscribe_once("a", once)
    emitter.subscribe_once("a", undone)
    emitter.unsubscribe_once("a", undone)
    emitter.publish("a", 1)
    emitter.publish("a", 2)
    await turn()
    assert once.calls == by_argument.calls == [("a", (1,), {})]
    assert always.calls == [("a", (1,), {}), ("a", (2,), {})]
    assert undone.calls == []


@row("EMT-09")
async def test_unsubscribing(emitter: EventEmitter) -> None:
    kept, gone = Listener(), Listener()
    for pattern in (".", "a"):
        emitter.subscribe(pattern, kept)
        emitter.subscribe(pattern, gone)
        emitter.unsubscribe(pattern, gone)
    emitter.unsubscribe("never", gone)
    emitter.publish("a")
    await turn()
    assert kept.events == ["a", "a"]
    assert gone.events == []


@row("EMT-11")
async def test_unsubscribing_all_listeners_of_some_patterns(emitter: EventEmitter) -> None:
    first, second = Listener(), Listener()
    emitter.subscribe("a", first)
    emitter.subscribe("a", second)
    emitter.subscribe("b", second)
    emitter.unsubscribe_all(["a", "never"])
    emitter.publish("a")
    emitter.publish("b")
    await turn()
    assert first.events == []
    assert second.events == ["b"]


@row("EMT-12")
async def test_closing_drops_what_waits(emitter: EventEmitter) -> None:
    listener = Listener()
    emitter.subscribe("a", listener)
    emitter.publish("a")
    emitter.close()
    emitter.publish("a")
    await turn()
    assert listener.calls == []


@row("EMT-13")
async def test_publishing_from_threads_is_delivered_on_the_loop_in_order(emitter: EventEmitter) -> None:
    seen: list[tuple[int, int, bool]] = []
    home = threading.current_thread()
    emitter.subscribe("a", lambda event, n, i: seen.append((n, i, threading.current_thread() is home)))

    def publish(number: int) -> None:
        for index in range(200):
            emitter.publish("a", number, index)

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    await eventually_async(lambda: len(seen) == 800)
    for thread in threads:
        thread.join()
    assert all(on_loop for _, _, on_loop in seen)
    for number in range(4):
        assert [index for n, index, _ in seen if n == number] == list(range(200))


@row("EMT-15")
@pytest.mark.expects_errors("a listener of .a(.b)?. failed")
async def test_a_listener_that_raises_disturbs_no_other(
    emitter: EventEmitter, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(event: str) -> None:
        raise RuntimeError("broken on purpose")

    listener = Listener()
    emitter.subscribe("a", broken)
    emitter.subscribe("a", listener)
    with caplog.at_level(logging.ERROR):
        emitter.publish("a")
        await turn()
    assert listener.events == ["a"]
    assert "broken on purpose" in caplog.text


@row("EMT-16")
async def test_the_queue_drops_the_oldest_and_counts_them() -> None:
    emitter = EventEmitter(asyncio.get_running_loop(), max_size=3)
    listener = Listener()
    emitter.subscribe(".", listener)
    for number in range(5):
        emitter.publish("a", number)
    await turn()
    assert [args[0] for _, args, _ in listener.calls] == [2, 3, 4]
    assert emitter.dropped == 2
    emitter.close()


async def test_a_record_with_aliases_comes_once_under_the_name_that_was_asked_for(emitter: EventEmitter) -> None:
    listeners = {pattern: Listener() for pattern in (".", "proc", "job", "job.s.j", "proc.7", "exit")}
    for pattern, listener in listeners.items():
        emitter.subscribe(pattern, listener)
    emitter.publish_record(("proc.j.exit", "job.s.j.exit", "proc.7.exit"), lambda name: ((name.upper(),), {}))
    await turn()
    assert {pattern: listener.calls for pattern, listener in listeners.items()} == {
        ".": [("proc.j.exit", ("PROC.J.EXIT",), {})],
        "proc": [("proc.j.exit", ("PROC.J.EXIT",), {})],
        "job": [("job.s.j.exit", ("JOB.S.J.EXIT",), {})],
        "job.s.j": [("job.s.j.exit", ("JOB.S.J.EXIT",), {})],
        "proc.7": [("proc.7.exit", ("PROC.7.EXIT",), {})],
        "exit": [],
    }


async def test_subscribing_twice_counts_once(emitter: EventEmitter) -> None:
    listener = Listener()
    emitter.subscribe("a", listener)
    emitter.subscribe("a.", listener)
    emitter.publish("a")
    await turn()
    assert listener.events == ["a"]


@row("EMT-01")
def test_it_can_be_made_without_a_loop() -> None:
    emitter = EventEmitter()
    assert emitter.loop.is_running() is False
    emitter.loop.close()


@pytest.mark.expects_errors("a listener of .a(.b)?. failed")
def test_a_listener_that_exits_keeps_no_other_from_being_called() -> None:
    loop = new_loop()
    emitter, listener = EventEmitter(loop), Listener()
    cancelled = loop.create_future()
    cancelled.cancel()
    emitter.subscribe("a", lambda *_: cancelled.result())  # CancelledError is no Exception
    emitter.subscribe("a", lambda *_: sys.exit(7))
    emitter.subscribe("a", listener)
    emitter.publish("a")
    emitter.publish("a.b")
    with pytest.raises(SystemExit, match="7"):
        loop.run_forever()
    assert listener.events == ["a", "a.b"]
    emitter.close()
    loop.close()
