"""`gafferd --check-config`: all that a start would find, without starting anything."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from support.daemons import run_command

Check = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Checks a file with this text; its directory must stay as it is."""
    file = tmp_path / "gafferd.ini"

    def run(text: str, *args: str, **environ: str) -> "subprocess.CompletedProcess[str]":
        file.write_text(text)
        before = sorted(tmp_path.rglob("*"))
        environment = {"HOME": str(tmp_path), "GAFFER_STATE_DIR": str(tmp_path / "state"), **environ}
        done = run_command("gafferd", "--check-config", "-c", str(file), *args, env=environment)
        assert sorted(tmp_path.rglob("*")) == before
        return done

    return run


def test_a_valid_file(check: Check, tmp_path: Path) -> None:
    done = check(
        "[gaffer]\nhttp_endpoints = a\npidfile = gafferd.pid\ndaemonize = yes\n[endpoint:a]\nbind = 127.0.0.1:0\n"
        "[webhooks]\nexit = http://a, http://b\n[job:web]\ncmd = true\n"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"OK: {tmp_path / 'gafferd.ini'}: 1 job, 1 endpoint, 2 webhooks\n"


def test_without_a_file(tmp_path: Path) -> None:
    done = run_command("gafferd", "--check-config", env={"HOME": str(tmp_path)})
    assert done.returncode == 0
    if not Path("/etc/gaffer/gafferd.ini").exists():
        assert done.stdout == "OK: no configuration file: 0 jobs, 1 endpoint, 0 webhooks\n"


def test_mistakes_of_every_source_at_once(check: Check, tmp_path: Path) -> None:
    done = check("[gaffer]\nbacklog = x\n[job:web]\n", "--bind=nowhere:1:2", GAFFER_PLUGIN_DIR="/nonexistent")
    assert (done.returncode, done.stdout) == (2, "")
    places = [line.partition(": ")[0] for line in done.stderr.splitlines() if not line.startswith("  hint")]
    file = tmp_path / "gafferd.ini"
    assert sorted(places) == sorted([f"{file}:2", f"{file}:3", "GAFFER_PLUGIN_DIR", "--bind"])


def test_warnings_come_with_the_mistakes(check: Check, tmp_path: Path) -> None:
    """A mistyped section is often the reason of another mistake."""
    done = check("[job:web]\ncmd = true\nafter = db\n[jb:db]\ncmd = true\n")
    file = tmp_path / "gafferd.ini"
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"warning: {file}:4: [jb:db] unknown section, ignored unless a plugin reads it",
        "  hint: did you mean 'job'?",
        f"{file}:3: [job:web] after: there is no job 'default.db'",
        "  hint: define it, or remove it here",
    ]


@pytest.mark.parametrize(
    ("text", "args", "message"),
    [
        ("", ["--bind=0.0.0.0:0"], "this address is reachable from other hosts, but the node has no API key"),
        ("[ssl]\ncertfile = /nonexistent.pem\n", [], "certfile: there is no file '/nonexistent.pem'"),
        ("[ssl]\ncertfile = /etc/passwd\n", [], "can't use the certificate /etc/passwd"),
        ("", ["--show-secrets"], "--show-secrets: requires --print-config"),
        ("", ["--print-config"], "--print-config: conflicts with --check-config"),
    ],
)
def test_what_a_start_would_refuse(check: Check, text: str, args: list[str], message: str) -> None:
    done = check(text, *args)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_usable_tls(check: Check, tmp_path: Path) -> None:
    pair = trustme.CA().issue_cert("localhost")
    pair.cert_chain_pems[0].write_to_path(tmp_path / "a.pem")
    pair.private_key_pem.write_to_path(tmp_path / "a.key")
    (tmp_path / "a.key").chmod(0o600)
    done = check(f"[ssl]\ncertfile = {tmp_path}/a.pem\nkeyfile = {tmp_path}/a.key\n")
    assert (done.returncode, done.stderr) == (0, "")


FAULTS = """\
[some section]
[job:a]
cmd = nothing-of-this-name --x
uid = nobody-of-this-name
gid = 4294967000
env_file = one.env, two.env
before_start = ./missing
[job:b]
cmd = sh
cwd = {folder}/missing
before_start = ./neither
[job:c]
cmd = {folder}/run
ready = exec:not-there
action.clear = neither-there
env:PATH = {folder}
[job:d]
cmd = plain.txt
before_start = {folder}/plain.txt
after_exit = {folder}/run-$PORT
port = 8000+
env:PATH = {folder}
[job:fine]
cmd = $PROGRAM $PORT
cwd = {folder}
port = auto
env_file = good.env
before_start = ./run
after_exit = run
env:PATH = {folder}
[job:shell]
cmd = nothing-of-this-name
shell = yes
"""


def test_what_only_a_start_of_the_jobs_would_find(check: Check, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("#!/bin/sh\n")
    (tmp_path / "run").chmod(0o755)
    (tmp_path / "plain.txt").touch()
    (tmp_path / "good.env").write_text("PROGRAM=run\n")
    done = check(FAULTS.format(folder=tmp_path))
    assert done.returncode == 0
    assert done.stdout.endswith(": 6 jobs, 1 endpoint, 0 webhooks\n")
    warnings = [line for line in done.stderr.splitlines() if not line.startswith("  hint")]
    assert [re.sub(r" on the PATH.*", "", warning.removeprefix(f"warning: {tmp_path}/")) for warning in warnings] == [
        "gafferd.ini:1: [some section] unknown section, ignored unless a plugin reads it",
        "gafferd.ini:4: [job:a] uid: unknown user 'nobody-of-this-name'",
        "gafferd.ini:5: [job:a] gid: unknown group 4294967000",
        "gafferd.ini:6: [job:a] env_file: one.env: can't be read: No such file or directory",
        "gafferd.ini:6: [job:a] env_file: two.env: can't be read: No such file or directory",
        "gafferd.ini:3: [job:a] cmd: no program 'nothing-of-this-name'",
        "gafferd.ini:7: [job:a] before_start: no program './missing'",
        f"gafferd.ini:10: [job:b] cwd: no such directory: '{tmp_path}/missing'",
        "gafferd.ini:15: [job:c] action.clear: no program 'neither-there'",
        "gafferd.ini:14: [job:c] ready: no program 'not-there'",
        "gafferd.ini:18: [job:d] cmd: no program 'plain.txt'",
        f"gafferd.ini:19: [job:d] before_start: no program '{tmp_path}/plain.txt'",
        f"gafferd.ini:20: [job:d] after_exit: no program '{tmp_path}/run-8000'",
    ]
