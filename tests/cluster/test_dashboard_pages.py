"""How every page of a cluster looks, and to those who don't see it: `GAFFER_SCREENSHOTS=DIR` keeps pictures of all."""

from collections.abc import Iterator
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, Page, expect

from support.browser import check_look, new_page
from support.daemons import Daemon, gafferd, lookupd
from support.needs import needs_browser
from support.poll import eventually

pytestmark = needs_browser


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A lookupd with a node that is well, and one that was killed."""
    folder = tmp_path_factory.mktemp("one")
    (folder / "gafferd.ini").write_text("[gaffer]\nlabels = zone=a, disk=ssd\n")
    with lookupd("--ttl", "600") as registry:
        announced = ("--lookupd-address", registry.url, "--allowed-origin", registry.url)
        with (
            gafferd("-c", str(folder), *announced, "--node-name", "one") as one,
            gafferd(*announced, "--node-name", "two.example.com") as two,
        ):
            for node in (one, two):
                jobs = [{"name": name, "cmd": "sleep 1000"} for name in ("web", "worker")]
                requests.post(f"{node.url}/jobs/shop", json={"jobs": jobs}, timeout=10).raise_for_status()
            eventually(lambda: search(registry, "jobs")["total"] == 4, 20)
            two.kill()
            eventually(lambda: "suspect" in search(registry, "nodes")["counts"], 20)
            yield registry


def search(registry: Daemon, kind: str) -> dict[str, Any]:
    return dict(requests.get(f"{registry.url}/search", params={"kind": kind}, timeout=10).json())


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    """One page for all tests: to open another takes longer than to check it."""
    with new_page(browser) as page:
        yield page


@pytest.mark.parametrize("name", ["nodes", "jobs", "events", "lookupds"])
def test_a_page(page: Page, registry: Daemon, name: str) -> None:
    page.goto(f"{registry.url}/ui/#/{name}")
    page.get_by_role("heading", level=1).wait_for(state="attached")
    expect(page.get_by_text("Loading")).to_have_count(0)
    check_look(page, f"cluster {name}")


def test_a_page_of_a_node(page: Page, registry: Daemon) -> None:
    page.goto(f"{registry.url}/ui/#/nodes")
    page.get_by_role("link", name="one", exact=True).click()
    page.get_by_role("link", name="shop.web").wait_for()
    check_look(page, "cluster node")
