"""`gaffer lookup`: what changes in the cluster, as it changes."""

import json
import re
from functools import partial

import pytest

from support.client import Commands
from support.daemons import lookupd
from support.following import Following, following
from support.peer import Peer, peer
from support.poll import eventually
from support.scripted import answer, events, scripted_server


def texts(lines: list[str]) -> list[str]:
    """The lines without the time."""
    assert all(re.fullmatch(r"\d\d:\d\d:\d\d \S+ .+", line) for line in lines), lines
    return [line[9:] for line in lines]


def until_all_follow(node: Peer, *commands: Following) -> None:
    """Change something until all commands show it: then they miss nothing any more."""

    def shown(job: str) -> bool:
        return all(job in "".join(each.lines) for each in commands)

    for number in range(1000):
        job = f"probe.job{number}"
        node.ask("REGISTER_JOB", job_name=job)
        try:
            eventually(partial(shown, job), timeout=0.2)
        except AssertionError:
            continue
        return


@pytest.mark.row("CL-35")
def test_the_changes_of_one_lookup() -> None:
    with (
        lookupd() as registry,
        following("gaffer", "-L", registry.url, "lookup") as watch,
        following("gaffer", "lookup", "--json", "-L", registry.url) as documents,
        peer(registry.url) as probe,
        peer(registry.url) as node,
    ):
        probe.identify("probe")
        until_all_follow(probe, watch, documents)
        before = len(watch.lines)
        node.identify("web1", id="e")
        node.ask("REGISTER_JOB", job_name="shop.web", seq=1)
        node.ask("REGISTER_PROCESS", job_name="shop.web", pid=4, seq=2, state="starting")
        node.ask("REPORT", now=1, jobs={"shop.web": {"state": "backoff", "reason": "exited with 3\x1b"}})
        node.ask("UNREGISTER_JOB", job_name="shop.web", seq=3)
        node.ask("LEAVE")
        eventually(lambda: "remove_node" in watch.lines[-1])
        assert texts(watch.lines[before:]) == [
            "web1 | identify http://web1:5000 alive",
            "web1 | add_job shop.web",
            "web1 | add_process shop.web 4 starting",
            "web1 | update_job shop.web backoff: exited with 3\ufffd",
            "web1 | remove_job shop.web",
            "web1 | remove_node http://web1:5000 left",
        ]
        eventually(lambda: json.loads(documents.lines[-1])["event"] == "remove_node")
        assert watch.interrupt() == documents.interrupt() == (130, "")


@pytest.mark.row("CL-35")
def test_several_lookups_one_of_which_goes() -> None:
    with lookupd() as one, lookupd() as two, peer(one.url) as of_one, peer(two.url) as of_two:
        of_one.identify("a")
        of_two.identify("b")
        with following("gaffer", "-L", f"{one.url},{two.url}", "lookup", "--colorize") as watch:
            until_all_follow(of_one, watch)
            two.kill()
            until_all_follow(of_one, watch)
            until = len(watch.lines)
            of_one.ask("REGISTER_JOB", job_name="shop.web")
            eventually(lambda: len(watch.lines) > until)
            assert re.fullmatch(
                rf"\x1b\[36m\d\d:\d\d:\d\d {re.escape(one.url)} a \| add_job shop\.web\x1b\[0m", watch.lines[-1]
            )
            status, stderr = watch.interrupt()
    assert status == 130
    assert f"{two.url}" in stderr
    assert "reconnecting" in stderr


def test_nobody_answers(gaffer: Commands, closed: str) -> None:
    ran = gaffer("-L", closed, "lookup")
    assert (ran.status, ran.out) == (3, "")
    ran = gaffer("-L", f"{closed},{closed}/other", "lookup")
    assert (ran.status, ran.out) == (3, "")
    assert "connection refused" in ran.err


def test_a_lookup_without_events(gaffer: Commands) -> None:
    with scripted_server(answer(404)) as old:
        assert gaffer("-L", old.url, "lookup").status == 4


def test_a_map_that_comes_again_is_told(gaffer: Commands) -> None:
    text = 'event: snapshot\nid: e:1\ndata: {"event": "snapshot", "stale": false, "tombstones": [], "nodes": []}\n\n'
    stale = 'event: stale\nid: e:2\ndata: {"event": "stale", "stale": true}\n\n'
    forget = 'event: forget_node\nid: e:3\ndata: {"event": "forget_node", "id": "abc"}\n\n'
    with scripted_server(events(text, stale, forget), events(text), answer(404)) as server:
        ran = gaffer("-L", server.url, "lookup")
    assert texts(ran.out.splitlines()) == ["- | stale true", "- | forget_node abc"]
    assert "a new snapshot" in ran.err
    assert ran.status == 1
