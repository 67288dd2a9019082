import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import requests
import trustme

from gaffer.errors import ConfigError
from gaffer.runtime.keyfile import new_key
from gafferd.config.settings import resolve
from gafferd.main import USAGE, command, parse_options
from support.daemons import Daemon, clean_env, command_path, gafferd, lookupd, run_command
from support.poll import eventually

Refused = Callable[..., tuple[int, str]]

SLEEPER = "[process:sleeper]\ncmd = sleep 1000\nnumprocesses = 3\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "gafferd.ini"
    path.write_text(SLEEPER)
    return path


@pytest.fixture
def refused(tmp_path: Path) -> Refused:
    """Runs a gafferd that ends by itself; returns its exit code and what it wrote on stderr."""

    def run(*args: str, env: dict[str, str] | None = None) -> tuple[int, str]:
        environment = {"HOME": str(tmp_path), "GAFFER_STATE_DIR": str(tmp_path / "state"), **(env or {})}
        done = run_command("gafferd", *args, env=environment)
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        return done.returncode, done.stderr

    return run


def os_pids(node: Daemon, job: str = "default/sleeper") -> set[int]:
    instances = requests.get(f"{node.url}/jobs/{job}").json()["instances"]
    return {instance["os_pid"] for instance in instances if instance["os_pid"]}


def ignores_sigterm(pid: int) -> int:
    ignored = re.search(r"SigIgn:\s*([0-9a-f]+)", Path(f"/proc/{pid}/status").read_text())
    assert ignored is not None
    return int(ignored[1], 16) & 1 << (signal.SIGTERM - 1)


def jobs(node: Daemon) -> list[str]:
    names: list[str] = requests.get(f"{node.url}/jobs").json()["jobs"]
    return names


# Running


@pytest.mark.row("GD-17", "GD-08")
def test_it_runs_without_a_configuration(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with gafferd(state_dir=state) as node:
        node.wait_for_line(f"listening on unix:{state}/gafferd.sock")
        assert requests.get(node.url + "/ping").status_code == 200
        assert jobs(node) == []
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(state / "gafferd.sock"))
            client.sendall(b"GET /ping HTTP/1.0\r\nHost: localhost\r\n\r\n")
            assert b" 200 " in client.recv(100)


@pytest.mark.row("GD-01", "CL-01", "CL-06")
@pytest.mark.parametrize("how", ["{}", "-c{}", "--config={}"])
def test_it_runs_the_jobs_of_its_configuration(config: Path, how: str) -> None:
    with gafferd(how.format(config)) as node:
        pids = eventually(lambda: len(found := os_pids(node)) == 3 and found)
        # A new program has no command line yet in the moment after its exec.
        eventually(lambda: all(psutil.Process(pid).cmdline() == ["sleep", "1000"] for pid in pids))
    assert not any(map(psutil.pid_exists, pids))


@pytest.mark.row("CFG-32")
def test_the_environment_may_name_the_configuration(config: Path) -> None:
    with gafferd(env={"GAFFERD_CONFIG": str(config.parent)}) as node:
        assert jobs(node) == ["default.sleeper"]


@pytest.mark.row("GD-19", "MISC-SH-02")
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_signals_end_it_gracefully(config: Path, signum: signal.Signals, loop: str) -> None:
    with gafferd(str(config), "--loop", loop) as node:
        pids = eventually(lambda: len(found := os_pids(node)) == 3 and found)
        node.signal(signum)
        assert node.wait() == 0
    assert not any(map(psutil.pid_exists, pids))


def test_a_second_interrupt_kills(tmp_path: Path) -> None:
    config = tmp_path / "gafferd.ini"
    ignore = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(1000)"
    config.write_text(f'[process:deaf]\ncmd = {sys.executable} -c "{ignore}"\ngraceful_timeout = 1000\n')
    with gafferd(str(config)) as node:
        (pid,) = eventually(lambda: os_pids(node, "default/deaf"))
        eventually(lambda: ignores_sigterm(pid))
        node.signal(signal.SIGINT)
        eventually(lambda: requests.post(f"{node.url}/jobs/default/deaf/state", data="1").status_code == 503)
        assert node.returncode is None
        node.signal(signal.SIGINT)
        assert node.wait() == 0


def test_an_inherited_ignored_sigchld_does_no_harm(tmp_path: Path, config: Path) -> None:
    launcher = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    )
    environment = clean_env({"HOME": str(tmp_path)})
    node = psutil.Popen(
        [sys.executable, "-c", launcher, command_path("gafferd"), str(config), "--bind=127.0.0.1:0", "--no-keeper"],
        env={**environment, "GAFFER_STATE_DIR": str(tmp_path / "state")},
        stderr=-1,
        text=True,
    )
    try:
        url = node.stderr.readline().removeprefix("listening on ").strip()
        children = eventually(lambda: len(found := node.children()) == 3 and found)
        children[0].kill()
        eventually(
            lambda: requests.get(f"{url}/jobs/default/sleeper").json()["last_exit"]["term_signal"] == signal.SIGKILL,
            retry_on=(TypeError,),
        )
    finally:
        node.terminate()
        assert node.wait() == 0
        node.stderr.close()


@pytest.mark.row("GD-09", "CL-07", "CFG-03", "CFG-04", "GD-18")
def test_it_listens_where_it_is_told(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    ca, cert, key = (tmp_path / name for name in ("ca.pem", "cert.pem", "key.pem"))
    authority.cert_pem.write_to_path(str(ca))
    certificate.cert_chain_pems[0].write_to_path(str(cert))
    certificate.private_key_pem.write_to_path(str(key))
    config = tmp_path / "gafferd.ini"
    config.write_text(
        "[gaffer]\nhttp_endpoints = plain\n"
        f"[endpoint:plain]\nbind = 127.0.0.2:0, unix:{tmp_path}/own.sock\n[endpoint:closed]\nbind = 127.0.0.3:0\n"
    )
    with gafferd(str(config), "--bind=127.0.0.1:0", f"--certfile={cert}", f"--keyfile={key}") as node:
        node.wait_for_line("gafferd.sock")
        plain, own, secure, _ = node.urls
        assert plain.startswith("http://127.0.0.2:")
        assert own == f"unix:{tmp_path}/own.sock"
        assert secure.startswith("https://127.0.0.1:")
        assert requests.get(f"{plain}/ping").status_code == 200
        assert requests.get(f"{secure}/ping", verify=str(ca)).status_code == 200
        assert f"{key} is readable by other users" in node.stderr


@pytest.mark.row("GD-13", "CL-09", "LP-21")
def test_it_announces_itself(tmp_path: Path) -> None:
    config = tmp_path / "gafferd.ini"
    config.write_text("[gaffer]\nlabels = zone=a\n")
    with (
        lookupd() as registry,
        gafferd(str(config), "--lookupd-address", registry.url, "--node-name=n1", "--broadcast-port=80") as node,
    ):
        (known,) = eventually(lambda: requests.get(f"{registry.url}/nodes").json()["nodes"])
        assert (known["name"], known["origin"], known["labels"]) == ("n1", "http://127.0.0.1:80", {"zone": "a"})
        assert requests.get(f"{node.url}/health", timeout=10).json()["name"] == "n1"
        connected = [{"address": registry.url, "connected": True, "error": None}]
        assert eventually(lambda: requests.get(f"{node.url}/health").json()["lookupds"] == connected)


# The death of the daemon


@pytest.mark.expects_errors("left by an earlier gafferd")
def test_after_a_sigkill_no_process_runs_twice(tmp_path: Path, config: Path) -> None:
    state = tmp_path / "state"
    with gafferd(str(config), state_dir=state) as node:
        before = eventually(lambda: len(found := os_pids(node)) == 3 and found)
        node.kill()
        assert all(map(psutil.pid_exists, before))
        with gafferd(str(config), state_dir=state) as successor:
            after = eventually(lambda: len(found := os_pids(successor)) == 3 and found)
            assert not any(map(psutil.pid_exists, before))
            assert not before & after
            assert "left by an earlier gafferd" in successor.stderr


@pytest.mark.parametrize("daemon", [[], ["--daemon"]], ids=["foreground", "background"])
def test_a_second_gafferd_on_a_state_directory_touches_nothing(
    tmp_path: Path, refused: Refused, daemon: list[str]
) -> None:
    config = tmp_path / "gafferd.ini"
    config.write_text("[unknown]\n")  # a warning, which the second one does not write either
    shared = [str(config), f"--pidfile={tmp_path}/d.pid", f"--error-log={tmp_path}/log"]
    with gafferd(*shared, state_dir=tmp_path / "state") as node:
        eventually(lambda: "unknown" in (tmp_path / "log").read_text())
        history = tmp_path / "state" / "history.jsonl"  # a thread writes it
        eventually(lambda: history.exists() and '"start"' in history.read_text())
        before = snapshot(tmp_path)
        code, message = refused(*shared, *daemon, f"--bind=127.0.0.1:{node.port}")
        assert code == 1
        assert f"is in use by another gafferd (pid {node.pid})" in message
        assert "--state-dir" in message
        assert snapshot(tmp_path) == before
        assert requests.get(f"{node.url}/ping", timeout=10).ok


def snapshot(folder: Path) -> dict[Path, tuple[int, int, bytes]]:
    """Each file below, with its inode, the time of its last change, and its content."""
    files = {path: path.lstat() for path in folder.rglob("*")}
    return {
        path: (found.st_ino, found.st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path, found in files.items()
        if not path.is_dir()
    }


# Refusals


@pytest.mark.row("GD-21")
def test_a_port_in_use(refused: Refused) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, message = refused(f"--bind=127.0.0.1:{port}")
    assert code == 1
    assert message.startswith(f"gafferd: can't listen on 127.0.0.1:{port}: Address already in use\n")


def test_beyond_loopback_it_wants_keys_and_tls(refused: Refused, tmp_path: Path) -> None:
    code, message = refused("--bind=0.0.0.0:0")
    assert code == 2
    assert "--api-key-file" in message
    assert "--insecure" in message

    key = tmp_path / "api.key"
    key.write_text(new_key())
    key.chmod(0o600)
    with gafferd("--bind=0.0.0.0:0", f"--api-key-file={key}", "--insecure") as node:
        url = f"http://127.0.0.1:{node.port}"
        assert requests.get(f"{url}/jobs", headers={"X-Api-Key": key.read_text()}).status_code == 200
        assert requests.get(f"{url}/jobs", headers={"X-Api-Key": "wrong"}).status_code == 401


@pytest.mark.row("GD-16")
def test_require_key_ends_the_trust_in_local_callers(tmp_path: Path) -> None:
    config = tmp_path / "gafferd.ini"
    config.write_text("[gaffer]\nrequire_key = true\n")
    with gafferd(str(config)) as node:
        assert requests.get(f"{node.url}/ping").status_code == 200
        assert requests.get(f"{node.url}/jobs").status_code == 401


def queued(family: socket.AddressFamily, address: str | tuple[str, int]) -> int | None:
    """How many clients the system lets connect to a server that accepts none: one more than its backlog."""
    with contextlib.ExitStack() as stack:
        for count in range(200):
            client = stack.enter_context(socket.socket(family))
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect(address)
            if not select.select([], [client], [], 0)[1] or client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                return count
            try:
                client.getpeername()
            except OSError:  # where it has no place, a client of a unix socket is not left waiting
                return count
    return None


DEFAULT_BACKLOG = min(128, int(Path("/proc/sys/net/core/somaxconn").read_text()))


@pytest.mark.row("GD-10", "CL-08")
@pytest.mark.parametrize(("args", "backlog"), [(["--backlog=3"], 3), ([], DEFAULT_BACKLOG)])
def test_the_backlog_is_how_many_clients_wait_to_be_accepted(tmp_path: Path, args: list[str], backlog: int) -> None:
    with gafferd(*args, state_dir=tmp_path / "state") as node:
        node.signal(signal.SIGSTOP)
        try:
            assert queued(socket.AF_INET, ("127.0.0.1", node.port)) == backlog + 1
            assert queued(socket.AF_UNIX, str(tmp_path / "state" / "gafferd.sock")) == backlog + 1
        finally:
            node.signal(signal.SIGCONT)


@pytest.mark.row("GD-10", "CL-08")
def test_an_endpoint_has_a_backlog_of_its_own_or_that_of_the_command_line(tmp_path: Path) -> None:
    config = tmp_path / "gafferd.ini"
    config.write_text(
        "[gaffer]\nhttp_endpoints = own, other\nbacklog = 9\n"
        "[endpoint:own]\nbind = 127.0.0.1:0\nbacklog = 2\n[endpoint:other]\nbind = 127.0.0.1:0\n"
    )
    node = Daemon("gafferd", "--backlog=4", f"--state-dir={tmp_path}/state", str(config))
    try:
        eventually(lambda: len(node.urls) == 3)
        node.signal(signal.SIGSTOP)
        ports = [int(url.rpartition(":")[2]) for url in node.urls if url.startswith("http")]
        assert [queued(socket.AF_INET, ("127.0.0.1", port)) for port in ports] == [3, 5]
    finally:
        node.signal(signal.SIGCONT)
        node.stop()


@pytest.mark.row("LK-05", "CL-82")
@pytest.mark.parametrize(("args", "backlog"), [(["--backlog=3"], 3), ([], DEFAULT_BACKLOG)])
def test_the_backlog_of_lookupd(args: list[str], backlog: int) -> None:
    with lookupd(*args) as registry:
        registry.signal(signal.SIGSTOP)
        try:
            assert queued(socket.AF_INET, ("127.0.0.1", registry.port)) == backlog + 1
        finally:
            registry.signal(signal.SIGCONT)


@pytest.mark.row("GD-10")
@pytest.mark.parametrize(
    ("args", "shown"),
    [
        (["--bnd=x"], "--bnd: unknown option\n  hint: did you mean '--bind'?\n"),
        (["a.ini", "b.ini"], "gafferd: an option is unknown or given twice, or more than one configuration"),
        (["--config"], "gafferd: --config requires argument\n  hint: see gafferd --help\n"),
        (["--backlog=many"], "--backlog: expected a whole number from 1 to 65535, got 'many'\n"),
        (["--log-level=loud"], "--log-level: unknown log level 'loud'\n"),
        (["--loop=hula"], "--loop: unknown loop 'hula'\n"),
        (["--lookupd-address=a:5010"], "--lookupd-address: expected an http or https URL, got 'a:5010'\n"),
        (["--keyfile", "/dev/null"], "--keyfile: there is no file '/dev/null'\n"),
        (["--keyfile", __file__], "--keyfile: a private key requires a certificate\n"),
        (["--bind=x:y"], "--bind: 'y' is not a valid port number\n"),
        (["--api-key-file=/missing"], "--api-key-file: there is no file '/missing'\n"),
        (["--certfile", __file__], f"gafferd: can't use the certificate {__file__}: "),
        (
            ["--cacert", __file__, "--lookupd-address=https://x"],
            "gafferd: can't use the certificates for the lookupds: ",
        ),
        (["--allowed-origin=x y"], "gafferd: invalid web origin 'x y'\n"),
        (["--node-name", "n" * 256], "--node-name: invalid node name 'nnnn"),
        (["--node-name", "a\tb"], "--node-name: invalid node name 'a\\tb'\n"),
        (["--broadcast-address=http://u@h"], "--broadcast-address: invalid address of this node: 'http://u@h'\n"),
        (["--broadcast-address=http://[fe80::1%x]"], "--broadcast-address: invalid address of this node"),
        (["--bind=[::1%lo]:0", "--lookupd-address=http://h"], "--broadcast-address: this node would be announced as"),
        (["/missing.ini"], "/missing.ini: the configuration does not exist\n"),
    ],
)
def test_a_wrong_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path, args: list[str], shown: str) -> None:
    assert command(["--no-keeper", *args], {"GAFFER_STATE_DIR": str(tmp_path)}) == 2
    assert capsys.readouterr().err.startswith(shown)


def test_all_wrong_values_are_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["--no-keeper", "--backlog=x", "--loop=y"], {"GAFFER_CLUSTER_KEY_FILE": "/missing"}) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines if not line.startswith(" ")] == [
        "--backlog",
        "GAFFER_CLUSTER_KEY_FILE",
        "--loop",
    ]


def test_a_broken_configuration(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "broken.ini"
    path.write_text("[process:web]\ncomand = x\nnumprocesses = two\n")
    code, message = refused(str(path))
    assert code == 2
    assert message == (
        f"{path}:1: [process:web] cmd is missing\n  hint: set cmd to the command to run\n"
        f"{path}:2: [process:web] unknown key 'comand'\n  hint: did you mean 'cmd'?\n"
        f"{path}:3: [process:web] numprocesses: expected a whole number of 0 or more, got 'two'\n"
    )


# Reload


@pytest.mark.row("GD-19")
def test_hup_applies_what_changed(config: Path) -> None:
    config.write_text(SLEEPER + "[process:old]\ncmd = sleep 1001\n")
    with gafferd(str(config)) as node:
        before = eventually(lambda: len(found := os_pids(node)) == 3 and found)
        config.write_text(SLEEPER.replace("3", "4") + "[process:new]\ncmd = sleep 1002\n")
        node.signal(signal.SIGHUP)
        node.wait_for_line("reloaded: remove default.old, scale default.sleeper, add default.new")
        assert jobs(node) == ["default.sleeper", "default.new"]
        after = eventually(lambda: len(found := os_pids(node)) == 4 and found)
        assert before < after

        config.write_text("[process:new]\ncmd =\n")
        node.signal(signal.SIGHUP)
        node.wait_for_line("the configuration is invalid, keeping the current one")
        node.wait_for_line(f"{config}:2: [process:new] cmd: expected a non-empty text")
        assert jobs(node) == ["default.sleeper", "default.new"]
        assert os_pids(node) == after


# Options


def test_keys_and_configuration_that_others_may_change_are_refused(refused: Refused, tmp_path: Path) -> None:
    config, included, key = tmp_path / "gaffer.ini", tmp_path / "more.ini", tmp_path / "api.key"
    config.write_text("[gaffer]\ninclude = more.ini\n")
    included.write_text("[process:a]\ncmd = true\n")
    included.chmod(0o646)
    code, message = refused("-c", str(config), "--bind=127.0.0.1:0")
    assert code == 2
    assert f"{config}:2: [gaffer] include: {included} is not trusted: everyone can write to it" in message
    assert f"hint: check what it holds, then `chmod go-w {included}`" in message
    assert "is not a regular file" in refused("-c", "/dev/null", "--bind=127.0.0.1:0")[1]
    link = tmp_path / "link.ini"
    link.symlink_to(config)
    assert "it is a symbolic link" in refused("-c", str(link), "--bind=127.0.0.1:0")[1]
    key.write_text(new_key())
    key.chmod(0o622)
    code, message = refused(f"--api-key-file={key}", "--bind=127.0.0.1:0")
    assert (code, f"{key} is not trusted" in message) == (2, True)
    code, message = refused(f"--keyfile={key}", f"--certfile={key}", "--bind=127.0.0.1:0")
    assert (code, f"--keyfile: {key} is not trusted" in message) == (2, True)


def test_a_weak_key_does_not_open_the_node_to_others(refused: Refused, tmp_path: Path) -> None:
    key = tmp_path / "api.key"
    key.write_text("gk_operatorsecret")
    key.chmod(0o600)
    code, message = refused(f"--api-key-file={key}", "--bind=0.0.0.0:0", "--insecure")
    assert code == 2
    assert "fewer than 128 bits" in message
    assert "gaffer key:new" in message
    with gafferd(f"--api-key-file={key}") as node:
        assert "fewer than 128 random bits" in node.stderr


def test_a_key_may_come_from_a_command(tmp_path: Path) -> None:
    """`gafferd --api-key-file <(pass show gaffer)`, as a shell hands it over."""
    key = new_key()
    reader, writer = os.pipe()
    os.write(writer, key.encode())
    os.close(writer)
    arguments = [f"--api-key-file=/dev/fd/{reader}", "--bind=127.0.0.1:0", f"--state-dir={tmp_path}/state"]
    process = subprocess.Popen(
        [command_path("gafferd"), *arguments], pass_fds=[reader], stderr=subprocess.PIPE, text=True, env=clean_env()
    )
    os.close(reader)
    with process:
        assert process.stderr is not None
        url = process.stderr.readline().removeprefix("listening on ").strip()
        answer = requests.get(f"{url}/jobs", headers={"X-Api-Key": key, "Via": "1.1 proxy"}, timeout=10)
        process.terminate()
        process.communicate()
    assert answer.status_code == 200


@pytest.mark.row("GD-07", "CL-05")
def test_pidfile(tmp_path: Path, refused: Refused) -> None:
    path = tmp_path / "d.pid"
    with gafferd(f"--pidfile={path}") as node:
        assert path.read_text() == f"{node.pid}\n"
        code, message = refused(f"--pidfile={path}", "--bind=127.0.0.1:0")
        assert code == 1
        assert f"already running with pid {node.pid}" in message
    assert not path.exists()


def test_a_pidfile_that_can_not_be_written(tmp_path: Path, refused: Refused) -> None:
    code, message = refused(f"--pidfile={tmp_path}", "--daemon", "--bind=127.0.0.1:0")
    assert code == 1
    assert message.startswith(f"gafferd: can't write the pidfile {tmp_path}: Is a directory\n")


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (os.mkfifo, "it is not a regular file"),
        (lambda path: path.symlink_to("precious"), "it is a symbolic link"),
        (lambda path: os.link(path.with_name("precious"), path), "it is a hard link"),
    ],
    ids=["pipe", "link", "hard link"],
)
def test_what_is_in_the_place_of_the_log_neither_stops_the_start_nor_is_written_to(
    tmp_path: Path, make: Callable[[Path], object], why: str
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    folder.chmod(0o1777)
    (folder / "precious").write_text("precious")
    make(folder / "log")
    with gafferd(f"--error-log={folder}/log", "--log-level=debug") as node:
        assert f"logging to stderr: {folder}/log is not trusted: {why}" in node.stderr
        requests.get(f"{node.url}/ping", timeout=10)
        node.wait_for_line("/ping")
    assert (folder / "precious").read_text() == "precious"


def test_a_log_that_is_replaced_by_a_link_goes_on_on_stderr(tmp_path: Path) -> None:
    log, precious = tmp_path / "log", tmp_path / "precious"
    with gafferd(f"--error-log={log}", "--log-level=debug") as node:
        requests.get(f"{node.url}/ping", timeout=10)
        eventually(lambda: "/ping" in log.read_text())
        log.unlink()
        log.symlink_to(precious)
        requests.get(f"{node.url}/ping", timeout=10)
        node.wait_for_line("/ping")
        log.unlink()
        requests.get(f"{node.url}/ping", timeout=10)
        eventually(lambda: log.exists() and "/ping" in log.read_text())
        assert not precious.exists()


def test_a_unix_socket_is_not_made_where_others_may_replace_it(refused: Refused, tmp_path: Path) -> None:
    open_to_all, link = tmp_path / "run", tmp_path / "link.sock"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    code, message = refused(f"--bind=unix:{open_to_all}/g.sock")
    assert code == 2
    assert f"because of the directory {open_to_all}: everyone can write to it" in message
    assert list(open_to_all.iterdir()) == []
    link.symlink_to(tmp_path / "precious")
    code, message = refused(f"--bind=unix:{link}")
    assert (code, "the file exists and is not a socket" in message) == (1, True)
    open_to_all.chmod(0o1777)
    with gafferd(f"--bind=unix:{open_to_all}/g.sock"):
        assert (open_to_all / "g.sock").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("command", ["gafferd", "gaffer_lookupd"])
def test_a_pidfile_with_the_number_of_another_program_is_stale(tmp_path: Path, command: str) -> None:
    path = tmp_path / "d.pid"
    path.write_text(f"{os.getpid()}\n")
    with (gafferd if command == "gafferd" else lookupd)(f"--pidfile={path}") as daemon:
        assert path.read_text() == f"{daemon.pid}\n"
        daemon.kill()
        path.write_text(f"{os.getpid()}\n")
        with (gafferd if command == "gafferd" else lookupd)(f"--pidfile={path}") as second:
            assert path.read_text() == f"{second.pid}\n"


@pytest.mark.row("GD-06", "CL-04", "GD-15")
def test_daemon(tmp_path: Path) -> None:
    log, pidfile = tmp_path / "log", tmp_path / "d.pid"
    done = run_command(
        "gafferd",
        "--daemon",
        "--bind=127.0.0.1:0",
        f"--state-dir={tmp_path}/state",
        f"--pidfile={pidfile}",
        f"--error-log={log}",
        "--log-level=debug",
    )
    assert done.returncode == 0
    url = done.stderr.splitlines()[0].removeprefix("listening on ")
    process = psutil.Process(int(pidfile.read_text()))
    try:
        assert requests.get(f"{url}/ping").status_code == 200
        assert os.getsid(process.pid) != os.getsid(0)
        assert eventually(lambda: "/ping" in log.read_text())
    finally:
        process.terminate()
        eventually(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)


VERBOSE = """
[process:web]
cmd = sh -c 'echo hello; exec sleep 1000'
redirect_output = out
"""


@pytest.fixture
def verbose(tmp_path: Path) -> Callable[..., list[str]]:
    """What a gafferd writes to its console with these arguments, until it has stopped the job that says hello."""

    def run(*args: str) -> list[str]:
        config = tmp_path / "gafferd.ini"
        config.write_text(VERBOSE)
        output = tmp_path / "output"
        command = [command_path("gafferd"), "--bind", "127.0.0.1:0", "--state-dir", str(tmp_path / "state")]
        with output.open("w") as stdout:
            node = subprocess.Popen(
                [*command, *args, str(config)],
                env=clean_env(),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stdout,
            )
        try:
            eventually(lambda: "listening on http" in output.read_text(), 20)
            url = output.read_text().partition("listening on ")[2].split()[0]
            pid = eventually(lambda: requests.get(f"{url}/processes/web/_pids").json()["pids"])[0]
            eventually(lambda: requests.get(f"{url}/streams/{pid}/out?feed=longpoll&tail=1").text == "hello\n")
        finally:
            node.terminate()
            node.wait(20)
        lines = [line for line in output.read_text().splitlines() if re.match(r"\d\d:\d\d:\d\d ", line)]
        return [re.sub(r"\d+$", "PID", line[9:].partition(" (")[0]) for line in lines]

    return run


SHOWN = [
    "web | create",
    "web | start",
    "web | spawn process with pid PID",
    "web | stop",
    "web | stop process with pid PID",
    "web | exit process with pid PID",
]


def test_the_console_stays_quiet(verbose: Callable[..., list[str]]) -> None:
    assert verbose() == []


@pytest.mark.row("GD-04", "CL-03", "CHG-18")
def test_verbose_shows_events_on_the_console(verbose: Callable[..., list[str]]) -> None:
    assert verbose("-v") == SHOWN


@pytest.mark.row("GD-05", "CL-03", "CHG-18")
@pytest.mark.parametrize("flag", ["-vv", "--vv"])
def test_more_verbose_shows_output_too(verbose: Callable[..., list[str]], flag: str) -> None:
    assert verbose(flag) == [*SHOWN[:3], "web | hello", *SHOWN[3:]]


@pytest.mark.row("GD-12", "GD-11")
def test_version_and_help() -> None:
    assert re.fullmatch(r"gafferd \d+\.\d+\.\d+\n", run_command("gafferd", "--version").stdout)
    short, long = run_command("gafferd", "-h"), run_command("gafferd", "--help")
    assert (short.returncode, short.stderr, short.stdout) == (0, "", long.stdout)
    assert "--lookupd-address" in short.stdout


FLAGS = """
    --help --version --config --vv --plugins-dir --plugin-dir --plugins --daemon --pidfile --bind --backlog
    --certfile --keyfile --api-key-file --insecure --allowed-host --allowed-origin --state-dir --lookupd-address
    --cluster-key-file --node-name --broadcast-address --broadcast-port --cacert --client-certfile --client-keyfile
    --error-log --log-level --log-format --loop --watch --keeper --no-keeper --check-config --print-config
    --show-secrets
"""


def test_every_flag_is_in_the_usage_and_understood() -> None:
    shown = re.findall(r"^  (?:-\w(?: \w+)?, )?(--[a-z-]+)", USAGE, flags=re.MULTILINE)
    assert sorted(shown) == sorted(FLAGS.split())
    understood = {name for name in parse_options([]) if name.startswith("--")}
    assert understood == set(FLAGS.split())


@pytest.mark.parametrize(
    ("args", "environ", "from_file", "expected"),
    [
        ([], {}, {}, None),
        ([], {}, {"state_dir": "/file"}, "/file"),
        ([], {"GAFFER_STATE_DIR": "/env"}, {"state_dir": "/file"}, "/env"),
        (["--state-dir=/flag"], {"GAFFER_STATE_DIR": "/env"}, {"state_dir": "/file"}, "/flag"),
    ],
)
def test_flag_wins_over_environment_over_file(
    args: list[str], environ: dict[str, str], from_file: dict[str, str], expected: str | None
) -> None:
    assert resolve(parse_options(args), environ, from_file).state_dir == expected


@pytest.mark.parametrize(
    ("args", "from_file", "expected"),
    [
        ([], {"keeper": True}, True),
        (["--keeper"], {"keeper": False}, True),
        (["--no-keeper"], {"keeper": True}, False),
    ],
)
def test_a_flag_turns_the_keeper_on_or_off(args: list[str], from_file: dict[str, bool], expected: bool) -> None:
    assert resolve(parse_options(args), {}, from_file).keeper is expected


def test_a_flag_and_its_opposite() -> None:
    with pytest.raises(ConfigError) as error:
        resolve(parse_options(["--keeper", "--no-keeper"]), {}, {})
    problem = error.value.problems[0]
    assert (problem.path, problem.message) == ("--no-keeper", "conflicts with --keeper, its opposite")


@pytest.mark.row("GD-13", "CL-09")
def test_lookupd_address_is_repeatable() -> None:
    options = parse_options(["--lookupd-address=http://a", "--lookupd-address", "http://b,http://c"])
    assert resolve(options, {}, {}).lookupd_address == ("http://a", "http://b", "http://c")
