"""How the sockets of a job are written."""

import pytest

from gaffer.errors import ConfigError, InvalidValue
from gaffer.jobs.config import JobConfig
from gaffer.jobs.listening import SocketSpec, parse_socket

pytestmark = pytest.mark.pure


@pytest.mark.parametrize(
    ("text", "spec", "shown"),
    [
        ("tcp:127.0.0.1:8080", SocketSpec("tcp", "127.0.0.1", 8080), "tcp:127.0.0.1:8080"),
        ("tcp:localhost:8080", SocketSpec("tcp", "127.0.0.1", 8080), "tcp:127.0.0.1:8080"),
        ("tcp:[::1]:0", SocketSpec("tcp", "::1", 0), "tcp:[::1]:0"),
        ("tcp:[0:0::0001]:80", SocketSpec("tcp", "::1", 80), "tcp:[::1]:80"),
        ("tcp:[::ffff:10.0.0.7]:80", SocketSpec("tcp", "10.0.0.7", 80), "tcp:10.0.0.7:80"),
        ("tcp:[fe80::1%eth0]:80", SocketSpec("tcp", "fe80::1%eth0", 80), "tcp:[fe80::1%eth0]:80"),
        ("tcp:*:80", SocketSpec("tcp", "", 80), "tcp:*:80"),
        ("tcp:80", SocketSpec("tcp", "", 80), "tcp:*:80"),
        (" http=tcp:0.0.0.0:65535 ", SocketSpec("http", "0.0.0.0", 65535), "tcp:0.0.0.0:65535"),
        ("unix:/run/a b/app.sock", SocketSpec("unix", path="/run/a b/app.sock"), "unix:/run/a b/app.sock"),
        ("api-2=unix:/run/x=y", SocketSpec("api-2", path="/run/x=y"), "unix:/run/x=y"),
        ("unix:/run/x=y", SocketSpec("unix", path="/run/x=y"), "unix:/run/x=y"),
    ],
)
def test_a_socket(text: str, spec: SocketSpec, shown: str) -> None:
    assert parse_socket(text) == spec
    assert str(spec) == shown
    assert parse_socket(f"{spec.name}={shown}") == spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a socket"),
        ("8080", "expected a socket"),
        ("udp:127.0.0.1:53", "expected a socket"),
        ("tcp:", "expected a socket"),
        ("tcp:127.0.0.1", "expected a socket"),
        ("tcp:::1:80", "expected a socket"),
        ("tcp:127.0.0.1:65536", "expected a socket"),
        ("tcp:127.0.0.1:-1", "expected a socket"),
        ("tcp:127.0.0.1:٨", "expected a socket"),
        ("tcp:www.example.com:80", "expected the address to listen on, got 'www.example.com'"),
        ("tcp:127.1:80", "expected the address to listen on"),
        ("tcp:[127.0.0.1]:80", "expected the address to listen on"),
        ("tcp:[::g]:80", "expected the address to listen on"),
        ("a b=tcp:80", "invalid socket name 'a b'"),
        ("=tcp:80", "invalid socket name ''"),
        ("unix:app.sock", "expected an absolute path"),
        ("unix:", "expected an absolute path"),
        (f"unix:/{'a' * 107}", "expected an absolute path of at most 107 bytes"),
        (f"unix:/{'é' * 54}", "expected an absolute path of at most 107 bytes"),
        ("unix:/run/a\nb", "expected an absolute path"),
        ("unix:/run/a\0b", "expected an absolute path"),
    ],
)
def test_a_mistake(text: str, message: str) -> None:
    with pytest.raises(InvalidValue, match=message) as raised:
        parse_socket(text)
    assert raised.value.hint


def test_two_spellings_of_an_address_are_one_address() -> None:
    with pytest.raises(ConfigError, match=r"duplicate socket 'b=tcp:127\.0\.0\.1:80'") as raised:
        JobConfig("web", "true", socket="a=tcp:localhost:80, b=tcp:127.0.0.1:80")
    assert raised.value.path == "$.socket[1]"
    assert len(JobConfig("web", "true", socket="tcp:localhost:0, tcp:localhost:0").socket) == 2
