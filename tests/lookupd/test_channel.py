"""SockJS and the raw websocket at /lookup: the events of 0.5, to the client only."""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
import requests
import websocket

from support.daemons import Daemon, lookupd
from support.event_source import event_source
from support.peer import peer


@pytest.fixture(scope="module")
def server() -> Iterator[Daemon]:
    with lookupd("--ttl", "3", "--interval", "1") as running:
        yield running


class Listener:
    """A client of a websocket below /lookup."""

    def __init__(self, server: Daemon, path: str = "/lookup/websocket", **options: Any) -> None:
        url = server.url.replace("http", "ws", 1) + path
        self.socket = websocket.create_connection(url, timeout=10, suppress_origin=True, **options)

    def next(self) -> dict[str, Any]:
        """The next event that names a node, or has no name to give."""
        event: dict[str, Any] = json.loads(self.socket.recv())
        return event

    def until(self, event: str) -> dict[str, Any]:
        """The next event of that kind."""
        while (message := self.next())["event"] != event:
            pass
        return message

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.shutdown()  # type: ignore[no-untyped-call]


def story(server: Daemon) -> None:
    """A node of 0.5 comes, has a job with a process for a while, and goes."""
    with peer(server.url) as node:
        node.identify("n1")
        node.ask("REGISTER_JOB", job_name="shop.web")
        node.ask("REGISTER_PROCESS", job_name="shop.web", pid=4)
        node.ask("UNREGISTER_PROCESS", job_name="shop.web", pid=4)
        node.ask("UNREGISTER_JOB", job_name="shop.web")


NODE = {"name": "n1", "origin": "http://n1:5000", "version": "0.1"}
NOBODY = dict.fromkeys(NODE)
JOB = {"node": NODE, "job_name": "shop.web"}


def as_in_0_5(message: dict[str, Any]) -> dict[str, Any]:
    """The message with the keys that 0.5 had."""
    kept = {key: message[key] for key in ("event", *NODE, "node", "job_name", "pid") if key in message}
    if "node" in kept:
        kept["node"] = {key: kept["node"][key] for key in NODE}
    return kept


@pytest.mark.row("LP-40", "LP-41", "LP-42", "LP-43")
def test_the_events_of_0_5_come_on_the_raw_websocket(server: Daemon) -> None:
    with Listener(server) as listener:
        story(server)
        assert [as_in_0_5(listener.next()) for _ in range(7)] == [
            {"event": "add_node", **NOBODY},
            {"event": "identify", **NODE},
            {"event": "add_job", **JOB},
            {"event": "add_process", **JOB, "pid": 4},
            {"event": "remove_process", **JOB, "pid": 4},
            {"event": "remove_job", **JOB},
            {"event": "remove_node", **NODE},
        ]


def test_they_say_more_of_newer_nodes(server: Daemon) -> None:
    endpoint = {"name": "http", "address": "10.0.0.7", "port": 8000}
    with Listener(server) as listener, peer(server.url) as node:
        node.identify("n2", id="a2", incarnation=3, labels={"zone": "z"})
        table = {"shop.web": [{"pid": 1, "state": "starting", "endpoints": [endpoint]}]}
        node.ask("SNAPSHOT", seq=1, jobs=table)
        found = listener.until("identify")
        assert (found["id"], found["incarnation"], found["labels"], found["status"]) == (
            "a2",
            3,
            {"zone": "z"},
            "alive",
        )
        found = listener.until("add_process")
        assert (found["state"], found["endpoints"], found["node"]["id"]) == ("starting", [endpoint], "a2")
        node.close()
        assert listener.until("update_node")["status"] == "suspect"
        with peer(server.url) as again:
            again.identify("n2", id="a2", incarnation=4)
            assert listener.until("identify")["incarnation"] == 4
            again.ask("SNAPSHOT", seq=1, jobs={"shop.web": [{"pid": 2, "state": "ready"}]})
            assert listener.until("remove_process")["pid"] == 1
            again.ask("LEAVE")
            assert listener.until("remove_node")["reason"] == "left"


@pytest.mark.row("SJS-22", "LP-40")
def test_the_same_comes_by_sockjs_with_and_without_a_websocket(server: Daemon) -> None:
    assert requests.get(server.url + "/lookup", timeout=10).text == "Welcome to SockJS!\n"
    assert requests.get(server.url + "/lookup/info", timeout=10).json()["websocket"] is True
    stream = requests.post(server.url + "/lookup/000/s1/xhr_streaming", stream=True, timeout=10)
    with Listener(server, "/lookup/000/s2/websocket") as listener, stream:
        lines = stream.iter_lines(chunk_size=1)
        assert next(lines).strip(b"h") == b""
        assert next(lines) == b"o"
        assert listener.socket.recv() == "o"
        story(server)
        receivers: list[Callable[[], str | bytes]] = [listener.socket.recv, lambda: next(lines).decode()]
        for receive in receivers:
            events: list[str] = []
            while len(events) < 7:
                frame = receive()
                if frame[0] == "a":
                    events += [json.loads(text)["event"] for text in json.loads(frame[1:])]
            assert events[1:3] == ["identify", "add_job"]


def test_what_clients_send_is_passed_over(server: Daemon) -> None:
    with Listener(server) as listener:
        for text in ("{}", "nonsense", '{"event": "add_node"}'):
            listener.socket.send(text)
        story(server)
        assert listener.next()["event"] == "add_node"


def test_a_client_that_is_too_slow_is_told_that_changes_are_lost() -> None:
    with lookupd() as server, Listener(server, sockopt=[(1, 8, 4096)]) as listener, peer(server.url) as node:
        node.identify("n1", id="a1")
        with event_source(server.url + "/events") as events:  # one that keeps up
            events.next()
            processes = [[{"pid": k, "state": state} for k in range(2000)] for state in ("ready", "draining")]
            for seq in range(1, 21):
                node.ask("SNAPSHOT", seq=seq, jobs={"s." + 150 * "x": processes[seq % 2]})
                while events.next().data["node"]["seq"] < seq:
                    pass
        frames = [listener.socket.recv_data()]
        while frames[-1][0] == websocket.ABNF.OPCODE_TEXT:
            frames.append(listener.socket.recv_data())
        opcode, data = frames[-1]
        assert opcode == websocket.ABNF.OPCODE_CLOSE
        assert (int.from_bytes(data[:2], "big"), "lost" in data[2:].decode()) == (4000, True)
        assert len(frames) < 40_000


def test_it_ends_with_lookupd_and_tells_nothing_of_nodes_that_this_cuts_off() -> None:
    with lookupd() as server, peer(server.url) as node:
        node.identify("n1", id="a1")
        with Listener(server) as listener:
            server.signal(signal.SIGTERM)
            assert node.is_closed()
            assert listener.socket.recv_data()[0] == websocket.ABNF.OPCODE_CLOSE


@pytest.mark.parametrize("options", [{"header": ["Origin: http://evil.example"]}, {"host": "evil.example"}])
def test_pages_of_other_sites_can_not_listen(server: Daemon, options: dict[str, Any]) -> None:
    with pytest.raises(websocket.WebSocketBadStatusException, match="403"):
        Listener(server, **options)


def test_with_require_key_listeners_need_it(tmp_path: Path) -> None:
    path = tmp_path / "cluster.key"
    path.write_text("gk_key\n")
    path.chmod(0o600)
    with lookupd("--require-key", "--cluster-key-file", str(path)) as server:
        with pytest.raises(websocket.WebSocketBadStatusException, match="401"):
            Listener(server)
        Listener(server, header=["Authorization: Bearer gk_key"]).socket.shutdown()  # type: ignore[no-untyped-call]
