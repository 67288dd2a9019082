"""Webhooks, against real servers: good, slow, broken and absent ones."""

import base64
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from socketserver import StreamRequestHandler, TCPServer
from typing import Any

import pytest
import trustme

from gaffer.errors import BadRequest
from gaffer.process import ProcessConfig
from gaffer.webhooks import WebHooks
from support.managers import running_manager
from support.poll import eventually
from support.webhooks import Receiver, receiver


@pytest.fixture
def server() -> Iterator[Receiver]:
    with receiver() as server:
        yield server


@pytest.fixture
def nobody() -> Iterator[str]:
    """A URL where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/"


def sleeper(name: str = "dummy", **settings: Any) -> ProcessConfig:
    return ProcessConfig(name, "sleep", args=["1000"], **settings)


@pytest.mark.row("WH-01", "WH-03", "WH-04")
def test_events_of_the_manager_and_of_processes_are_posted_as_json(server: Receiver) -> None:
    hooks = [("create", server.url + "/create"), ("proc.dummy.spawn", server.url + "/spawn")]
    with running_manager([WebHooks(hooks)]) as manager:
        manager.load(sleeper())
        manager.load(sleeper("other"))
        eventually(lambda: len(server.names("/create")) == 2 and server.names("/spawn"))
        pid = manager.pids("dummy")[0]
    assert {kind for kind, _ in server.events["/create"]} == {"application/json"}
    assert [event["name"] for _, event in server.events["/create"]] == ["dummy", "other"]
    ((_, spawn),) = server.events["/spawn"]
    assert (spawn["event"], spawn["name"], spawn["pid"], spawn["detach"]) == ("proc.dummy.spawn", "dummy", pid, False)


@pytest.mark.row("WH-05")
def test_an_event_goes_to_several_urls_and_patterns_are_those_of_the_emitter(server: Receiver) -> None:
    hooks = [
        ("spawn", server.url + "/a"),
        ("spawn", server.url + "/b"),
        ("proc.dummy", server.url + "/prefix"),
        (".", server.url + "/all"),
    ]
    with running_manager([WebHooks(hooks)]) as manager:
        manager.load(sleeper())
        eventually(lambda: manager.pids("dummy"))
    assert server.names("/a") == server.names("/b") == ["spawn"]
    assert server.names("/prefix")[:2] == ["proc.dummy.start", "proc.dummy.spawn"]
    assert server.names("/all")[:5] == ["create", "start", "proc.dummy.start", "spawn", "proc.dummy.spawn"]


@pytest.mark.row("WH-07")
def test_the_order_is_kept_and_the_last_events_get_out_before_the_stop(server: Receiver) -> None:
    with running_manager([WebHooks([(".", server.url + "/")])]) as manager:
        manager.load(sleeper(numprocesses=5))
        eventually(lambda: len(manager.pids("dummy")) == 5)
        seen: list[str] = []
        manager.events.subscribe(".", lambda name, message: seen.append(name))
    assert server.names("/")[-len(seen) :] == seen
    assert seen[-1] == "proc.dummy.exit"


@pytest.mark.row("WH-07")
def test_a_url_that_does_not_answer_holds_up_neither_processes_nor_other_urls_nor_the_stop(server: Receiver) -> None:
    with receiver() as stuck:
        stuck.open.clear()
        with running_manager([WebHooks([(".", stuck.url), ("spawn", server.url + "/")])]) as manager:
            manager.load(sleeper(numprocesses=3))
            eventually(lambda: len(server.names("/")) == 3)
            assert len(manager.pids("dummy")) == 3
            assert len(stuck.events["/"]) == 1
            began = time.monotonic()
        assert time.monotonic() - began < 8
        stuck.open.set()


@pytest.mark.row("WH-07")
@pytest.mark.expects_errors("the webhook .* is losing events: no response within 0.2 s", "works again")
def test_a_url_that_does_not_answer_in_time_loses_that_event_only(
    server: Receiver, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gaffer.webhooks.TIMEOUT", 0.2)
    server.open.clear()
    with running_manager([WebHooks([("create", server.url + "/")])]) as manager:
        manager.load(sleeper("lost", numprocesses=0))
        eventually(lambda: "no response within 0.2 s" in caplog.text)
        server.open.set()
        manager.load(sleeper("next", numprocesses=0))
        eventually(lambda: "works again; 1 events were lost" in caplog.text)


@pytest.mark.row("WH-07")
@pytest.mark.expects_errors("the webhook")
def test_failures_are_logged_once_until_it_works_again(server: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    server.status = 500
    hooks = WebHooks([("create", f"http://me:secret@{server.url[7:]}/a b?key=secret")])
    with running_manager([hooks]) as manager:
        for number in range(3):
            manager.load(sleeper(f"job{number}", numprocesses=0))
        eventually(lambda: len(server.names("/a%20b?key=secret")) == 3)
        server.status = 200
        manager.load(sleeper("last", numprocesses=0))
        eventually(lambda: "works again" in caplog.text)
    assert [record.getMessage() for record in caplog.records if record.name == "gaffer.webhooks"] == [
        f"the webhook {server.url}/a b is losing events: it responds with status 500",
        f"the webhook {server.url}/a b works again; 3 events were lost",
    ]


@pytest.mark.row("WH-07")
@pytest.mark.expects_errors("the webhook http://127.0.0.1:[0-9]+/ is losing events: .*refused")
def test_nobody_listening_disturbs_nothing(server: Receiver, nobody: str, caplog: pytest.LogCaptureFixture) -> None:
    with running_manager([WebHooks([("spawn", nobody), ("spawn", server.url + "/")])]) as manager:
        manager.load(sleeper(numprocesses=2))
        eventually(lambda: server.names("/") == ["spawn", "spawn"])
        assert len(manager.pids("dummy")) == 2
        eventually(lambda: "is losing events" in caplog.text)
    assert [record.getMessage() for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == [
        f"the webhook {nobody} is losing events: Connection refused"
    ]


@pytest.mark.expects_errors("the webhook .* is losing events: it responds with status 302")
def test_redirections_are_not_followed(server: Receiver) -> None:
    server.status = 302
    with running_manager([WebHooks([("create", server.url + "/")])]) as manager:
        manager.load(sleeper(numprocesses=0))
        eventually(lambda: server.names("/"))
    assert list(server.events) == ["/"]


@pytest.mark.expects_errors("the webhook .* it is too slow, and its queue is full", "works again")
def test_of_too_many_events_the_oldest_are_lost(server: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gaffer.webhooks.QUEUE_LIMIT", 3)
    server.open.clear()
    with running_manager([WebHooks([("create", server.url + "/")])]) as manager:
        manager.load(sleeper("first", numprocesses=0))
        eventually(lambda: server.names("/"))
        for number in range(10):
            manager.load(sleeper(f"job{number}", numprocesses=0))
        seen = threading.Event()
        manager.events.subscribe("delete", lambda name, message: seen.set())
        manager.unload("job0")
        assert seen.wait(5)
        server.open.set()
        eventually(lambda: len(server.names("/")) == 4)
    assert [event["name"] for _, event in server.events["/"]] == ["first", "job7", "job8", "job9"]


@pytest.mark.row("WH-06")
def test_hooks_come_and_go_while_it_runs(server: Receiver) -> None:
    hooks = WebHooks()
    assert (hooks.active, hooks.refcount) == (False, 0)
    with running_manager([hooks]) as manager:
        assert not hooks.active
        hooks.register_hook("create", server.url + "/a")
        hooks.register_hook("create", server.url + "/a")
        hooks.register_hook("create", server.url + "/b")
        assert (hooks.active, hooks.refcount) == (True, 2)
        hooks.unregister_hook("create", server.url + "/b")
        hooks.unregister_hook("create", server.url + "/unknown")
        assert hooks.refcount == 1
        manager.load(sleeper("one", numprocesses=0))
        eventually(lambda: server.names("/a"))
        hooks.restart()
        hooks.replace_hooks([("create", server.url + "/c"), ("create", server.url + "/a")])
        manager.load(sleeper("two", numprocesses=0))
        eventually(lambda: server.names("/c") and len(server.names("/a")) == 2)
        hooks.close()
        assert (hooks.active, hooks.refcount) == (False, 0)
        manager.load(sleeper("three", numprocesses=0))
    assert {path: len(events) for path, events in server.events.items()} == {"/a": 2, "/c": 1}


@pytest.mark.row("WH-06")
@pytest.mark.parametrize("url", ["", "nowhere", "ftp://host/", "http://", "http://host:99999/", "http://host:0/"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(BadRequest, match="is not an http or https URL"):
        WebHooks([("create", url)])


@pytest.mark.expects_errors("the webhook .* is losing events: the response is (not HTTP|truncated)")
@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"", b"x" * 100_000])
def test_a_server_that_does_not_speak_http_disturbs_nothing(answer: bytes) -> None:
    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            self.request.sendall(answer)

    with TCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with running_manager([WebHooks([("create", f"http://127.0.0.1:{server.server_address[1]}")])]) as manager:
            manager.load(sleeper(numprocesses=0))
            thread.join(5)
            manager.load(sleeper("other"))
            eventually(lambda: manager.pids("other"))


@pytest.mark.row("WH-01")
def test_https_wants_a_certificate_that_is_trusted(server: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    monkeypatch.setattr("gaffer.applications.http_post._trusting_authorities", lambda: trusting)
    with receiver(context) as server, running_manager([WebHooks([("create", server.url)])]) as manager:
        manager.load(sleeper(numprocesses=0))
        eventually(lambda: server.names("/"))


@pytest.mark.expects_errors("the webhook .* is losing events: .*certificate verify failed")
def test_an_unknown_certificate_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    with receiver(context) as server, running_manager([WebHooks([("create", server.url)])]) as manager:
        manager.load(sleeper(numprocesses=0))
        eventually(lambda: "certificate verify failed" in caplog.text)
    assert not server.events


@pytest.mark.row("WH-01")
def test_a_user_in_the_url_is_sent_as_credentials(server: Receiver) -> None:
    url = server.url.replace("http://", "http://me:se%40cret@")
    with running_manager([WebHooks([("create", url)])]) as manager:
        manager.load(sleeper(numprocesses=0))
        eventually(lambda: server.names("/"))
    assert server.authorization == "Basic " + base64.b64encode(b"me:se@cret").decode()


@pytest.mark.row("WH-04")
def test_an_event_of_an_application_that_is_no_dict_is_posted_too(server: Receiver) -> None:
    with running_manager([WebHooks([("mine", server.url + "/")])]) as manager:
        manager.events.publish("mine.here", {"when": time})
        manager.events.publish("mine.there", 7)
        eventually(lambda: len(server.events.get("/", [])) == 2)
    assert server.events["/"][0][1] == {"when": str(time)}
    assert server.events["/"][1][1] == {"event": "mine.there", "message": 7}
