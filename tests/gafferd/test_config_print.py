"""`gafferd --print-config`: the configuration in effect, which loads to the same."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gaffer.errors import ConfigError, GafferError
from gafferd.config.effective import Effective, read_effective
from gafferd.config.file import load_config
from gafferd.config.printing import MASK, render
from gafferd.main import parse_options
from support.daemons import run_command

ROOT = Path(__file__).parents[2]

YAML = """\
gaffer:
  http_endpoints: [main]
  lookupd_address: [http://10.0.0.5:5010]
  lookupd_address2: http://user:secret@10.0.0.6:5010
  labels: {zone: a, disk: ssd}
  include: more.ini
endpoints:
  main: {bind: ["127.0.0.1:5001", "unix:/tmp/gafferd.sock"], backlog: 7}
webhooks: {exit: [http://a, http://b]}
jobs:
  shop.web:
    cmd: serve --port $PORT
    args: [two words, $HOME, '"']
    numprocesses: 2
    port: 8000+
    graceful_timeout: 1m
    after: [db]
    endpoints: []
    flapping: {attempts: 4}
    labels: {tier: web}
    action: {migrate: python manage.py migrate}
    before_start: null
    env: {TOKEN: s3cret, LINES: " two\\n\\nlines ", "odd name": "1"}
  shop.db: {cmd: db, priority: 1}
"""
INI = """\
[job:ini]
cmd = sh -c
  'exit 0'
args = 'not $EXPANDED'
os_env = no
[env:ini]
OTHER = s3cret
"""


@pytest.fixture
def effective(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Effective:
    """The configuration of YAML and INI, with a flag and a variable."""
    monkeypatch.chdir(tmp_path)
    Path("gafferd.yaml").write_text(YAML)
    Path("more.ini").write_text(INI)
    return read([], {"GAFFER_STATE_DIR": "/srv/state"}, "--backlog=9", "--insecure")


def read(files: list[str], environ: Mapping[str, str], *args: str) -> Effective:
    return read_effective(
        parse_options(["-c", *(files or ["gafferd.yaml"]), *args]), environ, Path("/nonexistent"), False
    )


def assert_same(one: Effective, other: Effective) -> None:
    assert other.settings == one.settings
    assert other.file.endpoints == one.file.endpoints
    assert other.file.webhooks == one.file.webhooks
    assert list(other.file.jobs.items()) == list(one.file.jobs.items())
    assert other.file.warnings == ()


def test_what_is_printed_loads_to_the_same(effective: Effective) -> None:
    Path("again.ini").write_text(render(effective, secrets=True))
    again = read(["again.ini"], {})
    assert len(again.file.jobs) == 3
    assert_same(effective, again)
    assert render(again, secrets=True).count(" = ") == render(effective, secrets=True).count(" = ")


def test_the_source_of_each_value(effective: Effective) -> None:
    lines = render(effective, secrets=True).splitlines()
    sources = {}
    section = source = ""
    for line in lines:
        if line.startswith("["):
            section = line
        elif line.startswith("# "):
            source = line
        elif " = " in line:
            sources[section, line.partition(" = ")[0]] = source
    assert sources["[gaffer]", "backlog"] == "# from --backlog"
    assert sources["[gaffer]", "state_dir"] == "# from GAFFER_STATE_DIR"
    assert sources["[gaffer]", "lookupd_address2"] == "# gafferd.yaml:4"
    assert sources["[gaffer]", "log_level"] == "# default"
    assert sources["[endpoint:main]", "backlog"] == "# gafferd.yaml:8"
    assert sources["[webhooks]", "exit"] == "# gafferd.yaml:9"
    assert sources["[job:shop:web]", "action.migrate"] == "# gafferd.yaml:21"
    assert sources["[job:shop:web]", "startsecs"] == "# default"
    assert sources["[job:shop:web]", "env:TOKEN"] == "# gafferd.yaml:23"
    assert sources["[job:ini]", "env:OTHER"] == "# more.ini:7"
    assert sources["[job:ini]", "os_env"] == "# more.ini:5"
    assert sources["[gaffer]", "require_key"] == "# default"
    assert {"require_key = false", "trust_local = true", "insecure = True"} <= {*lines}
    assert "# pidfile is not set" in lines
    assert "# bind is not set; default: 127.0.0.1:5000" in lines


def test_secrets_are_masked_and_then_nothing_loads(effective: Effective) -> None:
    text = render(effective, secrets=False)
    assert text.startswith("# Secrets are masked, so this is not a configuration that can be loaded")
    assert "secret" not in text.partition("[gaffer]")[2].replace("webhook_secret_file", "")
    assert "s3cret" not in text
    assert f"env:TOKEN {MASK}\n" in text
    assert f"lookupd_address2 {MASK}\n" in text
    Path("masked.ini").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(Path("masked.ini"))
    masked = [line for line, content in enumerate(text.splitlines(), start=1) if content.endswith(f" {MASK}")]
    assert [problem.path for problem in caught.value.problems] == [f"masked.ini:{line}" for line in masked]
    assert len(masked) == 5


def test_nothing_to_mask(tmp_path: Path) -> None:
    (tmp_path / "gafferd.yaml").write_text("jobs: {web: {cmd: run}}")
    without = read([str(tmp_path / "gafferd.yaml")], {})
    assert render(without, secrets=False) == render(without, secrets=True)
    assert "masked" not in render(without, secrets=False)


@pytest.mark.parametrize(
    ("job", "why"),
    [
        ("{cmd: run, watch: ['a,b']}", "an INI file can't hold the value of watch"),
        ('{cmd: "a\\n\\nb", shell: yes}', "an INI file can't hold the value of cmd"),
        ('{cmd: "a\\n# b", shell: yes}', "an INI file can't hold the value of cmd"),
        ('{cmd: " a", shell: yes}', "an INI file can't hold the value of cmd"),
    ],
)
def test_what_ini_can_not_hold_is_refused(tmp_path: Path, job: str, why: str) -> None:
    (tmp_path / "gafferd.yaml").write_text(f"jobs: {{web: {job}}}")
    with pytest.raises(GafferError, match=f"the job web can't be printed as INI: .*{why}"):
        render(read([str(tmp_path / "gafferd.yaml")], {}), secrets=True)


texts = st.text(st.sampled_from("aB1 $'\"\\`,;#*{}=%\n[]:<é\u2028"), max_size=8)
names = st.text(st.sampled_from("aB_ ;#[.:é"), min_size=1, max_size=4)


@given(st.dictionaries(names, texts, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_variable_is_printed_as_it_is(tmp_path: Path, env: dict[str, str]) -> None:
    file, again = tmp_path / "gafferd.yaml", tmp_path / "again.ini"
    shown: dict[str, Any] = {"jobs": {"web": {"cmd": "run", "env": env}}}
    file.write_text(json.dumps(shown), "utf-8")
    effective = read([str(file)], {})
    assert next(iter(effective.file.jobs.values())).env == env
    again.write_text(render(effective, secrets=True), "utf-8")
    assert_same(effective, read([str(again)], {}))


def test_the_command(tmp_path: Path) -> None:
    file = tmp_path / "gafferd.ini"
    file.write_text("[job:web]\ncmd = run\nenv:A = s3cret\n")
    before = sorted(tmp_path.iterdir())
    env = {"HOME": str(tmp_path), "GAFFER_STATE_DIR": str(tmp_path / "state")}
    masked = run_command("gafferd", "--print-config", str(file), env=env)
    assert (masked.returncode, masked.stderr) == (0, "")
    assert "s3cret" not in masked.stdout
    full = run_command("gafferd", "--print-config", "--show-secrets", str(file), env=env)
    assert "env:A = s3cret\n" in full.stdout
    file.write_text("[job:web]\ncmd =\n")
    broken = run_command("gafferd", "--print-config", str(file), env=env)
    assert (broken.returncode, broken.stdout) == (2, "")
    assert f"{file}:2: [job:web] cmd: expected a non-empty text" in broken.stderr
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("path", ["deploy/compose/gafferd.ini", "examples/gaffer.ini", "deploy/gafferd.yaml"])
def test_files_that_are_shipped_are_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(ROOT)
    flags = ("--lookupd-address=http://a", "--lookupd-address=http://b,http://c", "--node-name=n", "--log-level=debug")
    shipped = read([path], {"GAFFER_STATE_DIR": "/srv/a b"}, *flags)
    (tmp_path / "again.ini").write_text(render(shipped, secrets=True))
    again = read([str(tmp_path / "again.ini")], {})
    assert again.settings.lookupd_address == ("http://a", "http://b", "http://c")
    assert_same(shipped, again)


@pytest.mark.parametrize("flag", ["--pidfile= a", "--error-log=a\n\nb"])
def test_a_flag_that_ini_can_not_hold_is_refused(tmp_path: Path, flag: str) -> None:
    (tmp_path / "gafferd.ini").touch()
    effective = read([str(tmp_path / "gafferd.ini")], {}, flag)
    with pytest.raises(GafferError, match=r"an INI file can't hold the value of (pidfile|error_log)"):
        render(effective, secrets=True)
