"""`Lookup.watch`: answers from a copy that follows the lookups, real ones and scripted ones."""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec
import pytest

from gaffer_client import LiveLookup, Lookup, Server, errors
from support.daemons import Daemon, gafferd, lookupd
from support.poll import eventually
from support.scripted import Visit, answer, events, scripted_server

QUICK = ("--ttl", "2", "--interval", "0.5")

NODE = {"name": "n", "origin": "http://n:5000", "version": "0.1", "id": "a", "incarnation": 1, "seq": 1}
PROCESS = {"pid": 1, "state": "ready", "endpoints": []}


def event(kind: str, position: str, /, **message: Any) -> str:
    text = msgspec.json.encode({"event": kind, **message}).decode()
    return f"event: {kind}\nid: {position}\ndata: {text}\n\n"


def snapshot(position: str, **jobs: list[int]) -> str:
    tables = {f"s.{name}": [{**PROCESS, "pid": pid} for pid in pids] for name, pids in jobs.items()}
    nodes = [{**NODE, "status": "alive", "jobs": tables}]
    return event("snapshot", position, stale=False, tombstones=[], nodes=nodes)


def pids(live: LiveLookup, job: str) -> list[list[int]]:
    return [source["pids"] for source in live.find_job(job)["sources"]]


_OF_LOOKUPD = ("age_ms", "tombstones", "warming")  # in its own answers, not in merged ones


def without_ages(answer: Any) -> Any:
    if isinstance(answer, dict):
        return {key: without_ages(value) for key, value in answer.items() if key not in _OF_LOOKUPD}
    return [without_ages(each) for each in answer] if isinstance(answer, list) else answer


@pytest.fixture(scope="module")
def registries() -> Iterator[list[Daemon]]:
    with lookupd(*QUICK) as one, lookupd(*QUICK) as two:
        yield [one, two]


@pytest.fixture(scope="module")
def urls(registries: list[Daemon]) -> list[str]:
    return [registry.url for registry in registries]


@pytest.fixture(scope="module")
def node(urls: list[str]) -> Iterator[Daemon]:
    addresses = [word for url in urls for word in ("--lookupd-address", url)]
    with gafferd(*addresses, "--node-name", "one") as node:
        yield node


@pytest.fixture
def server(node: Daemon) -> Iterator[Server]:
    with Server(node.url) as server:
        yield server
        for name in server.jobs():
            server.unload(name)


@pytest.mark.parametrize("number", [1, 2])
def test_it_answers_what_the_lookups_answer(urls: list[str], server: Server, number: int) -> None:
    with Lookup(urls[:number]) as lookup, lookup.watch() as live:
        server.load_all([{"name": name, "cmd": "sleep 1000"} for name in ("nap", "rest")], "shop")
        eventually(lambda: [pids(live, f"shop.{name}") for name in ("nap", "rest")] == [[[p]] for p in server.pids()])
        questions: list[Callable[[Any], Any]] = [
            lambda asked: asked.find_job("shop.nap"),
            lambda asked: asked.find_job("shop:nap")["sources"],
            lambda asked: asked.find_job("shop.none"),
            lambda asked: asked.find_session("shop"),
            lambda asked: asked.find_session("none"),
            lambda asked: asked.jobs(),
            lambda asked: asked.nodes(),
            lambda asked: asked.sessions(),
            lambda asked: asked.sessions("one"),
            lambda asked: asked.sessions("other"),
        ]

        def agree(question: Callable[[Any], Any]) -> bool:
            return bool(without_ages(question(live)) == without_ages(question(lookup)))

        for question in questions:
            eventually(partial(agree, question))
        assert live.find_job("shop.nap")["lookups"] == {"agree": urls[:number], "unreachable": []}
        assert live.urls == urls[:number]
        assert live.failures == {}


def test_an_answer_is_kept_until_something_changes(urls: list[str], server: Server) -> None:
    with Lookup(urls) as lookup, lookup.watch() as live:
        server.load({"name": "nap", "cmd": "sleep 1000"}, "shop")
        job = server.get_job("shop.nap")
        eventually(lambda: pids(live, "shop.nap") == [job.pids] != [[]] and live.jobs()["lookups"]["agree"] == urls)
        before = live.find_job("shop.nap")
        first = job.pids
        assert live.find_job("shop.nap") is before
        job.scale("=2")
        eventually(lambda: pids(live, "shop.nap") == [job.pids] and len(job.pids) == 2)
        server.unload("shop.nap")
        eventually(lambda: live.find_job("shop.nap")["sources"] == [])
        assert before["sources"][0]["pids"] == first


def test_lookups_that_go_and_come_back() -> None:
    with lookupd(*QUICK) as one, lookupd(*QUICK) as two:
        urls, port = [one.url, two.url], two.port
        addresses = ["--lookupd-address", one.url, "--lookupd-address", two.url]
        with gafferd(*addresses) as node, Server(node.url) as server, Lookup(urls) as lookup, lookup.watch() as live:
            server.load({"name": "nap", "cmd": "sleep 1000"})
            eventually(lambda: pids(live, "default.nap") == [[1]] and live.jobs()["lookups"]["agree"] == urls)
            one.kill()
            eventually(lambda: live.jobs()["lookups"] == {"agree": urls[1:], "unreachable": urls[:1]})
            assert (pids(live, "default.nap"), live.find_job("default.nap")["stale"]) == ([[1]], False)
            two.kill()
            eventually(lambda: live.find_job("default.nap")["stale"])
            for answered in (live.find_job("default.nap"), live.jobs(), live.nodes(), live.sessions()):
                assert answered["stale"]
                assert answered["lookups"] == {"agree": [], "unreachable": urls}
            assert pids(live, "default.nap") == [[1]]
            assert [node["name"] for node in live.nodes()["nodes"]]
            assert {type(failure) for failure in live.failures.values()} == {errors.Unreachable}
            with lookupd(*QUICK, "--bind", f"127.0.0.1:{port}"):
                eventually(lambda: not live.find_job("default.nap")["stale"] and pids(live, "default.nap") == [[1]])
                assert live.find_job("default.nap")["lookups"] == {"agree": urls[1:], "unreachable": urls[:1]}


def test_it_goes_on_where_it_was() -> None:
    later = event("add_job", "e:6", node={**NODE, "seq": 2, "status": "alive"}, job_name="s.b")
    plays = (events(snapshot("e:5", a=[1])), events(later, hold=True))
    with scripted_server(*plays) as server, Lookup(server.url) as lookup, lookup.watch() as live:
        eventually(lambda: pids(live, "s.b") == [[]])
        assert pids(live, "s.a") == [[1]]
        answered = live.find_job("s.a")
        assert (answered["epoch"], answered["seq"]) == ("e", 6)
        assert [visit.header("Last-Event-ID") for visit in server.visits] == [None, "e:5"]
        assert [visit.path for visit in server.visits] == ["/events?heartbeat=5"] * 2


@pytest.mark.parametrize(
    "broken",
    [
        event("remove_job", "e:6", node=NODE, job_name="s.none"),
        event("remove_job", "e:6", node="n"),
        "event: remove_job\nid: e:6\ndata: {\n\n",
    ],
)
def test_events_that_do_not_fit_lead_to_a_new_map(broken: str) -> None:
    plays = (events(snapshot("e:5", a=[1]), broken), events(snapshot("e:9", a=[2]), hold=True))
    with scripted_server(*plays) as server, Lookup(server.url) as lookup, lookup.watch() as live:
        eventually(lambda: pids(live, "s.a") == [[2]])
        assert [visit.header("Last-Event-ID") for visit in server.visits] == [None, None]


def test_changes_without_a_map_are_not_taken_for_one() -> None:
    early = event("identify", "e:1", **NODE)
    with (
        scripted_server(events(early), events(early)) as server,
        Lookup(server.url) as lookup,
        pytest.raises(errors.GafferClientError),
    ):
        lookup.watch()


def test_a_lookup_that_has_no_events(urls: list[str], server: Server) -> None:
    with (
        scripted_server(answer(404), answer(404)) as old,
        Lookup([old.url, urls[0]]) as lookup,
        lookup.watch() as live,
    ):
        server.load({"name": "nap", "cmd": "sleep 1000"})
        eventually(lambda: pids(live, "default.nap") == [server.pids()] != [[]])
        assert live.jobs()["lookups"] == {"agree": [urls[0]], "unreachable": [old.url]}
        assert set(live.failures) == {old.url}


def test_nobody_answers(closed: str) -> None:
    with Lookup(closed) as lookup, pytest.raises(errors.Unreachable, match="connection refused"):
        lookup.watch()
    with scripted_server(answer(401)) as server, Lookup(server.url) as lookup, pytest.raises(errors.Unauthorized):
        lookup.watch()
    with (
        scripted_server(events(hold=True)) as server,
        Lookup(server.url) as lookup,
        pytest.raises(errors.Unreachable, match="no map within 0"),
    ):
        lookup.watch(timeout=0.1)


def test_many_threads_may_ask() -> None:
    def play(visit: Visit) -> None:
        texts = [snapshot("e:1", a=[1])]
        for number in range(2, 300):
            process = {**PROCESS, "pid": number}
            node = {**NODE, "seq": number, "status": "alive"}
            texts.append(event("add_process", f"e:{number}", node=node, job_name="s.a", **process))
        events(*texts, hold=True)(visit)

    seen: list[int] = []

    def ask(live: LiveLookup) -> None:
        known = 0
        while known < 299:
            [found] = pids(live, "s.a")
            seen.append(len(found) - known)
            known = len(found)
            assert live.jobs()["nb_jobs"] == 1

    with scripted_server(play) as server, Lookup(server.url) as lookup, lookup.watch() as live:
        threads = [threading.Thread(target=ask, args=(live,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert not any(thread.is_alive() for thread in threads)
    assert min(seen) >= 0


def test_after_the_end_it_still_knows(urls: list[str], server: Server) -> None:
    server.load({"name": "nap", "cmd": "sleep 1000"})
    with Lookup(urls) as lookup, lookup.watch() as live:
        eventually(lambda: pids(live, "default.nap") == [server.pids()] != [[]])
        known = pids(live, "default.nap")
        live.close()
        assert live.find_job("default.nap")["stale"]
        assert pids(live, "default.nap") == known
