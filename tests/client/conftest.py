"""What the tests of the client share."""

import os
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from gaffer_client.cli.main import run
from gaffer_client.cli.programs import GAFFER, GAFFERCTL
from gaffer_client.cli.table import Program
from support.client import Answering, Commands, Ran, answering_server


@pytest.fixture
def answering() -> Iterator[Callable[..., Answering]]:
    """Start servers that answer as told: `answering(ssl_context=None)`."""
    with ExitStack() as servers:

        def start(context: ssl.SSLContext | None = None) -> Answering:
            return servers.enter_context(answering_server(context))

        yield start


@pytest.fixture
def closed() -> Iterator[str]:
    """The address of nobody."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No settings of the user's own."""
    for name in [name for name in os.environ if name.startswith("GAFFER")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture
def gaffer(clean_environment: None, capsys: pytest.CaptureFixture[str]) -> Commands:
    """Run `gaffer` with these arguments."""
    return _commands(GAFFER, capsys)


@pytest.fixture
def gafferctl(clean_environment: None, capsys: pytest.CaptureFixture[str]) -> Commands:
    """Run `gafferctl` with these arguments."""
    return _commands(GAFFERCTL, capsys)


def _commands(program: Program, capsys: pytest.CaptureFixture[str]) -> Commands:
    def command(*args: object) -> Ran:
        capsys.readouterr()
        status = run(program, [str(arg) for arg in args])
        return Ran(status, *capsys.readouterr())

    return command
