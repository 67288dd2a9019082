"""The dashboard of a node in Chromium: what it shows, what it does, and what it does when the node is gone."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from playwright.sync_api import Browser, Page, expect

from gaffer.runtime.keyfile import new_key
from support.browser import DEADLINE, new_page
from support.daemons import Daemon, gafferd
from support.needs import needs_browser
from support.poll import eventually

pytestmark = needs_browser

FIRST_PAGE = 60_000  # bytes

HOSTILE = (
    r"""<img src=x onerror="window.hacked=1">\033]0;stolen title\007\033]8;;http://evil.example\007link\033]8;;\007"""
    r"""\033[31mred\033[0m \033[2J\033[1;1Hhome \342\200\256reversed"""
)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with gafferd(state_dir=tmp_path_factory.mktemp("node") / "state") as running:
        yield running


def load(node: Daemon, name: str, cmd: str, **settings: object) -> str:
    """Load a job into the session `shop`; return its path."""
    body = {"name": name, "cmd": cmd, **settings}
    answer = requests.post(f"{node.url}/jobs/shop", json=body, timeout=10)
    assert answer.status_code == 200, answer.text
    return f"{node.url}/jobs/shop/{name}"


def show(page: Page, node: Daemon, path: str = "") -> None:
    page.goto(f"{node.url}/ui/{path}")


def row(page: Page, name: str) -> str:
    """The text of a row, with single spaces."""
    return " ".join(page.locator("tbody tr", has=page.get_by_role("link", name=name, exact=True)).inner_text().split())


def os_pid_of(job: str) -> int:
    instances = requests.get(job, timeout=10).json()["instances"]
    return int(next(each["os_pid"] for each in instances if each["os_pid"]))


def test_a_crash_appears_without_reload(page: Page, node: Daemon) -> None:
    job = load(node, "fragile", "sleep 1000", restart="never")
    show(page, node, "#/?q=fragile")
    eventually(lambda: row(page, "shop.fragile").startswith("running shop.fragile 1/1"), DEADLINE / 1000)
    os.kill(os_pid_of(job), signal.SIGKILL)
    eventually(lambda: row(page, "shop.fragile").startswith(("failed", "completed")), DEADLINE / 1000)
    assert "signal 9" in row(page, "shop.fragile") or "SIGKILL" in row(page, "shop.fragile")


def test_scale_and_restart_name_their_target_and_command(page: Page, node: Daemon) -> None:
    job = load(node, "web", "sleep 1000", numprocesses=2, startsecs=0)
    show(page, node, "#/jobs/shop.web")
    processes = page.locator("table.processes tbody tr")
    expect(processes).to_have_count(2)
    page.get_by_role("button", name="Scale").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Processes").fill("3")
    expect(dialog).to_contain_text("Starts 1 process")
    name = requests.get(f"{node.url}/health", timeout=10).json()["name"]
    expect(dialog).to_contain_text(f"on node {name} at {urlsplit(node.url).netloc}")
    assert page.title() == "shop.web · Overview · Gaffer"
    expect(dialog.locator(".command")).to_contain_text(f"gaffer scale shop web=3 --endpoint={node.url}")
    dialog.get_by_role("button", name="Scale").click()
    expect(processes).to_have_count(3)
    before = set(requests.get(f"{job}/pids", timeout=10).json()["pids"])
    page.get_by_role("button", name="Rolling restart").click()
    assert set(requests.get(f"{job}/pids", timeout=10).json()["pids"]) == before  # nothing before the confirmation
    page.get_by_role("dialog").get_by_role("button", name="Rolling restart").click()
    eventually(lambda: before.isdisjoint(requests.get(f"{job}/pids", timeout=10).json()["pids"]), DEADLINE / 1000)
    for pid in requests.get(f"{job}/pids", timeout=10).json()["pids"]:
        expect(page.locator("table.processes")).to_contain_text(str(pid))


def test_a_refused_action_says_why_and_what_to_do(page: Page, node: Daemon) -> None:
    load(node, "refused", "sleep 1000")
    show(page, node, "#/jobs/shop.refused")
    page.get_by_text("More").click()
    page.get_by_role("button", name="Disable").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Reason").fill("<b>disk</b>")
    dialog.get_by_role("button", name="Disable").click()
    expect(page.locator(".remarks")).to_contain_text("<b>disk</b>")
    requests.delete(f"{node.url}/jobs/shop/refused", timeout=10)
    page.get_by_role("button", name="Enable").click()
    page.get_by_role("dialog").get_by_role("button", name="Enable").click()
    expect(page.get_by_role("alert").first).to_contain_text("there is no job 'shop.refused'")


def test_markup_and_escape_sequences_do_nothing(page: Page, node: Daemon) -> None:
    load(node, "hostile", f"printf '{HOSTILE}\\n'; exit 1", shell=True, restart="never", env={"A": "<i>b</i>"})
    show(page, node, "#/jobs/shop.hostile/logs")
    line = page.locator(".line .text").first
    expect(line).to_contain_text('<img src=x onerror="window.hacked=1">link')
    expect(line).to_have_text(re.compile("link.*red home .reversed$"))
    assert "\u202e" not in line.inner_text()
    assert "\x1b" not in line.inner_text()
    expect(page.locator(".line .ink-red")).to_have_text("red")
    show(page, node, "#/jobs/shop.hostile/exits")
    expect(page.locator(".exits")).to_contain_text('<img src=x onerror="window.hacked=1">link')
    show(page, node, "#/jobs/shop.hostile")
    page.get_by_role("button", name="Show values").click()
    expect(page.locator(".env")).to_contain_text("A=<i>b</i>")
    assert page.locator("main img, main a[href*=evil]").count() == 0
    assert page.evaluate("window.hacked") is None
    assert page.title() == "shop.hostile · Overview · Gaffer"


def test_rows_stay_under_the_pointer_and_new_ones_announce_themselves(page: Page, node: Daemon) -> None:
    load(node, "steady-b", "sleep 1000")
    show(page, node, "#/jobs?q=steady&sort=name")
    page.locator("tbody tr").first.hover()
    load(node, "steady-a", "sleep 1000")
    page.get_by_role("button", name=re.compile("1 new job")).wait_for()
    assert page.locator("tbody .job").all_inner_texts() == ["shop.steady-b"]
    page.mouse.move(1, 1)
    eventually(lambda: page.locator("tbody .job").all_inner_texts() == ["shop.steady-a", "shop.steady-b"])


def test_keys_search_move_open_and_jump(page: Page, node: Daemon) -> None:
    for name in ("key-a", "key-b"):
        load(node, name, "sleep 1000")
    show(page, node, "#/jobs?sort=name")
    page.locator("tbody tr").first.wait_for()
    page.keyboard.press("/")
    page.keyboard.type("key-")
    eventually(lambda: page.locator("tbody .job").all_inner_texts() == ["shop.key-a", "shop.key-b"])
    assert "q=key-" in page.url
    for key in ("ArrowDown", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    expect(page.get_by_role("heading", name="shop.key-b")).to_be_visible()
    page.keyboard.press("Control+k")
    page.get_by_role("combobox").fill("key-a logs")
    expect(page.get_by_role("option")).to_have_count(1)
    page.keyboard.press("Enter")
    page.wait_for_url("**/ui/#/jobs/shop.key-a/logs")


def test_a_hidden_page_has_no_streams_and_is_up_to_date_when_it_is_back(page: Page, node: Daemon) -> None:
    job = load(node, "unseen", "sleep 1000")
    ended: list[str] = []
    page.on("requestfailed", lambda request: ended.append(urlsplit(request.url).path))
    show(page, node, "#/?q=unseen")
    state = page.locator("header .connection")
    expect(state).to_have_text("Live")
    become = "away => { Object.defineProperty(document, 'hidden', {value: away, configurable: true})"
    page.evaluate(become + "; document.dispatchEvent(new Event('visibilitychange')) }", True)
    expect(state).to_have_text("Paused while hidden")
    eventually(lambda: page.evaluate("0") == 0 and "/search/changes" in ended, DEADLINE / 1000)
    requests.post(f"{job}/state", data="0", timeout=10)
    page.evaluate(become + "; document.dispatchEvent(new Event('visibilitychange')) }", False)
    eventually(lambda: row(page, "shop.unseen").startswith("stopped"), DEADLINE / 1000)
    expect(state).to_have_text("Live")


def test_a_killed_node_is_announced_and_comes_back(page: Page, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with gafferd(state_dir=state) as first:
        load(first, "web", "echo begin; i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done", shell=True)
        show(page, first, "#/jobs/shop.web/logs")
        expect(page.locator(".log")).to_contain_text("line 5")
        port = first.port
        first.kill()
        expect(page.get_by_role("alert").first).to_contain_text("is lost")
        expect(page.locator(".log-status")).to_contain_text("Connection lost")
    with gafferd("--bind", f"127.0.0.1:{port}", state_dir=state):
        expect(page.locator(".log-status")).to_contain_text("Live")
        expect(page.locator(".banner")).to_have_count(0)
        expect(page.locator(".line.note").last).to_contain_text("connection is back")
        after = page.locator(".line.note", has_text="connection is back")
        eventually(lambda: after.locator("xpath=following-sibling::*").count() > 0, DEADLINE / 1000)
        page.get_by_label("Show only lines with").fill("begin")
        expect(page.locator(".line:not(.note)")).to_have_count(2)  # of two runs; nothing is repeated


def test_a_silent_node_is_lost_since_it_was_last_heard(page: Page, tmp_path: Path) -> None:
    page.clock.install()
    with gafferd(state_dir=tmp_path / "state") as node:
        show(page, node)
        expect(page.get_by_text("Live")).to_be_visible()
        node.signal(signal.SIGSTOP)
        page.clock.fast_forward(90_000)
        expect(page.locator(".banner.lost")).to_contain_text("is lost, for 1m")
        node.signal(signal.SIGCONT)
        expect(page.locator(".banner.lost")).to_have_count(0)


def test_a_log_of_100_000_lines_scrolls(page: Page, node: Daemon) -> None:
    job = load(node, "long", "seq -f 'line number %.0f of a long log' 100000", kind="once")
    eventually(lambda: requests.get(job, timeout=10).json()["state"] == "completed", DEADLINE / 1000)
    page.add_init_script(
        "window.longest = 0; new PerformanceObserver(list => { for (const each of list.getEntries())"
        " longest = Math.max(longest, each.duration) }).observe({type: 'longtask'})"
    )
    show(page, node, "#/jobs/shop.long/logs?tail=all")
    expect(page.locator(".log-status")).to_contain_text("100,000 lines")
    expect(page.locator(".line").last).to_contain_text("line number 100000 of")
    page.evaluate(
        """async () => {
            const log = document.querySelector(".log")
            for (let step = 40; step >= 0; step--) {
                log.scrollTop = log.scrollHeight * step / 41
                await new Promise(requestAnimationFrame)
            }
        }"""
    )
    expect(page.locator(".line").first).to_contain_text("line number 1 of")
    expect(page.get_by_role("button", name=re.compile("^Paused"))).to_be_visible()
    page.get_by_label("Show only lines with").fill("77777")
    expect(page.locator(".line")).to_have_count(1)
    assert page.locator(".line").count() < 300  # only what is visible is in the document
    longest = page.evaluate("longest")
    print(f"longest task: {longest:.0f} ms")
    assert longest < 2000  # 200 ms on a machine of its own


def test_a_link_to_a_line_leads_to_it(page: Page, node: Daemon) -> None:
    job = load(node, "linked", "seq -f 'row %.0f' 5000", kind="once")
    eventually(lambda: requests.get(f"{job}/logs", timeout=10).text.endswith("row 5000\n"), DEADLINE / 1000)
    position = requests.get(f"{job}/logs", timeout=10).headers["X-Gaffer-Offset"]
    epoch = position.rpartition(":")[0].rpartition("@")[2]
    slot = "0" if "0.out" in position else "1"
    offset = len("".join(f"row {number}\n" for number in range(1, 4000)))
    show(page, node, f"#/jobs/shop.linked/logs?line={slot}.out@{epoch}:{offset}")
    expect(page.locator(".line.marked")).to_contain_text("row 4000")
    expect(page.locator(".line.marked")).to_be_in_viewport()
    expect(page.locator(".follow")).to_have_text("Paused")


def test_the_terminal_writes_to_a_process(page: Page, node: Daemon) -> None:
    job = load(node, "repl", "cat", redirect_input=True, redirect_output=["out"])
    pid = requests.get(f"{job}/pids", timeout=10).json()["pids"][0]
    show(page, node, f"terminal.html#{pid}")
    expect(page.locator("#line")).to_be_enabled()
    page.locator("#line").fill("echo <b>me</b>")
    page.keyboard.press("Enter")
    eventually(lambda: page.locator(".xterm-rows").inner_text().count("echo <b>me</b>") == 2, DEADLINE / 1000)


def test_a_key_opens_the_page_and_its_scopes_bound_it(page: Page, tmp_path: Path) -> None:
    key = new_key()
    (tmp_path / "key").write_text(key)
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "gafferd.ini").write_text("[gaffer]\ntrust_local = false\n")
    with gafferd("--config", str(tmp_path / "gafferd.ini"), "--api-key-file", str(tmp_path / "key")) as node:
        headers = {"Authorization": f"Bearer {key}"}
        body = {"name": "web", "cmd": "sleep 1000"}
        requests.post(f"{node.url}/jobs/shop", json=body, headers=headers, timeout=10)
        reader = requests.post(f"{node.url}/keys", json={"scopes": ["read"]}, headers=headers, timeout=10).json()
        show(page, node)
        page.get_by_label(f"{urlsplit(node.url).netloc} asks for a key").fill(reader["key"])
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("link", name="shop.web").click()
        expect(page.locator(".job-head")).to_contain_text("read only")
        expect(page.get_by_role("button", name="Stop")).to_have_count(0)
        page.get_by_role("button", name="Log out").click()
        page.get_by_label(f"{urlsplit(node.url).netloc} asks for a key").fill(key)
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("button", name="Stop").first.click()
        page.get_by_role("dialog").get_by_role("button", name="Stop").click()
        expect(page.locator(".job-head .state")).to_have_text("stopped")


def test_the_first_page_is_small(page: Page, node: Daemon) -> None:
    sizes: dict[str, int] = {}
    page.on(
        "requestfinished",
        lambda request: (
            sizes.update({request.url: request.sizes()["responseBodySize"]}) if "/ui/" in request.url else None
        ),
    )
    show(page, node)
    page.locator("table.list").wait_for()
    page.wait_for_load_state()
    assert any(url.endswith("vendor/preact.js") for url in sizes)
    assert not any("xterm" in url or "uplot" in url for url in sizes)
    print(f"first page: {sum(sizes.values())} bytes in {len(sizes)} files")
    assert sum(sizes.values()) < FIRST_PAGE


def test_a_job_of_the_same_session_is_found_by_its_name(page: Page, node: Daemon) -> None:
    load(node, "base", "sleep 1000")
    load(node, "atop", "sleep 1000", after=["base:restart"])
    show(page, node, "#/order")
    first, then = page.locator(".order > section").nth(0), page.locator(".order > section").nth(1)
    expect(first).to_contain_text("shop.base")
    expect(then).to_contain_text("shop.atop")
    then.get_by_role("link", name="shop.atop").click()
    page.locator("dl").get_by_role("link", name="shop.base").click()
    expect(page.get_by_role("heading", name="shop.base")).to_be_visible()


def test_arguments_are_quoted_and_the_last_output_is_shown_to_its_end(page: Page, node: Daemon) -> None:
    load(node, "quoted", "sh", args=["-c", "seq 100 120; exit 3"], restart="never")
    show(page, node, "#/jobs/shop.quoted")
    expect(page.locator("dl")).to_contain_text("-c 'seq 100 120; exit 3'")
    expect(page.locator(".output").get_by_text("120", exact=True)).to_be_in_viewport()
    show(page, node, "#/jobs/shop.quoted/definitions")
    expect(page.get_by_text("sh -c 'seq 100 120; exit 3'")).to_be_visible()


def test_values_of_variables_are_hidden_in_the_definitions(page: Page, node: Daemon) -> None:
    job = load(node, "secretive", "sleep 1000", env={"TOKEN": "old-value", "SAME": "same-value"})
    changed = {"cmd": "sleep 1000", "env": {"TOKEN": "new-value", "SAME": "same-value"}}
    requests.put(job, json=changed, timeout=10).raise_for_status()
    show(page, node, "#/jobs/shop.secretive/definitions")
    changes = page.locator("table.changes")
    expect(changes.locator("ins")).to_contain_text("TOKEN=••••••")
    expect(changes).not_to_contain_text("-value")
    changes.locator("ins").get_by_role("button", name="Show").click()
    expect(changes.locator("ins")).to_contain_text("TOKEN=new-value")
    expect(changes).not_to_contain_text("SAME")


def test_the_terminal_and_other_tabs_after_logging_in(browser: Browser, tmp_path: Path) -> None:
    key = new_key()
    (tmp_path / "key").write_text(key)
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "gafferd.ini").write_text(
        "[gaffer]\ntrust_local = false\n[process:shop:repl]\ncmd = cat\nredirect_input = yes\n"
    )
    (tmp_path / "gafferd.ini").chmod(0o600)
    arguments = ("--config", str(tmp_path / "gafferd.ini"), "--api-key-file", str(tmp_path / "key"))
    with gafferd(*arguments) as node, browser.new_context() as context:
        page = context.new_page()
        show(page, node, "#/jobs/shop.repl")
        page.get_by_label("asks for a key").fill(key)
        page.get_by_role("button", name="Log in").click()
        with context.expect_page() as opened:
            page.get_by_role("link", name="Terminal").click()
        expect(opened.value.locator("#state")).to_have_text("Live")
        other = context.new_page()
        show(other, node, "#/jobs/shop.repl")
        expect(other.locator(".job-head")).to_contain_text("read only")
        other.get_by_role("button", name="Log in to act").click()
        other.get_by_label("asks for a key").fill(key)
        other.get_by_role("button", name="Log in", exact=True).click()
        expect(other.get_by_role("button", name="Stop").first).to_be_visible()
        expect(other.get_by_role("button", name="Log in to act")).to_have_count(0)


def test_a_long_name_takes_no_room_from_the_reason(page: Page, node: Daemon) -> None:
    name = "long-name-" + "x" * 50
    load(node, name, "false", restart="never", startsecs=0)
    show(page, node, f"#/?q={name}&limit=-5")
    page.set_viewport_size({"width": 1000, "height": 600})
    reason = page.locator("tbody .c-reason")
    expect(reason).to_contain_text("exited with 1")
    assert reason.evaluate("cell => cell.clientWidth") > 150
    expect(page.locator("tbody .c-name")).to_have_attribute("title", f"shop.{name}")
    page.set_viewport_size({"width": 360, "height": 700})
    for path in (f"#/?q={name}", f"#/history?job=shop.{name}"):
        show(page, node, path)
        page.get_by_role("link", name=f"shop.{name}").first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), path


def test_a_dialog_does_not_outlive_the_page_of_its_target(page: Page, node: Daemon) -> None:
    load(node, "left", "sleep 1000")
    show(page, node, "#/?q=left")
    page.get_by_role("link", name="shop.left").click()
    page.get_by_role("button", name="Stop").first.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.go_back()
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_path_leads_to_the_page_that_it_names(page: Page, node: Daemon) -> None:
    load(node, "pathway", "sleep 1000")
    show(page, node, "jobs/shop.pathway/exits")
    expect(page.get_by_role("heading", name="shop.pathway")).to_be_visible()
    assert page.url == f"{node.url}/ui/#/jobs/shop.pathway/exits"


def test_an_unknown_end_is_told_once(page: Page, node: Daemon) -> None:
    show(page, node)
    told = "async exit => (await import('/ui/format.js')).endingWithReason(exit)"
    unknown = {"exit_code": None, "term_signal": None, "reason": "unknown"}
    assert page.evaluate(told, unknown) == "unknown"
    assert page.evaluate(told, {"exit_code": 3, "term_signal": None, "reason": "exited"}) == "exit 3"


def test_a_silent_log_and_a_failed_request_for_older_entries_say_so(page: Page, node: Daemon) -> None:
    job = load(node, "silent", "sleep 1000")
    show(page, node, "#/jobs/shop.silent/logs")
    expect(page.locator(".log-status")).to_contain_text("No output yet")
    for _ in range(51):
        for state in ("0", "1"):
            requests.post(f"{job}/state", data=state, timeout=10).raise_for_status()
    show(page, node, "#/jobs/shop.silent/history")
    older = page.get_by_role("button", name="Older entries")
    page.route("**/history?*before=*", lambda route: route.abort())
    older.click()
    expect(page.locator(".problem")).to_contain_text("can't be reached")
    page.unroute_all()
    older.click()
    expect(page.locator(".problem")).to_have_count(0)


def test_a_job_that_is_scaled_to_0_is_not_running(page: Page, node: Daemon) -> None:
    job = load(node, "nought", "sleep 1000", numprocesses=0)
    show(page, node, "#/?q=nought")
    eventually(lambda: row(page, "shop.nought").startswith("waiting shop.nought 0/0 scaled to 0 processes"))
    expect(page.locator("tbody .state")).to_have_class("state idle")
    expect(page.get_by_role("group", name="Filter by state")).to_have_text(re.compile(r"^\s*waiting 1\s*$"))
    requests.post(f"{job}/numprocesses", json={"scale": "=1"}, timeout=10).raise_for_status()
    eventually(lambda: row(page, "shop.nought").startswith("running shop.nought 1/1"), DEADLINE / 1000)


def test_all_times_are_those_of_the_browser(browser: Browser, node: Daemon) -> None:
    job = load(node, "yearly", "true", schedule="15 10 1 1 *", timezone="UTC")
    disabled = {"reason": "the disk is full", "for": 3600}
    load(node, "resting", "sleep 1000")
    requests.post(f"{node.url}/jobs/shop/resting/disable", json=disabled, timeout=10).raise_for_status()
    assert "-01-01 10:15:00 UTC" in requests.get(job, timeout=10).json()["reason"]
    with new_page(browser, timezone_id="Asia/Kolkata") as page:
        show(page, node, "#/?q=yearly")
        cell = page.locator("tbody .c-reason")
        expect(cell).to_have_text(re.compile(r"the next run is at (\d{4}-01-01 )?15:45:00$"))
        expect(cell).to_have_attribute("title", re.compile(r" 15:45:00$"))
        full = re.compile(r"-01-01 15:45:00 \+05:30 \(Asia/(Kolkata|Calcutta)\)$")
        expect(cell.locator("time")).to_have_attribute("title", full)
        show(page, node, "#/jobs/shop.yearly")
        expect(page.locator(".facts time")).to_have_text(re.compile(r"(^|\s)15:45:00$"))
        expect(page.locator(".remarks time")).to_have_attribute("title", full)
        show(page, node, "#/?q=resting")
        expect(cell).to_have_text(re.compile(r"^disabled until [\d: -]+: the disk is full$"))
        show(page, node, "#/jobs/shop.resting")
        expect(page.locator(".remarks time")).to_have_count(2)
        convert = "async text => (await import('/ui/format.js')).inLocalTime(text)"
        assert page.evaluate(convert, "at 2031-05-06T07:08:09.5Z, not 7Z") == "at 2031-05-06 12:38:09, not 7Z"
        show(page, node, "#/jobs/shop.resting/history")
        page.locator(".timeline").wait_for()
        expect(page.locator("main")).not_to_contain_text("UTC")


def test_the_focus_follows_from_page_to_page_and_back(page: Page, node: Daemon) -> None:
    jobs = [{"name": f"many-{number:02}", "cmd": "sleep 1000", "start": False} for number in range(60)]
    requests.post(f"{node.url}/jobs/crowd", json={"jobs": jobs}, timeout=10).raise_for_status()
    focused = "document.activeElement.textContent.trim()"
    show(page, node, "#/?q=many-&sort=name")
    link = page.get_by_role("link", name="crowd.many-40")
    link.focus()
    place = page.evaluate("scrollY")
    assert place > 300
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="crowd.many-40")).to_be_focused()
    assert page.evaluate("scrollY") == 0
    page.get_by_role("link", name="Exits").press("Enter")
    expect(page.get_by_text("No process of this job has ended yet.")).to_be_visible()
    assert page.evaluate(focused) == "Exits"  # it is still there
    page.keyboard.press("Control+k")
    page.get_by_role("combobox").fill("history")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="History")).to_be_focused()
    for _ in range(3):
        page.go_back()
    expect(link).to_be_focused()
    eventually(lambda: abs(page.evaluate("scrollY") - place) < 2, DEADLINE / 1000)
    page.reload()
    expect(link).to_be_focused()
    eventually(lambda: abs(page.evaluate("scrollY") - place) < 2, DEADLINE / 1000)
    page.go_forward()
    expect(page.get_by_role("link", name="Overview")).to_be_visible()
    page.get_by_role("link", name="Node", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_be_focused()


def test_a_search_marks_matches_and_keeps_colours(page: Page, node: Daemon) -> None:
    load(node, "coloured", r"printf 'plain \033[31mRe\033[1md al\033[0mert (1+1) red\n'", shell=True, kind="once")
    show(page, node, "#/jobs/shop.coloured/logs?find=red")
    line = page.locator(".line .text")
    expect(line.locator("mark")).to_have_text(["Re", "d", "red"])
    expect(line).to_have_text("plain Red alert (1+1) red")
    expect(line.locator("span.ink-red mark")).to_have_text(["Re", "d"])
    expect(line.locator("span.bold.ink-red")).to_have_text(["d", "al"])
    expect(page.locator(".log-status")).to_contain_text("1 hit")
    page.get_by_label("Search in lines").fill("ert (1+1)")
    expect(line.locator("mark")).to_have_text(["ert (1+1)"])
    page.get_by_label("Search in lines").fill("nothing of this")
    expect(line.locator("mark")).to_have_count(0)
    expect(line.locator("span.ink-red")).to_have_count(2)


def test_logs_of_several_jobs_are_merged_or_side_by_side(page: Page, node: Daemon) -> None:
    for name in ("merge-a", "merge-b"):
        settings = {"shell": True, "redirect_input": True}
        job = load(node, name, f"echo {name} begins; while read line; do echo $line; done", **settings)
        eventually(lambda job=job, name=name: f"{name} begins" in requests.get(f"{job}/logs", timeout=10).text)  # type: ignore[misc]
    load(node, "merge-c", "echo other; sleep 1000", shell=True)
    show(page, node, "#/?q=merge-&sort=name")
    for name in ("shop.merge-a", "shop.merge-b"):
        page.get_by_label(f"Select {name}").check()
    page.get_by_role("link", name="Logs", exact=True).click()
    page.wait_for_url("**/#/logs?job=shop.merge-a%2Cshop.merge-b")
    lines = page.locator(".line .text")
    expect(lines).to_have_text(["merge-a begins", "merge-b begins"])
    expect(page.locator(".line .label")).to_have_text(["shop.merge-a 1.out", "shop.merge-b 1.out"])
    say(node, "merge-b", "second")
    expect(lines).to_have_text(["merge-a begins", "merge-b begins", "second"])
    page.get_by_role("button", name="side by side").click()
    first, second = page.get_by_role("region", name="shop.merge-a"), page.get_by_role("region", name="shop.merge-b")
    expect(first.locator(".line .text")).to_have_text(["merge-a begins"])
    expect(second.locator(".line .text")).to_have_text(["merge-b begins", "second"])
    second.get_by_role("button", name="Following").click()
    say(node, "merge-b", "third")
    expect(second.get_by_role("button", name="Paused · 1 new")).to_be_visible()
    expect(first.get_by_role("button", name="Following")).to_be_visible()
    page.get_by_role("button", name="Remove shop.merge-b").click()
    expect(lines).to_have_text(["merge-a begins"])
    page.get_by_label("Add a job").fill("shop.merge-c")
    page.keyboard.press("Enter")
    expect(lines.filter(has_text="other")).to_have_count(1)
    page.get_by_label("Show only lines with").fill("OTHER")
    expect(lines).to_have_text(["other"])
    page.locator(".line .label").click()
    expect(page.get_by_text("Copied a link to this line")).to_be_visible()


def say(node: Daemon, name: str, line: str) -> None:
    pid = requests.get(f"{node.url}/jobs/shop/{name}/pids", timeout=10).json()["pids"][0]
    requests.post(f"{node.url}/streams/{pid}/stdin", data=f"{line}\n", timeout=10).raise_for_status()


def test_charts_begin_before_the_page_was_opened(page: Page, tmp_path: Path) -> None:
    (tmp_path / "gafferd.ini").write_text("[gaffer]\nusage_interval = 0.2\n")
    loaded: list[str] = []
    page.on("request", lambda request: loaded.append(urlsplit(request.url).path))
    with gafferd("--config", str(tmp_path / "gafferd.ini"), state_dir=tmp_path / "state") as node:
        job = load(node, "charted", "sleep 1000", numprocesses=2)
        eventually(lambda: len(requests.get(f"{job}/usage", timeout=10).json()["at"]) > 5, DEADLINE / 1000)
        show(page, node, "#/jobs/shop.charted")
        expect(page.locator("tbody [data-label=memory]").first).to_contain_text("MiB")
        assert "/ui/vendor/uplot.js" not in loaded
        page.get_by_role("button", name="Charts").click()
        expect(page.locator(".block", has_text="Charts").locator("small")).to_have_text(
            re.compile(r"^since [\d:]{8}, every 0.2 s; from [\d:]{8} on every 2 s$")
        )
        expect(page.locator(".chart canvas")).to_have_count(3)
        assert page.url.endswith("?charts=open")
        memory = page.get_by_role("img", name=re.compile("Resident memory, MiB: #1 [0-9.]+, #2 [0-9.]+$"))
        expect(memory.locator(".u-series")).to_have_text([re.compile("time"), re.compile("#1"), re.compile("#2")])


def test_charts_say_that_the_node_keeps_no_history(page: Page, tmp_path: Path) -> None:
    (tmp_path / "gafferd.ini").write_text("[gaffer]\nusage_history = false\n")
    with gafferd("--config", str(tmp_path / "gafferd.ini"), state_dir=tmp_path / "state") as node:
        load(node, "charted", "sleep 1000")
        show(page, node, "#/jobs/shop.charted")
        page.get_by_role("button", name="Charts").click()
        expect(page.get_by_text("this node keeps no usage history")).to_be_visible()
        expect(page.locator(".chart canvas")).to_have_count(3)
