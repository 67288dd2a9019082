"""TLS and keys between nodes, lookupd and clients; nobody who is refused disturbs who is there."""

import contextlib
import datetime
import json
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trustme

from gaffer_client import Lookup, Server
from support.daemons import Daemon, gafferd, lookupd, run_command
from support.poll import eventually

LONG_AGO = datetime.datetime(2019, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True)
class Files:
    """PEM files: authorities, and certificates with their keys, in one file and in two; keys of cluster and API."""

    folder: Path

    def __getattr__(self, name: str) -> str:
        return str(self.folder / name)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    files = Files(tmp_path_factory.mktemp("pki"))
    authority, other = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(files.ca)
    other.cert_pem.write_to_path(files.other_ca)
    soon_after = LONG_AGO + datetime.timedelta(days=1)
    for name, certificate in {
        "server": authority.issue_cert("127.0.0.1"),
        "elsewhere": authority.issue_cert("elsewhere.example"),
        "client": authority.issue_cert("client.example"),
        "foreign": other.issue_cert("client.example"),
        "expired": authority.issue_cert("client.example", not_before=LONG_AGO, not_after=soon_after),
    }.items():
        certificate.private_key_and_cert_chain_pem.write_to_path(files.folder / name)
        certificate.private_key_pem.write_to_path(files.folder / f"{name}_key")
        certificate.cert_chain_pems[0].write_to_path(files.folder / f"{name}_cert")
    for name in ("cluster_key", "wrong_key", "api_key"):
        path = files.folder / name
        path.write_text(f"this is the {name}".replace(" ", "-"))
        path.chmod(0o600)
    return files


def nodes(registry: Daemon, files: Files) -> list[dict[str, Any]]:
    with Lookup(registry.url, cacert=files.ca, certfile=files.client) as lookup:
        return [dict(node) for node in lookup.nodes()["nodes"]]


@pytest.mark.row("GD-14", "CL-07", "CL-09", "CL-83", "LK-06", "LP-25")
def test_all_speak_tls_and_show_certificates_and_keys(files: Files) -> None:
    """Every file in a place of its own, on the command line and in the library."""
    with (
        lookupd(
            *("--certfile", files.server_cert, "--keyfile", files.server_key, "--cacert", files.ca),
            *("--cluster-key-file", files.cluster_key, "--require-key"),
        ) as registry,
        gafferd(
            *("--certfile", files.server_cert, "--keyfile", files.server_key, "--api-key-file", files.api_key),
            *("--lookupd-address", registry.url, "--node-name", "one", "--cluster-key-file", files.cluster_key),
            *("--cacert", files.ca, "--client-certfile", files.client_cert, "--client-keyfile", files.client_key),
        ) as node,
    ):
        assert registry.url.startswith("https://")
        assert node.url.startswith("https://")
        shown = ("--cacert", files.ca, "--certfile", files.client_cert, "--keyfile", files.client_key)
        keys = {"GAFFER_CLUSTER_KEY_FILE": files.cluster_key, "GAFFER_API_KEY_FILE": files.api_key}

        def gaffer(*args: str) -> str:
            ran = run_command("gaffer", "-L", registry.url, "-g", node.url, *shown, *args, env=keys)
            assert (ran.returncode, ran.stderr) == (0, "")
            return ran.stdout

        with Server(node.url, cacert=files.ca, api_key=Path(files.api_key).read_text()) as server:
            server.load({"name": "web", "cmd": "sleep 1000", "port": "auto"}, "shop")
        eventually(lambda: node.url in gaffer("lookup:nodes"))
        (source,) = json.loads(gaffer("lookup:job", "shop.web", "--json"))["sources"]
        assert source["node_info"]["origin"] == node.url
        assert "is drained" in gaffer("drain", "one", "--wait")
        ctl = run_command("gafferctl", "--connect", node.url, "--cacert", files.ca, "processes", env=keys)
        assert (ctl.returncode, ctl.stdout) == (0, "shop.web\n")


REFUSED = {
    # what it does wrong: its options, what lookupd logs, what it logs itself
    "no certificate": (
        (),
        "127.0.0.1.*: it presented no certificate",
        "TLS failed: (it requires a certificate|connection closed; the lookupd may require a certificate)",
    ),
    "another authority": (
        ("--client-certfile", "foreign"),
        "127.0.0.1.*: its certificate was rejected: unable to get local issuer certificate",
        "TLS failed: (it does not trust the authority|connection closed)",
    ),
    "an old certificate": (
        ("--client-certfile", "expired"),
        "127.0.0.1.*: its certificate was rejected: certificate has expired",
        "TLS failed: (the certificate presented to it has expired|connection closed)",
    ),
    "no key": (
        ("--client-certfile", "client"),
        r"127.0.0.1: rejected node 'gafferd/[0-9.]+ \(one\)': no cluster key",
        "401: cluster key required; set --cluster-key-file",
    ),
    "a wrong key": (
        ("--client-certfile", "client", "--cluster-key-file", "wrong_key"),
        r"127.0.0.1: rejected node 'gafferd/[0-9.]+ \(one\)': wrong cluster key",
        "401: cluster key required; set --cluster-key-file",
    ),
}


@pytest.mark.row("LP-25", "LK-06")
def test_refused_nodes_are_told_why_and_disturb_nobody(files: Files) -> None:
    """They all have the name of the node that is there; it stays connected, and is no conflict."""
    with contextlib.ExitStack() as running:
        registry = running.enter_context(
            lookupd(
                *("--certfile", files.server, "--cacert", files.ca, "--cluster-key-file", files.cluster_key),
                *("--ttl", "2", "--interval", "0.5"),
            )
        )
        common = ("--lookupd-address", registry.url, "--node-name", "one", "--cacert", files.ca)
        accepted = ("--client-certfile", files.client, "--cluster-key-file", files.cluster_key)
        good = running.enter_context(gafferd(*common, *accepted))
        (there,) = eventually(lambda: nodes(registry, files))
        bad = {
            what: running.enter_context(gafferd(*common, *(getattr(files, o) if o[0] != "-" else o for o in options)))
            for what, (options, _, _) in REFUSED.items()
        }

        def logged(pattern: str) -> re.Match[str] | None:
            return re.search(pattern, registry.stderr)

        for what, (_, at_lookupd, at_node) in REFUSED.items():
            eventually(partial(logged, at_lookupd), message=what)
            warning = bad[what].wait_for_line(f"WARNING gafferd.announce.link: lookupd {registry.url}: ")
            assert re.search(at_node, warning), warning
            assert "reconnecting" in warning
        (still,) = nodes(registry, files)
        for key in ("id", "incarnation", "origin", "status", "conflict"):
            assert still[key] == there[key]
        assert registry.stderr.count("'one' at") == 1, "it came and went"
        assert "reconnecting" not in good.stderr
        for text in (registry.stderr, *(node.stderr for node in bad.values())):
            assert "tornado.general" not in text
            assert "this-is-the" not in text, "a key was logged"


def test_servers_that_are_not_who_they_should_be(files: Files) -> None:
    """Neither a node nor a client goes on when the certificate is of another authority, or for another host."""
    with (
        lookupd("--certfile", files.server) as registry,
        lookupd("--certfile", files.elsewhere) as elsewhere,
        gafferd("--lookupd-address", registry.url, "--cacert", files.other_ca) as suspicious,
        gafferd("--lookupd-address", elsewhere.url, "--cacert", files.ca) as mistaken,
    ):
        line = suspicious.wait_for_line("reconnecting")
        assert "TLS failed: its certificate was rejected: " in line
        line = mistaken.wait_for_line("reconnecting")
        assert "certificate is not valid for '127.0.0.1'" in line
        for url, authority in ((registry.url, files.other_ca), (elsewhere.url, files.ca)):
            ran = run_command("gaffer", "-L", url, "--cacert", authority, "lookup:nodes")
            assert (ran.returncode, ran.stdout) == (3, "")
            assert f"can't reach {url}: TLS failed: " in ran.stderr
            assert "its certificate was rejected: " in ran.stderr
            assert "_ssl.c" not in ran.stderr
            assert "Traceback" not in ran.stderr
        assert "'gaffer' at" not in registry.stderr + elsewhere.stderr


def test_plain_http_and_tls_do_not_mix(files: Files) -> None:
    with lookupd("--certfile", files.server) as registry:
        with gafferd("--lookupd-address", registry.url.replace("https", "http")) as node:
            assert "127.0.0.1" in registry.wait_for_line(": it sent plain HTTP")
            node.wait_for_line("reconnecting")
        ran = run_command("gaffer", "-L", registry.url.replace("https", "http"), "lookup:nodes")
        assert (ran.returncode, ran.stdout) == (3, "")


def test_on_a_unix_socket_no_certificate_is_needed(files: Files, tmp_path: Path) -> None:
    node_socket, lookupd_socket = f"unix:{tmp_path / 'gafferd'}", f"unix:{tmp_path / 'lookupd'}"
    with (
        gafferd(
            *("--bind", f"127.0.0.1:0,{node_socket}", "--certfile", files.server, "--api-key-file", files.api_key)
        ) as node,
        lookupd("--bind", f"127.0.0.1:0,{lookupd_socket}", "--certfile", files.server, "--cacert", files.ca),
    ):
        for url, status in ((node_socket, 0), (node.urls[-1], 0), (node.url, 3)):
            assert run_command("gafferctl", "--connect", url, "processes").returncode == status
        assert run_command("gaffer", "-L", lookupd_socket, "lookup:nodes").returncode == 0
