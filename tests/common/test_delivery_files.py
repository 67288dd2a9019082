"""The queues of webhooks on disk: kept over a restart, bounded, and what happens when the disk fails."""

import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from gaffer.webhooks import WebHooks
from support.managers import running_manager
from support.poll import eventually
from support.webhooks import Receiver, receiver


@pytest.fixture
def server() -> Iterator[Receiver]:
    with receiver() as server:
        yield server


def queue(directory: Path) -> Path:
    """The only queue in the directory."""
    [found] = directory.glob("*.jsonl")
    return found


def delivered(hooks: WebHooks, count: int) -> bool:
    return hooks.status()[0]["delivered"] == count


def publish(hooks: WebHooks, *names: str) -> None:
    """Publish events and wait until they are queued."""
    with running_manager([hooks]) as manager:
        for name in names:
            manager.events.publish(f"mine.{name}", {"event": f"mine.{name}"})
        eventually(lambda: hooks.status()[0]["pending"] == len(names))


@pytest.mark.expects_errors("failed, will retry: it responds with status 503")
def test_events_wait_for_the_next_start_in_order_and_keep_their_ids(server: Receiver, tmp_path: Path) -> None:
    directory = tmp_path / "queues"
    server.status = 503
    publish(WebHooks([("mine", f"{server.url}/?key=secret")], queue_dir=directory), "a", "b", "c")
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(queue(directory).stat().st_mode) == 0o600
    assert b"secret" not in queue(directory).read_bytes()
    first = server.headers[0]
    tried = len(server.headers)
    server.status = 200
    with running_manager([WebHooks([("mine", f"{server.url}/?key=secret")], queue_dir=directory)]) as manager:
        eventually(lambda: len(server.headers) == tried + 3)
        manager.events.publish("mine.d", {"event": "mine.d"})
        eventually(lambda: len(server.headers) == tried + 4)
    assert server.names("/?key=secret")[tried:] == ["mine.a", "mine.b", "mine.c", "mine.d"]
    assert server.headers[tried]["X-Gaffer-Delivery"] == first["X-Gaffer-Delivery"]
    assert not list(directory.iterdir())


@pytest.mark.expects_errors("failed, will retry", "skipped 2 damaged lines of .*/queues/.*jsonl")
@pytest.mark.parametrize("cut", [1, 30])
def test_damaged_lines_are_skipped(server: Receiver, tmp_path: Path, cut: int) -> None:
    directory = tmp_path / "queues"
    server.status = 503
    publish(WebHooks([("mine", f"{server.url}/")], queue_dir=directory), "a", "b", "c", "d")
    path = queue(directory)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b"mine", b"nime")
    path.write_bytes(b"".join(lines)[:-cut] + (b"\xff" if cut == 1 else b""))
    tried = len(server.headers)
    server.status = 200
    with running_manager([WebHooks([("mine", f"{server.url}/")], queue_dir=directory)]) as manager:
        manager.events.publish("mine.e", {"event": "mine.e"})
        eventually(lambda: server.names("/")[tried:] == ["mine.a", "mine.c", "mine.e"])


@pytest.mark.expects_errors("failed, will retry", "it is a symbolic link", "removed .* no longer configured")
def test_links_are_not_followed_and_other_queues_are_removed(server: Receiver, tmp_path: Path) -> None:
    directory = tmp_path / "queues"
    server.status = 503
    publish(WebHooks([("mine", f"{server.url}/old")], queue_dir=directory), "a")
    path = queue(directory)
    path.rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").chmod(0o644)
    content = (tmp_path / "elsewhere").read_bytes()
    path.symlink_to(tmp_path / "elsewhere")
    tried = len(server.headers)
    publish(WebHooks([("mine", f"{server.url}/old")], queue_dir=directory), "b")
    assert set(server.names("/old")[tried:]) == {"mine.b"}
    assert (tmp_path / "elsewhere").read_bytes() == content
    assert not path.is_symlink()
    publish(WebHooks([("mine", f"{server.url}/new")], queue_dir=directory), "c")
    assert queue(directory) != path


@pytest.mark.expects_errors("failed, will retry", "can't write .* its events wait in memory: File exists")
def test_when_the_disk_fails_events_wait_in_memory_until_it_works_again(
    server: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gaffer.applications.delivery_files.RETRY_DELAY", 0.05)
    directory = tmp_path / "queues"
    server.status = 503
    hooks = WebHooks([("mine", f"{server.url}/")], queue_dir=directory)
    directory.write_text("in the way")
    with running_manager([hooks]) as manager:
        manager.events.publish("mine.a", {"event": "mine.a"})
        eventually(lambda: hooks.status()[0]["unsaved"] == 1)
        manager.events.publish("mine.b", {"event": "mine.b"})
        eventually(lambda: hooks.status()[0]["unsaved"] == 2)
        directory.unlink()
        eventually(directory.is_dir)
        server.status = 200
        eventually(lambda: hooks.status()[0]["delivered"] == 2)
        assert hooks.status()[0]["unsaved"] == 2
    assert caplog.text.count("wait in memory") == 1
    assert server.names("/")[-2:] == ["mine.a", "mine.b"]


def test_a_queue_on_disk_does_not_grow(server: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gaffer.applications.delivery_files._SPARE_BYTES", 2048)
    sizes = []
    hooks = WebHooks([("mine", f"{server.url}/")], queue_dir=tmp_path / "queues")
    with running_manager([hooks]) as manager:
        for number in range(1, 41):
            server.open.clear()
            manager.events.publish("mine", {"event": "mine", "text": "x" * 200})
            eventually(lambda: hooks.status()[0]["pending"] and any((tmp_path / "queues").glob("*.jsonl")))
            server.open.set()
            eventually(partial(delivered, hooks, number))
            sizes.append(queue(tmp_path / "queues").stat().st_size)
    assert 0 < max(sizes) < 5000
    assert not list((tmp_path / "queues").iterdir())


def test_what_was_delivered_is_removed_at_once(server: Receiver, tmp_path: Path) -> None:
    hook, directory = ("mine", f"{server.url}/"), tmp_path / "queues"
    server.open.clear()
    hooks = WebHooks([hook], queue_dir=directory)
    with running_manager([hooks]) as manager:
        manager.events.publish("mine.a", {"event": "mine.a"})
        eventually(lambda: WebHooks([hook], queue_dir=directory).status()[0]["pending"] == 1)
        server.open.set()
        eventually(lambda: WebHooks([hook], queue_dir=directory).status()[0]["pending"] == 0)


@pytest.mark.expects_errors("failed, will retry", "dropped 1 events that could not be posted")
def test_the_queue_of_a_removed_webhook_is_removed(server: Receiver, tmp_path: Path) -> None:
    server.status = 503
    hooks = WebHooks([("mine", f"{server.url}/")], queue_dir=tmp_path / "queues")
    with running_manager([hooks]) as manager:
        manager.events.publish("mine", {"event": "mine"})
        eventually(lambda: any((tmp_path / "queues").glob("*.jsonl")))
        hooks.replace_hooks([])
        eventually(lambda: not list((tmp_path / "queues").iterdir()))


@pytest.mark.expects_errors("failed, will retry", "is too slow, its queue is full: dropped")
def test_what_a_full_queue_drops_is_dropped_on_disk_too(
    server: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gaffer.applications.delivery_queue.MAX_EVENTS", 3)
    server.status = 503
    publish(WebHooks([("mine", f"{server.url}/")], queue_dir=tmp_path / "queues"), "a", "b", "c")
    hooks = WebHooks([("mine", f"{server.url}/")], queue_dir=tmp_path / "queues")
    with running_manager([hooks]) as manager:
        manager.events.publish("mine.d", {"event": "mine.d"})
        eventually(lambda: hooks.status()[0]["dropped"] == 1)
    again = WebHooks([("mine", f"{server.url}/")], queue_dir=tmp_path / "queues")
    assert again.status()[0]["pending"] == 3
