"""How every page of a node looks, and to those who don't see it: `GAFFER_SCREENSHOTS=DIR` keeps pictures of all."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, Page, expect

from support.browser import check_look, grave_faults, new_page
from support.daemons import Daemon, gafferd
from support.needs import needs_browser
from support.poll import eventually

pytestmark = needs_browser

PAGES = {
    "jobs": "#/",
    "job": "#/jobs/shop.web",
    "failed job": "#/jobs/shop.import",
    "logs": "#/jobs/shop.web/logs?find=ready",
    "exits": "#/jobs/shop.import/exits",
    "definitions": "#/jobs/shop.web/definitions",
    "history of a job": "#/jobs/shop.web/history",
    "order": "#/order",
    "history": "#/history",
    "node": "#/node",
}

COLOURS = r"printf '\033[31mred\033[0m \033[42mgreen\033[0m \033[1;34mready\033[0m\n'"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A node with jobs in many states."""
    with gafferd(state_dir=tmp_path_factory.mktemp("node") / "state") as running:
        load(running, "web", f"{COLOURS}; exec sleep 1000", shell=True, numprocesses=2, port="auto")
        change(running, "web", f"{COLOURS}; exec sleep 2000", shell=True, numprocesses=2, env={"MODE": "new"})
        load(running, "cart", "sleep 1000", after=["web"], redirect_input=True)
        load(running, "import", "echo no such table: goods >&2; exit 3", shell=True, restart="never")
        load(running, "restless", "echo out of luck; exit 1", shell=True)
        load(running, "idle", "sleep 1000", numprocesses=0)
        load(running, "nightly-" + "x" * 56, "true", schedule="30 2 * * *")
        load(running, "off", "sleep 1000")
        disable = {"reason": "the disk is full", "for": 3600}
        requests.post(f"{running.url}/jobs/shop/off/disable", json=disable, timeout=10).raise_for_status()
        failed = f"{running.url}/jobs/shop/import"
        eventually(lambda: requests.get(failed, timeout=10).json()["state"] == "failed", 20)
        yield running


def load(node: Daemon, name: str, cmd: str, **settings: object) -> None:
    body = {"name": name, "cmd": cmd, **settings}
    requests.post(f"{node.url}/jobs/shop", json=body, timeout=10).raise_for_status()


def change(node: Daemon, name: str, cmd: str, **settings: object) -> None:
    body = {"cmd": cmd, **settings}
    requests.put(f"{node.url}/jobs/shop/{name}", json=body, timeout=10).raise_for_status()


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    """One page for all tests: to open another takes longer than to check it."""
    with new_page(browser) as page:
        yield page


@pytest.mark.parametrize("name", PAGES)
def test_a_page(page: Page, node: Daemon, name: str) -> None:
    page.goto(f"{node.url}/ui/{PAGES[name]}")
    page.get_by_role("heading", level=1).wait_for(state="attached")
    expect(page.get_by_text("Loading")).to_have_count(0)
    check_look(page, name)


def test_the_confirmation_of_an_action(page: Page, node: Daemon) -> None:
    page.goto(f"{node.url}/ui/#/jobs/shop.web")
    page.get_by_role("button", name="Scale").click()
    page.get_by_role("dialog").wait_for()
    check_look(page, "confirmation")
    page.keyboard.press("Escape")


def test_the_palette(page: Page, node: Daemon) -> None:
    page.goto(f"{node.url}/ui/")
    page.locator("tbody tr").first.wait_for()
    page.keyboard.press("Control+k")
    page.get_by_role("combobox").fill("web")
    page.get_by_role("option").first.wait_for()
    check_look(page, "palette")
    page.keyboard.press("Escape")


def test_the_terminal(page: Page, node: Daemon) -> None:
    pids = requests.get(f"{node.url}/jobs/shop/cart/pids", timeout=10).json()["pids"]
    page.goto(f"{node.url}/ui/terminal.html#{pids[0]}")
    expect(page.locator("#line")).to_be_enabled()
    check_look(page, "terminal")


def test_the_login(page: Page, tmp_path: Path) -> None:
    (tmp_path / "gafferd.ini").write_text("[gaffer]\ntrust_local = false\n")
    with gafferd("--config", str(tmp_path / "gafferd.ini")) as node:
        page.goto(f"{node.url}/ui/")
        page.get_by_label("asks for a key").wait_for()
        check_look(page, "login")


def test_a_phone_shows_which_node_it_is_and_lets_jobs_be_selected(page: Page, node: Daemon) -> None:
    page.goto(f"{node.url}/ui/#/?sort=name")
    page.set_viewport_size({"width": 360, "height": 700})
    name = requests.get(f"{node.url}/health", timeout=10).json()["name"]
    expect(page.locator(".where", has_text=name)).to_be_visible()
    first = page.locator("tbody tr").first
    place = first.bounding_box()
    first.get_by_role("checkbox").check()
    expect(page.get_by_text("1 job selected")).to_be_visible()
    assert first.bounding_box() == place


def test_axe_finds_what_the_eye_does_not(page: Page, node: Daemon) -> None:
    page.goto(f"{node.url}/ui/")
    page.emulate_media(color_scheme="light")
    page.get_by_role("heading", level=1).wait_for(state="attached")
    page.evaluate(
        """() => {
            document.querySelector("main").insertAdjacentHTML("beforeend", "<p>hard to read</p><button></button>")
            document.querySelector("main > p").style.color = "#bbb"
        }"""
    )
    found = " ".join(grave_faults(page))
    assert "button-name" in found
    assert "color-contrast" in found
