"""Chromium for tests of pages: the fixtures `browser` and `page`, and what axe finds in a page."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, ViewportSize

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
DEADLINE = 20_000  # ms

_AXE = Path(__file__).with_name("vendor") / "axe.js"
_GRAVE = ("serious", "critical")
_SIZES: "dict[str, ViewportSize]" = {"wide": {"width": 1280, "height": 760}, "phone": {"width": 360, "height": 700}}


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


def check_look(page: "Page", name: str) -> None:
    """Check what a page shows, light and dark, wide and on a phone: axe finds no grave fault, and nothing sticks out.

    `GAFFER_SCREENSHOTS=DIR` keeps the pictures, under `name`.
    """
    folder = os.environ.get("GAFFER_SCREENSHOTS")
    for width, size in _SIZES.items():
        page.set_viewport_size(size)
        page.emulate_media(color_scheme="light")
        _take(page, folder, f"{name}-{width}-light")
        assert grave_faults(page) == [], f"{name}, {width}, light"
        page.emulate_media(color_scheme="dark")
        _take(page, folder, f"{name}-{width}-dark")
        assert grave_faults(page, "color-contrast") == [], f"{name}, {width}, dark"  # all that depends on the scheme
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), name
    page.set_viewport_size(_SIZES["wide"])


def _take(page: "Page", folder: str | None, name: str) -> None:
    if folder is not None:
        page.screenshot(path=Path(folder, f"{name.replace(' ', '-')}.png"))


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
