"""Keys and announced addresses: the patterns as tables, and the commands against servers that announce others' ids."""

import ssl
from pathlib import Path

import msgspec
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from gaffer_client import errors
from gaffer_client.announced import NodePattern, Origin
from support.client import Answering, Commands, answering_server, own_address
from support.daemons import gafferd


@pytest.mark.parametrize(
    ("pattern", "covered", "others"),
    [
        ("web1", ["http://web1:5000", "https://WEB1", "http://web1."], ["http://web10:5000", "http://web1.evil.com"]),
        ("web1:5000", ["http://web1:5000"], ["http://web1", "https://web1:443", "http://web1:5001"]),
        ("web1:443", ["https://web1"], ["http://web1"]),
        (
            "*.example.com",
            ["http://a.example.com:1", "http://a.b.EXAMPLE.com."],
            ["http://example.com", "http://example.com.evil.org", "http://aexample.com", "http://10.0.0.7"],
        ),
        ("*.Example.com:5000", ["http://a.example.com:5000"], ["http://a.example.com:5001"]),
        (
            "10.0.0.7",
            ["http://10.0.0.7:5000", "http://[::ffff:10.0.0.7]"],
            ["http://10.0.0.70", "http://10.0.0.7.nip.io"],
        ),
        ("10.0.0.0/24", ["http://10.0.0.0", "https://10.0.0.255:1"], ["http://10.0.1.0", "http://[fd00::1]"]),
        ("10.0.0.9/24:5000", ["http://10.0.0.1:5000"], ["http://10.0.0.1:80"]),
        ("fd00::/64", ["http://[fd00::1]:5000"], ["http://[fd00:0:0:1::1]", "http://10.0.0.1"]),
        ("[FD00::7]:5000", ["http://[fd00:0:0::7]:5000"], ["http://[fd00::7]", "http://[fd00::8]:5000"]),
        ("127.0.0.0/8", ["http://127.0.0.1:5000"], ["http://localhost:5000"]),
    ],
)
def test_patterns(pattern: str, covered: list[str], others: list[str]) -> None:
    parsed = NodePattern.parse(pattern)
    assert [url for url in covered + others if parsed.covers(Origin.parse(url))] == covered


@pytest.mark.parametrize(
    "text",
    [
        "",
        "*",
        "*.",
        "web*",
        "a.*.com",
        "http://web1",
        "web1/24",
        "web1:0",
        "web1:70000",
        "web1:x",
        "10.0.0.0/33",
        "[web1]",
        "fd00::/129",
        "user@web1",
        "127.1",
        "0x7f000001",
        "web 1",
        "[fd00::7",
        "web1:",
        "-web1",
    ],
)
def test_what_is_no_pattern(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a host|invalid port"):
        NodePattern.parse(text)


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "web1:5000",
        "unix:/run/gafferd.sock",
        "unix:///run/gafferd.sock",
        "file:///etc/passwd",
        "ftp://web1",
        "http://",
        "http://web1:0",
        "http://web1:70000",
        "http://web1/",
        "http://web1/x",
        "http://web1?x",
        "http://web1#x",
        "http://u@web1",
        "http://u:p@web1",
        "http://web1\\@evil",
        "http://evil\\.example.com",
        "http://evil%2f.example.com",
        "http://[fe80::1%25eth0]",
        "http://[fe80::1%eth0]:80",
        "http://we b1",
        "http://web1\n",
        " http://web1",
        "http://we\tb1",
        "http://127.1",
        "http://0x7f000001",
        "http://2130706433",
        "http://evil。example.com",
        "http://[::1",
        "http://a..b",
    ],
)
def test_what_no_node_can_announce(origin: str) -> None:
    with pytest.raises(errors.MalformedAnswer):
        Origin.parse(origin)


@given(st.text(max_size=40))
def test_any_text_is_an_origin_or_refused(text: str) -> None:
    for prefix in ("", "http://", "https://[", "http://a:"):
        try:
            origin = Origin.parse(prefix + text)
        except errors.MalformedAnswer:
            continue
        assert origin.url.isascii()
        assert origin.url.isprintable()


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "api.key"
    path.touch(0o600)
    path.write_text("gk_0123456789abcdef0123456789abcdef\n")
    return path


NODE = '{"name": "web1", "origin": "%s", "version": "0.1", "id": "web1", "incarnation": 1, "seq": 1, "status": "alive"}'


def announcing(lookup: Answering, origin: str) -> None:
    """Let a lookup say that web1 is there, and has shop.web."""
    node = NODE % origin
    lookup.answer("/nodes", f'{{"nodes": [{node}], "tombstones": [], "stale": false}}')
    lookup.answer("/jobs", '{"nb_jobs": 0, "jobs": []}')
    lookup.answer("/findJob", f'{{"sources": [{{"name": "web1", "pids": [1], "node_info": {node}}}], "stale": false}}')


@pytest.fixture
def key(gaffer: Commands, key_file: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The API key, which GAFFER_API_KEY_FILE gives to `gaffer`."""
    monkeypatch.setenv("GAFFER_API_KEY_FILE", str(key_file))
    return key_file.read_text().strip()


ASK = [
    ("why", "shop.web"),
    ("why", "a.typo"),
    ("drain", "web1"),
    ("drain", "--undo", "web1"),
    ("enable", "shop.web", "--cluster"),
    ("logs", "shop.web", "--node", "web1"),
    ("ps", "--cluster"),
]


@pytest.mark.parametrize("words", ASK)
def test_a_key_does_not_go_to_an_address_that_is_only_announced(
    gaffer: Commands, key: str, words: tuple[str, ...]
) -> None:
    for host in ("127.0.0.1", own_address()):
        with answering_server() as lookup, answering_server(host=host) as node:
            for path in ("/drain", "/jobs", "/jobs/shop/web", "/jobs/a/typo"):
                node.answer(f"{path}/enable", '{"error": "auth_required", "message": "a key is needed"}', 401)
                node.answer(f"{path}/logs", '{"error": "auth_required", "message": "a key is needed"}', 401)
                node.answer(path, '{"error": "auth_required", "message": "a key is needed"}', 401)
            announcing(lookup, node.url)
            ran = gaffer("-L", lookup.url, *words)
            assert node.requests
            assert key not in str(node.requests)
            assert "GAFFER_NODES" in ran.out + ran.err
            assert node.url.partition("://")[2] in ran.out + ran.err


@pytest.mark.parametrize("words", ASK)
def test_a_key_goes_to_the_nodes_that_the_user_gave(
    gaffer: Commands, key: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "gaffer.ini"
    monkeypatch.setenv("GAFFER_CONFIG", str(config))
    with answering_server() as lookup, answering_server() as node:
        announcing(lookup, node.url)
        port = node.url.rpartition(":")[2]
        for content, environ, options in (
            ("[client]\nnodes = *.example.com, 127.0.0.0/8\n", {}, []),
            (f'[node "{node.url}"]\n', {}, []),
            (f"[client]\nendpoint = {node.url}/\n", {}, []),
            ("", {"GAFFER_NODES": f"127.0.0.1:{port}"}, []),
            ("", {"GAFFER_ENDPOINT": node.url}, []),
            ("", {}, ["-g", node.url]),
        ):
            config.write_text(content)
            with monkeypatch.context() as patch:
                for name, value in environ.items():
                    patch.setenv(name, value)
                gaffer("-L", lookup.url, *options, *words)
            assert key in str(node.requests), (content, environ, options)
            node.requests.clear()
        config.write_text("[client]\nnodes = *.example.com, 10.0.0.0/24\n")
        gaffer("-L", lookup.url, *words)
        assert key not in str(node.requests)


def test_a_listed_node_gets_no_key_over_plain_http_unless_insecure(
    gaffer: Commands, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering_server() as lookup, answering_server(host=own_address()) as node:
        node.answer("/drain", '{"draining": true, "drained": true, "processes": 0}')
        announcing(lookup, node.url)
        monkeypatch.setenv("GAFFER_NODES", own_address())
        ran = gaffer("-L", lookup.url, "drain", "web1")
        assert (ran.status, node.requests) == (1, [])
        assert "--insecure" in ran.err
        assert gaffer("-L", lookup.url, "drain", "web1", "--insecure").status == 0
        assert key in str(node.requests)


def test_a_wrong_list_is_told(gaffer: Commands, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering_server() as lookup:
        announcing(lookup, "http://10.255.255.1")
        monkeypatch.setenv("GAFFER_NODES", "*")
        ran = gaffer("-L", lookup.url, "drain", "web1")
        assert ran.status == 2
        assert "GAFFER_NODES" in ran.err


def test_a_socket_of_this_host_is_not_opened_because_somebody_announces_it(gaffer: Commands, tmp_path: Path) -> None:
    path = tmp_path / "gafferd.sock"
    with gafferd("--bind", f"unix:{path}") as node, answering_server() as lookup:
        announcing(lookup, f"unix:{path}")
        for words in ASK:
            gaffer("-L", lookup.url, *words)
        ran = gaffer("-L", lookup.url, "drain", "web1")
        assert ran.status == 1
        assert "is not a valid announced address" in ran.err
        assert "drain" not in node.stderr
        assert '"draining": false' in gaffer("-g", f"unix:{path}", "drain", "--undo", "--json").out


def test_a_lookup_elsewhere_does_not_name_loopback_addresses(gaffer: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering_server(host=own_address()) as lookup, answering_server() as node:
        node.answer("/drain", '{"draining": true, "drained": true, "processes": 0}')
        announcing(lookup, node.url)
        ran = gaffer("-L", lookup.url, "drain", "web1")
        assert (ran.status, node.requests) == (1, [])
        assert "is an address of this host" in ran.err
        announcing(lookup, node.url.replace("127.0.0.1", "localhost"))
        assert gaffer("-L", lookup.url, "drain", "web1").status == 1
        assert node.requests == []
        announcing(lookup, node.url)
        monkeypatch.setenv("GAFFER_NODES", "127.0.0.1")
        assert gaffer("-L", lookup.url, "drain", "web1").status == 0


HOSTILE = "n\x9b2J\u202e\x1b[2J\x7f\u2028"


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "json"])
def test_names_and_messages_of_others_do_not_steer_the_terminal(gaffer: Commands, options: list[str]) -> None:
    node = {"name": HOSTILE, "origin": "http://x", "version": HOSTILE, "labels": {HOSTILE: HOSTILE}, "status": HOSTILE}
    job = {"name": f"s.{HOSTILE}", "sources": [{"name": HOSTILE, "pids": [1], "node_info": node}]}
    with answering_server() as lookup:
        lookup.answer("/nodes", msgspec.json.encode({"nodes": [node]}))
        lookup.answer("/jobs", msgspec.json.encode({"nb_jobs": 1, "jobs": [job]}))
        lookup.answer("/findJob", msgspec.json.encode({"sources": job["sources"]}))
        refusal = {"error": "no", "message": HOSTILE, "hint": HOSTILE, "path": HOSTILE}
        lookup.answer("/sessions", msgspec.json.encode(refusal), 400)
        for words in (["lookup:nodes"], ["lookup:jobs"], ["lookup:job", "s.w"], ["why", "s.w"], ["lookup:sessions"]):
            ran = gaffer("-L", lookup.url, *options, *words)
            assert ran.out + ran.err
            assert all(char.isprintable() or char == "\n" for char in ran.out + ran.err), words


def test_a_certificate_of_the_users_authority_is_enough(gaffer: Commands, key: str, tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    cacert = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(cacert)
    with answering_server() as lookup, answering_server(context) as node:
        announcing(lookup, node.url)
        ran = gaffer("-L", lookup.url, "drain", "web1")
        assert (ran.status, node.requests) == (3, [])
        gaffer("-L", lookup.url, "drain", "web1", "--cacert", cacert)
        assert key in str(node.requests)
    stranger = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    stranger.issue_cert("127.0.0.1").configure_cert(context)
    with answering_server() as lookup, answering_server(context) as node:
        announcing(lookup, node.url)
        ran = gaffer("-L", lookup.url, "drain", "web1", "--cacert", cacert)
        assert (ran.status, node.requests) == (3, [])
