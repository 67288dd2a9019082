"""What the daemon keeps of its jobs' output."""

import stat
from pathlib import Path

import requests

from support.daemons import gafferd
from support.poll import eventually

CONFIG = """
[process:loud]
cmd = sh -c 'echo out; echo err >&2; sleep 1000'

[process:small]
cmd = sh -c 'for i in 1 2 3 4 5 6 7 8 9; do echo line $i; done; sleep 1000'
log_max_bytes = 14
log_backups = 2

[process:quiet]
cmd = sh -c 'echo out; sleep 1000'
logs = off
redirect_output = out
"""


def test_every_captured_output_is_in_a_file_of_the_state_directory(tmp_path: Path) -> None:
    config = tmp_path / "gafferd.ini"
    config.write_text(CONFIG)
    logs = tmp_path / "state" / "logs"
    expected = {
        "default.loud.1.out.log": "out\n",
        "default.loud.1.err.log": "err\n",
        "default.small.1.out.log": "line 9\n",
        "default.small.1.out.log.1": "line 7\nline 8\n",
        "default.small.1.out.log.2": "line 5\nline 6\n",
    }
    with gafferd(str(config), state_dir=tmp_path / "state") as node:
        eventually(lambda: {path.name: path.read_text() for path in logs.glob("*")} == expected)
        quiet = requests.get(f"{node.url}/jobs/default/quiet").json()
        assert requests.get(f"{node.url}/streams/{quiet['processes'][0]}/out?tail=1").text == "out\n"
    assert stat.S_IMODE(logs.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in logs.iterdir()} == {0o600}
