"""A node that is attacked serves those who only use it."""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from gaffer.runtime.keyfile import new_key
from support.attack import Experience, under_attack, use_honestly
from support.daemons import gafferd

# Little timeout, so that slow senders come back again and again.
CONFIG = """\
[gaffer]
trust_local = no
[http]
header_timeout = 1.5
body_timeout = 1.5
"""


@pytest.mark.timeout(60)
def test_honest_clients_miss_nothing_under_attack(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    config = tmp_path / "gafferd.ini"
    config.write_text(CONFIG)
    key = new_key()
    (tmp_path / "key").write_text(key)
    (tmp_path / "key").chmod(0o600)
    with gafferd("-c", str(config), "--api-key-file", str(tmp_path / "key")) as node, requests.Session() as owner:
        owner.headers["X-Api-Key"] = key
        owner.post(f"{node.url}/jobs/default", json={"name": "web", "cmd": "sleep 1000"}, timeout=10)
        address = urlsplit(node.url)
        host, port = str(address.hostname), address.port or 0
        calm = use_honestly(host, port, 2, key)
        with under_attack(host, port):
            attacked = use_honestly(host, port, 7, key)
        assert owner.get(f"{node.url}/jobs", timeout=10).json() == {"jobs": ["default.web"]}
    assert len(node.stderr.splitlines()) < 20, "attackers must not fill the disk with what is said of them"
    for name, experience in (("calm", calm), ("attacked", attacked)):
        record_property(f"p99_{name}_ms", round(1000 * experience.p99, 2))
        print(f"{name}: {_describe(experience)}")
    assert (calm.failed, attacked.failed) == ([], [])
    assert len(attacked.latencies) > 100


def _describe(experience: Experience) -> str:
    latencies = experience.latencies
    median = latencies[len(latencies) // 2]
    return f"{len(latencies)} requests, median {1000 * median:.2f} ms, p99 {1000 * experience.p99:.2f} ms"
