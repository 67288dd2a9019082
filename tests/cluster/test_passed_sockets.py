"""Daemons that serve the sockets that their service manager opened."""

import os
import socket
from pathlib import Path

import pytest
import requests
import trustme

from gaffer.errors import ConfigError
from gaffer.runtime.activation import take_sockets
from gaffer.runtime.keyfile import new_key
from support.daemons import Daemon, gafferd, lookupd
from support.passing import passing
from support.poll import eventually

LOCAL = "127.0.0.1:0"


def refused(name: str, *args: str, enter: list[str], home: Path) -> str:
    """What a daemon writes that does not start with what was passed to it."""
    state = [f"--state-dir={home}/state"] if name == "gafferd" else []
    daemon = Daemon(name, *state, *args, env={"HOME": str(home)}, enter=enter)
    assert daemon.wait() == 2
    assert "Traceback" not in daemon.stderr
    return daemon.stderr


def get_over(path: Path, target: str) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: client.recv(65536), b""))


def test_gafferd_serves_them_in_place_of_its_own_addresses(tmp_path: Path) -> None:
    path, state = tmp_path / "g.sock", tmp_path / "state"
    with gafferd(state_dir=state, enter=passing(f"=tcp:{LOCAL}", f"other=unix:{path}")) as node:
        assert eventually(lambda: node.urls[2:] and node.urls[1:]) == [f"unix:{path}", f"unix:{state}/gafferd.sock"]
        assert get_over(path, "/jobs").startswith(b"HTTP/1.1 200")
        shows = {"name": "j", "cmd": "sleep 1000", "os_env": True}
        assert requests.post(f"{node.url}/jobs/default", json=shows, timeout=10).ok
        [child] = eventually(lambda: requests.get(f"{node.url}/jobs/default/j", timeout=10).json()["instances"])
        eventually(lambda: Path(f"/proc/{child['os_pid']}/comm").read_text() == "sleep\n")
        assert b"LISTEN_" not in Path(f"/proc/{child['os_pid']}/environ").read_bytes()
        assert sockets_of(child["os_pid"]) == []
    assert path.exists(), "the file belongs to the service manager"
    assert not (state / "gafferd.sock").exists()


def sockets_of(pid: int) -> list[str]:
    """The sockets that a process has open besides its standard streams."""
    links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd") if int(fd) > 2]
    return [link for link in links if link.startswith("socket:")]


def test_a_socket_with_the_name_of_an_endpoint_has_its_certificate(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate, ca = tmp_path / "node.pem", tmp_path / "ca.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    certificate.chmod(0o600)
    authority.cert_pem.write_to_path(str(ca))
    config = tmp_path / "gafferd.ini"
    endpoint = f"[endpoint:secure]\nbind = {LOCAL}\ncertfile = {certificate}\n"
    config.write_text(f"[gaffer]\nhttp_endpoints = secure\n{endpoint}")
    with gafferd(str(config), enter=passing(f"plain=tcp:{LOCAL}", f"secure=tcp:{LOCAL}")) as node:
        plain, secure, _ = eventually(lambda: node.urls[2:] and node.urls)
        assert requests.get(f"{plain}/ping", timeout=10).ok
        assert secure.startswith("https://")
        assert requests.get(f"{secure}/ping", timeout=10, verify=str(ca)).ok


def test_the_socket_of_the_state_directory_can_be_one_of_them(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    with gafferd(state_dir=state, enter=passing(f"=unix:{state}/gafferd.sock")) as node:
        assert node.urls == [f"unix:{state}/gafferd.sock"]
        assert get_over(state / "gafferd.sock", "/jobs").startswith(b"HTTP/1.1 200")


def test_beyond_loopback_they_need_keys_and_tls_as_other_addresses_do(tmp_path: Path) -> None:
    message = refused("gafferd", f"--bind={LOCAL}", enter=passing("=tcp:0.0.0.0:0"), home=tmp_path)
    assert "0.0.0.0:" in message
    assert "--api-key-file" in message
    assert "--insecure" in message
    key = tmp_path / "weak.key"
    key.write_text("weak")
    key.chmod(0o600)
    options = (f"--bind={LOCAL}", f"--cluster-key-file={key}")
    message = refused("gaffer_lookupd", *options, enter=passing("=tcp:0.0.0.0:0"), home=tmp_path)
    assert "--cluster-key-file" in message


def test_a_socket_for_both_versions_of_ip_knows_local_callers(tmp_path: Path) -> None:
    key = tmp_path / "api.key"
    key.write_text(new_key())
    key.chmod(0o600)
    with gafferd(f"--api-key-file={key}", "--insecure", enter=passing("=tcp::::0")) as node:
        assert requests.get(f"http://127.0.0.1:{node.port}/jobs", timeout=10).status_code == 200


def test_lookupd_serves_them_in_place_of_its_own_addresses() -> None:
    with lookupd(enter=passing(f"=unix:@gaffer-test-{os.getpid()}", f"=tcp:{LOCAL}")) as registry:
        assert registry.url == f"unix:@gaffer-test-{os.getpid()}"
        [url] = eventually(lambda: registry.urls[1:])
        assert requests.get(f"{url}/ping", timeout=10).ok


def test_what_can_not_be_served_is_named(tmp_path: Path) -> None:
    specs = (f"=tcp:{LOCAL}", "=udp", f"=silent:{LOCAL}", "=file", "=closed")
    message = refused("gaffer_lookupd", enter=passing(*specs), home=tmp_path)
    assert "descriptor 3" not in message
    assert "descriptor 4 of LISTEN_FDS: is not a TCP or unix stream socket" in message
    assert "descriptor 5 of LISTEN_FDS: is a socket that does not listen" in message
    assert "descriptor 6 of LISTEN_FDS: can't be used: Socket operation on non-socket" in message
    assert "descriptor 7 of LISTEN_FDS: can't be used: Bad file descriptor" in message
    assert "ListenStream=" in message


@pytest.mark.parametrize(
    ("count", "names", "variable"),
    [
        ("many", "a", "LISTEN_FDS"),
        ("-1", "a", "LISTEN_FDS"),
        ("99999", "a", "LISTEN_FDS"),
        ("2", "a", "LISTEN_FDNAMES"),
    ],
)
def test_a_wrong_number_is_refused(count: str, names: str, variable: str) -> None:
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count, "LISTEN_FDNAMES": names, "HOME": "/"}
    with pytest.raises(ConfigError) as caught:
        take_sockets(environ)
    assert [problem.path for problem in caught.value.problems] == [variable]
    assert environ == {"HOME": "/"}


def test_sockets_for_another_process_are_left_alone(tmp_path: Path) -> None:
    with gafferd(state_dir=tmp_path / "state", enter=passing(f"=unix:{tmp_path}/g.sock", pid="1")) as node:
        _, own = eventually(lambda: node.urls[1:] and node.urls)
        assert own == f"unix:{tmp_path}/state/gafferd.sock"
