"""What others write does not control the terminal of the one who looks at it."""

import json
import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gaffer_client import Server
from support.client import Answering, Commands
from support.daemons import Daemon, clean_env, command_path, gafferd
from support.poll import eventually

EVIL = "\x1b[2J\x1b]0;title\x07\x9b31m\u202eevil\u2028\r"
SCRIPT = r"""sh -c 'printf "\033[2J\033]0;title\007evil\r\n"; exit 3'"""


@pytest.fixture(scope="module")
def node() -> Iterator[Daemon]:
    with gafferd() as node, Server(node.url) as server:
        settings = {
            "env": {"EVIL": EVIL},
            "labels": {"evil": EVIL},
            "action": {"evil": SCRIPT, "odd": f"echo '{EVIL}'"},
            "redirect_output": ["out"],
        }
        server.load({"name": "evil", "cmd": SCRIPT, "flapping": "1, 60, 600, 5", **settings}, "shop")
        server.load({"name": "web", "cmd": "sleep", "args": ["1000", EVIL], **settings}, "shop")
        server.update({"name": "web", "cmd": "sleep", "args": ["1001", EVIL], **settings}, "shop")
        eventually(lambda: server.get_job("shop.evil").exits())
        yield node


@pytest.mark.parametrize(
    "line",
    [
        *("ps shop", "status", "info shop.evil", "info shop.web", "exits shop.evil --verbose", "definitions shop.web"),
        *("logs shop.evil", "history", "exec shop.evil", "apps"),
    ],
)
def test_no_command_passes_control_characters_on(
    gaffer: Commands, node: Daemon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str
) -> None:
    monkeypatch.setenv("GAFFER_ENDPOINT", node.url)
    monkeypatch.chdir(tmp_path)
    for options in ((), ("--json",)):
        ran = gaffer(*line.split(), *options)
        assert ran.status == 0, ran.err
        unsafe = [char for char in ran.out + ran.err if not char.isprintable() and char != "\n"]
        assert unsafe == []
        if options:
            for document in [ran.out] if ran.out.startswith("{\n") else ran.out.splitlines():
                json.loads(document)


def test_the_output_of_an_action_is_safe_on_a_terminal_only(node: Daemon) -> None:
    env = clean_env({"GAFFER_ENDPOINT": node.url, "HOME": os.devnull})
    words = [command_path("gaffer"), "exec", "shop.evil", "evil"]
    raw = b"\x1b[2J\x1b]0;title\x07evil\r\n"
    assert subprocess.run(words, env=env, capture_output=True, check=False, timeout=30).stdout == raw
    assert shown(words, env) == raw.replace(b"\x1b", b"\xef\xbf\xbd").replace(b"\x07", b"\xef\xbf\xbd")
    assert shown([*words, "--raw"], env) == raw.replace(b"\n", b"\r\n")


def shown(words: list[str], env: dict[str, str]) -> bytes:
    """What a command shows on a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(words, env=env, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs):
        os.close(theirs)
        data = b""
        try:
            while piece := os.read(ours, 4096):
                data += piece
        except OSError:  # the other side is closed
            pass
    os.close(ours)
    return data


def test_errors_of_servers_are_one_line_each(
    gaffer: Commands, answering: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    server: Answering = answering()
    monkeypatch.setenv("GAFFER_ENDPOINT", server.url)
    server.answer("/sessions", json.dumps({"error": "x", "message": EVIL + "\nmore", "hint": EVIL}), 403)
    ran = gaffer("apps")
    assert ran.status == 1
    assert len(ran.err.splitlines()) == 2
    assert ran.err.replace("\n", "").isprintable()
