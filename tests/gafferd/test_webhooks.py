"""The webhooks of a node: from its configuration file, and changed by a reload."""

import signal
from pathlib import Path

import pytest

from support.daemons import gafferd
from support.poll import eventually
from support.webhooks import receiver

JOB = "[process:dummy]\ncmd = sleep 1000\n"


@pytest.mark.row("WH-02", "WH-01", "CFG-11")
def test_the_webhooks_of_the_file_are_called(tmp_path: Path) -> None:
    config = tmp_path / "gafferd.ini"
    with receiver() as server:
        config.write_text(f"[webhooks]\ncreate = {server.url}/create\nproc.dummy.spawn = {server.url}/spawn\n{JOB}")
        with gafferd(str(config)):
            eventually(lambda: server.names("/create") == ["create"])
            eventually(lambda: server.names("/spawn") == ["proc.dummy.spawn"])


@pytest.mark.row("WH-08")
def test_a_reload_changes_the_webhooks(tmp_path: Path) -> None:
    config = tmp_path / "gafferd.ini"
    with receiver() as server:
        config.write_text(f"[webhooks]\nupdate = {server.url}/old\n")
        with gafferd(str(config)) as node:
            config.write_text(f"[webhooks]\nupdate = {server.url}/new\ncreate = {server.url}/new\n{JOB}")
            node.signal(signal.SIGHUP)
            node.wait_for_line("reloaded: add default.dummy")
            config.write_text(config.read_text() + "numprocesses = 2\n")
            node.signal(signal.SIGHUP)
            eventually(lambda: server.names("/new") == ["create", "update"])
        assert not server.names("/old")
