"""Following events: what listeners get, and what becomes of lost connections."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gaffer_client import EventsourceClient, Server, Watcher, errors
from gaffer_client.eventsource import Received
from support.daemons import gafferd
from support.poll import eventually
from support.scripted import Visit, answer, events, scripted_server


@contextmanager
def following(client: EventsourceClient) -> Iterator[list[tuple[str, Any]]]:
    """Start a client until the block ends; everything it hears."""
    heard: list[tuple[str, Any]] = []
    client.subscribe(".", lambda event, data: heard.append((event, data)))
    client.start()
    try:
        yield heard
    finally:
        client.stop()


@pytest.mark.row("STR-33")
def test_events_that_are_split_over_network_reads() -> None:
    texts = ("event: std", "out\nda", "ta: ä line\ndata: ", "more\n", "\nevent: stderr\ndata: x\n\n")
    with scripted_server(events(*texts, hold=True)) as server:
        with following(EventsourceClient(f"{server.url}/streams/1/stdout?feed=eventsource")) as heard:
            eventually(lambda: len(heard) == 2)
        assert heard == [("stdout", "ä line\nmore"), ("stderr", "x")]
        [visit] = server.visits
        assert visit.path == "/streams/1/stdout?feed=eventsource"
        assert visit.header("Accept") == "text/event-stream"
        assert visit.header("Last-Event-ID") is None


@pytest.mark.row("STR-33")
def test_subscriptions() -> None:
    both = "".join(f"event: {name}\ndata: {number}\n\n" for number, name in enumerate(["spawn", "proc.web.exit"] * 2))
    with scripted_server(events(both), answer(404)) as server:
        client = EventsourceClient(server.url, "/watch")
        heard: list[tuple[str, str]] = []

        def listen(kind: str) -> Callable[[str, str], object]:
            return lambda event, data: heard.append((kind, f"{event} {data}"))

        mine, gone = listen("proc"), listen("gone")
        client.subscribe("proc", mine)
        client.subscribe("proc", mine)
        client.subscribe_once("spawn", listen("once"))
        client.subscribe("proc.we", listen("other"))
        client.subscribe(".", gone)
        client.unsubscribe(".", gone)
        client.run()
    assert heard == [("once", "spawn 0"), ("proc", "proc.web.exit 1"), ("proc", "proc.web.exit 3")]


@pytest.mark.expects_errors("a listener of 'message' failed")
def test_a_listener_that_raises_disturbs_no_other() -> None:
    with scripted_server(events("data: a\n\n", "data: b\n\n"), answer(404)) as server:
        client = EventsourceClient(server.url, "/watch")
        heard: list[str] = []
        client.subscribe(".", lambda event, data: 1 / 0)
        client.subscribe(".", lambda event, data: heard.append(data))
        client.run()
    assert heard == ["a", "b"]


@pytest.mark.row("STR-33")
def test_a_watcher_gets_documents() -> None:
    with scripted_server(events('event: spawn\ndata: {"name": "web", "pid": 1}\n\n', hold=True)) as server:
        with following(Watcher(server.url + "/watch?feed=eventsource")) as heard:
            eventually(lambda: heard)
        assert heard == [("spawn", {"name": "web", "pid": 1})]


def test_what_is_no_document_is_an_error() -> None:
    malformed = pytest.raises(errors.MalformedAnswer, match="not valid JSON")
    with scripted_server(events("data: no\n\n")) as server, malformed:
        Watcher(server.url + "/watch").run()


def test_it_goes_on_after_the_last_event_it_had() -> None:
    def broken(visit: Visit) -> None:
        events("id: 8\ndata: b\n\n", "id: 9\ndata: lo")(visit)

    plays = (
        events("id: 7\ndata: a\n\n"),
        answer(503),
        broken,
        events(),
        events("id: 9\ndata: c\n\n", hold=True),
    )
    with scripted_server(*plays) as server:
        client = EventsourceClient(server.url, "/watch")
        with following(client) as heard:
            eventually(lambda: len(heard) == 3)
            assert client.connected
            assert client.last_event_id == "9"
        assert [data for _, data in heard] == ["a", "b", "c"]
        assert [visit.header("Last-Event-ID") for visit in server.visits] == [None, "7", "7", "8", "8"]
    assert not client.connected


def test_a_server_that_was_started_again_does_not_know_the_position() -> None:
    plays = (events("id: 7\ndata: a\n\n"), answer(400, "{}"), events("data: b\n\n", hold=True))
    with scripted_server(*plays) as server:
        with following(EventsourceClient(server.url, "/watch")) as heard:
            eventually(lambda: len(heard) == 2)
        assert [visit.header("Last-Event-ID") for visit in server.visits] == [None, "7", None]


def test_it_ends_when_what_it_follows_is_gone() -> None:
    with scripted_server(events("data: a\n\n"), answer(404)) as server:
        assert list(EventsourceClient(server.url, "/streams/1/stdout").events()) == [Received("message", "a", "")]


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, errors.NotFound), (401, errors.Unauthorized), (400, errors.BadRequest), (503, errors.ServerError)],
)
def test_a_refusal_is_told(status: int, kind: type[errors.StatusError]) -> None:
    with scripted_server(answer(status)) as server, pytest.raises(kind):
        EventsourceClient(server.url, "/watch").run()
    with scripted_server(answer(status)) as server:
        client = EventsourceClient(server.url, "/watch")
        client.start()
        assert client.wait(10)
        assert isinstance(client.error, kind)


def test_a_key_that_is_taken_back_ends_it() -> None:
    with scripted_server(events("data: a\n\n"), answer(401)) as server, pytest.raises(errors.Unauthorized):
        EventsourceClient(server.url, "/watch", api_key="k").run()
    assert {visit.header("Authorization") for visit in server.visits} == {"Bearer k"}


def test_what_is_no_stream_of_events_is_told() -> None:
    plain = events("data: a\n\n", head="Content-Type: application/octet-stream\r\n")
    with scripted_server(plain) as server, pytest.raises(errors.MalformedAnswer) as caught:
        EventsourceClient(server.url + "/streams/1/stdout").run()
    assert "feed=eventsource" in (caught.value.hint or "")


def test_nobody_answers(closed: str) -> None:
    with pytest.raises(errors.Unreachable, match="connection refused"):
        EventsourceClient(closed + "/watch").run()


def test_a_silent_connection_counts_as_lost() -> None:
    with (
        scripted_server(events("data: a\n\n", hold=True), events("data: b\n\n", hold=True)) as server,
        following(EventsourceClient(server.url, "/watch", idle_timeout=0.1)) as heard,
    ):
        eventually(lambda: len(heard) == 2)


@pytest.mark.row("STR-33")
def test_stop_ends_it_at_once_from_any_thread() -> None:
    with scripted_server(events(hold=True)) as server:
        client = EventsourceClient(server.url, "/watch")
        threading.Thread(target=lambda: eventually(lambda: client.connected) and client.stop()).start()
        client.run()
        assert list(client.events()) == []


def test_a_listener_may_stop_it() -> None:
    with scripted_server(events("data: a\n\n", "data: b\n\n", hold=True)) as server:
        client = EventsourceClient(server.url, "/watch")
        heard: list[str] = []
        client.subscribe(".", lambda event, data: (heard.append(data), client.stop()))
        client.start()
        assert client.wait(10)
        assert heard == ["a"]


@pytest.mark.row("STR-33")
@pytest.mark.parametrize("kind", ["http", "unix"])
def test_the_output_of_a_process(tmp_path: Path, kind: str) -> None:
    path = f"unix:{tmp_path}/gafferd.sock"
    with gafferd(*(["--bind", path] if kind == "unix" else [])) as node, Server(node.url) as server:
        job = server.load({"name": "echo", "cmd": "cat", "redirect_input": True, "redirect_output": ["out"]})
        [pid] = eventually(lambda: job.pids)
        client = EventsourceClient(node.url, f"/streams/{pid}/out?feed=eventsource&heartbeat=1")
        with following(client) as heard:
            eventually(lambda: client.connected)
            server.get_process(pid).send("one\n")
            eventually(lambda: heard == [("out", "one\n")])
            server.get_process(pid).send("two\n")
            eventually(lambda: heard == [("out", "one\n"), ("out", "two\n")])


def test_a_restart_of_the_node_loses_nothing_unnoticed(tmp_path: Path) -> None:
    with gafferd(state_dir=tmp_path) as node, Server(node.url) as server:
        port, watcher = node.port, Watcher(f"{node.url}/watch/create?feed=eventsource&heartbeat=1")
        with following(watcher) as heard:
            eventually(lambda: watcher.connected)
            server.load({"name": "old", "cmd": "true", "start": False})
            eventually(lambda: [event for event, _ in heard] == ["create"])
            node.stop()
            eventually(lambda: not watcher.connected)
            last = watcher.last_event_id
    with gafferd("--bind", f"127.0.0.1:{port}", state_dir=tmp_path) as node, Server(node.url) as server:
        for name in ("a", "b", "c"):
            server.load({"name": name, "cmd": "true", "start": False})
        again = Watcher(f"{node.url}/watch/create?feed=eventsource&heartbeat=1", last_event_id=last)
        with following(again) as heard:
            eventually(lambda: len(heard) >= 5)
        assert [(event, data.get("name")) for event, data in heard[-5:]] == [
            ("gap", None),
            ("create", "old"),  # restored
            ("create", "a"),
            ("create", "b"),
            ("create", "c"),
        ]
        assert again.last_event_id.partition(":")[0] != last.partition(":")[0]
