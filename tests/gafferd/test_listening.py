from typing import Any

import pytest

from gaffer.util import hostname
from gafferd.config.file import EndpointConfig
from gafferd.config.settings import Settings
from gafferd.listening import announced_host, choose_endpoints, find_dangers, origin

LOCAL = EndpointConfig(("127.0.0.1:5000",))


@pytest.mark.row("GD-18", "GD-08", "CFG-05")
@pytest.mark.parametrize(
    ("settings", "configured", "binds"),
    [
        ({}, [], [("127.0.0.1:5000",)]),
        ({"bind": ("127.0.0.1:1",)}, [], [("127.0.0.1:1",)]),
        ({}, [EndpointConfig(("unix:/x",))], [("unix:/x",)]),
        ({"bind": ("127.0.0.1:1",)}, [EndpointConfig(("unix:/x",))], [("unix:/x",), ("127.0.0.1:1",)]),
    ],
)
def test_the_default_endpoint_is_added_when_asked_for(
    settings: dict[str, Any], configured: list[EndpointConfig], binds: list[tuple[str, ...]]
) -> None:
    assert [endpoint.bind for endpoint, _ in choose_endpoints(Settings(**settings), configured)] == binds


@pytest.mark.parametrize(
    ("bind", "certfile", "has_keys", "insecure", "dangers"),
    [
        ("127.0.0.1:5000", None, False, False, []),
        ("127.9.9.9:0", None, False, False, []),
        ("[::1]:5000", None, False, False, []),
        ("localhost:5000", None, False, False, []),
        ("unix:/run/x", None, False, False, []),
        ("0.0.0.0:5000", None, False, False, ["API key", "TLS"]),
        (":5000", None, False, True, ["API key"]),
        ("[::]:5000", "cert", False, False, ["API key"]),
        ("10.0.0.7:5000", None, True, False, ["TLS"]),
        ("10.0.0.7:5000", None, True, True, []),
        ("10.0.0.7:5000", "cert", True, False, []),
    ],
)
def test_beyond_loopback_keys_and_tls_are_needed(
    bind: str, certfile: str | None, has_keys: bool, insecure: bool, dangers: list[str]
) -> None:
    endpoints = [LOCAL, EndpointConfig((bind,), certfile=certfile)]
    problems = list(find_dangers(endpoints, has_keys=has_keys, insecure=insecure))
    assert len(problems) == len(dangers)
    for problem, danger in zip(problems, dangers, strict=True):
        assert danger in problem.message
        assert problem.path == bind
        assert problem.hint


@pytest.mark.row("LP-21", "GD-13")
@pytest.mark.parametrize(
    ("settings", "bind", "urls", "expected"),
    [
        ({}, "127.0.0.11:0", ["http://127.0.0.11:4321", "unix:/x"], "http://127.0.0.11:4321"),
        ({}, "[::1]:0", ["https://[::1]:4321"], "https://[::1]:4321"),
        ({}, "0.0.0.0:5000", ["http://0.0.0.0:5000"], f"http://{hostname()}:5000"),
        ({}, "unix:/x", ["unix:/x"], f"http://{hostname()}"),
        ({"broadcast_address": "http://n1:80"}, "0.0.0.0:5000", ["http://0.0.0.0:5000"], "http://n1:80"),
        ({"broadcast_address": "https://n1"}, "0.0.0.0:5000", ["http://0.0.0.0:5000"], "https://n1:5000"),
        (
            {"broadcast_address": "http://n1:80", "broadcast_port": 81},
            "0.0.0.0:5000",
            ["http://0.0.0.0:5000"],
            "http://n1:81",
        ),
        ({"broadcast_port": 81}, "10.0.0.7:5000", ["http://10.0.0.7:5000"], "http://10.0.0.7:81"),
    ],
)
def test_the_address_that_others_are_told(settings: dict[str, Any], bind: str, urls: list[str], expected: str) -> None:
    chosen = Settings(**settings)
    host = announced_host(chosen, [EndpointConfig((bind,))])
    assert origin(chosen, host, urls) == expected
