"""Topics and commands of a node over one websocket; the changes of a lookup."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gaffer_client import Channel, GafferSocket, Lookup, Server, errors
from support.daemons import Daemon, gafferd, lookupd
from support.peer import peer
from support.poll import eventually
from support.scripted import scripted_server
from support.scripted_socket import PING, PONG, TEXT, Peer, close_frame, frame, websocket

NAP = {"cmd": "sleep 1000"}

Heard = list[tuple[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def node() -> Iterator[Daemon]:
    with gafferd() as node:
        yield node


@pytest.fixture
def server(node: Daemon) -> Iterator[Server]:
    with Server(node.url) as server:
        yield server
        for name in server.jobs():
            server.unload(name)


@pytest.fixture
def socket(server: Server) -> Iterator[GafferSocket]:
    with server.socket() as socket:
        yield socket


def listener() -> tuple[Heard, Callable[[str, Any], object]]:
    heard: Heard = []
    return heard, lambda event, message: heard.append((event, message))


@pytest.mark.row("STR-34", "SJS-20", "SJS-08")
def test_commands(socket: GafferSocket, server: Server) -> None:
    assert socket.execute("load", {"name": "nap", **NAP}, sessionid="shop") == {"ok": True}
    assert socket.execute("jobs")["jobs"] == ["shop.nap"]
    command = socket.send_command("scale", "shop.nap", "+1")
    assert command.result(10) == {"numprocesses": 2}
    assert (command.done, command.error, command.name) == (True, None, "scale")
    called = threading.Event()
    command.add_done_callback(lambda done: called.set() if done is command else None)
    assert called.wait(10)
    assert server.get_job("shop.nap").numprocesses == 2
    assert repr(command) == "GafferCommand(scale('shop.nap', '+1'))"


@pytest.mark.row("STR-34", "SJS-08")
@pytest.mark.parametrize(
    ("name", "args", "kind", "text"),
    [
        ("sing", (), errors.NotFound, "sing"),
        ("info", ("shop.none",), errors.NotFound, "shop.none"),
        ("scale", (), errors.BadRequest, "scale"),
    ],
)
def test_commands_that_fail(
    socket: GafferSocket, name: str, args: tuple[str, ...], kind: type[Exception], text: str
) -> None:
    command = socket.send_command(name, *args)
    with pytest.raises(kind, match=text):
        command.result(10)
    assert isinstance(command.error, kind)
    with pytest.raises(kind):
        socket.execute(name, *args)


@pytest.mark.row("STR-34", "SJS-04", "SJS-05", "SJS-07")
def test_topics(socket: GafferSocket, server: Server) -> None:
    job = server.load({"name": "cat", "cmd": "cat", "redirect_input": True, "redirect_output": ["out"]}, "shop")
    [pid] = eventually(lambda: job.pids)
    all_of_them, listen_to_all = listener()
    socket.bind_all(listen_to_all)
    output, listen_to_output = listener()
    stream = socket.subscribe(f"STREAM:{pid}.out", listen_to_output)
    events, listen_to_exit = listener()
    of_job = socket.subscribe("JOB:shop.cat")
    of_job.bind("exit", listen_to_exit)
    of_job.bind("spawn", listen_to_output)
    of_job.unbind("spawn", listen_to_output)
    assert socket["JOB:shop.cat"] is of_job

    socket.execute("send", pid, "hallo\n")
    eventually(lambda: output)
    assert (output[0][0], output[0][1]["data"], output[0][1]["topic"]) == ("out", "hallo\n", f"STREAM:{pid}.out")
    socket.execute("kill", pid, "KILL")
    eventually(lambda: events and stream.ended)
    assert (events[0][1]["pid"], events[0][1]["term_signal"]) == (pid, 9)
    assert {event for event, _ in events} == {"exit"}
    assert {event for event, _ in output} == {"out", "end"}
    eventually(lambda: {"out", "end", "exit", "spawn"} <= {event for event, _ in all_of_them})
    assert not of_job.ended
    stream.close()  # nothing is left to undo
    with pytest.raises(KeyError):
        socket[f"STREAM:{pid}.out"]


@pytest.mark.row("STR-34", "SJS-06")
def test_subscriptions_are_counted(socket: GafferSocket, server: Server) -> None:
    heard, listen = listener()
    channel = socket.subscribe("EVENTS:create", listen)
    assert socket.subscribe("EVENTS:create") is channel
    channel.close()
    server.load({"name": "one", **NAP}, start=False)
    eventually(lambda: heard)
    socket.unsubscribe("EVENTS:create")
    other, listen = listener()
    socket.subscribe("EVENTS:create", listen)
    server.load({"name": "two", **NAP}, start=False)
    eventually(lambda: other)
    assert [message["name"] for _, message in heard] == ["one"]
    socket.unsubscribe("EVENTS:nothing")


@pytest.mark.row("STR-34", "SJS-06")
@pytest.mark.parametrize(
    ("topic", "kind"),
    [("SONGS", errors.BadRequest), ("STREAM:999999", errors.NotFound), ("JOB:a b", errors.BadRequest)],
)
def test_topics_that_are_none(socket: GafferSocket, topic: str, kind: type) -> None:
    with pytest.raises(kind) as caught:
        socket.subscribe(topic)
    assert isinstance(caught.value, errors.StatusError)
    with pytest.raises(KeyError):
        socket[topic]


@pytest.mark.expects_errors("a listener of 'create' failed")
def test_a_listener_does_not_wait_for_what_comes_after_it(socket: GafferSocket, server: Server) -> None:
    answers: list[object] = []

    def ask(event: str, message: dict[str, Any]) -> None:
        socket.send_command("info", message["name"]).add_done_callback(lambda command: answers.append(command.result()))
        socket.execute("jobs")

    socket.subscribe("EVENTS:create", ask)
    server.load({"name": "nap", **NAP}, start=False)
    eventually(lambda: answers)


def test_many_threads(socket: GafferSocket, server: Server) -> None:
    failures: list[BaseException] = []
    names = [f"job{number}" for number in range(8)]

    def use(name: str) -> None:
        for _ in range(10):
            channel = socket.subscribe("EVENTS:create")
            socket.execute("load", {"name": name, **NAP}, start=False)
            assert socket.execute("info", name)["info"]["name"] == f"default.{name}"
            socket.execute("unload", name)
            channel.close()

    threads = [threading.Thread(target=use, args=(name,)) for name in names]
    threading.excepthook, before = lambda told: failures.append(told.exc_value), threading.excepthook  # type: ignore
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    finally:
        threading.excepthook = before
    assert failures == []
    with pytest.raises(KeyError):
        socket["EVENTS:create"]


@pytest.mark.row("SJS-21")
def test_keys(tmp_path: Path) -> None:
    key = tmp_path / "api.key"
    key.write_text("gk_secret\n")
    key.chmod(0o600)
    with gafferd("--api-key-file", str(key), "--bind", "127.0.0.1:0", env={"X": "y"}) as node:
        with Server(node.url, api_key="gk_secret") as server, server.socket() as socket:
            assert socket.execute("jobs") == {"jobs": []}
        with Server(node.url, api_key="gk_wrong") as server, pytest.raises(errors.Unauthorized):
            server.socket().start()


def test_the_node_stops() -> None:
    with gafferd() as node, Server(node.url) as server, server.socket() as socket:
        command = socket.send_command("jobs")
        command.result(10)
        node.stop()
        assert socket.wait(10)
        assert isinstance(socket.error, errors.Unreachable)
        with pytest.raises(errors.Unreachable):
            socket.execute("jobs")


def test_nothing_is_sent_before_the_start(server: Server) -> None:
    with pytest.raises(errors.Unreachable, match="not connected"):
        server.socket().execute("jobs")


def message(event: str, **data: Any) -> bytes:
    return frame(TEXT, json.dumps({"event": event, "data": data}))


def test_what_waits_fails_when_the_connection_is_lost() -> None:
    def script(peer: Peer) -> None:
        peer.receive_text()
        peer.receive_text()

    failures: list[BaseException] = []
    with scripted_server(websocket(script)) as scripted, Server(scripted.url) as server, server.socket() as socket:
        command = socket.send_command("jobs")

        def subscribe() -> None:
            try:
                socket.subscribe("EVENTS")
            except errors.GafferClientError as error:
                failures.append(error)

        thread = threading.Thread(target=subscribe)
        thread.start()
        with pytest.raises(errors.Unreachable):
            command.result(10)
        thread.join(10)
        assert isinstance(failures[0], errors.Unreachable)


@pytest.mark.parametrize(
    "sent",
    [
        frame(TEXT, "no"),
        frame(TEXT, "[]"),
        frame(TEXT, '{"event": "gaffer:event"}'),
        message("gaffer:event", topic="EVENTS"),
        message("gaffer:command_success", id="77", result={}),
        message("gaffer:subscription_success", topic="EVENTS"),
        message("gaffer:command_error", id="1", error={}),
    ],
)
def test_messages_that_can_not_be(sent: bytes) -> None:
    with (
        scripted_server(websocket(lambda peer: (peer.send(sent), peer.end()))) as scripted,
        Server(scripted.url) as server,
        server.socket() as socket,
    ):
        eventually(lambda: socket.error)
        assert isinstance(socket.error, errors.MalformedAnswer)


@pytest.mark.row("SJS-21")
def test_a_key_that_is_sent_first() -> None:
    def script(peer: Peer) -> None:
        assert peer.receive_text() == "AUTH:gk_wrong"
        peer.send(message("gaffer:error", error="AUTH_REQUIRED", errno=401, reason="the first message must be"))
        peer.send(close_frame(4401, "auth_required"))
        peer.receive()

    with scripted_server(websocket(script)) as scripted, Server(scripted.url) as server, server.socket() as socket:
        socket.authenticate("gk_wrong")
        assert socket.wait(10)
        assert isinstance(socket.error, errors.Unauthorized)


@pytest.mark.row("LK-11", "LP-40", "LP-41", "LP-42", "LP-43")
def test_the_changes_of_a_lookup() -> None:
    heard, listen = listener()
    jobs, listen_to_jobs = listener()
    with lookupd() as registry, Lookup(registry.url) as lookup:
        [socket] = lookup.sockets()
        socket.bind_all(listen)
        socket.bind("add_job", listen_to_jobs)
        with socket, peer(registry.url) as node:
            node.identify("n1")
            node.ask("REGISTER_JOB", job_name="shop.web")
            node.ask("REGISTER_PROCESS", job_name="shop.web", pid=4)
            eventually(lambda: heard and heard[-1][0] == "add_process")
            assert [event for event, _ in heard] == ["add_node", "identify", "add_job", "add_process"]
            assert heard[1][1]["name"] == "n1"
            assert (jobs[0][1]["job_name"], jobs[0][1]["node"]["name"]) == ("shop.web", "n1")
            assert heard[3][1]["pid"] == 4
            socket.unbind_all(listen)
            socket.unbind("add_job", listen_to_jobs)
            node.ask("REGISTER_JOB", job_name="shop.db")
        assert len(jobs) == 1


@pytest.mark.row("LP-44")
def test_a_lookup_that_is_silent_is_pinged() -> None:
    pings: list[tuple[int, bytes]] = []

    def script(peer: Peer) -> None:
        for _ in range(2):
            pings.append(peer.receive())
            peer.send(frame(PONG, b""))
        peer.end()

    with scripted_server(websocket(script)) as scripted, Lookup(scripted.url) as lookup:
        [socket] = lookup.sockets(ping_interval=0.05)
        with socket:
            eventually(lambda: len(pings) == 2)
    assert pings == [(PING, b"")] * 2
    assert scripted.visits[0].path == "/lookup/websocket"


def test_a_channel_by_itself() -> None:
    left: list[str] = []
    channel = Channel("EVENTS", left.append)
    channel.close()
    assert left == ["EVENTS"]
