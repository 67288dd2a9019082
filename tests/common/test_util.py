import os
import pwd
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from gaffer import util
from support.poll import eventually


@pytest.mark.row("MISC-UT-14")
@pytest.mark.parametrize(
    ("netloc", "parsed"),
    [
        ("127.0.0.1:5000", ("127.0.0.1", 5000)),
        ("Example.ORG:80", ("example.org", 80)),
        ("example.org", ("example.org", 8000)),
        ("", ("0.0.0.0", 8000)),
        (":0", ("0.0.0.0", 0)),
        ("[::1]:5000", ("::1", 5000)),
        ("[::1]", ("::1", 8000)),
        ("::1", ("::1", 8000)),
        ("unix:/run/x.sock", "/run/x.sock"),
        ("unix:///run/x.sock", "/run/x.sock"),
        ("unix:x.sock", "x.sock"),
    ],
)
def test_parse_address(netloc: str, parsed: str | tuple[str, int]) -> None:
    assert util.parse_address(netloc) == parsed


@pytest.mark.row("MISC-UT-14")
@pytest.mark.parametrize(
    "netloc", ["host:", "host:http", "host:-1", "host:65536", "host:8 0", "[::1", "[x]:80", "[::1]80", "::1:x"]
)
def test_parse_address_refuses(netloc: str) -> None:
    with pytest.raises(RuntimeError, match="not a valid"):
        util.parse_address(netloc)


@given(st.text())
def test_parse_address_never_fails_otherwise(netloc: str) -> None:
    try:
        parsed = util.parse_address(netloc)
    except RuntimeError:
        return
    assert isinstance(parsed, str) or 0 <= parsed[1] <= 65535


@pytest.mark.row("MISC-UT-10")
def test_is_ipv6() -> None:
    assert util.is_ipv6("::1")
    assert util.is_ipv6("fe80::1%eth0")
    assert not util.is_ipv6("127.0.0.1")
    assert not util.is_ipv6("[::1]")
    assert not util.is_ipv6("a\0b")


@pytest.mark.row("MISC-UT-11")
@pytest.mark.parametrize(
    ("url", "secure"),
    [("https://x", True), ("WSS://x/ws", True), ("http://x", False), ("ws://x", False), ("x", False)],
)
def test_is_ssl(url: str, secure: bool) -> None:
    assert util.is_ssl(url) is secure


@pytest.mark.row("MISC-UT-01")
def test_bind_sockets_listens_on_the_given_host_only() -> None:
    sockets = util.bind_sockets("127.0.0.1:0", backlog=5)
    try:
        (sock,) = sockets
        assert sock.getsockname()[0] == "127.0.0.1"
        assert not sock.getblocking()
        with socket.create_connection(sock.getsockname()):
            pass
        with socket.socket() as other:
            other.bind(("127.0.0.2", sock.getsockname()[1]))
    finally:
        for sock in sockets:
            sock.close()


def test_bind_sockets_takes_host_and_port() -> None:
    (sock,) = util.bind_sockets(("127.0.0.1", 0))
    with sock, pytest.raises(OSError, match="in use"):
        util.bind_sockets(sock.getsockname())


@pytest.mark.row("MISC-UT-01")
def test_bind_sockets_makes_a_private_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    (sock,) = util.bind_sockets(f"unix:{path}", allows_unix_socket=True)
    with sock:
        assert path.stat().st_mode & 0o777 == 0o600
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
        with pytest.raises(OSError, match="another process listens"):
            util.bind_sockets(f"unix:{path}", allows_unix_socket=True)
    (sock,) = util.bind_sockets(f"unix:{path}", allows_unix_socket=True)  # nobody listens on it any more
    sock.close()


@pytest.mark.row("MISC-UT-01")
def test_bind_sockets_refuses_a_unix_socket_unless_allowed(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="UNIX"):
        util.bind_sockets(f"unix:{tmp_path}/x.sock")


def test_bind_sockets_never_replaces_a_file(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(FileExistsError):
        util.bind_sockets(f"unix:{path}", allows_unix_socket=True)
    assert path.read_text() == "data"


@pytest.mark.row("MISC-UT-02")
@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0B"),
        (1023, "1023B"),
        (1024, "1K"),
        (10000, "9K"),
        (100001221, "95M"),
        (5 * 1024**3, "5G"),
        (1024**8, "1Y"),
        (5000 * 1024**8, "5000Y"),
    ],
)
def test_bytes2human(number: int, text: str) -> None:
    assert util.bytes2human(number) == text


@pytest.mark.row("MISC-UT-02")
@pytest.mark.parametrize("wrong", ["1", 1.5, None, True])
def test_bytes2human_takes_whole_numbers_only(wrong: Any) -> None:
    with pytest.raises(TypeError):
        util.bytes2human(wrong)


@pytest.mark.row("MISC-UT-05", "MISC-UT-04")
@pytest.mark.parametrize("check", [util.check_uid, util.check_gid])
def test_users_and_groups(check: Callable[[Any], int]) -> None:
    assert check("root") == check("0") == check(0) == 0
    for unknown in ("no-such-account", 3_999_999_999, "3999999999", -5, 2**70, "", "²"):
        with pytest.raises(ValueError, match="unknown"):
            check(unknown)
    for wrong in (None, 1.0, True, b"root"):
        with pytest.raises(TypeError):
            check(wrong)


def test_a_user_by_name() -> None:
    account = pwd.getpwuid(os.getuid())
    assert util.check_uid(account.pw_name) == os.getuid()


@pytest.mark.row("MISC-UT-16")
@pytest.mark.parametrize("given", [15, "15", " 15 ", "TERM", "term", "SIGTERM", "SigTerm", signal.SIGTERM])
def test_parse_signal_value(given: int | str) -> None:
    assert util.parse_signal_value(given) == 15


@pytest.mark.row("MISC-UT-16")
@pytest.mark.parametrize("wrong", [None, 0, -1, 65, 99999, "", "SIG", "NOPE", "SIG_IGN", "1.5", True, 9.0])
def test_parse_signal_value_refuses(wrong: Any) -> None:
    with pytest.raises(ValueError, match="not a signal"):
        util.parse_signal_value(wrong)


def test_second_names_of_signals_count() -> None:
    assert util.parse_signal_value("CLD") == signal.SIGCHLD
    assert util.parse_signal_value("RTMIN") == signal.SIGRTMIN


@pytest.mark.row("MISC-UT-19")
@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("run $PORT", "run 80"),
        ("run ${PORT}0", "run 800"),
        ("$PORT$PORT", "8080"),
        ("$PORTS", "$PORTS"),
        ("$UNKNOWN ${UNKNOWN}", "$UNKNOWN ${UNKNOWN}"),
        ("100% $ ${} ${PORT", "100% $ ${} ${PORT"),
        ("$HOME_DIR", "$PORT"),
    ],
)
def test_substitute_env(text: str, result: str) -> None:
    assert util.substitute_env(text, {"PORT": "80", "HOME_DIR": "$PORT"}) == result


@pytest.mark.row("MISC-UT-12", "MISC-UT-07")
def test_nanotime() -> None:
    assert util.nanotime(1.5) == 1_500_000_000
    assert util.from_nanotime(1_500_000_000) == 1.5
    assert abs(util.from_nanotime(util.nanotime()) - time.time()) < 60


@pytest.mark.row("MISC-UT-03", "MISC-UT-13")
def test_leftovers_of_python_2() -> None:
    assert util.bytestring("x") == "x"
    assert util.ord_("a") == util.ord_(b"a") == util.ord_(97) == 97


@pytest.mark.row("MISC-UT-15")
@pytest.mark.parametrize("name", ["shop.web", "shop/web", "shop:web"])
def test_parse_job_name(name: str) -> None:
    assert util.parse_job_name(name) == ("shop", "web")
    assert util.parse_job_name("web") == ("default", "web")
    assert util.parse_job_name("web", default="shop") == ("shop", "web")


@pytest.mark.row("MISC-UT-08")
def test_getcwd_keeps_the_spelling_of_pwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, link, other = tmp_path / "real", tmp_path / "link", tmp_path / "other"
    real.mkdir()
    other.mkdir()
    link.symlink_to(real)
    monkeypatch.chdir(real)
    for pwd_variable, answer in ((link, link), (other, real), (tmp_path / "gone", real), (".", real), ("", real)):
        monkeypatch.setenv("PWD", str(pwd_variable))
        assert util.getcwd() == str(answer)


@pytest.mark.row("MISC-UT-09")
def test_hostname() -> None:
    assert util.hostname()
    assert not util.hostname().startswith("localhost.")


@pytest.mark.row("MISC-UT-17")
def test_parse_ssl_options(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("client.example")
    ca, cert, key = (str(tmp_path / name) for name in ("ca", "cert", "key"))
    authority.cert_pem.write_to_path(ca)
    certificate.cert_chain_pems[0].write_to_path(cert)
    certificate.private_key_pem.write_to_path(key)

    context = util.parse_ssl_options({"ca_certs": ca, "client_cert": cert, "client_key": key})
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert len(context.get_ca_certs()) == 1
    assert util.parse_ssl_options({}).verify_mode == ssl.CERT_REQUIRED
    assert util.parse_ssl_options({"validate_cert": False}).verify_mode == ssl.CERT_NONE
    with pytest.raises(OSError, match="No such file"):
        util.parse_ssl_options({"ca_certs": str(tmp_path / "missing")})


@pytest.mark.row("MISC-UT-18")
def test_the_title_changes_where_the_library_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def title() -> str:
        return Path("/proc/self/comm").read_text()

    before = title()
    monkeypatch.setitem(sys.modules, "setproctitle", None)
    util.setproctitle_("gaffer-test")
    assert title() == before
    monkeypatch.delitem(sys.modules, "setproctitle")
    monkeypatch.syspath_prepend(tmp_path)
    # What the library does to a title of at most 15 bytes.
    (tmp_path / "setproctitle.py").write_text(
        "from pathlib import Path\ndef setproctitle(title):\n    Path('/proc/self/comm').write_text(title)\n"
    )
    try:
        util.setproctitle_("gaffer-test")
        assert title() == "gaffer-test\n"
    finally:
        Path("/proc/self/comm").write_text(before)
        sys.modules.pop("setproctitle", None)


def daemonized(tmp_path: Path, body: str) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "daemon.py"
    script.write_text(textwrap.dedent(body))
    return subprocess.run(
        [sys.executable, str(script), str(tmp_path / "out")], capture_output=True, text=True, timeout=20
    )


REPORT = """
import os, sys
from gaffer.util import daemonize
os.umask(0)
parent = os.getppid()
{call}
with open(sys.argv[1], "w") as file:
    links = [os.readlink(f"/proc/self/fd/{{n}}") for n in (0, 1, 2)]
    print(os.getsid(0) not in (os.getpid(), {launcher_session}), links, oct(os.umask(0)), file=file)
"""


@pytest.mark.row("MISC-UT-06")
def test_daemonize(tmp_path: Path) -> None:
    body = REPORT.format(call="daemonize(wait=True)()", launcher_session=os.getsid(0))
    done = daemonized(tmp_path, body)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    report = f"True {['/dev/null'] * 3} 0o22\n"
    assert eventually(lambda: (tmp_path / "out").read_text() == report, retry_on=(FileNotFoundError,))


def test_a_daemon_that_fails_early_tells_its_launcher(tmp_path: Path) -> None:
    done = daemonized(
        tmp_path,
        """
        import sys
        from gaffer.util import daemonize
        daemonize(wait=True)
        sys.exit("port in use")
        """,
    )
    assert done.returncode == 1
    assert "port in use" in done.stderr
