"""Which node is asked when no address is given."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from gaffer_client import Server
from gaffer_client.local import default_url
from gaffer_client.transport import DEFAULT_URL
from support.client import Commands
from support.daemons import gafferd
from support.needs import needs_root
from support.strangers import stranger


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state directory of the host's node."""
    monkeypatch.setattr("gaffer_client.local.SYSTEM_STATE_DIR", tmp_path / "system")
    return tmp_path / "system"


def test_the_socket_in_a_default_state_directory_is_preferred(
    gaffer: Commands, system: Path, tmp_path: Path, closed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert default_url({}) == DEFAULT_URL
    with gafferd(state_dir=system) as node, Server(node.url) as server:
        server.load({"name": "web", "cmd": "true", "env": {"PASSWORD": "secret"}}, "shop")
        assert default_url({}) == f"unix:{system}/gafferd.sock"
        assert gaffer("apps").out == "shop\n"
        with Server() as local:
            assert local.sessions() == ["shop"]
        monkeypatch.setenv("GAFFER_ENDPOINT", closed)
        assert gaffer("apps").status == 3
        monkeypatch.delenv("GAFFER_ENDPOINT")
        with gafferd(state_dir=tmp_path / "own"):
            monkeypatch.setenv("GAFFER_STATE_DIR", str(tmp_path / "own"))
            assert gaffer("apps").out == ""
        assert gaffer("apps").out == "shop\n"  # a socket that nobody serves any more is passed over


@needs_root  # it serves as root, whom everyone trusts
def test_users_prefer_their_own_node(system: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 54321)
    with gafferd(state_dir=tmp_path / "gaffer"):
        assert default_url({"XDG_STATE_HOME": str(tmp_path)}) == f"unix:{tmp_path}/gaffer/gafferd.sock"
        assert default_url({"XDG_STATE_HOME": str(tmp_path / "other")}) == DEFAULT_URL


LISTEN = """
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print(flush=True)
sys.stdin.read()
"""


@needs_root
def test_a_socket_of_another_user_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        monkeypatch.setattr("gaffer_client.local.SYSTEM_STATE_DIR", Path(folder))
        with stranger(LISTEN, f"{folder}/gafferd.sock") as process:
            assert process.stdout is not None
            process.stdout.readline()
            assert default_url({}) == DEFAULT_URL
