"""`Lookup` against real gaffer_lookupds, and against servers that answer badly."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from gaffer_client import Lookup, Server, errors
from support.client import Answering, answering_server
from support.daemons import Daemon, gafferd, lookupd
from support.poll import eventually

QUICK = ("--ttl", "2", "--interval", "0.5")


@pytest.fixture(scope="module")
def registries() -> Iterator[list[Daemon]]:
    with lookupd(*QUICK) as one, lookupd(*QUICK) as two:
        yield [one, two]


@pytest.fixture
def urls(registries: list[Daemon]) -> list[str]:
    return [registry.url for registry in registries]


@pytest.fixture
def node(urls: list[str]) -> Iterator[Daemon]:
    with gafferd("--lookupd-address", urls[0], "--lookupd-address", urls[1], "--node-name", "one") as node:
        yield node


def load(node: Daemon) -> None:
    with Server(node.url) as server:
        server.load_all([{"name": "nap", "cmd": "sleep 1000"}, {"name": "rest", "cmd": "sleep 1000"}], "shop")


@pytest.mark.row("LK-11")
def test_one_job_through_all_questions(urls: list[str], node: Daemon) -> None:
    load(node)
    with Lookup(urls) as lookup:
        [source] = eventually(lambda: [s for s in lookup.find_job("shop.nap")["sources"] if s["pids"]])
        assert source["name"] == "one"
        assert source["node_info"]["origin"] == node.url
        assert source["status"] == "alive"
        eventually(lambda: lookup.jobs()["lookups"] == {"agree": urls, "unreachable": []})
        assert [info["name"] for info in lookup.nodes()["nodes"]] == ["one"]
        jobs = lookup.jobs()
        assert (jobs["nb_jobs"], [job["name"] for job in jobs["jobs"]]) == (2, ["shop.nap", "shop.rest"])
        assert lookup.find_session("shop")["nb_jobs"] == 2
        assert lookup.find_session("none")["jobs"] == []
        assert lookup.find_job("shop.none")["sources"] == []
        [session] = lookup.sessions()["sessions"]
        assert (session["sessionid"], sorted(session["jobs"])) == ("shop", ["shop.nap", "shop.rest"])
        assert lookup.sessions("one")["nb_sessions"] == 1
        assert lookup.sessions("other")["sessions"] == []
        assert lookup.failures == {}


def test_an_answer_of_one_lookup_keeps_its_place_in_the_stream(urls: list[str]) -> None:
    with Lookup(urls[0]) as lookup:
        answer = lookup.nodes()
    assert answer["epoch"]
    assert isinstance(answer["seq"], int)
    assert answer["lookups"] == {"agree": [urls[0]], "unreachable": []}


def test_one_lookup_is_enough(urls: list[str], node: Daemon, closed: str) -> None:
    load(node)
    with Lookup([closed, urls[1]]) as lookup:
        eventually(lambda: lookup.find_job("shop.nap")["sources"])
        assert lookup.find_job("shop.nap")["lookups"] == {"agree": [urls[1]], "unreachable": [closed]}
        assert isinstance(lookup.failures[closed], errors.Unreachable)


def test_a_node_that_says_goodbye_is_gone(urls: list[str]) -> None:
    with Lookup(urls) as lookup, gafferd("--lookupd-address", urls[0], "--lookupd-address", urls[1]) as node:
        eventually(lambda: lookup.nodes()["nodes"])
        node.stop()
        eventually(lambda: not lookup.nodes()["nodes"], timeout=1)


@pytest.mark.row("LK-11")
def test_nobody_answers(closed: str) -> None:
    with Lookup([closed]) as lookup, pytest.raises(errors.Unreachable) as caught:
        lookup.nodes()
    assert caught.value.message == f"can't reach {closed}: connection refused"
    with Lookup([closed, closed + "/other"]) as lookup, pytest.raises(errors.Unreachable) as caught:
        lookup.nodes()
    assert caught.value.message.count("connection refused") == 2


QUESTIONS = [
    lambda lookup: lookup.find_job("s.j"),
    lambda lookup: lookup.find_session("s"),
    lambda lookup: lookup.jobs(),
    lambda lookup: lookup.sessions(),
    lambda lookup: lookup.sessions("n"),
    lambda lookup: lookup.nodes(),
]


@contextmanager
def answering_for_now() -> Iterator[str]:
    info = '{"name": "n", "origin": "http://n:5000", "version": "0.1"}'
    source = f'{{"name": "n", "pids": [1], "node_info": {info}}}'
    jobs = f'{{"nb_jobs": 1, "jobs": [{{"name": "s.j", "sources": [{source}]}}]}}'
    sessions = f'{{"nb_sessions": 1, "sessions": [{{"sessionid": "s", "jobs": {{"s.j": [{source}]}}}}]}}'
    with answering_server() as server:
        server.answer("/nodes", f'{{"nodes": [{info}]}}')
        server.answer("/findJob", f'{{"sources": [{source}]}}')
        server.answer("/jobs", jobs)
        server.answer("/findSession", jobs)
        server.answer("/sessions", sessions)
        server.answer("/sessions/n", sessions)
        yield server.url


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_last_answer_is_repeated_when_nobody_can_be_reached(question: Callable[[Lookup], Any], closed: str) -> None:
    with answering_for_now() as url, Lookup([url, closed]) as lookup, Lookup(url, stale="raise") as strict:
        before = question(lookup)
        assert before["stale"] is False
        assert question(strict)
        lookup.close()
        strict.close()
    answer = question(lookup)
    assert answer == {**before, "stale": True, "lookups": {"agree": [], "unreachable": [url, closed]}}
    with pytest.raises(errors.Unreachable):
        question(strict)


def test_a_question_that_was_never_answered_has_no_last_answer() -> None:
    with answering_for_now() as url, Lookup(url) as lookup:
        lookup.find_job("s.j")
        lookup.close()
    for question in (lambda: lookup.find_job("s.other"), lookup.jobs):
        with pytest.raises(errors.Unreachable):
            question()


def test_who_is_refused_is_told(answering: Callable[..., Answering]) -> None:
    server = answering()
    server.answer("/nodes", '{"nodes": []}')
    with Lookup(server.url) as lookup:
        lookup.nodes()
        server.answer("/nodes", '{"error": "auth_required"}', 401)
        with pytest.raises(errors.Unauthorized):
            lookup.nodes()
        server.answer("/nodes", '{"error": "stopping"}', 503)
        assert lookup.nodes()["stale"]


def test_so_many_answers_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gaffer_client.lookup.REMEMBERED", 2)
    with answering_for_now() as url, Lookup(url) as lookup:
        for name in ("s.a", "s.b", "s.a", "s.c"):
            lookup.find_job(name)
        lookup.close()
    assert lookup.find_job("s.a")["stale"]
    assert lookup.find_job("s.c")["stale"]
    with pytest.raises(errors.Unreachable):
        lookup.find_job("s.b")


def test_a_lookup_that_answers_badly_counts_as_none(
    urls: list[str], node: Daemon, answering: Callable[..., Answering]
) -> None:
    load(node)
    bad = answering()
    bad.answer("/nodes", '{"nodes": [{"name": 1}]}')
    with Lookup([bad.url, urls[0]]) as lookup:
        eventually(lambda: lookup.find_job("shop.nap")["sources"])
        assert isinstance(lookup.failures[bad.url], errors.MalformedAnswer)
    with Lookup([bad.url]) as lookup, pytest.raises(errors.MalformedAnswer):
        lookup.nodes()


def test_a_lookup_of_an_older_version_is_understood(answering: Callable[..., Answering]) -> None:
    old = answering()
    info = '{"name": "n", "origin": "http://n:5000", "version": "0.1"}'
    source = f'{{"name": "n", "pids": [1, 2], "node_info": {info}}}'
    old.answer("/nodes", f'{{"nodes": [{info}]}}')
    old.answer("/findJob", f'{{"sources": [{source}]}}')
    with Lookup([old.url, old.url + "/"]) as lookup:
        assert lookup.urls == [old.url]
        [only] = lookup.find_job("shop.nap")["sources"]
        assert only["pids"] == [1, 2]
        assert lookup.find_job("shop.nap")["stale"] is False


def test_readers_may_need_the_cluster_key(tmp_path_factory: pytest.TempPathFactory) -> None:
    key = tmp_path_factory.mktemp("keys") / "cluster.key"
    key.write_text("gk_cluster\n")
    key.chmod(0o600)
    with lookupd("--cluster-key-file", str(key), "--require-key") as registry:
        with Lookup(registry.url) as lookup, pytest.raises(errors.Unauthorized):
            lookup.nodes()
        with Lookup(registry.url, api_key="gk_cluster") as lookup:
            assert lookup.nodes()["nodes"] == []


def test_a_lookup_needs_an_address() -> None:
    with pytest.raises(ValueError, match="address"):
        Lookup([])
    with pytest.raises(ValueError, match="answer or raise"):
        Lookup("http://127.0.0.1:5010", stale="maybe")  # type: ignore[arg-type]
