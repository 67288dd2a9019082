"""The log of a manager's events, and which of them a pattern gets."""

import asyncio
from typing import Any

import pytest

from gaffer import Manager
from gaffer.events import EventEmitter
from gaffer.loop import new_loop
from gaffer.process import ProcessConfig
from gaffer.streams.event_log import LIMIT, Event, matching
from gaffer.streams.rings import Cursor, Log
from support.managers import running_manager
from support.poll import eventually

EXIT = Event(
    ("proc.shop.web.exit", "job.shop.web.exit", "proc.7.exit"),
    lambda name: (({"event": name, "name": "shop.web", "session": "shop", "pid": 7},), {}),
)


def event(*args: Any, **kwargs: Any) -> Event:
    return Event(("note",), lambda _: (args, kwargs))


@pytest.mark.row("EVT-41")
@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        (".", "proc.shop.web.exit"),
        ("proc", "proc.shop.web.exit"),
        ("proc.shop.web", "proc.shop.web.exit"),
        ("proc.shop.web.exit.", "proc.shop.web.exit"),
        ("job", "job.shop.web.exit"),
        ("job.shop.web.exit", "job.shop.web.exit"),
        ("proc.7", "proc.7.exit"),
        ("proc.shop.we", None),
        ("exit", None),
        ("proc.8", None),
    ],
)
def test_a_pattern_gets_an_event_once_and_an_alias_only_by_naming_it(pattern: str, name: str | None) -> None:
    found = matching(EXIT, pattern)
    assert found == (None if name is None else (name, EXIT.payload(name)))
    assert name is None or EXIT.payload(name)["event"] == name


@pytest.mark.parametrize(
    ("published", "message"),
    [
        (event({"size": 1}), {"event": "note", "size": 1}),
        (event({"event": "other"}, more=2), {"event": "other", "more": 2}),
        (event(), {"event": "note"}),
        (event(1, "a"), {"event": "note", "args": [1, "a"]}),
        (event("alone", key=3), {"event": "note", "args": ["alone"], "key": 3}),
    ],
)
def test_whatever_an_application_publishes_has_a_message(published: Event, message: dict[str, Any]) -> None:
    assert published.payload("note") == message


def test_an_event_knows_its_session() -> None:
    assert EXIT.session == "shop"
    assert event({"session": 3}).session is None
    assert event(1).session is None


async def test_the_log_has_what_was_published_before_listeners_get_it() -> None:
    log: Log[Event] = Log(10)
    emitter = EventEmitter(asyncio.get_running_loop(), history=log)
    ends = []
    emitter.subscribe("a", lambda *_: ends.append(log.end))
    cursor = Cursor(log)
    emitter.publish("a.", {"n": 1})
    emitter.publish("b", {"n": 2})
    assert log.end == 0, "events are delivered on the loop, not where they are published"
    found = await cursor.next()
    assert found is not None
    assert [matching(each) for each in found.items] == [("a", {"event": "a", "n": 1}), ("b", {"event": "b", "n": 2})]
    assert ends == [1]
    emitter.publish("never")
    emitter.close()
    assert await cursor.next() is None, "a closed emitter ends its readers"


def test_a_manager_logs_events_without_listeners_and_as_they_were() -> None:
    with running_manager() as manager:
        manager.load(ProcessConfig("j", "/bin/sleep 1000", detach=False))
        eventually(lambda: manager.pids("j"))
        os_pid = manager.list("j")[0].os_pid
        manager.unload("j")
        eventually(lambda: not manager.running)
        eventually(lambda: any(each.names[0] == "exit" for each in manager.event_log.read(0).items))
        messages = [matching(each) for each in manager.event_log.read(0).items]
        names = [found[0] for found in messages if found is not None]
        assert [name for name in names if not name.startswith("proc")] == [
            *("create", "start", "spawn", "stop", "stop_pid", "delete", "exit")
        ]
        spawn = dict(found for found in messages if found is not None)["proc.j.spawn"]
        assert (spawn["os_pid"], spawn["detach"]) == (os_pid, False), "the process is gone when this is read"


def test_the_log_keeps_the_newest_events_and_those_of_before_the_run() -> None:
    manager = Manager(new_loop())
    for number in range(LIMIT + 5):
        manager.events.publish("tick", number)
    manager.start()
    manager.loop.call_soon(manager.stop)
    manager.run()
    manager.loop.close()
    log = manager.event_log
    assert log.closed
    assert log.end - log.start == LIMIT
    last = log.read(log.end - 2).items
    assert [each.payload(each.names[0]) for each in last] == [
        {"event": "tick", "args": [LIMIT + 4]},
        {"event": "stopping"},
    ]
