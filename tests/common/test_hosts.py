"""What counts as a host and as the public address of a node, before it gets into other programs' configuration."""

import pytest

from gaffer.jobs.names import is_host, is_origin

pytestmark = pytest.mark.pure

HOSTS = [
    "n1",
    "web-1.example",
    "a_b",
    "x--y",
    "10.0.0.7",
    "::1",
    "fd00::7",
    "::ffff:10.0.0.7",
    "a" * 63,
    "3com.example",
]
NO_HOSTS = [
    "",
    " ",
    "a b",
    "a;b",
    "a\n",
    "-a",
    "a-",
    "a.",
    ".a",
    "a..b",
    "é",
    "a" * 64,
    ".".join(["a" * 49] * 6),
    "host:80",
    "[::1]",
    "fe80::1%eth0",
    "fe80::1%x\n10.6.6.6:80\n",
    "fd00::7; x",
    "127.1",
    "2130706433",
    "0x7f000001",
    "1.2.3.4.5",
    "256.0.0.1",
    "unix:/x",
]
NO_ORIGINS = [
    "",
    "n1",
    "//n1",
    "unix:/run/gafferd.sock",
    "javascript:alert(1)",
    "ftp://n1",
    "http://",
    "http://n1/",
    "http://n1?x",
    "http://n1#x",
    "http://u:p@n1",
    "http://n1:",
    "http://n1:0",
    "http://n1:65536",
    "http://n1:5000\n",
    "http://::1",
    "http://[n1]",
    "http://[10.0.0.7]",
    "http://[::1%25lo]:5000",
]


@pytest.mark.parametrize("host", HOSTS)
def test_a_host_is_a_name_or_an_address(host: str) -> None:
    assert is_host(host)
    assert is_origin(f"http://[{host}]:5000" if ":" in host else f"https://{host}")


@pytest.mark.parametrize("text", NO_HOSTS)
def test_anything_else_is_no_host(text: str) -> None:
    assert not is_host(text)
    assert not is_origin(f"http://[{text}]:80")


@pytest.mark.parametrize("text", NO_ORIGINS)
def test_an_origin_has_a_scheme_a_host_and_maybe_a_port(text: str) -> None:
    assert not is_origin(text)
