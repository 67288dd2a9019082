"""The real sockjs-client in Chromium, over each transport it has for this browser."""

import json
import os
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Frame, Page, async_playwright

from gaffer.http.access import make_policy
from support.http_node import running_node
from support.needs import needs_browser
from support.poll import eventually_async
from support.sockjs import SockJSServer, running_server

pytestmark = [needs_browser, pytest.mark.asyncio(loop_scope="module")]

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
]

# Opens a connection, sends each text once the one before it is back, closes it; gives what happened.
TALK = """([url, transport, texts]) => new Promise(done => {
    const seen = {messages: []};
    const socket = new SockJS(url, null, {transports: [transport]});
    socket.onopen = () => { seen.transport = socket.transport; socket.send(texts[0]); };
    socket.onmessage = event => {
        seen.messages.push(event.data);
        seen.messages.length < texts.length ? socket.send(texts[seen.messages.length]) : socket.close();
    };
    socket.onclose = event => { seen.code = event.code; done(seen); };
})"""

# Keeps a connection: opens another one when it is lost. `window.seen` has the texts that came back on each.
KEEP = """([url, transport]) => {
    window.seen = [];
    const connect = () => {
        const texts = [];
        const socket = new SockJS(url, null, {transports: [transport]});
        socket.onopen = () => { seen.push(texts); socket.send("hello"); };
        socket.onmessage = event => texts.push(event.data);
        socket.onclose = () => setTimeout(connect, 50);
    };
    connect();
}"""

# Shows another page in this one.
FRAME = """url => new Promise(done => {
    const frame = document.createElement("iframe");
    frame.onload = frame.onerror = done;
    frame.src = url;
    document.documentElement.append(frame);
})"""

TEXTS = ["plain", "", "\u2028 \u200c \ufff0 \u00e4 \U0001f600", '"quoted" \\ \n\r\0', "x" * 200_000]

TRANSPORTS = ["websocket", "xhr-streaming", "eventsource", "iframe-eventsource", "xhr-polling", "iframe-xhr-polling"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser) -> AsyncIterator[Page]:
    """A page that must stay on this host."""
    page = await browser.new_page()
    page.set_default_timeout(10_000)
    asked: list[str] = []
    page.context.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda socket: asked.append(socket.url))
    yield page
    await page.context.close()
    assert {urlsplit(url).hostname for url in asked} == {"127.0.0.1"}


@pytest_asyncio.fixture(loop_scope="module")
async def elsewhere() -> AsyncIterator[SockJSServer]:
    """Another origin."""
    async with running_server() as server:
        yield server


async def visit(page: Page, origin: SockJSServer, client_of: SockJSServer) -> None:
    """Open the page of one server, with the client from another."""
    await page.goto(f"{origin.url}/page?client={client_of.url}/echo/sockjs.min.js")


def open_to(other: SockJSServer) -> Any:
    """A policy that allows pages of the other server."""
    return make_policy(own_uid=os.getuid(), own_names=[], allowed_origins=[other.url])


@pytest.mark.row("SJS-02")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_talk_with_the_own_server(page: Page, transport: str) -> None:
    # A browser need not tell when a page closes its connection between two requests, or with its iframe.
    async with running_server(heartbeat=0.5, disconnect_delay=0.2) as server:
        await visit(page, server, server)
        seen = await page.evaluate(TALK, [f"{server.url}/echo", transport, TEXTS])
        assert seen == {"messages": TEXTS, "transport": transport, "code": 1000}
        await eventually_async(lambda: server.service.ended == server.service.connections)


@pytest.mark.row("SJS-01")
async def test_talk_with_a_node(page: Page) -> None:
    asked = '{"event": "SUB", "data": {"topic": "EVENTS"}}'
    async with running_node() as node:
        await page.goto(f"{node.address}/ping")
        await page.add_script_tag(url=f"{node.address}/channel/sockjs.min.js")
        for transport in TRANSPORTS:
            seen = await page.evaluate(TALK, [f"{node.address}/channel", transport, [asked]])
            assert (seen["transport"], seen["code"]) == (transport, 1000)
            [answer] = map(json.loads, seen["messages"])
            assert (answer["event"], answer["data"]["topic"]) == ("gaffer:subscription_success", "EVENTS")


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_talk_with_a_server_that_allows_the_page(page: Page, elsewhere: SockJSServer, transport: str) -> None:
    async with running_server(open_to(elsewhere)) as server:
        await visit(page, elsewhere, server)
        seen = await page.evaluate(TALK, [f"{server.url}/echo", transport, TEXTS])
        assert seen == {"messages": TEXTS, "transport": transport, "code": 1000}


async def test_a_page_that_is_not_allowed_gets_no_connection(page: Page, elsewhere: SockJSServer) -> None:
    async with running_server() as server:
        await visit(page, elsewhere, elsewhere)
        for transport in TRANSPORTS:
            seen = await page.evaluate(TALK, [f"{server.url}/echo", transport, TEXTS])
            assert seen["messages"] == [], transport
            assert seen["code"] != 1000, transport
        assert server.service.connections == []


async def test_the_iframe_page_shows_in_pages_of_allowed_origins_only(page: Page, elsewhere: SockJSServer) -> None:
    async def show(inside: Frame, url: str) -> Frame:
        await inside.evaluate(FRAME, url)
        return inside.child_frames[0]

    def is_shown(text: str) -> bool:
        return "Don't panic!" in text

    async with running_server() as foreign, running_server(open_to(elsewhere)) as server:
        url = f"{server.url}/echo/iframe-1.6.1.html"
        await visit(page, elsewhere, elsewhere)
        assert is_shown(await (await show(page.main_frame, url)).content())
        await visit(page, foreign, foreign)
        assert not is_shown(await (await show(page.main_frame, url)).content())
        await visit(page, foreign, foreign)
        allowed = await show(page.main_frame, f"{elsewhere.url}/page?client={elsewhere.url}/echo/sockjs.min.js")
        assert not is_shown(await (await show(allowed, url)).content())


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_page_finds_back_to_a_restarted_server(page: Page, transport: str) -> None:
    async with running_server() as first:
        await visit(page, first, first)
        await page.evaluate(KEEP, [f"{first.url}/echo", transport])
        await page.wait_for_function("seen.length == 1 && seen[0][0] == 'hello'")
    async with running_server(uri=first.url.removeprefix("http://")) as second:
        await page.wait_for_function("seen.length == 2 && seen[1][0] == 'hello'")
        # The page may have opened a session before, and given up on it.
        for connection in second.service.connections:
            if connection.open:
                await connection.send("welcome back")
        await page.wait_for_function("seen[1][1] == 'welcome back'")
        await page.goto("about:blank")
