"""The dashboard of a cluster in Chromium."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Page, expect, sync_playwright

from support.daemons import gafferd, lookupd
from support.needs import needs_browser

pytestmark = needs_browser

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


@pytest.fixture
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        page = browser.new_page(color_scheme="dark")
        page.set_default_timeout(20_000)
        expect.set_options(timeout=20_000)
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        yield page
        browser.close()
        assert problems == []


def test_nodes_and_jobs_appear_change_and_lead_to_the_node(page: Page, tmp_path: Path) -> None:
    (tmp_path / "gafferd.ini").write_text("[gaffer]\nlabels = zone=<b>a</b>\n")
    with lookupd("--ttl", "4", "--interval", "1") as registry:
        page.goto(f"{registry.url}/ui/")
        expect(page.get_by_text("No node is known here.")).to_be_visible()
        announced = ("--lookupd-address", registry.url, "--node-name", "node-1")
        with gafferd("-c", str(tmp_path), *announced) as node:
            line = page.locator("tbody tr", has_text="node-1")
            expect(line.locator(".state")).to_have_text("alive")
            expect(line).to_contain_text("zone=<b>a</b>")
            requests.post(f"{node.url}/jobs/shop", json={"name": "web", "cmd": "sleep 1000"}, timeout=10)
            line.locator("td[data-label=jobs] a", has_text="1").click()
            job = page.locator("tbody tr", has_text="shop.web")
            expect(job.locator(".state")).to_have_text("ready")
            with page.context.expect_page() as opened:
                job.get_by_role("link", name=re.compile(r"shop\.web")).click()
            expect(opened.value.get_by_role("heading", name="shop.web")).to_be_visible()
            assert opened.value.url == f"{node.url}/ui/#/jobs/shop.web"
            opened.value.close()
            page.get_by_role("link", name="Events").click()
            expect(page.get_by_text("Nothing has happened yet.")).to_be_visible()
            requests.post(f"{node.url}/jobs/shop/web/state", data="0", timeout=10)
            expect(page.locator(".timeline")).to_contain_text("process ended")
            page.get_by_role("link", name="Nodes").click()
            expect(line).to_be_visible()
            node.kill()
            expect(line.locator(".state")).to_have_text("suspect")
            expect(line).to_have_count(0)
        expect(page.locator(".count")).to_have_text("0 nodes")
