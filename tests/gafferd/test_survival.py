"""A gafferd that is killed: its processes go on, and no line of their output is lost or comes twice."""

import random
import statistics
import time
from pathlib import Path

import pytest
import requests

from support.survival import NO_LINES, TIMEOUT, Node, count_lines, feeds, kept_node, kill_and_wait, writers

Figures = list[str]


def kill_at_random(node: Node, times: int, children: int, followed: int, pause: float) -> Figures:
    """Kill gafferd again and again under writing processes, then compare."""
    randomness = random.Random(13)
    node.load(writers("w", children))
    before = node.running("w", children)
    back = []
    with feeds(node, before[:followed]) as following:
        for _ in range(times):
            time.sleep(randomness.uniform(0.0, pause))  # at any moment is what the test is about
            back.append(node.kill())
            assert node.instances("w") == before
        for feed in following:
            assert feed.connected.wait(TIMEOUT), "its process is gone" if feed.over.is_set() else "it is not followed"
        assert node.info("w")["restarts"] == 0
        assert node.exits("w") == []
        node.unload("w")
        for feed in following:
            assert feed.over.wait(TIMEOUT)
    logs = [node.ended_log("w", each.slot) for each in before]
    of_logs = sum((count_lines(log) for log in logs), NO_LINES)
    of_feeds = sum((count_lines(bytes(feed.data)) for feed in following), NO_LINES)
    figures = [
        f"{times} kills of gafferd under {children} processes: 0 lost, 0 restarted",
        f"API back after {statistics.median(back):.3f} s (median; {min(back):.3f} to {max(back):.3f})",
        f"{of_logs.written} lines in the logs: {of_logs.lost} lost, {of_logs.twice} twice, {of_logs.torn} torn",
        f"{of_feeds.written} lines in {followed} feeds: {of_feeds.lost} lost, {of_feeds.twice} twice,"
        f" {of_feeds.torn} torn, {sum(len(feed.gaps) for feed in following)} gaps",
    ]
    print("\n".join(figures))
    assert of_logs.ended == children
    assert of_logs.flaws == (0, 0, 0)
    assert of_feeds.flaws == (0, 0, 0)
    assert of_feeds.ended == followed
    assert [feed.gaps for feed in following] == [[]] * followed
    assert all(feed.connections > 1 for feed in following)
    assert [bytes(feed.data) for feed in following] == logs[:followed]  # the ring and the log agree
    return figures


def test_the_first_answer_has_all_processes(tmp_path: Path) -> None:
    with kept_node(tmp_path) as node:
        node.load({"name": "s", "cmd": "sleep 1000", "numprocesses": 150})
        node.load({"name": "stopped", "cmd": "sleep 1000", "start": False})
        requests.post(f"{node.url}/jobs/default/stopped/commit", timeout=TIMEOUT).raise_for_status()
        before, committed = node.running("s", 150), node.running("stopped", 1)
        kill_and_wait(node.pid)
        assert node.instances("s") == before
        assert node.info("stopped")["instances"][0]["state"] == "ready"
        assert node.instances("stopped") == committed


def test_no_process_and_no_line_is_lost(tmp_path: Path) -> None:
    with kept_node(tmp_path) as node:
        kill_at_random(node, times=4, children=8, followed=2, pause=0.3)


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_a_hundred_kills_under_200_processes(tmp_path: Path) -> None:
    with kept_node(tmp_path) as node:
        kill_at_random(node, times=100, children=200, followed=10, pause=2.0)


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_a_thousand_processes_are_adopted(tmp_path: Path) -> None:
    with kept_node(tmp_path) as node:
        node.load({"name": "s", "cmd": "sleep 1000", "numprocesses": 1000})
        before = node.running("s", 1000)
        back = []
        for _ in range(10):
            back.append(node.kill())
            assert node.instances("s") == before
        print(f"API back with 1,000 processes after {statistics.median(back):.3f} s (median; at most {max(back):.3f})")
