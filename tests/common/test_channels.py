"""Topics and the channels that `Manager.subscribe` gives out."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gaffer import Manager
from gaffer.errors import ProcessError, ProcessNotFound, TopicError
from gaffer.process import ProcessConfig
from gaffer.supervision.channels import EventChannel, StatChannel, StreamChannel
from support.managers import running_manager
from support.poll import eventually

pytestmark = pytest.mark.row("MGR-59")

SLEEP = "/bin/sleep 1000"


class Callback:
    """Keeps what it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, event: str, message: dict[str, Any]) -> None:
        self.calls.append((event, message))

    @property
    def events(self) -> list[str]:
        return [event for event, _ in self.calls]

    def data(self) -> bytes:
        return b"".join(message["data"] for _, message in self.calls)


@pytest.fixture
def manager() -> Iterator[Manager]:
    with running_manager() as manager:
        yield manager


def run_to_its_end(manager: Manager, name: str) -> None:
    """Load a job whose process ends at once, and wait until its last event was delivered to everybody."""
    ended: list[str] = []
    manager.events.subscribe(f"proc.{name}.exit", lambda event, message: ended.append(event))
    manager.load(ProcessConfig(name, "true", backoff=100))
    eventually(lambda: ended)
    done = threading.Event()
    manager.loop.call_soon_threadsafe(done.set)
    assert done.wait(10)


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        (
            "EVENTS",
            ["create", "start", "proc.shop.web.start", "spawn", "proc.shop.web.spawn", "exit", "proc.shop.web.exit"],
        ),
        ("EVENTS:exit", ["exit"]),
        ("EVENTS:proc.shop", ["proc.shop.web.start", "proc.shop.web.spawn", "proc.shop.web.exit"]),
        ("JOB:shop.web", ["start", "spawn", "exit"]),
        ("JOB:shop:web", ["start", "spawn", "exit"]),
        ("PROCESS:shop.web", ["start", "spawn", "exit"]),
        ("PROCESS:1", ["spawn", "exit"]),
        ("PROCESS:shop", []),  # a job of that name in the default session
        ("JOB:web", []),
    ],
)
def test_events_and_the_names_they_have_in_a_channel(manager: Manager, topic: str, expected: list[str]) -> None:
    callback = Callback()
    channel = manager.subscribe(topic)
    assert isinstance(channel, EventChannel)
    channel.bind_all(callback)
    run_to_its_end(manager, "shop.web")
    assert callback.events == expected
    for event, message in callback.calls:
        assert message["event"] == event
        assert message["job"] == "shop.web"


@pytest.mark.parametrize(
    ("topic", "event"), [("EVENTS", "exit"), ("EVENTS", "proc.j.exit"), ("JOB:j", "exit"), ("PROCESS:1", "exit")]
)
def test_binding_one_event(manager: Manager, topic: str, event: str) -> None:
    callback, unbound = Callback(), Callback()
    channel = manager.subscribe(topic)
    assert isinstance(channel, EventChannel)
    channel.bind(event, callback)
    channel.bind(event, callback)
    channel.bind(event, unbound)
    channel.unbind(event, unbound)
    channel.unbind("never", unbound)
    run_to_its_end(manager, "j")
    assert callback.events == [event]
    assert callback.calls[0][1]["exit_code"] == 0
    assert unbound.calls == []


def test_a_closed_channel_is_silent_and_takes_nothing_from_another(manager: Manager) -> None:
    callback = Callback()
    topics = ("EVENTS", "JOB:j")
    first, second = ([manager.subscribe(topic) for topic in topics] for _ in range(2))
    for channel in (*first, *second):
        assert isinstance(channel, EventChannel)
        channel.bind_all(callback)
        channel.bind("start", callback)
    for topic, channel in zip(topics, first, strict=True):
        manager.unsubscribe(topic, channel)
    run_to_its_end(manager, "j")
    assert callback.events.count("create") == 1
    assert callback.events.count("exit") == 2
    for channel in second:
        assert isinstance(channel, EventChannel)
        channel.unbind_all(callback)
    callback.calls.clear()
    run_to_its_end(manager, "k")
    assert callback.events == ["start"]


def test_a_channel_is_given_back_under_its_own_topic(manager: Manager) -> None:
    with pytest.raises(TopicError, match="is subscribed to 'EVENTS'"):
        manager.unsubscribe("JOB:j", manager.subscribe("EVENTS"))


@pytest.mark.parametrize("topic", ["STATS:j", "STATS:1"])
def test_stats(manager: Manager, topic: str) -> None:
    callback, unbound = Callback(), Callback()
    manager.load(ProcessConfig("j", SLEEP))
    eventually(lambda: manager.pids("j"))
    channel = manager.subscribe(topic)
    assert isinstance(channel, StatChannel)
    for each in (callback, callback, unbound):
        channel.bind(each)
    channel.unbind(unbound)
    eventually(lambda: len(callback.calls) > 2)
    assert set(callback.events) == {"STATS"}
    assert callback.calls[0][1]["pid"] == 1
    rounds = [message["ctime"] for _, message in callback.calls]
    assert unbound.calls == []
    channel.close()
    witness = Callback()
    manager.monitor("j", witness)
    eventually(lambda: len(witness.calls) > 1)
    assert len(callback.calls) <= len(rounds) + 1


@pytest.mark.parametrize(("topic", "expected"), [("STREAM:1.out", b"one\n"), ("STREAM:1", b"one\ntwo\n")])
def test_streams(manager: Manager, topic: str, expected: bytes) -> None:
    program = "sh -c 'read go; echo one; echo two >&2; read more; echo late'"
    manager.load(ProcessConfig("j", program, redirect_output=["out", "err"], redirect_input=True))
    eventually(lambda: manager.pids("j"))
    callback = Callback()
    channel = manager.subscribe(topic)
    assert isinstance(channel, StreamChannel)
    channel.bind(callback)
    channel.bind(callback)
    manager.send(1, "go\n")
    eventually(lambda: sorted(callback.data().split()) == sorted(expected.split()))
    assert callback.calls[0][1]["pid"] == 1
    channel.close()
    manager.send(1, "more\n")
    eventually(lambda: manager.info("j")["last_exit"])
    assert b"late" not in callback.data()


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "NOPE",
        "EVENTS:",
        "events",
        "JOB",
        "JOB:",
        "JOB:12",
        "JOB:a b",
        "PROCESS:",
        "STATS:",
        "STREAM:",
        "STREAM:x.out",
    ],
)
def test_a_bad_topic_says_which_there_are(manager: Manager, topic: str) -> None:
    with pytest.raises(TopicError) as caught:
        manager.subscribe(topic)
    assert caught.value.errno == 400
    assert "STREAM:<pid>" in (caught.value.hint or "")


@pytest.mark.parametrize("topic", ["STATS:nope", "STATS:99", "STREAM:99", "STREAM:99.out"])
def test_what_is_not_there_has_no_stats_and_streams(manager: Manager, topic: str) -> None:
    with pytest.raises(ProcessNotFound):
        manager.subscribe(topic)


@pytest.mark.parametrize(
    ("topic", "labels", "errno"), [("STREAM:1", [], 400), ("STREAM:1.out", [], 400), ("STREAM:1.x", ["out"], 404)]
)
def test_streams_that_are_not_redirected(manager: Manager, topic: str, labels: list[str], errno: int) -> None:
    manager.load(ProcessConfig("j", SLEEP, redirect_output=labels))
    eventually(lambda: manager.pids("j"))
    with pytest.raises(ProcessError) as caught:
        manager.subscribe(topic)
    assert caught.value.errno == errno


def test_a_callback_may_close_its_channel(manager: Manager) -> None:
    channel = manager.subscribe("EVENTS")
    assert isinstance(channel, EventChannel)
    calls: list[str] = []
    stop: Callable[..., object] = lambda event, message: (calls.append(event), channel.close())  # noqa: E731
    channel.bind_all(stop)
    run_to_its_end(manager, "j")
    assert calls == ["create"]
