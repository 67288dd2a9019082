"""The page about the client library: its examples work as they stand there."""

import re
from pathlib import Path

import pytest

from gaffer_client import Lookup
from support.daemons import gafferd, lookupd
from support.poll import eventually

PAGE = Path(__file__).parents[2] / "docs" / "client.md"


def test_the_examples(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    names: dict[str, object] = {}
    printed: list[list[str]] = []
    with (
        lookupd() as registry,
        gafferd("--lookupd-address", registry.url, "--node-name", "one") as node,
        Lookup(registry.url) as seen,
    ):
        for block in blocks:
            if "Lookup(" in block:
                eventually(lambda: [source["pids"] for source in seen.find_job("shop.web")["sources"]] == [[1]])
            text = block.replace("http://127.0.0.1:5000", node.url).replace("http://127.0.0.1:5010", registry.url)
            exec(text, names)
            printed.append(capsys.readouterr().out.splitlines())
        names["watcher"].stop()  # type: ignore[attr-defined]
        for name in ("lookup", "server"):
            names[name].close()  # type: ignore[attr-defined]
    assert printed[0] == ["shop.web 3", "['shop.web']"]
    assert printed[2:4] == [["[2, 1] 3"], ["b'hello\\n'", "succeeded 0"]]
    assert printed[4][0] == "POST /jobs/{sid}/{job}/actions/{action} ok"
    # Events of the job are printed by another thread.
    assert "{'numprocesses': 1}" in printed[5]
    assert {"starting", "running"} & {*printed[5]}
    assert printed[6] == ["b'hello\\n'"]
    assert printed[7][0] == "one [1] alive"
    assert printed[7][1] in ("starting None", "running None")
    assert printed[8:] == [["False", "['one']"]]
