"""The dashboard of a cluster in Chromium."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import requests
from playwright.sync_api import Page, expect

from gaffer.runtime.keyfile import new_key
from gaffer.schemas.messages import PROTOCOL_VERSION
from support.daemons import gafferd, lookupd
from support.needs import needs_browser
from support.peer import peer

pytestmark = needs_browser


def test_the_page_acts_on_nodes_that_allow_it_with_their_own_keys(page: Page, tmp_path: Path) -> None:
    key = new_key()
    (tmp_path / "key").write_text(key)
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "gafferd.ini").write_text("[gaffer]\ntrust_local = false\n")
    with lookupd() as registry:
        keyed = ("-c", str(tmp_path), "--api-key-file", str(tmp_path / "key"), "--lookupd-address", registry.url)
        with (
            gafferd(*keyed, "--node-name", "open", "--allowed-origin", registry.url) as node,
            gafferd("--lookupd-address", registry.url, "--node-name", "closed") as closed,
        ):
            headers = {"Authorization": f"Bearer {key}"}
            job = {"name": "web", "cmd": "sleep 1000"}
            requests.post(f"{node.url}/jobs/shop", json=job, headers=headers, timeout=10)
            page.goto(f"{registry.url}/ui/#/jobs")
            page.get_by_role("link", name="shop.web").click()
            login = page.get_by_role("form", name="Log in")
            expect(login).to_contain_text(f"The key is sent to {node.url}")
            login.get_by_label(f"{urlsplit(node.url).netloc} asks for a key").fill(key)
            login.get_by_role("button").click()
            page.get_by_role("button", name="Scale").click()
            dialog = page.get_by_role("dialog")
            dialog.get_by_label("Processes").fill("2")
            expect(dialog).to_contain_text(f"--endpoint={node.url}")
            dialog.get_by_role("button", name="Scale").click()
            expect(page.locator("table.processes tbody tr")).to_have_count(2)
            page.get_by_role("link", name="Logs", exact=True).first.click()
            expect(page.locator(".log-status")).to_contain_text("Live")
            page.get_by_role("link", name="cluster").click()
            page.get_by_role("link", name="closed").click()
            expect(page.get_by_role("alert")).to_contain_text(f"lack --allowed-origin={registry.url}?")
            itself = page.get_by_role("link", name=re.compile("dashboard of closed itself"))
            assert itself.get_attribute("href") == f"{closed.url}/ui/"


def test_nodes_and_jobs_appear_change_and_leave(page: Page, tmp_path: Path) -> None:
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
            line.locator("td[data-label^=job] a", has_text="1").click()
            job = page.locator("tbody tr", has_text="shop.web")
            expect(job.locator(".state")).to_have_text("running")
            page.get_by_role("link", name="Events").click()
            timeline = page.locator(".timeline")
            expect(timeline).to_contain_text("joined")
            expect(timeline).to_contain_text("load")
            requests.post(f"{node.url}/jobs/shop/web/state", data="0", timeout=10)
            stopped = timeline.locator("li", has=page.locator(".what", has_text=re.compile("^stop$")))
            expect(stopped).to_contain_text("shop.web")
            page.get_by_role("link", name="Nodes").click()
            expect(line).to_be_visible()
            node.kill()
            expect(line.locator(".state")).to_have_text("suspect")
            expect(line).to_have_count(0)
        expect(page.locator(".count")).to_have_text("0 nodes")


def test_events_are_followed_after_a_first_request_that_failed(page: Page) -> None:
    with lookupd() as registry:
        page.route("**/history?*", lambda route: route.abort(), times=1)
        page.goto(f"{registry.url}/ui/#/events")
        expect(page.locator(".problem")).to_contain_text("can't be reached")
        expect(page.locator("header .connection")).to_contain_text("Connection lost")
        expect(page.locator(".problem")).to_have_count(0)
        expect(page.locator("header .connection")).to_have_text("Live")


def test_the_version_of_a_node_is_named_as_that_of_its_protocol(page: Page) -> None:
    with lookupd() as registry, gafferd("--lookupd-address", registry.url, "--node-name", "one"):
        page.goto(f"{registry.url}/ui/")
        page.get_by_role("link", name="one", exact=True).wait_for()
        heading = page.get_by_role("columnheader").nth(6)
        expect(heading).to_have_text("Protocol")
        expect(page.locator("tbody td").nth(6)).to_have_text(PROTOCOL_VERSION)


def test_a_lookupd_that_asks_for_a_key_names_itself(page: Page, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(new_key())
    (tmp_path / "key").chmod(0o600)
    with lookupd("--require-key", "--reader-key-file", str(tmp_path / "key")) as registry:
        page.goto(f"{registry.url}/ui/")
        login = page.get_by_role("form", name="Log in")
        login.get_by_label(f"{urlsplit(registry.url).netloc} asks for a key").fill((tmp_path / "key").read_text())
        login.get_by_role("button").click()
        expect(page.get_by_role("link", name="Nodes")).to_be_visible()
        expect(login).to_have_count(0)
        with peer(registry.url) as node:
            node.identify("one", id="1" * 32, incarnation=1)
            call = {"at": 1, "kind": "call", "action": "POST", "route": "/drain", "caller": "key:ops"}
            node.ask("REPORT", now=1, events=[call])
            page.get_by_role("link", name="Events").click()
            expect(page.locator(".timeline")).to_contain_text("drain")
            expect(page.get_by_text("Who did it is shown with the cluster key.")).to_be_visible()
            expect(page.get_by_text("key:ops")).to_have_count(0)
