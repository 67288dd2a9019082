"""The dashboard as the daemons serve it."""

from pathlib import Path

import pytest
import requests

from support.daemons import gafferd, lookupd


def test_both_daemons_serve_the_dashboard_to_browsers_that_have_no_key(tmp_path: Path) -> None:
    key = tmp_path / "reader.key"
    key.write_text("k" * 43)
    key.chmod(0o600)
    config = tmp_path / "gafferd.ini"
    config.write_text("[gaffer]\nrequire_key = yes\n")
    arguments = ("--require-key", "--reader-key-file", str(key), "--bind", "127.0.0.1:0")
    with lookupd(*arguments) as registry, gafferd("-c", str(config)) as node:
        policies = {}
        for daemon in (registry, node):
            assert requests.get(f"{daemon.url}/nodes", timeout=10).status_code == 401
            page = requests.get(f"{daemon.url}/ui", timeout=10)
            assert (page.status_code, page.url) == (200, f"{daemon.url}/ui/")
            assert page.headers["Content-Encoding"] == "gzip"
            assert "<!doctype html>" in page.text
            policies[daemon.name] = page.headers["Content-Security-Policy"]
        other = "connect-src 'self' http: https: ws: wss:;"
        assert policies["gaffer_lookupd"] == policies["gafferd"].replace("connect-src 'self';", other)


def test_the_dashboard_can_be_turned_off(tmp_path: Path) -> None:
    config = tmp_path / "gafferd.ini"
    config.write_text("[gaffer]\nui = no\n")
    with lookupd("--no-ui") as registry, gafferd("-c", str(config)) as node:
        for daemon in (registry, node):
            for path in ("/ui", "/ui/", "/ui/index.html"):
                assert requests.get(daemon.url + path, timeout=10).status_code == 404


@pytest.mark.parametrize("name", ["ui"])
def test_a_plugin_of_the_same_name_keeps_its_pages(tmp_path: Path, name: str) -> None:
    site = tmp_path / "plugins" / name / "_site"
    site.mkdir(parents=True)
    (site / "index.html").write_text("of the plugin")
    with gafferd("--plugins-dir", str(tmp_path / "plugins")) as node:
        assert requests.get(f"{node.url}/_plugin/ui/", timeout=10).text == "of the plugin"
        assert "of the plugin" not in requests.get(f"{node.url}/ui/", timeout=10).text


def test_daemons_stop_at_once_while_pages_follow_changes() -> None:
    with lookupd() as registry, gafferd("--lookupd-address", registry.url) as node:
        feeds = [
            requests.get(f"{daemon.url}/search/changes?heartbeat=0.1", stream=True, timeout=20)
            for daemon in (node, registry)
        ]
        for feed in feeds:
            assert feed.status_code == 200
            assert next(feed.iter_content(1))  # a heartbeat, or an event
        requests.post(f"{node.url}/jobs/shop", json={"name": "web", "cmd": "sleep 1000"}, timeout=20)
        for daemon in (node, registry):
            daemon.stop()
            assert "rror" not in daemon.stderr
        for feed in feeds:
            feed.close()
