"""Chromium for tests of pages: the fixtures `browser` and `page`, and what axe finds in a page."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
DEADLINE = 20_000  # ms

_AXE = Path(__file__).with_name("vendor") / "axe.js"
_GRAVE = ("serious", "critical")


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """A browser, for the tests of a file."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: "Browser") -> Iterator["Page"]:
    """A page as of `new_page`."""
    with new_page(browser) as page:
        yield page


@contextmanager
def new_page(browser: "Browser", **settings: Any) -> Iterator["Page"]:
    """Open a page that must stay on this host, throw nothing, and do nothing that its policy forbids.

    `settings` are those of the browser's context, such as `timezone_id`.
    """
    from playwright.sync_api import expect

    page = browser.new_page(**settings)
    page.set_default_timeout(DEADLINE)
    expect.set_options(timeout=DEADLINE)
    asked: set[str | None] = set()
    problems: list[str] = []
    page.context.on("request", lambda request: asked.add(urlsplit(request.url).hostname))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if "Content Security" in message.text else None)
    yield page
    page.context.close()
    assert asked <= {"127.0.0.1"}
    assert problems == []


def grave_faults(page: "Page", *rules: str) -> list[str]:
    """Return what axe calls serious or critical, each with its elements; by all rules, or by some."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(_axe())
    options = {"resultTypes": ["violations"], **({"runOnly": rules} if rules else {})}
    found = page.evaluate("options => axe.run(document, options)", options)
    return [
        f"{fault['id']} ({fault['help']}): {', '.join(str(node['target']) for node in fault['nodes'])}"
        for fault in found["violations"]
        if fault["impact"] in _GRAVE
    ]


@cache
def _axe() -> str:
    return _AXE.read_text()
