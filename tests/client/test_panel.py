"""Asking all lookups at once: one that hangs, drips or has just started costs next to nothing."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import msgspec
import pytest

from gaffer_client import Lookup, errors
from gaffer_client.responses import JobAnswer
from support.client import Answering, Commands, answering_server
from support.daemons import lookupd
from support.peer import peer
from support.poll import eventually

NODE: dict[str, Any] = {"name": "web1", "origin": "http://web1:5000", "version": "0.1", "id": "web1", "incarnation": 1}


@contextmanager
def hanging(say: bytes = b"", drop: bytes = b"") -> Iterator[str]:
    """A server that accepts connections and says something, then a drop now and then, and never ends its answer."""
    end = threading.Event()
    threads = []

    def visit(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.sendall(say)
            while not end.wait(0.1):
                connection.sendall(drop)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threads.append(threading.Thread(target=visit, args=(listener.accept()[0],)))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads.append(threading.Thread(target=accept))
        threads[0].start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            end.set()
            listener.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()


@pytest.fixture
def good() -> Iterator[Answering]:
    with answering_server() as lookup:
        say(lookup, NODE)
        yield lookup


def say(lookup: Answering, *nodes: dict[str, Any], **more: Any) -> None:
    """Let a lookup answer that these nodes have s.w, with process 1."""
    sources = [{"name": node["name"], "pids": [1], "node_info": node} for node in nodes]
    known = {"stale": False, "tombstones": [], **more}
    lookup.answer("/nodes", msgspec.json.encode({"nodes": nodes, **known}))
    lookup.answer("/findJob", msgspec.json.encode({"sources": sources, **known}))
    lookup.answer("/jobs", msgspec.json.encode({"nb_jobs": 1, "jobs": [{"name": "s.w", "sources": sources}], **known}))


def timed(ask: Callable[[], Any]) -> tuple[float, Any]:
    before = time.monotonic()
    answer = ask()
    return time.monotonic() - before, answer


def names(answer: JobAnswer) -> list[str]:
    return [source["name"] for source in answer["sources"]]


@pytest.mark.parametrize("kind", [(b"", b""), (b"HTTP/1.1 200 OK\r\nX-A: ", b"a")], ids=["silent", "dripping"])
def test_a_lookup_that_hangs_holds_up_nobody(good: Answering, kind: tuple[bytes, bytes], gaffer: Commands) -> None:
    with hanging(*kind) as hung, Lookup([hung, good.url]) as lookup:
        took, answer = timed(lambda: lookup.find_job("s.w"))
        assert took < 1
        assert names(answer) == ["web1"]
        assert answer["lookups"] == {"agree": [good.url], "unreachable": [hung]}
        assert isinstance(lookup.failures[hung], errors.Unreachable)
        assert sum(timed(lambda: lookup.find_job("s.w"))[0] for _ in range(20)) < 20 * 0.2  # it is remembered
        for words in (["lookup:job", "s.w"], ["why", "s.w"]):
            took, ran = timed(partial(gaffer, "-L", f"{hung},{good.url}", *words))
            assert (ran.status, took < 3) == (0, True)
            assert "web1" in ran.out


def test_a_lookup_that_hangs_does_not_hold_up_a_copy() -> None:
    with lookupd() as registry, hanging() as hung, Lookup([hung, registry.url]) as lookup:
        took, live = timed(lookup.watch)
        assert took < 3
        assert live.nodes()["nodes"] == []
        took, _ = timed(live.close)
        assert took < 3


def test_a_lookup_that_hangs_is_given_its_time_when_nobody_else_answers(closed: str) -> None:
    with hanging() as hung, Lookup([hung, closed], timeout=0.4) as lookup, pytest.raises(errors.Unreachable):
        lookup.find_job("s.w")
    assert isinstance(lookup.failures[hung], errors.Unreachable)
    with hanging() as hung, Lookup(hung, timeout=0.4) as lookup, pytest.raises(errors.Unreachable):
        lookup.find_job("s.w")


def test_both_questions_to_a_lookup_share_one_deadline(good: Answering) -> None:
    del good.answers["/findJob"]
    with hanging(b"HTTP/1.1 200 OK\r\n", b"X-A: a\r\n") as hung, Lookup([hung, good.url], timeout=0.4) as lookup:
        before = time.monotonic()
        with pytest.raises(errors.GafferClientError):
            lookup.find_job("s.w")
        assert time.monotonic() - before < 2


# A lookup that has just started

WEB1, WEB2 = {**NODE, "seq": 3}, {**NODE, "name": "web2", "id": "web2", "origin": "http://web2:5000", "seq": 7}


@pytest.mark.parametrize("several", [False, True])
def test_the_earlier_answer_is_kept_while_lookups_are_warming(good: Answering, several: bool) -> None:
    with answering_server() as other:
        say(good, WEB1, WEB2, epoch="a")
        say(other, WEB1, WEB2, epoch="a")
        urls = [good.url, other.url] if several else [good.url]
        with Lookup(urls) as lookup:
            before = lookup.find_job("s.w")
            assert (names(before), before["stale"], before["warming"]) == (["web1", "web2"], False, False)
            for restarted in (good, other):
                say(restarted, epoch="b", stale=True, warming=True)
            answer = lookup.find_job("s.w")
            assert (names(answer), answer["stale"], answer["warming"]) == (["web1", "web2"], True, True)
            # What was heard since is newer: web1 has the job no more.
            for restarted in (good, other):
                say(restarted, epoch="b", stale=True, warming=True)
                restarted.answer(
                    "/nodes", restarted.answers["/nodes"][1].replace(b"[]", encoded({**WEB1, "seq": 4}), 1)
                )
            assert names(lookup.find_job("s.w")) == ["web2"]
            for restarted in (good, other):
                say(restarted, WEB1, epoch="b")
            answer = lookup.find_job("s.w")
            assert (names(answer), answer["stale"], answer["warming"]) == (["web1"], False, False)


def encoded(*nodes: dict[str, Any]) -> bytes:
    return msgspec.json.encode(nodes)


def test_a_lookup_that_is_warming_does_not_disturb_a_good_one(good: Answering) -> None:
    with answering_server() as other:
        say(good, WEB1, WEB2)
        say(other, WEB1, WEB2)
        with Lookup([good.url, other.url]) as lookup:
            lookup.find_job("s.w")
            say(good, stale=True, warming=True)
            say(other, WEB1, tombstones=[{"id": "web2", "incarnation": 1, "seq": 7, "reason": "expired"}])
            answer = lookup.find_job("s.w")
            assert (names(answer), answer["stale"]) == (["web1"], False)
            assert answer["lookups"]["agree"] == [other.url]


def test_commands_do_not_take_not_yet_for_none(good: Answering, gaffer: Commands) -> None:
    say(good, stale=True, warming=True)
    for words in (["lookup:job", "s.w"], ["why", "s.w"]):
        ran = gaffer("-L", good.url, *words)
        assert ran.status == 3
        assert "has just started" in ran.out + ran.err
    assert gaffer("-L", good.url, "lookup:job", "s.w", "--json").out.count('"warming": true') == 1


def test_questions_and_copies_outlast_a_restart_of_the_lookup() -> None:
    with ExitStack() as first:
        registry = first.enter_context(lookupd("--warmup", "0"))
        node = first.enter_context(peer(registry.url))
        node.identify("web1", id="e")
        node.ask("REGISTER_JOB", job_name="s.w", seq=1)
        node.ask("REGISTER_PROCESS", job_name="s.w", pid=4, seq=2, state="ready")
        bind = ("--bind", registry.url.partition("://")[2])
        lookup = Lookup(registry.url)
        live = lookup.watch()
        assert names(lookup.find_job("s.w")) == names(live.find_job("s.w")) == ["web1"]
    with lookup, live, lookupd(*bind, "--warmup", "30", "--ttl", "60"):
        answer = lookup.find_job("s.w")
        assert (names(answer), answer["stale"], answer["warming"]) == (["web1"], True, True)
        eventually(lambda: live.find_job("s.w").get("warming"))
        answer = live.find_job("s.w")
        assert (names(answer), answer["stale"]) == (["web1"], True)
