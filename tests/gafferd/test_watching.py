"""gafferd restarts jobs when their files change, if it is told to watch."""

from pathlib import Path
from typing import Any

import requests

from support.daemons import Daemon, gafferd
from support.poll import eventually


def job(node: Daemon) -> dict[str, Any]:
    info: dict[str, Any] = requests.get(f"{node.url}/jobs/default/web", timeout=10).json()
    return info


def load(node: Daemon, folder: Path, **settings: Any) -> dict[str, Any]:
    described = {"name": "web", "cmd": "sleep 1000", "cwd": str(folder), "startsecs": 0, "watch": "*.py", **settings}
    assert requests.post(f"{node.url}/jobs/default", json=described, timeout=10).ok
    return eventually(lambda: (info := job(node))["processes"] and info)


def test_a_changed_file_restarts_a_job_that_was_loaded_later(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    with gafferd("--watch") as node:
        before = load(node, tmp_path)["processes"]

        def restarted() -> bool:
            app.write_text("changed")  # until watching has begun
            return bool((now := job(node)["processes"]) and now != before)

        eventually(restarted)
        node.wait_for_line(f"default.web: restarting, {app} changed")
        assert requests.delete(f"{node.url}/jobs/default/web", timeout=10).ok
        node.stop()


def test_files_are_not_watched_unless_asked(tmp_path: Path) -> None:
    with gafferd() as node:
        load(node, tmp_path)
        tasks = Path(f"/proc/{node.pid}/task")
        names = {(task / "comm").read_text().strip() for task in tasks.iterdir()}
        assert not {name for name in names if "watch" in name}
        descriptors = [str(link.readlink()) for link in Path(f"/proc/{node.pid}/fd").iterdir() if link.is_symlink()]
        assert "anon_inode:inotify" not in descriptors
        node.stop()
