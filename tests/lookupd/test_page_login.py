"""The login of web pages on a lookupd that requires a key: what cookie and token permit."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from gaffer.runtime.keyfile import new_key
from support.daemons import Daemon, lookupd

READER, CLUSTER = new_key(), new_key()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("keys")
    arguments = ["--require-key"]
    for name, key in (("reader", READER), ("cluster", CLUSTER)):
        path: Path = folder / name
        path.write_text(key)
        path.chmod(0o600)
        arguments += [f"--{name}-key-file", str(path)]
    with lookupd(*arguments) as running:
        yield running


@pytest.fixture
def page(registry: Daemon) -> Iterator[requests.Session]:
    """A page of the lookupd that is not logged in."""
    with requests.Session() as session:
        session.headers.update({"Origin": registry.url, "Sec-Fetch-Site": "same-origin"})
        yield session


def log_in(registry: Daemon, page: requests.Session, key: str) -> str:
    answer = page.post(f"{registry.url}/auth/session", json={"key": key}, timeout=10)
    assert answer.status_code == 200, answer.text
    assert "HttpOnly" in answer.headers["Set-Cookie"]
    assert "SameSite=Strict" in answer.headers["Set-Cookie"]
    token: str = answer.json()["token"]
    return token


def test_a_reader_logs_in_and_out(registry: Daemon, page: requests.Session) -> None:
    nodes, login = f"{registry.url}/search", f"{registry.url}/auth/session"
    assert page.get(nodes, timeout=10).status_code == 401
    assert page.get(login, timeout=10).status_code == 401
    token = log_in(registry, page, READER)
    assert page.get(nodes, timeout=10).json()["total"] == 0
    with page.get(f"{registry.url}/search/changes?heartbeat=0.1", stream=True, timeout=10) as feed:
        assert feed.status_code == 200
        assert next(feed.iter_content(3)) == b":\n\n"
    assert page.get(login, timeout=10).json()["scopes"] == ["read"]
    refused = page.delete(login, timeout=10)
    assert (refused.status_code, refused.json()["error"]) == (403, "token_required")
    assert page.delete(login, headers={"X-Gaffer-Token": token}, timeout=10).status_code == 200
    assert page.get(nodes, timeout=10).status_code == 401


def test_a_wrong_key_does_not_log_in(registry: Daemon, page: requests.Session) -> None:
    answer = page.post(f"{registry.url}/auth/session", json={"key": new_key()}, timeout=10)
    assert (answer.status_code, answer.json()["error"]) == (401, "auth_required")
    assert not page.cookies


def test_changes_need_the_cluster_key_and_the_token(registry: Daemon, page: requests.Session) -> None:
    node = f"{registry.url}/nodes/absent"
    token = log_in(registry, page, CLUSTER)
    assert page.get(f"{registry.url}/nodes", timeout=10).status_code == 200
    refused = page.delete(node, timeout=10)
    assert (refused.status_code, refused.json()["error"]) == (403, "token_required")
    assert page.delete(node, headers={"X-Gaffer-Token": token}, timeout=10).status_code == 404
    token = log_in(registry, page, READER)
    assert page.delete(node, headers={"X-Gaffer-Token": token}, timeout=10).status_code == 401


def test_two_lookupds_on_a_host_have_cookies_of_their_own(
    registry: Daemon, page: requests.Session, tmp_path: Path
) -> None:
    log_in(registry, page, READER)
    (tmp_path / "key").write_text(READER)
    (tmp_path / "key").chmod(0o600)
    with (
        lookupd("--bind", "localhost:0", "--require-key", "--reader-key-file", str(tmp_path / "key")) as other,
        requests.Session() as second,
    ):
        second.headers.update({"Origin": other.url, "Sec-Fetch-Site": "same-origin"})
        log_in(other, second, READER)
    names = [cookie.name for session in (page, second) for cookie in session.cookies]
    assert len(names) == len(set(names)) == 2
