"""Actions of the jobs of a gafferd: from its configuration file, and when gafferd is killed."""

from pathlib import Path

import requests

from gaffer.processes import procfs
from support.daemons import gafferd
from support.poll import eventually

CONFIG = """
[process:shop:web]
cmd = sleep 1000
cwd = {folder}
action.greet = sh -c 'echo hello $WHO from $(pwd)'
action.stay = sh -c 'echo $$ > pid; exec sleep 1000'

[env:shop:web]
WHO = world
"""


def config(folder: Path) -> str:
    path = folder / "gaffer.ini"
    path.write_text(CONFIG.format(folder=folder))
    return str(path)


def test_an_action_of_a_configuration_file(tmp_path: Path) -> None:
    with gafferd(config(tmp_path)) as node:
        ended = requests.post(f"{node.url}/jobs/shop/web/actions/greet?stream=false", timeout=10).json()
    assert (ended["exit_code"], ended["output"]) == (0, f"hello world from {tmp_path}\n")


def test_the_next_gafferd_ends_what_a_killed_one_left(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with (
        gafferd(config(tmp_path), state_dir=state) as first,
        requests.post(f"{first.url}/jobs/shop/web/actions/stay", timeout=10, stream=True) as response,
    ):
        assert response.status_code == 200
        pid = eventually(lambda: int((tmp_path / "pid").read_text()), retry_on=(OSError, ValueError))
        first.kill()
        assert procfs.read_stat(pid) is not None
        with gafferd(config(tmp_path), state_dir=state) as second:
            second.wait_for_line(f"ending process {pid} of an unrecorded job")
            assert procfs.read_stat(pid) is None
