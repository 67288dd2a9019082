"""Answers that commands can't use: late ones, and those of servers of other versions."""

import json
import socket
from collections.abc import Callable

import pytest

from gaffer_client.cli.checking import checked_on_failure
from gaffer_client.errors import MalformedAnswer
from gaffer_client.transport import Transport
from support.client import Answering, Commands

_JOB = {
    "name": "shop.web",
    "active": True,
    "running": 0,
    "running_out": 0,
    "max_processes": 1,
    "processes": [],
    "config": {"name": "web", "cmd": "x"},
    "state": "stopped",
    "reason": None,
    "instances": [],
}


@pytest.mark.parametrize(
    "body",
    [
        '{"sessionid": "shop", "jobs": ["shop.web"]}',  # of a node that does not know `view`
        '{"jobs": [{"name": "shop.web"}]}',
        json.dumps({"jobs": [{**_JOB, "config": None}]}),
        '{"jobs": {}}',
        "[]",
        "null",
        "{",
    ],
)
def test_an_answer_of_another_server_or_version(
    gaffer: Commands, answering: Callable[..., Answering], monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    server = answering()
    monkeypatch.setenv("GAFFER_ENDPOINT", server.url)
    server.answer("/jobs/shop", body)
    ran = gaffer("ps", "shop")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith(f"gaffer: {server.url} sent an invalid response: ")
    assert "its version" in ran.err


def test_a_mistake_of_ours_is_not_taken_for_one_of_the_server() -> None:
    document = {"jobs": [_JOB]}
    transport = Transport("http://127.0.0.1:1")
    with pytest.raises(KeyError), checked_on_failure(transport, document, "JobListing"):
        document["jobs"][0]["nothing"]
    with pytest.raises(MalformedAnswer), checked_on_failure(transport, {"jobs": 1}, "JobListing"):
        document["jobs"][0]["nothing"]


def test_a_node_that_hangs_is_awaited_as_long_as_told(gaffer: Commands) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        ran = gaffer("ps", "shop", "-g", url, "--timeout=0.2")
        assert (ran.status, ran.err.splitlines()[0]) == (3, f"gaffer: can't reach {url}: no response within 0.2 s")
    assert gaffer("ps", "shop", "--timeout=-1").status == 2
