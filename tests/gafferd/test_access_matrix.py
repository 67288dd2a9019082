"""Who may do what: every route of a gafferd, called by everybody who should be refused, and by those who should not.

What is expected is read off the route table, so that a new route is tested as soon as it is in it.
"""

import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
from tornado.websocket import WebSocketHandler

from gaffer import http_handler
from gaffer.http.access import Scope
from gaffer.http.routes import DEFERRED, PUBLIC, Open, Route
from gaffer.runtime.keyfile import new_key
from gafferd import routes
from support.daemons import gafferd
from support.needs import needs_root
from support.poll import eventually
from support.strangers import stranger

ROUTES = [*http_handler.ROUTES, *routes.ROUTES]

CALLS = [(route, method) for route in ROUTES for method in sorted({*route.methods, *({"HEAD"} & set(route.allowed))})]

# The session of the limited key, and one that it is not for. The name of the job there must never reach it.
OWN, OTHER, SECRET = "blog", "shop", "s3cret"
PASSWORD = "hunter2"  # a value of the environment of both
JOBS = {OWN: "web", OTHER: SECRET}

# A parameter in a pattern and what the tests put there; sessions, jobs and pids come with the target.
PARAMETERS = {"label": "out", "signal": "CONT", "count": "1", "resource": "_nope", "stream": "out", "id": "0"}
ABSENT = {"sid": "absent", "job": "absent", "name": "absent.absent", "pid": "999999"}

HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}

Refusal = tuple[int, str]

AUTH_REQUIRED = (401, "auth_required")
FORBIDDEN = (403, "forbidden")
TOKEN_REQUIRED = (403, "token_required")
FORBIDDEN_ORIGIN = (403, "forbidden_origin")
FORBIDDEN_HOST = (403, "forbidden_host")
UNSUPPORTED = (415, "unsupported_media_type")


class Answer(NamedTuple):
    """A response: its status, and the body as far as it came at once."""

    status: int
    headers: str
    body: bytes

    @property
    def error(self) -> str | None:
        """The code of an error body, None for what is none."""
        try:
            return str(json.loads(self.body)["error"])
        except (ValueError, KeyError, TypeError):
            return None

    @property
    def refusal(self) -> tuple[int, str | None]:
        return self.status, self.error

    @property
    def is_for_other_origins(self) -> bool:
        return "access-control-allow-origin" in self.headers.lower()


@dataclass
class Gate:
    """A gafferd that trusts nobody without a key, with a job in each of two sessions."""

    url: str
    owner: str
    keys: dict[str, str] = field(default_factory=dict)
    cookie: str = ""
    token: str = ""
    pids: dict[str, str] = field(default_factory=dict)

    def call(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
        """One request on a connection of its own, of which an endless answer is read for a moment only."""
        address = urlsplit(self.url)
        lines = {"Host": address.netloc, **(headers or {})}
        if body:
            lines["Content-Length"] = str(len(body))
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        with socket.create_connection((address.hostname, address.port or 0), timeout=10) as connection:
            connection.sendall(head.encode() + b"\r\n" + body)
            answer = connection.makefile("rb")
            status = int(answer.readline().split()[1])
            found = b"".join(iter(answer.readline, b"\r\n")).decode()
            length = re.search(r"(?i)content-length: ([0-9]+)", found)
            content = b""
            if method != "HEAD" and status not in (101, 204):
                content = answer.read(int(length[1])) if length else answer.read1(65536)
            answer.close()
        return Answer(status, found, content)

    def get(self, path: str) -> Any:
        return json.loads(self.call("GET", path, self.key("owner")).body)

    def key(self, name: str) -> dict[str, str]:
        return {"X-Api-Key": self.keys[name]}

    def page(self, **headers: str) -> dict[str, str]:
        """What the node's own page sends."""
        return {"Origin": self.url, "Sec-Fetch-Site": "same-origin", **headers}

    def target(self, session: str) -> dict[str, str]:
        """What the parameters of a path are for a request about the job of the session."""
        job = JOBS[session]
        return {"sid": session, "job": job, "name": f"{session}.{job}", "pid": self.pids[session]}

    def await_jobs(self) -> None:
        """Wait until both jobs run, and note their pids."""

        def running(session: str) -> list[int]:
            pids: list[int] = self.get(f"/jobs/{session}/{JOBS[session]}/pids")["pids"]
            return pids

        for session in JOBS:
            [self.pids[session]] = map(str, eventually(partial(running, session)))

    def log_in(self) -> None:
        answer = self.call("POST", "/auth/session", self.key("owner"))
        found = re.search(r"(?i)set-cookie: ([^;]+)", answer.headers)
        assert found
        self.cookie, self.token = found[1], json.loads(answer.body)["token"]

    def state(self) -> object:
        """What no refused call may change."""
        return self.get("/jobs"), self.get("/pids"), self.get("/keys"), self.get("/drain")


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    folder: Path = tmp_path_factory.mktemp("gate")
    (folder / "gafferd.ini").write_text("[gaffer]\ntrust_local = no\n")
    owner = new_key()
    (folder / "api.key").write_text(owner)
    (folder / "api.key").chmod(0o600)
    with gafferd("--no-keeper", "-c", str(folder / "gafferd.ini"), "--api-key-file", str(folder / "api.key")) as node:
        gate = Gate(node.url, owner, {"owner": owner, "wrong": new_key()})
        for name, scopes, sessions in [
            *((scope.value, [scope], None) for scope in Scope),
            ("limited", list(Scope), [OWN]),
        ]:
            asked = json.dumps({"scopes": scopes, "sessions": sessions}).encode()
            gate.keys[name] = json.loads(gate.call("POST", "/keys", gate.key("owner"), asked).body)["key"]
        gate.log_in()
        for session in (OWN, OTHER):
            job = {
                "name": JOBS[session],
                "cmd": "sleep 1000",
                "env": {"PASSWORD": PASSWORD},
                "redirect_output": ["out"],
                "redirect_input": True,
            }
            gate.call("POST", f"/jobs/{session}", gate.key("owner"), json.dumps(job).encode())
        gate.await_jobs()
        yield gate


def path_of(route: Route, target: dict[str, str]) -> str:
    """A path of the route about the target; feeds are asked to begin at once."""
    values = {**PARAMETERS, **target}
    path = re.sub(r"\{(\w+)(:[a-z]+)?\}", lambda match: values.get(match[1], "x"), route.pattern)
    return path + beginning(path)


def beginning(path: str) -> str:
    """The query that makes a feed begin at once."""
    if path == "/search/changes":
        return "?heartbeat=0.1"
    return "?feed=eventsource&heartbeat=0.1" if path.startswith(("/streams", "/watch", "/stats")) else ""


def is_websocket(route: Route) -> bool:
    return issubclass(route.handler, WebSocketHandler)


def refused_callers(gate: Gate, route: Route, method: str) -> Iterator[tuple[str, dict[str, str], bytes, Refusal]]:
    """Who is to be refused, how he calls, and what he is to be told."""
    scope = route.scope(method)
    if scope is PUBLIC:
        return
    mutates = method not in ("GET", "HEAD")
    body = b'{"name": "evil", "cmd": "true"}' if mutates else b""
    json_type = {"Content-Type": "application/json"}
    # The web, whoever is logged in.
    for name, headers in [
        ("a foreign origin", {"Origin": "http://evil.example.com"}),
        ("an opaque origin", {"Origin": "null"}),
        ("another port", {"Origin": gate.url + "0"}),
        ("another scheme", {"Origin": gate.url.replace("http:", "https:")}),
        ("a foreign page that hides", {"Sec-Fetch-Site": "cross-site"}),
        ("a page of the same site", {"Sec-Fetch-Site": "same-site", "Origin": gate.url}),
    ]:
        yield name, {**gate.key("owner"), **headers, **json_type}, body, FORBIDDEN_ORIGIN
    logged_in = {"Cookie": gate.cookie, "X-Gaffer-Token": gate.token}
    foreign = {**logged_in, "Origin": "http://evil.example.com", **json_type}
    yield "a foreign page with the cookie", foreign, body, FORBIDDEN_ORIGIN
    if mutates or is_websocket(route):
        yield "a cookie without a page", {**logged_in, **json_type}, body, FORBIDDEN_ORIGIN
    yield "a rebound name", {"Host": "evil.example.com"}, body, FORBIDDEN_HOST
    yield "a wrong key", gate.key("wrong"), body, AUTH_REQUIRED
    for type_ in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        if mutates and not (route.accepts_text and type_ == "text/plain"):
            headers = gate.page(**logged_in, **({"Content-Type": type_} if type_ else {}))
            yield f"a form of type {type_!r}", headers, body, UNSUPPORTED
    if isinstance(scope, Open):
        return
    yield "a stranger", {}, body, AUTH_REQUIRED
    yield "a stranger's page", gate.page(**json_type), body, AUTH_REQUIRED
    if scope is not Scope.READ:
        yield "a cookie without its token", gate.page(Cookie=gate.cookie, **json_type), body, TOKEN_REQUIRED
        other = {"Cookie": gate.cookie, "X-Gaffer-Token": gate.token[:-4] + "AAAA"}
        yield "a cookie with another token", gate.page(**other, **json_type), body, TOKEN_REQUIRED
    yield "a token without its cookie", gate.page(**{"X-Gaffer-Token": gate.token}, **json_type), body, AUTH_REQUIRED
    yield "an old cookie", gate.page(Cookie=gate.cookie[:-4] + "AAAA", **json_type), body, AUTH_REQUIRED
    for lesser in set(Scope) - {scope}:
        yield f"one who may {lesser}", gate.key(lesser), body, FORBIDDEN


@pytest.mark.row("R-93", "HTTP-03", "HTTP-06")
def test_who_is_refused_and_what_he_is_told(gate: Gate) -> None:
    before, wrong = gate.state(), {}
    for route, method in CALLS:
        path = path_of(route, gate.target(OWN))
        for name, headers, body, refusal in refused_callers(gate, route, method):
            answer = gate.call(method, path, {**handshake(route), **headers}, body)
            if answer.refusal != without_body(refusal, method) or answer.is_for_other_origins:
                wrong[method, route.pattern, name] = answer.refusal, refusal
    assert wrong == {}
    assert gate.state() == before


@pytest.mark.row("R-93")
def test_who_is_let_in(gate: Gate) -> None:
    wrong = {}
    for route, method in CALLS:
        scope = route.scope(method)
        # The handler of a deferred method may want a key itself; what is in SockJS's way it calls an error of its own.
        bad = {FORBIDDEN_ORIGIN[1], FORBIDDEN_HOST[1], UNSUPPORTED[1]} if scope is DEFERRED else {401, 403, 415, 500}
        for name, headers in welcome_callers(gate, scope):
            answer = gate.call(method, path_of(route, ABSENT), {**handshake(route), **headers})
            if bad & {answer.status, answer.error}:
                wrong[method, route.pattern, name] = answer.refusal
        if route.pattern == "/auth/session":  # one of these calls logs out
            gate.log_in()
        if route.pattern == "/drain":
            gate.call("DELETE", "/drain", gate.key("owner"))
            gate.await_jobs()
    assert wrong == {}


def test_a_key_for_one_session_learns_and_does_nothing_of_another(gate: Gate) -> None:
    before = gate.state()
    wrong: dict[tuple[str, str], object] = {}
    for route, method in CALLS:
        answer = gate.call(method, path_of(route, gate.target(OTHER)), {**handshake(route), **gate.key("limited")})
        if SECRET.encode() in answer.body:
            wrong[method, route.pattern] = answer.body
        if re.search(r"\{(sid|name|pid)\b", route.pattern) and answer.refusal != without_body(FORBIDDEN, method):
            wrong[method, route.pattern] = answer.refusal
    assert wrong == {}
    assert gate.state() == before


def test_values_of_env_are_shown_only_with_define(gate: Gate) -> None:
    for_readers, for_owners = set(), set()
    for route, method in CALLS:
        if method == "GET":
            path = path_of(route, gate.target(OWN))
            if PASSWORD.encode() in gate.call(method, path, {**handshake(route), **gate.key("read")}).body:
                for_readers.add(route.pattern)
            if PASSWORD.encode() in gate.call(method, path, {**handshake(route), **gate.key("owner")}).body:
                for_owners.add(route.pattern)
    assert for_readers == set()
    assert {"/jobs/{sid}/{job}", "/processes/{name}", "/processes/{pid:digits}", "/{pid:digits}"} <= for_owners


def test_a_description_with_masked_values_is_not_loaded(gate: Gate) -> None:
    path = f"/processes/{OWN}.{JOBS[OWN]}"
    masked = json.loads(gate.call("GET", path, gate.key("read")).body)
    assert masked["env"] == {"PASSWORD": None}
    answer = gate.call("PUT", path, gate.key("owner"), json.dumps({**masked, "name": JOBS[OWN]}).encode())
    told = json.loads(answer.body)
    assert (answer.status, told["path"]) == (400, "$.env.PASSWORD")
    assert "define" in told["hint"]


@pytest.mark.row("R-04", "HTTP-03")
def test_preflights_need_no_key_and_unknown_methods_do(gate: Gate) -> None:
    for route in ROUTES:
        path = path_of(route, ABSENT)
        assert gate.call("OPTIONS", path).status == 204, path
        answer = gate.call("OPTIONS", path, {"Origin": "http://evil.example.com"})
        assert answer.refusal == FORBIDDEN_ORIGIN, path
        assert not answer.is_for_other_origins
        if not route.handler.answers_all:
            assert gate.call("BREW", path).refusal == AUTH_REQUIRED, path
            assert gate.call("BREW", path, gate.key("owner")).status == 405, path


def test_a_path_that_is_no_route_is_told_to_holders_of_keys_only(gate: Gate) -> None:
    assert gate.call("GET", "/nope").refusal == AUTH_REQUIRED
    assert gate.call("GET", "/nope", gate.key("read")).status == 404
    assert gate.call("GET", "/nope", {"Host": "evil.example.com"}).refusal == FORBIDDEN_HOST


def handshake(route: Route) -> dict[str, str]:
    return HANDSHAKE if is_websocket(route) else {}


def without_body(refusal: Refusal, method: str) -> tuple[int, str | None]:
    """What is seen of a refusal by that method."""
    return (refusal[0], None) if method == "HEAD" else refusal


def welcome_callers(gate: Gate, scope: Scope | Open) -> Iterator[tuple[str, dict[str, str]]]:
    """Who is to be let in, and how he calls."""
    yield "the owner by another name", {**gate.key("owner"), "Host": "evil.example.com"}
    logged_in = {"Cookie": gate.cookie, "X-Gaffer-Token": gate.token}
    yield "the owner's page", gate.page(**logged_in, **{"Content-Type": "application/json"})
    if scope is Scope.READ:
        yield "the owner's page in another tab", gate.page(Cookie=gate.cookie)
    if isinstance(scope, Open):
        yield "a stranger", {}
    else:
        yield f"one who may {scope}", gate.key(scope)
    if scope is PUBLIC:
        yield "a foreign page", {"Origin": "http://evil.example.com", "Host": "evil.example.com"}


# The document


class Operation(NamedTuple):
    """An operation of /openapi.json, with a path that means nothing that exists."""

    method: str
    path: str
    scope: str

    @property
    def needs(self) -> Scope | None:
        return Scope(self.scope) if self.scope in set(Scope) else None


def documented(document: dict[str, Any]) -> list[Operation]:
    found = []
    for path, item in document["paths"].items():
        target = re.sub(r"\{(\w+)\}", lambda match: {**PARAMETERS, **ABSENT}.get(match[1], "x"), path)
        for method, operation in item.items():
            if method == "parameters":
                continue
            scopes = operation.get("x-scopes") or {path: operation["x-scope"]}
            # Of two routes of one form, the one that takes more than digits; the pid of a process is there too.
            pattern = next((each for each in scopes if ":digits" not in each), next(iter(scopes)))
            found.append(Operation(method.upper(), target + beginning(target), scopes[pattern]))
    return found


def test_the_document_tells_who_is_let_in(gate: Gate) -> None:
    operations = documented(gate.get("/openapi.json"))
    assert len(operations) > 80
    asked = json.dumps({"scopes": list(Scope), "sessions": None}).encode()
    gate.log_in()
    revoked = json.loads(gate.call("POST", "/keys", gate.key("owner"), asked).body)
    assert gate.call("DELETE", f"/keys/{revoked['id']}", gate.key("owner")).status == 200
    json_type = {"Content-Type": "application/json"}
    wrong = {}
    cookie, token = {"Cookie": gate.cookie}, {"X-Gaffer-Token": gate.token}
    for each in operations:
        needs = each.needs
        if needs is None:
            continue  # what may be done without a grant is for the tests of these routes
        callers: dict[str, tuple[dict[str, str], Refusal | None]] = {
            "nobody": ({}, AUTH_REQUIRED),
            "a revoked key": ({"X-Api-Key": revoked["key"]}, AUTH_REQUIRED),
            **({"a key for another session": (gate.key("limited"), FORBIDDEN)} if "absent" in each.path else {}),
            "a cookie": (gate.page(**cookie, **json_type), None if needs is Scope.READ else TOKEN_REQUIRED),
            "a cookie and its token": (gate.page(**cookie, **token, **json_type), None),
            **{scope: (gate.key(scope), None if scope is needs else FORBIDDEN) for scope in Scope},
        }
        for name, (headers, refusal) in callers.items():
            answer = gate.call(each.method, each.path, headers)
            if refusal is not None:
                is_right = answer.refusal == without_body(refusal, each.method)
            else:
                is_right = answer.status not in (401, 403, 500)
            if not is_right:
                wrong[each, name] = answer.refusal
    gate.call("DELETE", "/drain", gate.key("owner"))
    gate.await_jobs()
    assert wrong == {}


CALL_ALL = """
host, port = sys.argv[1:]
for line in sys.stdin:
    method, path = line.split()
    with socket.socket() as s:
        s.connect((host, int(port)))
        s.sendall(f"{method} {path} HTTP/1.1\\r\\nHost: localhost\\r\\nContent-Length: 0\\r\\n\\r\\n".encode())
        print(s.recv(4096).split()[1].decode(), flush=True)
"""


@needs_root
def test_another_user_of_the_host_is_nobody() -> None:
    with gafferd() as node:
        operations = documented(json.loads(urlopen(f"{node.url}/openapi.json", timeout=10).read()))
        with stranger(CALL_ALL, "127.0.0.1", node.port) as caller:
            calls = "".join(f"{each.method} {each.path}\n" for each in operations)
            output, _ = caller.communicate(calls, timeout=30)
    answers = dict(zip(operations, map(int, output.split()), strict=True))
    assert {each: status for each, status in answers.items() if each.needs is not None and status != 401} == {}
