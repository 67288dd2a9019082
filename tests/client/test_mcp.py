"""`gaffer mcp`: a scripted client of the Model Context Protocol, and a real node."""

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jsonschema
import pytest

from gaffer_client import Server
from gaffer_client.cli.programs import GAFFER
from support.daemons import Daemon, clean_env, command_path, gafferd, lookupd
from support.poll import eventually


class Client:
    """A client that sends a request and reads its answer."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self._next = 0

    def send(self, message: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write((message if isinstance(message, bytes) else json.dumps(message).encode()) + b"\n")
        self.process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        assert answer.pop("jsonrpc") == "2.0"
        return answer

    def begin(self, method: str, **params: Any) -> int:
        self._next += 1
        self.send({"jsonrpc": "2.0", "id": self._next, "method": method, "params": params})
        return self._next

    def ask(self, method: str, **params: Any) -> Any:
        identifier = self.begin(method, **params)
        answer = self.receive()
        assert answer["id"] == identifier
        return answer["result"] if "result" in answer else answer["error"]

    def call(self, tool: str, **arguments: Any) -> tuple[str, bool]:
        """What the tool printed, and whether it failed."""
        result = self.ask("tools/call", name=tool, arguments=arguments)
        [content] = result["content"]
        assert content["type"] == "text"
        return content["text"], result["isError"]


@contextmanager
def server(*options: str) -> Iterator[Client]:
    """Run `gaffer mcp`; at the end of its input it ends, and has said nothing on standard error."""
    with subprocess.Popen(
        [command_path("gaffer"), "mcp", *options],
        env=clean_env(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        client = Client(process)
        found = client.ask("initialize", protocolVersion="2025-06-18", capabilities={}, clientInfo={"name": "test"})
        assert found["protocolVersion"] == "2025-06-18"
        client.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        yield client
        out, err = process.communicate(timeout=20)
        assert (out, err, process.returncode) == (b"", b"", 0)


@pytest.fixture(scope="module")
def registry() -> Iterator[Daemon]:
    with lookupd("--ttl", "60", "--interval", "20") as registry:
        yield registry


@pytest.fixture(scope="module")
def node(registry: Daemon) -> Iterator[Daemon]:
    with gafferd("--lookupd-address", registry.url, "--node-name", "one") as node, Server(node.url) as api:
        api.load({"name": "web", "cmd": "sh -c 'echo up; exec sleep 1000'"}, "shop")
        eventually(lambda: api.get_job("shop.web").info()["state"] == "running")
        yield node


@pytest.fixture(scope="module")
def reader(node: Daemon, registry: Daemon) -> Iterator[Client]:
    """A client that may only read."""
    with server("-g", node.url, "-L", registry.url) as client:
        yield client


def test_versions_are_agreed_on(reader: Client) -> None:
    for asked, agreed in (("2024-11-05", "2024-11-05"), ("1999-01-01", "2025-11-25"), (None, "2025-11-25")):
        found = reader.ask("initialize", protocolVersion=asked)
        assert found["protocolVersion"] == agreed
        assert found["capabilities"] == {"tools": {"listChanged": False}}
        assert found["serverInfo"]["name"] == "gaffer"


def test_only_what_reads_is_offered(reader: Client, node: Daemon) -> None:
    tools = {tool["name"]: tool for tool in reader.ask("tools/list")["tools"]}
    expected = {command.name.replace(":", "_"): command.effect for command in GAFFER.commands}
    assert {"status", "ps", "logs", "events", "why", "lookup_nodes"} <= tools.keys()
    assert {expected[name] for name in tools} == {"read"}
    for name, tool in tools.items():
        assert re.fullmatch("[a-z_]{1,64}", name)
        assert tool["annotations"]["readOnlyHint"]
        jsonschema.Draft202012Validator.check_schema(tool["inputSchema"])
        assert not {"api_key_file", "endpoint", "insecure", "follow"} & tool["inputSchema"]["properties"].keys()
    error = reader.ask("tools/call", name="stop", arguments={"job": ["shop.web"]})
    assert error["code"] == -32602
    assert "--allow-writes" in error["message"]
    assert reader.ask("tools/call", name="nope")["message"] == "unknown tool nope"


def test_tools_print_what_the_commands_print(reader: Client) -> None:
    text, failed = reader.call("info", job="shop.web")
    assert (json.loads(text)["name"], failed) == ("shop.web", False)
    text, failed = reader.call("ps", cluster=True)
    assert ([node["node"] for node in json.loads(text)["nodes"]], failed) == (["one"], False)
    text, failed = reader.call("lookup_job", job="shop.web")
    assert (json.loads(text)["sources"][0]["name"], failed) == ("one", False)
    text, failed = reader.call("info", job="shop.nope")
    assert failed
    assert "shop.nope" in text


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("info", {}, "job is missing"),
        ("info", {"job": 7}, "7 is not a valid string"),
        ("info", {"job": "a\0b"}, "is not a valid string"),
        ("info", {"job": "shop.web", "jobs": 1}, "unknown argument jobs"),
        ("ps", {"cluster": "yes"}, "is not a valid boolean"),
        ("ps", {"node": "one"}, "is not a valid array"),
        ("ps", {"node": ["http://127.0.0.1:9"]}, "is not a name"),
        ("ps", {"seconds": 0}, "is not a valid number"),
        ("info", {"job": "--api-key-file=/none"}, "is not a valid"),  # of a job's name: it is no option
        ("info", {"job": "-h"}, "is not a valid"),
    ],
)
def test_wrong_arguments_are_told_to_the_model(reader: Client, tool: str, arguments: dict[str, Any], said: str) -> None:
    text, failed = reader.call(tool, **arguments)
    assert failed
    assert said in text


def test_messages_that_are_no_requests(reader: Client) -> None:
    for message, code in (
        (b"{", -32700),
        (b"x" * (1024 * 1024 + 10), -32700),
        ([], -32600),
        ({"id": 1, "method": "ping"}, -32600),
        ({"jsonrpc": "2.0", "id": [1], "method": "ping"}, -32600),
        ({"jsonrpc": "2.0", "id": 1, "method": 7}, -32600),
        ({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": []}, -32600),
        ({"jsonrpc": "2.0", "id": 1, "method": "resources/list"}, -32601),
        ({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": ["x"]}}, -32602),
    ):
        reader.send(message)
        assert reader.receive()["error"]["code"] == code
    reader.send(b"")
    reader.send({"jsonrpc": "2.0", "id": 5, "result": {}})
    reader.send({"jsonrpc": "2.0", "method": "notifications/unknown"})
    assert reader.ask("ping") == {}


def test_what_goes_on_is_interrupted_or_cancelled(reader: Client, node: Daemon) -> None:
    text, failed = reader.call("events", seconds=0.5)
    assert (text.splitlines()[-1][:22], failed) == ("(interrupted after 0.5", False)
    # Answers would come with another id, or at the end, where none is expected.
    running = [reader.begin("tools/call", name="events", arguments={}) for _ in range(8)]
    assert reader.ask("ping") == {}
    assert reader.ask("tools/call", name="events")["code"] == -32000
    for identifier in running:
        reader.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": identifier}})
    eventually(lambda: "content" in reader.ask("tools/call", name="apps"))


def test_writes_are_offered_when_allowed(node: Daemon, registry: Daemon) -> None:
    with server("--allow-writes", "-g", node.url, "-L", registry.url) as client, Server(node.url) as api:
        tools = {tool["name"]: tool["annotations"] for tool in client.ask("tools/list")["tools"]}
        hints = {name: (each["readOnlyHint"], each["destructiveHint"]) for name, each in tools.items()}
        assert (hints["status"], hints["scale"], hints["stop"]) == ((True, False), (False, False), (False, True))
        assert {"top", "attach", "mcp", "start", "run"}.isdisjoint(tools)
        text, failed = client.call("scale", name="shop", spec=["web=2"])
        assert (json.loads(text), failed) == ({"web": {"numprocesses": 2}}, False)
        text, failed = client.call("restart", job=["shop.web"], node=["one"], dry_run=True)
        assert (json.loads(text)["would"], failed) == ("restart", False)
        assert "is not a name" in client.call("drain", node=node.url)[0]
        assert not api.drained()["draining"]
        text, failed = client.call("stop", job=["shop.web"])
        assert (json.loads(text), failed) == ({"ok": True}, False)
        eventually(lambda: not api.pids())
        api.get_job("shop.web").start()
        # The end of the input, or SIGTERM, ends running calls too.
        client.begin("tools/call", name="events", arguments={})
    with server("-g", node.url) as client:
        client.begin("tools/call", name="events", arguments={})
        assert client.ask("ping") == {}
        client.process.send_signal(signal.SIGTERM)
        assert client.process.wait(20) == 130
        client.process.returncode = 0  # as the block expects
