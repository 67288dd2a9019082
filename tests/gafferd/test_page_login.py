"""The example page of a plugin in Chromium: it logs in, and gives orders with the token of its tab only."""

import shutil
from pathlib import Path

import requests
from playwright.sync_api import Page, sync_playwright

from gaffer.runtime.keyfile import new_key
from support.daemons import gafferd
from support.needs import needs_browser

EXAMPLES = Path(__file__).parents[2] / "examples" / "plugins"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


def log_in(page: Page, key: str) -> None:
    page.evaluate('document.getElementById("login").hidden = false')
    page.fill("#key", key)
    page.click("#login button")
    page.wait_for_function("document.getElementById('key').value === ''")
    page.wait_for_function("document.getElementById('login').hidden")


@needs_browser
def test_a_page_logs_in_and_gives_orders_with_its_token(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES, tmp_path / "plugins")
    for path in [tmp_path / "plugins", *(tmp_path / "plugins").rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o022)
    key = new_key()
    (tmp_path / "key").write_text(key)
    (tmp_path / "key").chmod(0o600)
    arguments = ("-p", str(tmp_path / "plugins"), "--api-key-file", str(tmp_path / "key"))
    with gafferd(*arguments) as node, sync_playwright() as playwright:
        requests.post(f"{node.url}/jobs/shop", json={"name": "web", "cmd": "sleep 1000", "start": False}, timeout=10)
        wanted = f"{node.url}/jobs/shop/web/numprocesses"
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"{node.url}/_plugin/hello/")
        page.wait_for_selector("#jobs li")
        log_in(page, key)
        with page.expect_response("**/numprocesses") as answer:
            page.click("#jobs button")
        assert answer.value.status == 200
        assert requests.get(wanted, timeout=10).json() == {"numprocesses": 2}
        other = context.new_page()  # it has the cookie, and no token
        other.goto(f"{node.url}/_plugin/hello/")
        other.wait_for_selector("#jobs li")
        with other.expect_response("**/numprocesses") as refused:
            other.click("#jobs button")
        assert (refused.value.status, refused.value.json()["error"]) == (403, "token_required")
        other.wait_for_selector("#login:not([hidden])")
        log_in(other, key)
        with other.expect_response("**/numprocesses") as answer:
            other.click("#jobs button")
        assert answer.value.status == 200
        browser.close()
