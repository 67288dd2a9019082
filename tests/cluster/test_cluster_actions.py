"""Actions from the pages of a cluster in Chromium: on several nodes, with keys, and on nodes that do not answer."""

import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests
from playwright.sync_api import Locator, Page, expect

from gaffer.runtime.keyfile import new_key
from support.daemons import Daemon, gafferd, lookupd
from support.needs import needs_browser
from support.poll import eventually

pytestmark = needs_browser

SLOW = ("--interval", "60", "--ttl", "120")  # a node that does not answer the page stays listed


class Cluster(NamedTuple):
    registry: Daemon
    nodes: list[Daemon]
    key: str


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes that require the same key, with a lookupd whose pages they allow."""
    home, key = tmp_path_factory.mktemp("cluster"), new_key()
    (home / "key").write_text(key)
    (home / "key").chmod(0o600)
    (home / "gafferd.ini").write_text("[gaffer]\ntrust_local = false\n")
    with lookupd(*SLOW) as registry, ExitStack() as stack:
        allowed = ("--lookupd-address", registry.url, "--allowed-origin", registry.url)
        options = ("-c", str(home), "--api-key-file", str(home / "key"), *allowed)
        nodes = [stack.enter_context(gafferd(*options, "--node-name", f"node-{number}")) for number in "12"]
        yield Cluster(registry, nodes, key)


def call(cluster: Cluster, node: int, method: str, path: str, **options: Any) -> Any:
    headers = {"Authorization": f"Bearer {cluster.key}"}
    url = f"{cluster.nodes[node].url}{path}"
    answer = requests.request(method, url, headers=headers, timeout=20, **options)
    assert answer.ok, answer.text
    return answer.json()


def load(cluster: Cluster, name: str, **settings: Any) -> None:
    for node in range(len(cluster.nodes)):
        call(cluster, node, "POST", "/jobs/shop", json={"name": name, "cmd": "sleep 1000", **settings})


def state(cluster: Cluster, node: int, name: str) -> str:
    return str(call(cluster, node, "GET", f"/jobs/shop/{name}")["state"])


def choose(page: Page, cluster: Cluster, name: str, action: str) -> Locator:
    """Begin an action on all rows of a job; return the dialog, in which the nodes have accepted the key."""
    page.goto(f"{cluster.registry.url}/ui/#/jobs?q={name}")
    expect(page.locator("tbody tr")).to_have_count(2)
    page.get_by_label("Select all rows").check()
    page.get_by_role("button", name=action, exact=True).click()
    dialog = page.get_by_role("dialog")
    keys = dialog.get_by_role("form", name="Key of the nodes")
    for node in cluster.nodes:
        expect(keys).to_contain_text(node.url)
    keys.get_by_label("2 nodes ask for a key").fill(cluster.key)
    keys.get_by_role("button").click()
    expect(keys).to_have_count(0)
    return dialog


def test_a_job_is_stopped_and_started_on_several_nodes(page: Page, cluster: Cluster) -> None:
    load(cluster, "web", numprocesses=2)
    dialog = choose(page, cluster, "web", "Stop")
    targets = dialog.get_by_role("list", name="Targets").get_by_role("listitem")
    for number in "12":
        expect(targets.filter(has_text=f"shop.web on node-{number}")).to_contain_text("2 of 2")
    expect(dialog).to_contain_text("Ends 4 processes")
    command = dialog.locator(".command")
    expect(command).to_contain_text(re.compile(r"gaffer stop shop\.web --node=node-\d --node=node-\d --lookupd=http"))
    assert state(cluster, 0, "web") in ("starting", "running")
    dialog.get_by_role("button", name="Stop: 2 jobs").click()
    expect(dialog).to_contain_text("Accepted for all 2 jobs.")
    eventually(lambda: {state(cluster, node, "web") for node in (0, 1)} == {"stopped"}, 20)
    dialog.get_by_role("button", name="Close").click()
    call(cluster, 1, "POST", "/jobs/shop/web/state", data="1")
    page.get_by_role("button", name="Start", exact=True).click()
    expect(targets.filter(has_text="node-2")).to_contain_text("left out, nothing to do")
    dialog.get_by_role("button", name="Start: 1 job").click()
    expect(dialog).to_contain_text("Accepted.")
    eventually(lambda: state(cluster, 0, "web") in ("starting", "running"), 20)


def test_a_rolling_restart_goes_from_node_to_node_and_stops_at_the_first_that_fails(
    page: Page, cluster: Cluster, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    load(cluster, "api", cmd=f"test ! -e {broken} && exec sleep 1000", shell=True, startsecs=0.2)
    before = [call(cluster, node, "GET", "/jobs/shop/api/pids")["pids"] for node in (0, 1)]
    dialog = choose(page, cluster, "api", "Rolling restart")
    expect(dialog).to_contain_text("One node after the other")
    expect(dialog.locator(".command")).to_contain_text("gaffer restart shop.api --rolling --node=")
    dialog.get_by_role("button", name="Rolling restart: 2 jobs").click()
    expect(dialog).to_contain_text("Accepted for all 2 jobs.")
    after = [call(cluster, node, "GET", "/jobs/shop/api/pids")["pids"] for node in (0, 1)]
    assert not {*before[0]} & {*after[0]}
    assert not {*before[1]} & {*after[1]}
    dialog.get_by_role("button", name="Close").click()
    broken.touch()
    page.get_by_role("button", name="Rolling restart", exact=True).click()
    dialog.get_by_role("button", name="Rolling restart: 2 jobs").click()
    expect(dialog).to_contain_text("Accepted for 0 of 2 jobs.")
    expect(dialog.locator(".state.bad")).to_have_count(1)
    expect(dialog.locator(".state.warn")).to_have_text(re.compile("not done, since node-. failed"))
    left = [call(cluster, node, "GET", "/jobs/shop/api")["rollout"] for node in (0, 1)]
    assert sorted(each["state"] for each in left) == ["done", "failed"]


def test_a_node_that_hangs_during_an_action_is_named_and_the_others_are_done(page: Page, cluster: Cluster) -> None:
    page.clock.install()
    load(cluster, "cache")
    dialog = choose(page, cluster, "cache", "Scale")
    dialog.get_by_label("Processes").fill("3")
    expect(dialog).to_contain_text("Starts 4 processes.")
    cluster.nodes[1].signal(signal.SIGSTOP)
    try:
        dialog.get_by_role("button", name="Scale: 2 jobs").click()
        targets = dialog.get_by_role("list", name="Targets").get_by_role("listitem")
        expect(targets.filter(has_text="node-1")).to_contain_text("accepted")
        expect(targets.filter(has_text="node-2")).to_contain_text("sending…")
        page.clock.fast_forward(15_000)
        expect(targets.filter(has_text="node-2")).to_contain_text("No answer after 15 s. It may have been done.")
        expect(dialog).to_contain_text("Accepted for 1 of 2 jobs.")
        dialog.get_by_role("button", name="Close").click()
        page.get_by_role("button", name="Stop", exact=True).click()
        expect(targets.filter(has_text="node-1")).to_contain_text("of 3")
        page.clock.fast_forward(8_000)
        expect(targets.filter(has_text="node-2")).to_contain_text("left out")
        expect(dialog.get_by_role("button", name="Stop: 1 job")).to_be_enabled()
        path = targets.filter(has_text="node-2").get_by_role("link").get_attribute("href")
        page.goto(f"{cluster.registry.url}/ui/{path}")
        expect(page.get_by_text("Asking node-2")).to_be_visible()
        page.clock.fast_forward(15_000)
        expect(page.get_by_role("alert")).to_contain_text("no answer after 15 s")
        expect(page.get_by_role("link", name="Open the dashboard of node-2 itself")).to_be_visible()
    finally:
        cluster.nodes[1].signal(signal.SIGCONT)


def test_an_action_on_a_page_of_a_node_ends_when_the_node_hangs(page: Page) -> None:
    page.clock.install()
    with gafferd() as node:
        requests.post(f"{node.url}/jobs/shop", json={"name": "web", "cmd": "sleep 1000"}, timeout=10)
        page.goto(f"{node.url}/ui/#/jobs/shop.web")
        page.get_by_role("button", name="Stop", exact=True).first.click()
        dialog = page.get_by_role("dialog")
        node.signal(signal.SIGSTOP)
        dialog.get_by_role("button", name="Stop").click()
        expect(dialog).to_contain_text("Waiting for the answer")
        page.clock.fast_forward(15_000)
        expect(dialog.get_by_role("alert")).to_contain_text("No answer after 15 s. It may have been done.")
        expect(dialog.get_by_role("button", name="Send again")).to_be_enabled()
        node.signal(signal.SIGCONT)
        dialog.get_by_role("link", name="Look before you send it again").click()
        expect(dialog).to_have_count(0)
        page.clock.fast_forward(15_000)
        expect(page.locator(".job-head .state")).to_have_text("stopped")


@pytest.mark.parametrize("streamed", [True, False])
def test_logs_of_a_node_with_a_key_are_downloaded(
    page: Page, cluster: Cluster, tmp_path: Path, *, streamed: bool
) -> None:
    name = f"log-{streamed}".lower()
    load(cluster, name, cmd="seq 1 50000; exec sleep 1000", shell=True)
    own = "navigator.storage.getDirectory().then((folder) => folder.getFileHandle(suggestedName, {create: true}))"
    picker = (
        f"window.showSaveFilePicker = ({{suggestedName}}) => {own}" if streamed else "delete window.showSaveFilePicker"
    )
    page.add_init_script(picker)
    page.goto(f"{cluster.registry.url}/ui/#/jobs?q={name}")
    page.get_by_role("link", name=f"shop.{name}").first.click()
    page.get_by_role("form", name="Log in").locator("input").fill(cluster.key)
    page.get_by_role("form", name="Log in").get_by_role("button").click()
    page.locator("nav.tabs").get_by_role("link", name="Logs").click()
    expect(page.locator(".log")).to_contain_text("50000")
    download = page.get_by_role("button", name="Download")
    if streamed:
        download.click()
        expect(page.locator(".messages")).to_contain_text(f"Saved shop.{name}.log")
        saved = page.evaluate(
            f"navigator.storage.getDirectory().then((folder) => folder.getFileHandle('shop.{name}.log'))"
            ".then((handle) => handle.getFile()).then((file) => file.text())"
        )
    else:
        with page.expect_download() as found:
            download.click()
        found.value.save_as(tmp_path / "saved")
        assert found.value.suggested_filename == f"shop.{name}.log"
        saved = (tmp_path / "saved").read_text()
    assert saved == "".join(f"{number}\n" for number in range(1, 50001))
