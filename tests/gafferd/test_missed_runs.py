"""Runs that were due while gafferd was down are made up for by one, if the job asks for it."""

import asyncio
import time
from pathlib import Path

import pytest
import requests

from gafferd.state.directory import StateDir
from support.daemons import gafferd
from support.poll import eventually

HOUR = 3600.0


def remember(state_dir: Path, at: float) -> None:
    async def record() -> None:
        state = StateDir.open(state_dir)
        state.ran("default.tick", at)
        state.close()

    asyncio.run(record())


def test_a_missed_run_is_made_up_for_at_the_start(tmp_path: Path) -> None:
    state = tmp_path / "state"
    remember(state, time.time() - 3 * HOUR)
    config = tmp_path / "gafferd.ini"
    config.write_text("[process:tick]\ncmd = echo run\nevery = 1h\nmissed = once\n")
    with gafferd(str(config), state_dir=state) as node:
        url = f"{node.url}/jobs/default/tick"
        info = eventually(lambda: (found := requests.get(url, timeout=10).json())["last_exit"] and found)
        assert info["last_exit"]["exit_code"] == 0
        assert time.time() - info["last_run"] < HOUR
        assert requests.post(f"{url}/state", data="0", timeout=10).ok
        assert requests.post(f"{url}/state", data="1", timeout=10).ok
        assert requests.get(url, timeout=10).json()["next_run"] > time.time() + HOUR / 2, "it was made up for"
        node.stop()
    kept = StateDir.open(state)
    last_run = kept.past["default.tick"].last_run
    assert last_run is not None
    assert time.time() - last_run < HOUR
    kept.close()


@pytest.mark.parametrize("ago", [3 * HOUR, HOUR / 4])
def test_a_run_is_not_made_up_for_unless_asked_and_missed(tmp_path: Path, ago: float) -> None:
    state = tmp_path / "state"
    remember(state, time.time() - ago)
    missed = "once" if ago < HOUR else "skip"
    config = tmp_path / "gafferd.ini"
    config.write_text(f"[process:tick]\ncmd = echo run\nevery = 1h\nmissed = {missed}\n")
    with gafferd(str(config), state_dir=state) as node:
        info = requests.get(f"{node.url}/jobs/default/tick", timeout=10).json()
        assert info["state"] == "waiting"
        assert info["next_run"] > time.time() + HOUR / 8
        assert info["last_exit"] is None
        node.stop()


@pytest.mark.parametrize("ran", [False, True])
def test_intervals_are_counted_on_over_a_restart(tmp_path: Path, ran: bool) -> None:
    state, config = tmp_path / "state", tmp_path / "gafferd.ini"
    if ran:
        remember(state, time.time() - HOUR / 4)
    config.write_text("[process:tick]\ncmd = echo run\nevery = 1h\n")
    found = []
    for _ in range(2):
        with gafferd(str(config), state_dir=state) as node:
            found.append(requests.get(f"{node.url}/jobs/default/tick", timeout=10).json()["next_run"])
            node.stop()
    assert abs(found[0] - found[1]) < 0.1
