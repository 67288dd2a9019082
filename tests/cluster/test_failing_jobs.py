"""Jobs that fail on a node, as the cluster sees them: real processes in a crash loop, through lookupd."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from playwright.sync_api import Page, expect

from support.browser import check_look
from support.daemons import Daemon, gafferd, lookupd
from support.needs import needs_browser
from support.peer import peer
from support.poll import eventually

NEXT_START = re.compile("next start (in [0-9]+s|now)")
HOSTILE = "<img src=x onerror='window.hacked=1'>\u202e\x1b[31mred"

JOBS: list[dict[str, Any]] = [
    {"name": "web", "cmd": "sleep 1000"},
    {"name": "crashing", "cmd": "sh -c 'echo no database >&2; exit 3'"},
    {"name": "given-up", "cmd": "sh -c 'exit 4'", "max_restarts": 1},
    {"name": "after-it", "cmd": "sleep 1000", "after": ["crashing"]},
    {"name": "partly", "cmd": "sleep 1000", "numprocesses": 2, "ready": "exec:test $GAFFER_INSTANCE = 1"},
    {"name": "empty", "cmd": "sleep 1000", "numprocesses": 0},
    {"name": "on-demand", "cmd": "sleep 1000", "start": "on-connection"},
    {"name": "nightly", "cmd": "sleep 1", "schedule": "0 0 1 1 *"},
]
FAILING = {"shop.crashing", "shop.given-up", "shop.after-it", "shop.partly"}


@pytest.fixture(scope="module")
def registry() -> Iterator[Daemon]:
    with lookupd() as running:
        yield running


@pytest.fixture(scope="module")
def node(registry: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    jobs = [{**job, "socket": f"a=unix:{tmp_path_factory.mktemp('s')}/s"} if "start" in job else job for job in JOBS]
    with gafferd("--lookupd-address", registry.url, "--node-name", "n1") as running:
        requests.post(f"{running.url}/jobs/shop", json={"jobs": jobs}, timeout=10).raise_for_status()
        yield running


def found(registry: Daemon, **query: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = requests.get(f"{registry.url}/search", params=query, timeout=10).json()["items"]
    return items


def by_name(registry: Daemon, **query: str) -> dict[str, dict[str, Any]]:
    return {item["name"]: item for item in found(registry, kind="jobs", **query)}


@pytest.fixture
def crashing(registry: Daemon, node: Daemon) -> dict[str, dict[str, Any]]:
    """The jobs, once one of them is known to crash again and again, and another one is given up."""

    def settled() -> dict[str, dict[str, Any]] | None:
        jobs = by_name(registry)
        known = jobs.keys() >= {f"shop.{job['name']}" for job in JOBS}
        loops = known and "crash loop" in (jobs["shop.crashing"]["reason"] or "")
        settled = loops and jobs["shop.given-up"]["state"] == "failed"
        return jobs if settled and jobs["shop.partly"]["reason"] and jobs["shop.partly"]["ready"] == 1 else None

    jobs = eventually(settled, timeout=30)
    assert jobs is not None
    return jobs


def test_states_and_reasons_are_those_of_the_node(
    registry: Daemon, node: Daemon, crashing: dict[str, dict[str, Any]]
) -> None:
    def backs_off() -> bool:
        job = by_name(registry)["shop.crashing"]
        return job["state"] == "backoff" and bool(re.search("crash loop.*exited with 3", job["reason"]))

    assert crashing["shop.after-it"]["reason"].startswith("waiting for shop.crashing to be ready")
    assert (crashing["shop.empty"]["state"], crashing["shop.empty"]["reason"]) == ("waiting", "scaled to 0 processes")
    eventually(backs_off)
    eventually(lambda: by_name(registry, ready="false").keys() == FAILING)
    [item] = found(registry)
    assert (item["not_ready"], item["jobs"]) == (len(FAILING), len(JOBS))
    for server in (registry, node):
        names = [name.removeprefix("shop.") for name in by_name(server, sort="state")]
        assert names[0] == "given-up"
        assert sorted(names[1:3]) == ["crashing", "partly"], server.url
    [source] = requests.get(f"{registry.url}/findJob?name=shop.given-up", timeout=10).json()["sources"]
    assert (source["state"], source["expected"], source["pids"]) == ("failed", 1, [])


def check_idle(page: Page) -> None:
    """Jobs that wait for something good are no warning, unlike those that wait for others."""
    for name, kind in (("empty", "idle"), ("nightly", "idle"), ("on-demand", "idle"), ("after-it", "warn")):
        state = page.locator("tbody tr", has=page.locator("a", has_text=f"shop.{name}")).locator(".state")
        expect(state).to_have_class(f"state {kind}")


@needs_browser
def test_pages_show_what_fails_and_why_and_when_it_starts_again(
    page: Page, registry: Daemon, node: Daemon, crashing: dict[str, dict[str, Any]]
) -> None:
    with peer(registry.url) as other:
        other.identify("other", id="b" * 32, incarnation=1)
        other.ask("SNAPSHOT", seq=1, jobs={"shop.odd": []})
        other.ask("REPORT", now=1, jobs={"shop.odd": {"state": "failed", "reason": HOSTILE, "expected": 1}})
        page.goto(f"{registry.url}/ui/")
        row = page.locator("tbody tr", has_text="n1")
        link = row.locator("[data-label='not ready'] a")
        expect(link).to_have_text(str(len(FAILING)))
        link.click()
        expect(page.locator("tbody tr")).to_have_count(len(FAILING))
        page.get_by_role("button", name=re.compile("^not ready")).click()
        page.get_by_role("button", name=re.compile("^node n1")).click()
        expect(page.locator("tbody tr")).to_have_count(len(JOBS) + 1)
        expect(page.locator("tbody tr .state").first).to_have_text("failed")
        looping = page.locator("tbody tr", has_text="crash loop")
        expect(looping.locator(".c-reason")).to_contain_text("exited with 3")
        expect(looping.locator("[data-label=ready]")).to_have_text("0/1")
        odd = page.locator("tbody tr", has_text="shop.odd").locator(".c-reason")
        expect(odd).to_have_text(re.compile("^<img src=x .*>.*red$"))
        assert page.locator("main img").count() == 0
        assert not {"\u202e", "\x1b"} & {*page.locator("body").inner_text()}
        check_idle(page)
        check_look(page, "cluster failing jobs")
        report = {"state": "running", "reason": None, "expected": 0}
        other.ask("REPORT", now=2, jobs={"shop.odd": report})
        expect(page.locator("tbody tr", has_text="shop.odd").locator(".state")).to_have_text("running")
        assert page.evaluate("window.hacked") is None
    page.goto(f"{node.url}/ui/#/jobs")
    expect(page.locator("tbody tr", has_text="crash loop")).to_contain_text(NEXT_START)
    check_idle(page)
    check_look(page, "node failing jobs")
    page.goto(f"{node.url}/ui/#/jobs/shop.crashing")
    expect(page.locator("table.processes")).to_contain_text(NEXT_START)
    check_look(page, "node failing job")
