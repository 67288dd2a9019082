"""What the pages of a cluster show in Chromium: which lookupds agree, what happened, and many nodes."""

import json
import re
import signal
from contextlib import ExitStack
from pathlib import Path

import requests
from playwright.sync_api import Page, Route, expect

from gaffer.runtime.keyfile import new_key
from support.browser import check_look
from support.daemons import Daemon, gafferd, lookupd
from support.needs import needs_browser
from support.peer import Peer, peer
from support.poll import eventually

pytestmark = needs_browser

QUICK = ("--interval", "1", "--ttl", "30")
HOSTILE = "<img src=x onerror='window.hacked=1'>\u202ered"


def announced(*lookupds: Daemon) -> tuple[str, ...]:
    return tuple(word for each in lookupds for word in ("--lookupd-address", each.url))


def connected_to(registry: Daemon, *, as_known_by: Daemon) -> int:
    """The number of nodes that report to one lookupd that they are connected to another one."""
    found = requests.get(f"{as_known_by.url}/lookupds", timeout=10).json()["lookupds"]
    [connected] = [each["connected"] for each in found if each["address"] == registry.url]
    return int(connected)


def test_lookupds_are_compared_and_one_that_hangs_is_named_with_the_age_of_its_answer(page: Page) -> None:
    page.clock.install()
    with (
        lookupd(*QUICK) as first,
        lookupd(*QUICK, "--allowed-origin", first.url) as second,
        gafferd(*announced(first, second), "--node-name", "both"),
        gafferd(*announced(first, second), "--node-name", "other"),
        peer(first.url) as lonely,
    ):
        lonely.identify("lonely", id="a" * 32, incarnation=1)
        page.goto(f"{first.url}/ui/")
        node = page.locator("tbody tr", has_text="both")
        expect(node.locator("[data-label=lookupds]")).to_have_text("2/2")
        page.get_by_role("link", name="2 lookupds, with all their nodes").click()
        row = page.locator("table.lookupds tbody tr", has_text=second.url)
        expect(row.locator(".state")).to_have_text("answers")
        expect(row).to_contain_text("2 nodes connected")
        difference = page.locator(".block", has_text="1 difference between the lookupds").locator("tbody tr")
        expect(difference).to_have_count(1)
        expect(difference).to_contain_text(re.compile("lonely.*missing there"))
        second.signal(signal.SIGSTOP)
        eventually(lambda: connected_to(second, as_known_by=first) == 0)
        page.clock.fast_forward(10_000)
        expect(page.get_by_text("2 of 2 nodes not connected")).to_be_visible()
        page.clock.fast_forward(4_000)
        expect(row.locator(".state")).to_have_text("hangs")
        expect(row).to_contain_text("no answer after 4 s")
        expect(row.locator("[data-label=answered]")).to_have_text(re.compile(r"\d+s ago"))
        expect(page.locator("table.lookupds tbody tr", has_text="serves this page").locator(".state")).to_have_text(
            "answers"
        )
        expect(page.locator(".block", has_text="Nodes that are not connected").locator("tbody tr")).to_have_count(2)
        expect(difference).to_have_count(0)
        second.signal(signal.SIGCONT)
        eventually(lambda: connected_to(second, as_known_by=first) == 2)
        page.clock.fast_forward(10_000)
        expect(row.locator(".state")).to_have_text("answers")
        lonely.ask("LEAVE", seq=1)
        page.clock.fast_forward(10_000)
        expect(page.get_by_text("agree on 2 nodes.")).to_be_visible()


def test_a_lookupd_that_one_node_names_is_asked_only_on_demand(page: Page) -> None:
    with lookupd() as first, lookupd("--allowed-origin", first.url) as second, ExitStack() as stack:
        links = [{"address": first.url, "connected": True, "since": 1, "epoch": "e"}]
        nodes = [stack.enter_context(peer(first.url)) for _ in range(3)]
        for number, node in enumerate(nodes):
            node.identify(f"node-{number}", id=str(number) * 32, incarnation=1)
            node.ask("REPORT", now=100, lookupds=links)
        nodes[0].ask(
            "REPORT", now=100, lookupds=[{"address": second.url, "connected": False, "since": 1, "error": HOSTILE}]
        )
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{first.url}/ui/#/lookupds")
        row = page.locator("table.lookupds tbody tr", has_text=second.url)
        expect(row.locator(".state")).to_have_text("not asked")
        expect(page.locator(".c-reason-text")).to_have_text(re.compile("^<img src=x .*>.red$"))
        assert not [url for url in asked if url.startswith(second.url)]
        row.get_by_role("button", name="Ask it from this page").click()
        expect(row.locator(".state")).to_have_text("answers")
        assert f"lookupd={second.url}" in page.url.replace("%3A", ":").replace("%2F", "/")
        expect(page.locator(".block", has_text="differences")).to_contain_text("missing there")


def test_a_lookupd_that_asks_for_a_key_gets_none(page: Page, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(new_key())
    (tmp_path / "key").chmod(0o600)
    keyed = ("--require-key", "--reader-key-file", str(tmp_path / "key"))
    with lookupd() as first, lookupd(*keyed, "--allowed-origin", first.url) as second:
        page.goto(f"{first.url}/ui/#/lookupds?lookupd={second.url}")
        row = page.locator("table.lookupds tbody tr", has_text=second.url)
        expect(row.locator(".state")).to_have_text("refuses")
        expect(row).to_contain_text("this page sends it none")
        assert page.get_by_role("form", name="Log in").count() == 0


def test_what_lookupds_disagree_on_is_named(page: Page) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(lookupd())
        second = stack.enter_context(lookupd("--allowed-origin", first.url))

        def node(registry: Daemon, name: str, number: int, *, incarnation: int = 1, seq: int = 1) -> Peer:
            connected = stack.enter_context(peer(registry.url))
            connected.identify(name, id=str(number) * 32, incarnation=incarnation)
            connected.ask("SNAPSHOT", seq=seq, jobs={})
            return connected

        node(first, "same", 1)
        node(second, "same", 1)
        node(first, "restarted", 2, incarnation=2)
        node(second, "restarted", 2)
        node(first, "slow", 3, seq=5)
        node(second, "slow", 3, seq=3)
        node(first, "silent", 4)
        node(second, "silent", 4).close()
        node(first, "drained", 5)
        node(second, "drained", 5).ask("DRAIN", seq=2)
        node(second, "other", 6)
        node(first, "left", 7)
        node(second, "left", 7).ask("LEAVE", seq=2)
        page.goto(f"{first.url}/ui/#/lookupds?lookupd={second.url}")
        expect(page.locator("h2", has_text="6 differences between the lookupds")).to_be_visible()
        rows = page.locator(".block").last.locator("tbody tr").all_inner_texts()
        texts = {row.split()[0]: row for row in rows}
        assert {name: text for name, text in EXPECTED.items() if text not in texts[name]} == {}
        assert texts.keys() == EXPECTED.keys()


EXPECTED = {
    "restarted": "knows an earlier start of the node",
    "slow": "is behind: lacks its latest changes",
    "silent": "suspect there",
    "drained": "draining there",
    "other": "missing here",
    "left": "removed there (left)",
}


def test_events_of_before_are_listed_with_reasons_and_return_after_a_restart_of_lookupd(
    page: Page,
) -> None:
    with ExitStack() as stack:
        with lookupd(*QUICK) as registry:
            port = registry.port
            nodes = [
                stack.enter_context(gafferd(*announced(registry), "--node-name", f"node-{number}")) for number in "12"
            ]
            for node in nodes:
                job = {"name": "fragile", "cmd": "exit 3", "shell": True, "restart": "never"}
                requests.post(f"{node.url}/jobs/shop", json=job, timeout=10)
                requests.post(f"{node.url}/jobs/shop", json={"name": "web", "cmd": "sleep 1000"}, timeout=10)
            plan = {"jobs": [{"name": name, "cmd": "sleep 1000"} for name in ("api", "mail")]}
            requests.post(f"{node.url}/jobs/depot", json=plan, timeout=10).raise_for_status()
            disabled = {"reason": HOSTILE}
            requests.post(f"{nodes[0].url}/jobs/shop/web/disable", json=disabled, timeout=10)

            def happened() -> list[str]:
                entries = requests.get(f"{registry.url}/history", timeout=10).json()["entries"]
                return [each["action"] for each in entries]

            eventually(lambda: happened().count("exit") == 2 and "disabled" in happened())
            page.goto(f"{registry.url}/ui/#/events")
            exits = page.locator(".groups > li", has_text="failed exit")
            expect(exits.locator(".row").first).to_contain_text(
                re.compile("2 times.*shop.fragile.*on node-., node-..*exit 3")
            )
            exits.get_by_role("button", name="Show 2 entries").click()
            expect(exits.locator("ol li")).to_have_count(2)
            expect(exits.locator("ol li", has_text="node-2")).to_contain_text("exit 3")
            expect(page.locator(".groups > li", has_text="disabled")).to_contain_text("<img src=x")
            expect(page.get_by_text("jobs api, mail")).to_be_visible()
            assert page.locator(".timeline img").count() == 0
            assert "\u202e" not in page.locator(".timeline").inner_text()
            page.get_by_role("button", name="failures only").click()
            expect(page.get_by_text("load", exact=True)).to_have_count(0)
            assert page.url.endswith("failed=true")
            with page.expect_response("**/history?q=fragile*"):
                page.get_by_role("searchbox").fill("fragile")
            expect(page.locator(".groups > li:not(.day)")).to_have_count(2)  # failed exit, failed
        expect(page.locator(".banner.lost")).to_be_visible()
        with lookupd(*QUICK, "--bind", f"127.0.0.1:{port}", "--warmup", "10") as again:
            expect(page.locator(".banner.lost")).to_have_count(0)
            expect(exits.locator(".row").first).to_contain_text(re.compile("2 times.*on node-., node-..*exit 3"))
            expect(page.locator(".gap")).to_contain_text("This lookupd started at")
            page.get_by_role("button", name="failures only").click()
            page.get_by_role("searchbox").fill("")
            requests.post(f"{nodes[1].url}/drain", json={}, timeout=10)
            expect(page.locator(".groups > li", has_text="draining")).to_contain_text("node-2")
            nodes[0].kill()
            requests.get(f"{again.url}/nodes", timeout=10)
            expect(page.locator(".groups > li", has_text="silent")).to_contain_text("node-1")


def test_ctrl_k_jumps_to_nodes_and_their_jobs(page: Page) -> None:
    with lookupd() as registry, gafferd(*announced(registry), "--node-name", "web-1") as node:
        requests.post(f"{node.url}/jobs/shop", json={"name": "cart", "cmd": "sleep 1000"}, timeout=10)
        page.goto(f"{registry.url}/ui/")
        page.get_by_role("link", name="web-1").wait_for()
        page.keyboard.press("Control+k")
        page.get_by_label("Jump to a node, a job or a page").fill("cart")
        expect(page.get_by_role("option")).to_have_text([re.compile("^shop.cart on web-1(starting|ready)$")])
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile("#/at/[0-9a-f]{32}/jobs/shop.cart$"))


def test_new_events_do_not_move_lines_under_the_pointer(page: Page) -> None:
    with lookupd() as registry, peer(registry.url) as node:
        node.identify("one", id="1" * 32, incarnation=1)
        page.goto(f"{registry.url}/ui/#/events")
        line = page.locator(".groups > li:not(.day)")
        expect(line).to_contain_text("joined")
        line.hover()
        event = {"at": 100, "kind": "job", "action": "flap", "outcome": "failed", "job": "shop.web", "details": {}}
        node.ask("REPORT", now=100, events=[event], first=0)
        expect(page.get_by_role("button", name="1 new line — show")).to_be_visible()
        expect(line).to_have_count(1)
        page.get_by_role("searchbox").hover()
        expect(line).to_have_count(2)
        expect(line.first).to_contain_text("flap")


def test_nodes_with_hostile_names_break_no_page(page: Page) -> None:
    reason = {"at": 100, "kind": "job", "action": HOSTILE, "outcome": "failed", "job": "s.x", "caller": HOSTILE}
    links = [{"address": "http://127.0.0.1:9", "connected": False, "since": 1, "error": HOSTILE * 9}]
    with lookupd() as registry, peer(registry.url) as node:
        labels = {f"{HOSTILE}{number}": "L" * 900 for number in range(30)}
        identity = {"origin": "http://10.0.0.1:5000", "id": "1" * 32, "incarnation": 1, "version": "V" * 500}
        assert node.identify(HOSTILE + "N" * 200, **identity, labels=labels)["ok"]
        node.ask("SNAPSHOT", seq=1, jobs={f"{'s' * 90}.{'j' * 90}": [{"pid": 1, "state": "ready"}]})
        node.ask("REPORT", now=100, lookupds=links, events=[{**reason, "details": {"reason": HOSTILE + "R" * 400}}])
        for width in (1280, 360):
            page.set_viewport_size({"width": width, "height": 800})
            for path, place in (("", "table"), ("jobs", "table"), ("events", ".timeline"), ("lookupds", ".block")):
                page.goto(f"{registry.url}/ui/#/{path}")
                expect(page.locator(place).first).to_contain_text("NNN")
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (path, width)
                assert page.locator("main img").count() == 0
                assert not {"\u202e", "\x1b"} & {*page.locator("body").inner_text()}, path
        assert page.evaluate("window.hacked") is None


def test_what_opens_on_a_page_fits_and_has_no_grave_fault(page: Page) -> None:
    with (
        lookupd(*QUICK) as first,
        lookupd(*QUICK, "--allowed-origin", first.url) as second,
        gafferd(*announced(first, second), "--node-name", "web-1", "--allowed-origin", first.url) as node,
        peer(first.url) as lonely,
    ):
        lonely.identify("lonely", id="a" * 32, incarnation=1, labels={"zone": "a", "disk": "ssd"})
        error = "connection refused"
        lonely.ask("REPORT", now=1, lookupds=[{"address": second.url, "connected": False, "since": 1, "error": error}])
        requests.post(f"{node.url}/jobs/shop", json={"name": "web", "cmd": "sleep 1000"}, timeout=10)
        page.goto(f"{first.url}/ui/#/jobs")
        page.get_by_label("Select shop.web on web-1").check()
        page.get_by_role("button", name="Scale", exact=True).click()
        expect(page.get_by_role("button", name="Scale: 1 job")).to_be_enabled()
        check_look(page, "cluster action")
        page.goto(f"{first.url}/ui/#/events")
        page.get_by_role("button", name="Show 2 entries").first.click()
        check_look(page, "cluster event")
        page.goto(f"{first.url}/ui/#/lookupds")
        expect(page.locator(".block", has_text="1 difference between the lookupds")).to_be_visible()
        check_look(page, "cluster difference")
        lonely.ask("LEAVE", seq=1)
        page.reload()
        expect(page.get_by_text("agree on 1 node.")).to_be_visible()
        check_look(page, "cluster agreement")


WATCH = """
window.hacked = undefined
new MutationObserver(() => {
    const rows = document.querySelectorAll("table.cluster tbody tr").length
    if (rows && rows !== window.rows) Object.assign(window, {rows, shownAt: performance.now()})
}).observe(document, {childList: true, subtree: true})
"""


def test_500_nodes_by_10_jobs_are_shown_at_once(page: Page) -> None:
    """The time is that of the page, from the first answer of lookupd to the last row."""
    jobs = {f"shop.job-{number}": [{"pid": 1, "state": "ready", "endpoints": []}] for number in range(10)}
    with lookupd() as registry, ExitStack() as stack:
        for number in range(500):
            node = stack.enter_context(peer(registry.url))
            labels = {f"zone-{each}": HOSTILE * (20 if number < 5 else 1) for each in range(4)}
            node.identify(f"node-{number}", id=f"{number:032}", incarnation=1, labels=labels)
            node.ask("SNAPSHOT", seq=1, jobs=jobs)
        page.add_init_script(WATCH)
        for path, rows in (("#/?limit=500", 500), ("#/jobs?limit=1000", 1000)):
            page.goto("about:blank")
            page.goto(f"{registry.url}/ui/{path}")
            expect(page.locator("table.cluster tbody tr")).to_have_count(rows)
            took = page.evaluate(
                """shownAt - performance.getEntriesByType("resource").find((each) => each.name.includes("/search?"))
                .responseEnd"""
            )
            assert took < 2000, path
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate("window.hacked") is None


def test_10_000_nodes_are_compared_without_freezing(page: Page) -> None:
    nodes = [
        {"name": f"node-{number}", "id": f"{number:032}", "origin": "http://10.0.0.1:5000", "incarnation": 1, "seq": 1}
        | {"status": "alive", "draining": False, "conflict": False, "age_ms": 1}
        for number in range(10_000)
    ]
    other = "http://127.0.0.1:9"

    def answer(route: Route) -> None:
        known = nodes[:-300] if route.request.url.startswith(other) else nodes
        body = json.dumps({"nodes": known, "tombstones": [], "epoch": "e", "seq": 1, "stale": False, "warming": False})
        headers = {"Access-Control-Allow-Origin": "*"}
        route.fulfill(body=body, content_type="application/json", headers=headers)

    with lookupd() as registry:
        page.route("**/nodes", answer)
        page.add_init_script(
            "window.longest = 0; new PerformanceObserver((list) => list.getEntries().forEach((each) =>"
            " window.longest = Math.max(window.longest, each.duration))).observe({type: 'longtask', buffered: true})"
        )
        page.goto(f"{registry.url}/ui/#/lookupds?lookupd={other}")
        expect(page.locator("h2", has_text="300 differences between the lookupds")).to_be_visible()
        expect(page.locator(".block tbody tr")).to_have_count(200)
        assert page.evaluate("window.longest") < 1000
