"""Webhooks, against real servers: good, slow, broken and absent ones."""

import base64
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from socketserver import StreamRequestHandler, TCPServer
from typing import Any

import pytest
import trustme

from gaffer.applications.http_post import Address
from gaffer.errors import BadRequest
from gaffer.process import ProcessConfig
from gaffer.runtime.keyfile import KeyFileError
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
@pytest.mark.expects_errors("dropped [0-9]+ events that could not be posted before the end")
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
@pytest.mark.expects_errors("no response within 0.2 s")
def test_an_event_without_a_response_is_posted_again(server: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gaffer.applications.receivers.TIMEOUT", 0.2)
    server.open.clear()
    hooks = WebHooks([("create", server.url + "/")])
    with running_manager([hooks]) as manager:
        manager.load(sleeper("late", numprocesses=0))
        eventually(lambda: hooks.status()[0]["last_error"] == "no response within 0.2 s")
        server.open.set()
        eventually(lambda: hooks.status()[0]["delivered"] == 1)
    assert len({headers["X-Gaffer-Delivery"] for headers in server.headers}) == 1
    assert len(server.headers) > 1


@pytest.mark.row("WH-07")
@pytest.mark.expects_errors("webhook .* failed, will retry: it responds with status (500|429)")
def test_events_are_retried_in_order_until_it_works_again(server: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "gaffer.webhooks")
    server.statuses = [500, 408, 200, 200, 429]
    hooks = WebHooks([("create", f"http://me:secret@{server.url[7:]}/a b?key=secret")])
    with running_manager([hooks]) as manager:
        for number in range(4):
            manager.load(sleeper(f"job{number}", numprocesses=0))
        eventually(lambda: hooks.status()[0]["delivered"] == 4, 20)
    names = [event["name"] for _, event in server.events["/a%20b?key=secret"]]
    assert names == ["job0", "job0", "job0", "job1", "job2", "job2", "job3"]
    assert [record.getMessage() for record in caplog.records if record.name == "gaffer.webhooks"][:2] == [
        f"webhook {server.url}/a b failed, will retry: it responds with status 500",
        f"webhook {server.url}/a b works again",
    ]


@pytest.mark.expects_errors("lost the event create: it responds with status 404")
def test_a_refused_event_is_lost_and_logged_once(server: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    server.status = 404
    hooks = WebHooks([("create", server.url + "/")])
    with running_manager([hooks]) as manager:
        for number in range(3):
            manager.load(sleeper(f"job{number}", numprocesses=0))
        eventually(lambda: hooks.status()[0]["failed"] == 3)
        assert hooks.status()[0]["last_error"] == "it responds with status 404"
    assert [event["name"] for _, event in server.events["/"]] == ["job0", "job1", "job2"]
    assert caplog.text.count("lost the event") == 1


@pytest.mark.row("WH-07")
@pytest.mark.expects_errors("webhook http://127.0.0.1:[0-9]+/ failed, will retry: .*refused", "dropped 2 events")
def test_nobody_listening_disturbs_nothing(server: Receiver, nobody: str, caplog: pytest.LogCaptureFixture) -> None:
    with running_manager([WebHooks([("spawn", nobody), ("spawn", server.url + "/")])]) as manager:
        manager.load(sleeper(numprocesses=2))
        eventually(lambda: server.names("/") == ["spawn", "spawn"])
        assert len(manager.pids("dummy")) == 2
        eventually(lambda: "will retry" in caplog.text)
    assert [record.getMessage() for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == [
        f"webhook {nobody} failed, will retry: Connection refused",
        f"webhook {nobody}: dropped 2 events that could not be posted before the end",
    ]


def test_a_redirect_on_the_same_server_is_followed(server: Receiver) -> None:
    server.statuses = [307]
    hooks = WebHooks([("create", f"http://me:secret@{server.url[7:]}/")])
    with running_manager([hooks]) as manager:
        manager.load(sleeper(numprocesses=0))
        eventually(lambda: hooks.status()[0]["delivered"] == 1)
    assert server.bodies[0] == server.bodies[1]
    assert list(server.events) == ["/", "/elsewhere"]
    assert server.headers[0] == server.headers[1]


@pytest.mark.expects_errors("lost the event create: it redirects to another server")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_redirect_to_another_server_is_not_followed(server: Receiver, host: str) -> None:
    with receiver() as other:
        server.statuses = [307]
        server.fields = {"Location": other.url.replace("127.0.0.1", host) + "/"}
        hooks = WebHooks([("create", server.url + "/")])
        with running_manager([hooks]) as manager:
            manager.load(sleeper(numprocesses=0))
            eventually(lambda: hooks.status()[0]["failed"] == 1)
        assert not other.events


@pytest.mark.parametrize(
    ("location", "allowed"),
    [
        ("/other?a=b", True),
        ("//example.com/other", True),
        ("http://EXAMPLE.com:80/", True),
        ("https://example.com/", True),
        ("https://example.com:8443/", False),
        ("http://example.com:8080/", False),
        ("http://example.org/", False),
        ("https://www.example.com/", False),
        ("ftp://example.com/", False),
        ("http://[/", False),
    ],
)
def test_redirects_stay_on_the_server_and_keep_the_user(location: str, allowed: bool) -> None:
    address = Address("http://me:secret@example.com/events")
    with nullcontext() if allowed else pytest.raises(BadRequest):
        target = address.redirected(location)
        assert b"Authorization: Basic bWU6c2VjcmV0" in target.request(b"", {})


def test_a_redirect_does_not_leave_tls() -> None:
    with pytest.raises(BadRequest, match=r"it redirects to another server, 'example\.com' port 80"):
        Address("https://example.com/").redirected("http://example.com/")


@pytest.mark.expects_errors("lost the event create: it responds with status 307")
def test_a_circle_of_redirects_ends(server: Receiver) -> None:
    server.status = 307
    hooks = WebHooks([("create", server.url + "/")])
    with running_manager([hooks]) as manager:
        manager.load(sleeper(numprocesses=0))
        eventually(lambda: hooks.status()[0]["failed"] == 1)
    assert len(server.bodies) == 6


@pytest.mark.expects_errors("webhook .* is too slow, its queue is full: dropped 1 old events")
def test_of_too_many_events_the_oldest_are_lost(
    server: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gaffer.applications.delivery_queue.MAX_EVENTS", 4)
    server.open.clear()
    hooks = WebHooks([("create", server.url + "/")])
    with running_manager([hooks]) as manager:
        manager.load(sleeper("first", numprocesses=0))
        eventually(lambda: server.names("/"))
        for number in range(10):
            manager.load(sleeper(f"job{number}", numprocesses=0))
        eventually(lambda: hooks.status()[0]["dropped"] == 7)
        assert hooks.status()[0]["pending"] == 4
        server.open.set()
        eventually(lambda: hooks.status()[0]["delivered"] == 4)
    assert [event["name"] for _, event in server.events["/"]] == ["first", "job7", "job8", "job9"]
    assert caplog.text.count("its queue is full") == 1


def test_requests_are_signed_and_named(server: Receiver, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a-secret-of-some-length\n")
    secret.chmod(0o600)
    hooks = WebHooks([(".", server.url + "/")], secret)
    with running_manager([hooks]) as manager:
        manager.events.publish("mine.odd\r\nX-Evil: 1", {"when": 1})
        eventually(lambda: hooks.status()[0]["delivered"] == 1)
        secret.write_text("another-secret-of-that-length\n")
        hooks.replace_hooks(hooks.hooks)
        manager.load(sleeper(numprocesses=0))
        eventually(lambda: hooks.status()[0]["delivered"] >= 2)
        secret.write_text("")
        with pytest.raises(KeyFileError, match="does not hold exactly one key"):
            hooks.replace_hooks([])
        assert hooks.refcount == 1
    for headers, body, key in zip(
        server.headers, server.bodies, ["a-secret-of-some-length", "another-secret-of-that-length"], strict=False
    ):
        command = ["openssl", "dgst", "-sha256", "-hmac", key]
        digest = subprocess.run(command, input=body, capture_output=True, check=True).stdout.split()[-1].decode()
        assert headers["X-Gaffer-Signature"] == f"sha256={digest}"
    assert [headers["X-Gaffer-Event"] for headers in server.headers[:2]] == ["mine.odd%0D%0AX-Evil:%201", "create"]
    assert "X-Evil" not in server.headers[0]
    assert len({headers["X-Gaffer-Delivery"] for headers in server.headers}) == len(server.headers)


def test_events_that_are_queued_share_a_connection(server: Receiver) -> None:
    hooks = WebHooks([("mine", server.url + "/")])
    server.open.clear()
    with running_manager([hooks]) as manager:
        for number in range(50):
            manager.events.publish("mine.here", {"number": number})
        eventually(lambda: hooks.status()[0]["pending"] == 50)
        server.open.set()
        eventually(lambda: hooks.status()[0]["delivered"] == 50)
    assert [event["number"] for _, event in server.events["/"]] == list(range(50))
    assert server.connections == 1


@pytest.mark.row("WH-07")
@pytest.mark.expects_errors("webhook .* is too slow", "dropped [0-9]+ events that")
def test_a_burst_reaches_the_living_while_one_is_dead(server: Receiver) -> None:
    with receiver() as second, receiver() as stuck:
        stuck.open.clear()
        hooks = WebHooks([("mine", each.url + "/") for each in (stuck, server, second)])
        with running_manager([hooks]) as manager:
            for number in range(10_000):
                manager.events.publish("mine.here", {"number": number})
            eventually(lambda: hooks.status()[0]["dropped"] == 9_000, 50)
            eventually(lambda: [state["pending"] for state in hooks.status()[1:]] == [0, 0], 50)
            dead, *living = hooks.status()
            assert (dead["delivered"], dead["dropped"] + dead["pending"]) == (0, 10_000)
            assert dead["pending"] == 1000
            stuck.open.set()
    for state, each in zip(living, (server, second), strict=True):
        numbers = [event["number"] for _, event in each.events["/"]]
        assert state["delivered"] + state["dropped"] == 10_000
        assert len(numbers) == state["delivered"] >= 1000
        assert numbers == sorted(set(numbers))
        assert numbers[-1] == 9_999


@pytest.mark.expects_errors("webhook .*: dropped 4 events that could not be posted before the end")
def test_a_removed_hook_loses_its_queue_and_one_that_stays_keeps_it(server: Receiver) -> None:
    with receiver() as removed:
        server.open.clear()
        removed.open.clear()
        stays = ("mine", server.url + "/")
        hooks = WebHooks([stays, ("mine", removed.url + "/")])
        with running_manager([hooks]) as manager:
            for number in range(4):
                manager.events.publish("mine.here", {"number": number})
            eventually(lambda: [state["pending"] for state in hooks.status()] == [4, 4])
            manager.loop.call_soon_threadsafe(hooks.replace_hooks, [stays])
            eventually(lambda: [state["pending"] for state in hooks.status()] == [4])
            server.open.set()
            eventually(lambda: hooks.status()[0]["delivered"] == 4)
    assert [event["number"] for _, event in server.events["/"]] == [0, 1, 2, 3]


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


@pytest.mark.expects_errors("the response is (not HTTP|truncated)", "dropped [12] events")
@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"", b"x" * 100_000])
def test_a_server_that_does_not_speak_http_disturbs_nothing(answer: bytes, caplog: pytest.LogCaptureFixture) -> None:
    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            self.request.sendall(answer)

    with TCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        with running_manager([WebHooks([("create", f"http://127.0.0.1:{server.server_address[1]}")])]) as manager:
            manager.load(sleeper(numprocesses=0))
            eventually(lambda: "the response is" in caplog.text)
            manager.load(sleeper("other"))
            eventually(lambda: manager.pids("other"))
        server.shutdown()
        thread.join(5)


@pytest.mark.row("WH-01")
def test_https_wants_a_certificate_that_is_trusted(server: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    monkeypatch.setattr("gaffer.applications.http_post.trusting_authorities", lambda: trusting)
    with receiver(context) as server, running_manager([WebHooks([("create", server.url)])]) as manager:
        manager.load(sleeper(numprocesses=0))
        eventually(lambda: server.names("/"))


@pytest.mark.expects_errors("failed, will retry: .*certificate verify failed", "dropped 1 events")
def test_an_unknown_certificate_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    with receiver(context) as server, running_manager([WebHooks([("create", server.url)])]) as manager:
        manager.load(sleeper(numprocesses=0))
        eventually(lambda: "certificate verify failed" in caplog.text)
    assert not server.events


@pytest.mark.expects_errors("no response within 0.2 s", "dropped 1 events")
def test_an_abandoned_handshake_leaves_no_connection(nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gaffer.applications.receivers.TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hooks = WebHooks([("create", f"https://localhost:{silent.getsockname()[1]}/")])
        with running_manager([hooks]) as manager:
            manager.load(sleeper(numprocesses=0))
            peer, _ = silent.accept()
            with peer:
                peer.settimeout(10)
                while peer.recv(65536):
                    pass
            eventually(lambda: hooks.status()[0]["last_error"])


@pytest.mark.row("WH-07")
@pytest.mark.expects_errors("no response within 0.2 s", "dropped [0-9]+ events")
def test_names_that_are_not_resolved_delay_no_other_webhook(server: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gaffer.applications.receivers.TIMEOUT", 0.2)
    look_up = socket.getaddrinfo
    released = threading.Event()

    def getaddrinfo(host: Any, *args: Any, **options: Any) -> Any:
        if str(host).endswith(".invalid"):
            assert released.wait(30)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return look_up(host, *args, **options)

    monkeypatch.setattr("socket.getaddrinfo", getaddrinfo)
    dead = [("mine", f"http://dead{number}.invalid/") for number in range(20)]
    hooks = WebHooks([*dead, ("mine", server.url.replace("127.0.0.1", "localhost") + "/")])
    with running_manager([hooks]) as manager:
        manager.events.publish("mine.first", {})
        eventually(lambda: hooks.status()[-1]["delivered"] == 1)
        eventually(lambda: all(state["last_error"] for state in hooks.status()[:-1]))
        manager.events.publish("mine.second", {})
        eventually(lambda: hooks.status()[-1]["delivered"] == 2)
        lookups = [thread for thread in threading.enumerate() if thread.name == "resolver"]
        assert len(lookups) == len(dead)
    released.set()
    for thread in lookups:
        thread.join(10)


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
