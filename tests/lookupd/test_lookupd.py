"""The installed gaffer_lookupd: what it serves, whom it lets in, how it starts and stops."""

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme
import websocket

from gaffer.errors import ConfigError
from gaffer.runtime.keyfile import new_key
from gaffer.schemas.messages import MAX_FIRST_MESSAGE_SIZE
from gaffer_lookupd.config import make_settings, parse_options
from support.daemons import Daemon, clean_env, command_path, lookupd, run_command
from support.event_source import event_source
from support.peer import Peer, peer
from support.poll import eventually

KEY = "gk_the-cluster-key-of-these-tests"


@pytest.fixture(scope="module")
def server() -> Iterator[Daemon]:
    with lookupd("--ttl", "3", "--interval", "1") as running:
        yield running


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    path = tmp_path / "cluster.key"
    path.write_text(KEY + "\n")
    path.chmod(0o600)
    return str(path)


def get(server: Daemon, path: str, **options: Any) -> requests.Response:
    return requests.get(server.url + path, timeout=10, **options)


def statuses(server: Daemon) -> dict[str, str]:
    return {node["name"]: node["status"] for node in get(server, "/nodes").json()["nodes"]}


# Queries


@pytest.mark.row("LP-30", "LP-31", "LP-32", "LK-01")
def test_welcome_ping_and_version(server: Daemon) -> None:
    welcome = get(server, "/").json()
    assert welcome["welcome"] == "gaffer-lookupd"
    assert get(server, "/version").json() == {"version": welcome["version"]}
    assert get(server, "/ping").text == "OK"
    assert requests.head(server.url + "/ping", timeout=10).status_code == 200


def test_health_counts_what_there_is() -> None:
    with lookupd() as server, peer(server.url) as first, peer(server.url) as second:
        first.identify("n1", id="a1")
        first.ask("SNAPSHOT", seq=1, jobs={"s.a": [], "s.b": []})
        second.identify("n2", id="a2")
        second.close()
        eventually(lambda: get(server, "/health").json()["suspect"] == 1)
        health = get(server, "/health").json()
        assert health.pop("uptime") > 0
        assert health.pop("version") == get(server, "/version").json()["version"]
        assert health == {
            "status": "ok",
            "connections": 1,
            "nodes": 2,
            "suspect": 1,
            "jobs": 2,
            "tombstones": 0,
            "lost": 0,
            "warming": False,
            "followers": 0,
            "displaced": 0,
        }
        metrics = get(server, "/metrics").text.splitlines()
        assert 'gaffer_lookupd_nodes{status="suspect"} 1' in metrics
        assert "gaffer_lookupd_jobs 2" in metrics


def test_it_describes_its_api(server: Daemon) -> None:
    document = get(server, "/openapi.json").json()
    assert document["paths"]["/findJob"]["get"]["parameters"][0]["required"] is True
    assert "404" in document["paths"]["/nodes/{node_id}"]["delete"]["responses"]


@pytest.mark.row("LK-02", "LK-08", "LP-05", "LP-33", "LP-34", "LP-35", "LP-36", "LP-37", "LP-38")
def test_what_a_peer_announces_is_answered(server: Daemon) -> None:
    with peer(server.url) as node:
        node.identify("web1")
        node.ask("REGISTER_JOB", job_name="shop.web")
        node.ask("REGISTER_PROCESS", job_name="shop.web", pid=4)
        (source,) = get(server, "/findJob?name=shop.web").json()["sources"]
        assert (source["name"], source["pids"]) == ("web1", [4])
        assert source["node_info"]["origin"] == "http://web1:5000"
        assert get(server, "/findJob?name=shop/web").json()["sources"][0]["pids"] == [4]
        assert get(server, "/findSession?sessionid=shop").json()["nb_jobs"] == 1
        assert get(server, "/jobs").json()["jobs"][0]["name"] == "shop.web"
        assert get(server, "/sessions").json()["sessions"][0]["sessionid"] == "shop"
        assert get(server, "/sessions/web1").json()["nb_sessions"] == 1
        assert get(server, "/sessions/web2").json()["nb_sessions"] == 0
        assert "web1" in statuses(server)
    eventually(lambda: "web1" not in statuses(server))


@pytest.mark.row("LP-37", "LP-38")
@pytest.mark.parametrize("path", ["/findJob", "/findSession", "/findJob?name="])
def test_a_missing_parameter_is_an_error(server: Daemon, path: str) -> None:
    answer = get(server, path)
    assert answer.status_code == 400
    assert set(answer.json()) == {"error", "errno", "message", "path", "hint"}


@pytest.mark.parametrize(
    ("method", "path", "status", "error"),
    [
        ("GET", "/nope", 404, "not_found"),
        ("POST", "/nodes", 405, "method_not_allowed"),
        ("GET", "/ws", 400, "bad_request"),
        ("GET", "/sessions/%ff", 400, "bad_request"),
    ],
)
def test_errors_have_the_one_body(server: Daemon, method: str, path: str, status: int, error: str) -> None:
    answer = requests.request(method, server.url + path, timeout=10)
    assert (answer.status_code, answer.json()["error"]) == (status, error)


# Leases


def test_a_killed_node_is_suspect_at_once_and_expires(server: Daemon) -> None:
    with peer(server.url) as node:
        node.identify("n1", id="a1", incarnation=1)
    eventually(lambda: statuses(server).get("n1") == "suspect", timeout=1)
    eventually(lambda: "n1" not in statuses(server), timeout=5)


def test_a_silent_node_is_suspect_then_expired_and_its_connection_closed(server: Daemon) -> None:
    with peer(server.url) as node:
        assert node.identify("n2", id="a2")["ttl"] == 3
        eventually(lambda: statuses(server).get("n2") == "suspect", timeout=4)
        eventually(lambda: "n2" not in statuses(server), timeout=4)
        assert node.is_closed()


def test_a_node_that_has_identified_itself_can_send_large_messages(server: Daemon) -> None:
    jobs = {f"shop.job{number}": [{"pid": number, "state": "ready", "endpoints": []}] for number in range(1, 3000)}
    assert len(json.dumps(jobs)) > MAX_FIRST_MESSAGE_SIZE
    with peer(server.url) as node:
        assert node.identify("large", id="large")["ok"]
        assert node.ask("SNAPSHOT", seq=1, jobs=jobs)["ok"]
    with peer(server.url) as stranger:
        stranger.send(json.dumps({"msgid": "1", "type": "SNAPSHOT", "seq": 1, "jobs": jobs}))
        assert stranger.is_closed()


def test_the_session_that_was_replaced_is_closed_and_touches_nothing(server: Daemon) -> None:
    with peer(server.url) as old, peer(server.url) as new:
        old.identify("n3", id="a3", incarnation=1)
        new.identify("n3", id="a3", incarnation=2)
        assert old.is_closed()
        new.ask("PING")
        assert statuses(server)["n3"] == "alive"
        assert new.ask("LEAVE") == {"ok": True}
        assert new.is_closed()
        assert "n3" not in statuses(server)


def test_a_node_with_nothing_but_a_connection_is_not_listed(server: Daemon) -> None:
    with peer(server.url) as node:
        assert node.ask("PING") == {"ok": True}
        assert None not in statuses(server)


def test_after_a_pause_of_lookupd_nobody_is_removed() -> None:
    with lookupd("--ttl", "3", "--interval", "1") as server, peer(server.url) as node:
        node.identify("n1", id="a1")
        server.signal(signal.SIGSTOP)
        try:
            with pytest.raises(requests.exceptions.Timeout):
                requests.get(server.url + "/nodes", timeout=5)
        finally:
            server.signal(signal.SIGCONT)
        assert statuses(server) == {"n1": "alive"}


def test_when_most_nodes_go_silent_together_they_are_kept_and_answers_are_stale() -> None:
    with lookupd("--ttl", "3", "--interval", "1") as server, contextlib.ExitStack() as stack:
        peers = [stack.enter_context(peer(server.url)) for _ in range(8)]
        for number, node in enumerate(peers):
            node.identify(f"n{number}", id=f"id{number}")
        began = time.monotonic()
        eventually(lambda: get(server, "/nodes").json()["stale"])
        server.wait_for_line("went silent at once")
        eventually(lambda: time.monotonic() > began + 4)
        assert len(statuses(server)) == 8
        assert get(server, "/health").json()["status"] == "stale"
        for node in peers[:4]:
            node.ask("PING")
        eventually(lambda: not get(server, "/nodes").json()["stale"])
        assert len(statuses(server)) == 8


# Orders of operators


def delete(server: Daemon, node_id: str, **headers: str) -> tuple[int, dict[str, Any]]:
    answer = requests.delete(f"{server.url}/nodes/{node_id}", headers=headers, timeout=10)
    return answer.status_code, answer.json()


def test_an_operator_removes_a_node_that_will_not_come_back(server: Daemon) -> None:
    with peer(server.url) as node:
        node.identify("n9", id="a9", incarnation=4)
        found = get(server, "/nodes/a9").json()
        assert (found["name"], found["status"], found["incarnation"]) == ("n9", "alive", 4)
        assert delete(server, "a9") == (200, {"ok": True})
        assert node.is_closed()
    assert "n9" not in statuses(server)
    assert {"a9": "deleted"}.items() <= {
        t["id"]: t["reason"] for t in get(server, "/nodes").json()["tombstones"]
    }.items()
    status, error = delete(server, "a9")
    assert (status, error["error"]) == (404, "node_not_found")
    assert get(server, "/nodes/a9").status_code == 404


def test_only_the_holder_of_the_cluster_key_and_local_users_remove_nodes(key_file: str) -> None:
    elsewhere = {"X-Forwarded-For": "192.0.2.7"}  # no longer taken for a local user
    with lookupd("--cluster-key-file", key_file) as server:
        for wrong in (elsewhere, {**elsewhere, "Authorization": "Bearer wrong"}):
            status, error = delete(server, "a1", **wrong)
            assert (status, error["error"]) == (401, "auth_required")
        assert delete(server, "a1", **elsewhere, Authorization=f"Bearer {KEY}")[0] == 404
        assert delete(server, "a1")[0] == 404
        assert delete(server, "a1", Origin="http://evil.example")[0] == 403
    with lookupd("--cluster-key-file", key_file, "--require-key") as server:
        assert delete(server, "a1")[0] == 401
        assert delete(server, "a1", **{"X-Api-Key": KEY})[0] == 404


# Who may do what


@pytest.mark.parametrize(
    ("headers", "status", "error"),
    [
        ({"Host": "evil.example"}, 403, "forbidden_host"),
        ({"Host": "localhost:5010"}, 200, None),
        ({"Host": "lookup.example"}, 200, None),
        ({"Origin": "http://evil.example"}, 403, "forbidden_origin"),
        ({"Sec-Fetch-Site": "cross-site"}, 403, "forbidden_origin"),
        ({"Origin": "https://ops.example"}, 200, None),
    ],
)
def test_pages_of_other_sites_can_not_read(headers: dict[str, str], status: int, error: str | None) -> None:
    allowed = ("--allowed-host", "lookup.example", "--allowed-origin", "https://ops.example")
    with lookupd(*allowed) as server:
        answer = get(server, "/nodes", headers=headers)
        assert answer.status_code == status
        assert answer.json().get("error") == error
        shared = answer.headers.get("Access-Control-Allow-Origin")
        assert shared == ("https://ops.example" if "https://ops.example" in headers.values() else None)


def handshake_status(server: Daemon, **options: Any) -> int:
    try:
        Peer(server.url, **options).close()
    except websocket.WebSocketBadStatusException as error:
        return error.status_code
    return 101


def test_pages_of_other_sites_can_not_announce(server: Daemon) -> None:
    own = server.url
    assert handshake_status(server, header=["Origin: http://evil.example"]) == 403
    assert handshake_status(server, header=[f"Origin: {own}"]) == 101
    assert handshake_status(server, header=["Origin: http://evil.example"], host="evil.example") == 403
    assert handshake_status(server, host="any.name.of.this.host") == 101


def test_nodes_need_the_cluster_key_and_readers_do_not(key_file: str) -> None:
    with lookupd("--cluster-key-file", key_file) as server:
        assert handshake_status(server) == 401
        assert handshake_status(server, header=["Authorization: Bearer wrong"]) == 401
        assert "127.0.0.1: rejected a node" in server.wait_for_line("wrong cluster key")
        with peer(server.url, header=[f"Authorization: Bearer {KEY}"]) as node:
            assert node.identify() == {"ok": True}
        assert get(server, "/nodes").status_code == 200


def test_with_require_key_readers_need_it_too(key_file: str) -> None:
    with lookupd("--require-key", env={"GAFFER_CLUSTER_KEY_FILE": key_file}) as server:
        answer = get(server, "/nodes")
        assert (answer.status_code, answer.json()["error"]) == (401, "auth_required")
        assert get(server, "/nodes", headers={"Authorization": f"Bearer {KEY}"}).status_code == 200
        assert get(server, "/nodes", headers={"X-Api-Key": KEY}).status_code == 200
        assert get(server, "/nodes", headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert get(server, "/ping").text == "OK"


def test_readers_have_a_key_of_their_own_that_nodes_can_not_use(tmp_path: Path, key_file: str) -> None:
    reader_key = tmp_path / "reader.key"
    reader_key.write_text("gk_reader")
    reader_key.chmod(0o600)
    headers = {"Authorization": "Bearer gk_reader"}
    options = ("--require-key", "--cluster-key-file", key_file)
    with lookupd(*options, env={"GAFFER_READER_KEY_FILE": str(reader_key)}) as server:
        assert get(server, "/nodes").status_code == 401
        assert get(server, "/nodes", headers=headers).status_code == 200
        assert requests.delete(server.url + "/nodes/a1", headers=headers, timeout=10).status_code == 401
        assert handshake_status(server, header=["Authorization: Bearer gk_reader"]) == 401
        assert handshake_status(server, header=[f"Authorization: Bearer {KEY}"]) == 101
    refused = run_command("gaffer_lookupd", *options, "--reader-key-file", key_file)
    assert (refused.returncode, "cluster key" in refused.stderr) == (2, True)


def test_strangers_can_not_fill_the_log(key_file: str) -> None:
    with lookupd("--cluster-key-file", key_file) as server:
        for number in range(60):
            assert get(server, "/ws", headers={"User-Agent": f"stranger {number}"}).status_code == 401
        lines = server.stderr.splitlines()
        assert 5 < len(lines) < 30
        assert "more warnings about this address" in lines[-1]


def test_followers_without_a_key_leave_room_for_nodes(key_file: str) -> None:
    options = ("--cluster-key-file", key_file, "--log-level=error")
    with contextlib.ExitStack() as stack, lookupd(*options, enter=["prlimit", "--nofile=150:150"]) as server:
        for _ in range(150):
            follower = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 10))
            follower.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        eventually(lambda: get(server, "/health").json()["displaced"] > 100)
        assert get(server, "/health").json()["followers"] < 30
        for number in range(50):
            node = stack.enter_context(peer(server.url, header=[f"Authorization: Bearer {KEY}"]))
            assert node.identify(f"n{number}", id=f"id{number}")["ok"]


def test_peers_that_do_not_identify_themselves_leave_room_for_nodes() -> None:
    with lookupd(enter=["prlimit", "--nofile=150:150"]) as server, contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(peer(server.url))
        assert get(server, "/health").json()["connections"] < 30
        assert stack.enter_context(peer(server.url)).identify() == {"ok": True}


def test_a_peer_has_to_identify_itself_before_it_can_send_much() -> None:
    with lookupd("--log-level=error") as server:
        with peer(server.url) as stranger:
            stranger.send("x" * 70_000)
            assert stranger.is_closed()
        with peer(server.url) as node:
            node.identify(id="a1")
            jobs: dict[str, list[Any]] = {f"s.j{number}": [] for number in range(9000)}
            assert node.ask("SNAPSHOT", seq=1, jobs=jobs) == {"ok": True}


# After a start


def test_a_lookupd_that_has_just_started_says_so_and_lets_others_keep_what_they_have() -> None:
    with lookupd("--warmup=2") as server, peer(server.url) as node:
        node.identify(id="a1")
        node.ask("SNAPSHOT", seq=1, jobs={"shop.web": []})
        for path in ("/nodes", "/jobs", "/sessions", "/findJob?name=shop.web", "/findSession?sessionid=shop"):
            answer = get(server, path).json()
            assert (answer["stale"], answer["warming"]) == (True, True)
        for path in ("/prometheus/sd", "/upstreams/shop.web", "/upstreams/shop.web?format=nginx"):
            answer = get(server, path)
            assert answer.status_code == 503
            assert 1 <= int(answer.headers["Retry-After"]) <= 2
            assert answer.text == "" if path.endswith("web") else answer.json()["error"] == "warming"
        assert get(server, "/upstreams/shop.web?format=yaml").status_code == 400
        assert get(server, "/health").json()["status"] == "warming"
        with event_source(server.url + "/events") as events:
            assert events.next().data["warming"] is True
            event = events.next()
            while event.event != "stale":
                event = events.next()
            assert event.data == {"event": "stale", "stale": False, "warming": False}
        assert get(server, "/upstreams/shop.web").status_code == 200
        assert get(server, "/findJob?name=shop.web").json()["stale"] is False
        assert get(server, "/health").json()["status"] == "ok"


# What nodes can announce


@pytest.mark.parametrize(
    "origin",
    ["unix:/run/gafferd.sock", "http://n1/", "http://u:p@n1", "http://[fe80::1%25x]:80", "http://n1:0", "n1", ""],
)
def test_an_origin_is_the_address_of_a_web_server(server: Daemon, origin: str) -> None:
    with peer(server.url) as node:
        refused = node.identify("odd", id="odd", origin=origin)
        assert (refused["errno"], refused["reason"]) == (400, "invalid_message")
        assert node.ask("SNAPSHOT", seq=1, jobs={})["errno"] == 404
        assert node.identify("odd", id="odd", origin="https://[fd00::1]:5000")["ok"]


@pytest.mark.parametrize(
    "address", ["10.0.0.7; } evil {", "", "a b", "fe80::1%x\n10.6.6.6:80\n", "host:80", "[::1]", "-x", "127.1", "1"]
)
def test_an_endpoint_has_a_host_name_or_an_address_without_scope(server: Daemon, address: str) -> None:
    process = {"pid": 1, "state": "ready", "endpoints": [{"name": "http", "address": address, "port": 80}]}
    with peer(server.url) as node:
        node.identify("odd", id="odd")
        assert node.ask("SNAPSHOT", seq=1, jobs={"s.odd": []})["ok"]
        assert node.ask("REGISTER_PROCESS", job_name="s.odd", seq=2, **process)["errno"] == 400
        assert node.ask("SNAPSHOT", seq=2, jobs={"s.odd": [process]})["errno"] == 400
        assert get(server, "/upstreams/s.odd").text == ""


@pytest.mark.parametrize("spelling", ["web", "default.web", "default/web", "default:web"])
def test_a_job_is_found_by_every_spelling_of_its_name_whichever_the_node_uses(server: Daemon, spelling: str) -> None:
    with peer(server.url) as node:
        node.identify("old")
        node.ask("REGISTER_JOB", job_name=spelling)
        assert node.ask("REGISTER_PROCESS", job_name=spelling, pid=1) == {"ok": True}
        for name in ("web", "default.web"):
            assert len(get(server, f"/findJob?name={name}").json()["sources"]) == 1
        assert get(server, "/findSession?sessionid=default").json()["jobs"][0]["name"] == "default.web"


@pytest.mark.row("LK-06", "CL-83")
def test_tls_and_client_certificates(tmp_path: Path) -> None:
    authority = trustme.CA()
    own, client = authority.issue_cert("127.0.0.1"), authority.issue_cert("node1")
    paths = {name: str(tmp_path / name) for name in ("ca", "cert", "client")}
    authority.cert_pem.write_to_path(paths["ca"])
    own.private_key_and_cert_chain_pem.write_to_path(paths["cert"])
    client.private_key_and_cert_chain_pem.write_to_path(paths["client"])
    with lookupd("--certfile", paths["cert"]) as server:
        assert server.url.startswith("https://")
        assert get(server, "/ping", verify=paths["ca"]).text == "OK"
    with lookupd("--certfile", paths["cert"], "--cacert", paths["ca"]) as server:
        with pytest.raises((requests.exceptions.SSLError, requests.exceptions.ConnectionError)):
            get(server, "/ping", verify=paths["ca"])
        assert get(server, "/ping", verify=paths["ca"], cert=paths["client"]).text == "OK"
        context = ssl.create_default_context(cafile=paths["ca"])
        context.load_cert_chain(paths["client"])
        with peer(server.url, sslopt={"context": context}) as node:
            assert node.identify() == {"ok": True}


# Starting and stopping


@pytest.mark.row("LK-04", "CL-81")
def test_endpoints(tmp_path: Path) -> None:
    path = tmp_path / "lookupd.sock"
    with lookupd(f"--bind=127.0.0.1:0,[::1]:0,unix:{path}") as server:
        server.wait_for_line("listening on unix:")
        assert [url.rpartition(":")[0] for url in server.urls[:2]] == ["http://127.0.0.1", "http://[::1]"]
        for url in server.urls[:2]:
            assert requests.get(url + "/ping", timeout=10).text == "OK"
        assert path.is_socket()
    assert not path.exists()


def test_connections_may_take_nearly_all_descriptors() -> None:
    with lookupd(enter=["prlimit", "--nofile=50:200"]) as server, contextlib.ExitStack() as stack:
        for number in range(120):
            stack.enter_context(peer(server.url)).identify(f"n{number}")
        assert len(statuses(server)) == 120


@pytest.mark.row("LK-04", "LK-05", "CL-81", "CL-82")
def test_where_it_listens_unless_told_otherwise() -> None:
    settings = make_settings(parse_options([]), {})
    assert (settings.bind, settings.backlog, settings.tls) == (("0.0.0.0:5010",), 128, None)
    assert (settings.lease.ttl, settings.lease.interval, settings.cluster_key) == (45.0, 15.0, None)


@pytest.mark.parametrize(
    "flag", ["--certfile", "--keyfile", "--cacert", "--ttl", "--backlog", "--log-level", "--allowed-host", "--pidfile"]
)
def test_a_flag_whose_value_is_empty_is_refused(flag: str) -> None:
    with pytest.raises(ConfigError) as error:
        make_settings(parse_options([f"{flag}="]), {})
    assert [problem.path for problem in error.value.problems] == [flag]


def test_an_empty_flag_with_a_variable_leaves_the_choice_to_it(key_file: str) -> None:
    settings = make_settings(parse_options(["--cluster-key-file="]), {"GAFFER_CLUSTER_KEY_FILE": key_file})
    assert settings.cluster_key == Path(key_file).read_text().strip()


def test_it_warns_when_anyone_may_announce(key_file: str) -> None:
    with lookupd("--bind", "0.0.0.0:0") as server:
        server.wait_for_line("--cluster-key-file")
    with lookupd("--bind", "0.0.0.0:0", "--cluster-key-file", key_file) as server:
        assert get(server, "/ping").text == "OK"
        assert "WARNING" not in server.stderr
    with lookupd() as server:
        assert get(server, "/ping").text == "OK"
        assert "WARNING" not in server.stderr


@pytest.mark.row("LK-07")
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_signals_and_pidfile(tmp_path: Path, signum: signal.Signals) -> None:
    pidfile = tmp_path / "lookupd.pid"
    with lookupd("--pidfile", str(pidfile)) as server, peer(server.url) as node:
        node.identify()
        assert int(pidfile.read_text()) == server.pid
        server.signal(signal.SIGHUP)
        assert node.ask("PING") == {"ok": True}
        server.signal(signum)
        assert node.is_closed()
        server.signal(signum)
        assert server.wait() == 0
        assert not pidfile.exists()


@pytest.mark.row("LK-03", "CL-80")
def test_it_goes_to_the_background_once_it_listens(tmp_path: Path) -> None:
    pidfile = tmp_path / "lookupd.pid"
    log = tmp_path / "lookupd.log"
    options = ["--daemon", "--bind=127.0.0.1:0", f"--pidfile={pidfile}", f"--error-log={log}", "--log-level=debug"]
    starter = Daemon("gaffer_lookupd", *options)
    assert starter.wait() == 0
    try:
        assert requests.get(starter.url + "/ping", timeout=10).text == "OK"
        eventually(lambda: "GET /ping" in log.read_text())
        assert int(pidfile.read_text()) != starter.pid
    finally:
        os.kill(int(pidfile.read_text()), signal.SIGTERM)
    eventually(lambda: not pidfile.exists())


@pytest.mark.row("LK-03", "CL-80")
def test_help_and_version() -> None:
    shown = run_command("gaffer_lookupd", "--help")
    assert shown.returncode == 0
    options = (
        "--daemon --pidfile --bind --backlog --certfile --keyfile --cacert --ttl --interval -v --version --error-log"
    )
    assert [option for option in options.split() if option not in shown.stdout] == []
    assert run_command("gaffer_lookupd", "--version").stdout.startswith("gaffer_lookupd ")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        pytest.param(["--intervall=3"], "--interval", id="unknown option"),
        pytest.param(["--bogus"], "--bogus", id="another unknown option"),
        pytest.param(["--ttl"], "--ttl", id="option without its value"),
        pytest.param(["there"], "--help", id="unexpected argument"),
        pytest.param(["--backlog=many"], "--backlog", id="backlog", marks=pytest.mark.row("LK-05", "CL-82")),
        pytest.param(["--ttl=soon"], "--ttl", id="ttl"),
        pytest.param(["--ttl=20"], "--interval", id="ttl below two intervals"),
        pytest.param(["--bind=host:port"], "--bind", id="port"),
        pytest.param(["--loop=fast"], "uvloop", id="loop"),
        pytest.param(["--log-level=loud"], "--log-level", id="log level"),
        pytest.param(["--require-key"], "--reader-key-file", id="no key to require"),
        pytest.param(["--cluster-key-file=/nonexistent"], "/nonexistent", id="no key file"),
        pytest.param(["--reader-key-file=/nonexistent"], "/nonexistent", id="no reader key file"),
        pytest.param(["--warmup=-1"], "0 to --ttl (45)", id="warmup below 0"),
        pytest.param(["--warmup=soon"], "--warmup", id="warmup"),
        pytest.param(["--ttl=30", "--warmup=31"], "0 to --ttl (30)", id="warmup above ttl"),
        pytest.param(["--keyfile=/nonexistent"], "--certfile", id="no cert", marks=pytest.mark.row("LK-06")),
        pytest.param(["--certfile=/nonexistent"], "/nonexistent", id="no file", marks=pytest.mark.row("LK-06")),
        pytest.param(["--allowed-origin=ops"], "ops", id="origin"),
    ],
)
def test_a_wrong_command_line_is_explained(args: list[str], said: str) -> None:
    done = run_command("gaffer_lookupd", *args)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_all_mistakes_are_named_at_once() -> None:
    done = run_command("gaffer_lookupd", "--ttl=0", "--backlog=0", "--loop=x")
    assert [option for option in ("--ttl", "--backlog", "--loop") if option not in done.stderr] == []


def test_a_wrong_variable_is_reported_by_its_name() -> None:
    done = run_command("gaffer_lookupd", env={"GAFFER_READER_KEY_FILE": "/nonexistent"})
    assert done.returncode == 2
    assert done.stderr.startswith("gaffer_lookupd: GAFFER_READER_KEY_FILE: can't read the key file /nonexistent")


def test_a_mistake_is_reported_without_others_that_follow_from_it() -> None:
    done = run_command("gaffer_lookupd", "--ttl=soon", "--interval=30", "--bind=host:port")
    assert [line.split(": ")[1] for line in done.stderr.splitlines()] == ["--bind", "--ttl"]


def test_an_address_in_use_is_explained(server: Daemon) -> None:
    done = run_command("gaffer_lookupd", f"--bind=127.0.0.1:{server.port}")
    assert done.returncode == 1
    assert "can't listen" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_log_file_that_can_not_be_written_is_explained() -> None:
    done = run_command("gaffer_lookupd", "--error-log=/nonexistent/log")
    assert done.returncode == 1
    assert "/nonexistent/log" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_daemon_that_can_not_start_says_so(server: Daemon) -> None:
    done = subprocess.run(
        [command_path("gaffer_lookupd"), "--daemon", f"--bind=127.0.0.1:{server.port}"],
        env=clean_env(),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 1
    assert "can't listen" in done.stderr


@pytest.mark.parametrize(
    ("key", "mode", "bind", "complaint"),
    [
        ("abc", 0o600, "127.0.0.1:0", "easy to guess"),
        ("gk_cluster", 0o600, "0.0.0.0:0", "fewer than 128 random bits"),
        pytest.param(new_key(), 0o622, "127.0.0.1:0", "everyone can write to it", id="writable"),
    ],
)
def test_a_cluster_key_that_is_no_secret_is_refused(
    tmp_path: Path, key: str, mode: int, bind: str, complaint: str
) -> None:
    path = tmp_path / "cluster.key"
    path.write_text(key)
    path.chmod(mode)
    done = run_command("gaffer_lookupd", "--bind", bind, "--cluster-key-file", str(path))
    assert done.returncode == 2
    assert complaint in done.stderr
