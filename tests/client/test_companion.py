"""The companion of a Procfile: settings of its types in gaffer.yml or gaffer.ini."""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from gaffer.errors import ConfigError
from gaffer.jobs.names import parse_job_name
from gaffer.process import ProcessConfig
from gaffer.runtime.yaml_files import MAX_CHARACTERS
from gaffer_client import Server
from gaffer_client.cli.companion import find_companion, read_companion
from gafferd.config.file import load_config
from support.client import Commands
from support.console import piped, until
from support.daemons import gafferd

YAML = """\
x-defaults: &defaults
  graceful_timeout: 5s
  os_env: yes

jobs:
  web:
    <<: *defaults
    numprocesses: 2
    ready: http:/health
    after: [db, "migrate:completed"]
    env:
      VERSION: 3.10
      DEBUG: on
      RELEASED: 2024-01-01
    labels: {tier: front}
    action.clear: rm -rf cache
  migrate: {kind: once, after: db, umask: 027}
  db:
    cmd: database --listen "a b"
    args: [--limit, 22:22, "it's $HOME, all"]
    port: 6379
    stop_signal: INT
    flapping: [3, 1.5]
  idle:
"""

INI = """\
[job:web]
graceful_timeout = 5s
os_env = yes
numprocesses = 2
ready = http:/health
after = db, migrate:completed
env:VERSION = 3.10
labels = tier=front
action.clear = rm -rf cache

[env:web]
debug = on
released = 2024-01-01

[process:migrate]
kind = once
after = db
umask = 027

[job:db]
cmd = database --listen "a b"
args = --limit 22:22 "it's $HOME, all"
port = 6379
stop_signal = INT
flapping = 3 1.5
"""

PROCFILE = "web: serve --port $PORT\nmigrate: migrate\nidle: idle\n"


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "shop"
    root.mkdir()
    (root / "Procfile").write_text(PROCFILE)
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def exported(gaffer: Commands) -> Any:
    """Return the jobs that `gaffer export` with these arguments writes as JSON, by type."""

    def export(*args: str) -> dict[str, dict[str, Any]]:
        ran = gaffer("export", "--format=json", *args)
        assert ran.status == 0, ran.err
        return {job["name"].removeprefix("shop."): job for job in json.loads(ran.out)["jobs"]}

    return export


@pytest.mark.parametrize(("name", "text"), [("gaffer.yml", YAML), ("gaffer.yaml", YAML), ("gaffer.ini", INI)])
def test_a_companion_gives_settings_of_types_and_types_of_its_own(
    app: Path, exported: Any, name: str, text: str
) -> None:
    (app / name).write_text(text)
    jobs = exported()
    assert list(jobs) == ["web", "migrate", "idle", "db"]
    web = jobs["web"]
    assert web["env"] == {"VERSION": "3.10", "DEBUG": "on", "RELEASED": "2024-01-01"}
    assert (web["graceful_timeout"], web["os_env"], web["numprocesses"]) == (5.0, True, 2)
    assert (web["ready"], web["after"]) == ("http:/health", ["db", "migrate:completed"])
    assert (web["labels"], web["action"]) == ({"tier": "front"}, {"clear": "rm -rf cache"})
    assert (web["cmd"], web["args"], web["port"]) == ("serve", ["--port", "$PORT"], "8000+")
    assert (jobs["migrate"]["kind"], jobs["migrate"]["umask"], jobs["migrate"]["port"]) == ("once", "027", "8100+")
    db = jobs["db"]
    assert (db["cmd"], db["args"]) == ('database --listen "a b"', ["--limit", "22:22", "it's $HOME, all"])
    assert (db["port"], db["stop_signal"], db["cwd"]) == ("6379", "INT", str(app))
    assert db["flapping"] == {"attempts": 3, "window": 1.5, "retry_in": 7.0, "max_retry": 5}
    assert "endpoints" not in db
    assert jobs["idle"]["endpoints"] == []


@pytest.mark.parametrize(("name", "text"), [("gaffer.yml", YAML), ("gaffer.ini", INI)])
def test_an_export_as_ini_has_the_settings_of_the_companion(
    gaffer: Commands, app: Path, exported: Any, name: str, text: str
) -> None:
    (app / name).write_text(text)
    assert gaffer("export", "--out=shop-jobs.ini").status == 0
    from_ini = load_config(app / "shop-jobs.ini").jobs
    for type_, job in exported().items():
        same = {"cmd": "x", "args": (), "priority": None}  # written in another way
        loaded = ProcessConfig.from_dict({**job, "name": type_})
        written = from_ini[parse_job_name(f"shop.{type_}")]
        assert written.replace(**same) == loaded.replace(**same)
        assert written.arguments({"PORT": "80"}) == loaded.arguments({"PORT": "80"})


@pytest.mark.parametrize("text", ["", "jobs:\n", "jobs: {}\n", "# nothing\n"])
def test_a_companion_may_be_empty(app: Path, exported: Any, text: str) -> None:
    without = exported()
    (app / "gaffer.yml").write_text(text)
    assert exported() == without


def test_options_win_over_the_companion_and_the_companion_over_the_procfile_s_environment(
    app: Path, exported: Any
) -> None:
    (app / ".env").write_text("PORT=5000\nA=dotenv\nB=dotenv\nC=dotenv\n")
    (app / "given.env").write_text("C=given\n")
    (app / "gaffer.yml").write_text(
        "jobs:\n  web: {port: 3000+, numprocesses: 2, env: {B: companion, C: companion}}\n  migrate: {port: 4000}\n"
    )
    web = exported("-e", "given.env")["web"]
    assert (web["port"], web["numprocesses"]) == ("3000+", 2)
    assert web["env"] == {"A": "dotenv", "B": "companion", "C": "given"}
    jobs = exported("-c", "web=3", "-p", "9000", "-e", "PORT=6000")
    assert jobs["web"]["numprocesses"] == 3
    assert jobs["web"]["env"]["PORT"] == "6000"
    (app / ".env").unlink()
    jobs = exported("-c", "web=3", "-p", "9000")
    assert [jobs[name]["port"] for name in ("web", "migrate", "idle")] == ["9000+", "9100+", "9200+"]
    jobs = exported()
    assert [jobs[name]["port"] for name in ("web", "migrate", "idle")] == ["3000+", "4000", "8200+"]


def test_types_with_a_port_need_none_of_the_block(app: Path, exported: Any, gaffer: Commands) -> None:
    (app / "gaffer.yml").write_text("jobs: {web: {port: 3000+, numprocesses: 150}}\n")
    assert exported()["web"]["port"] == "3000+"
    assert "web=150 exceeds the 100 ports of a type" in gaffer("export", "-p", "9000").err


def test_other_types_get_no_port_that_the_companion_gives_to_one(app: Path, exported: Any) -> None:
    (app / "gaffer.yml").write_text("jobs: {idle: {port: 8150}}\n")
    jobs = exported()
    assert [jobs[name]["port"] for name in ("web", "migrate", "idle")] == ["8000+", "8100+", "8150"]
    (app / "gaffer.yml").write_text("jobs: {idle: {port: 8100}}\n")
    jobs = exported()
    assert [jobs[name]["port"] for name in ("web", "migrate", "idle")] == ["8200+", "8300+", "8100"]


def test_own_settings_win_over_merged_ones(app: Path, exported: Any) -> None:
    (app / "gaffer.yml").write_text(
        "x-a: &a {nice: 1, umask: 007}\nx-b: &b {nice: 2, startsecs: 2}\n"
        "jobs:\n  web: {<<: *a, nice: 3}\n  idle: {nice: 3, <<: [*a, *b]}\n  migrate: {<<: [*a, *b]}\n"
    )
    jobs = exported()
    assert [jobs[name]["nice"] for name in ("web", "idle", "migrate")] == [3, 3, 1]
    assert [jobs[name]["umask"] for name in ("web", "idle", "migrate")] == ["007", "007", "007"]
    assert jobs["migrate"]["startsecs"] == 2.0


@pytest.mark.parametrize("order", [1, -1])
def test_variables_in_a_job_section_win_over_those_in_its_env_section(app: Path, exported: Any, order: int) -> None:
    sections = ["[job:web]\nenv:A = job\nnice = 1\n", "[env:web]\na = env\nb = env\n"]
    (app / "gaffer.ini").write_text("".join(sections[::order]))
    web = exported()["web"]
    assert (web["env"], web["nice"]) == ({"A": "job", "B": "env"}, 1)


def test_paths_are_relative_to_the_application_and_detached_types_have_no_pipes(app: Path, exported: Any) -> None:
    (app / "gaffer.yml").write_text("jobs: {web: {cwd: site, detach: true}, idle: {cwd: /srv, redirect_output: out}}\n")
    jobs = exported()
    assert (jobs["web"]["cwd"], "redirect_output" in jobs["web"]) == (str(app / "site"), False)
    assert (jobs["idle"]["cwd"], jobs["idle"]["redirect_output"]) == ("/srv", ["out"])


def test_a_procfile_with_a_companion_alone_needs_no_types(app: Path, exported: Any) -> None:
    (app / "Procfile").write_text("")
    (app / "gaffer.yml").write_text("jobs: {db: {cmd: database}}\n")
    assert list(exported()) == ["db"]


def test_the_companion_belongs_to_the_procfile_not_to_its_name(app: Path, gaffer: Commands) -> None:
    (app / "Procfile").rename(app / "Procfile.dev")
    (app / "gaffer.yml").write_text("jobs: {web: {nice: 5}}\n")
    assert "nice = 5" in gaffer("-f", "Procfile.dev", "-d", str(app.parent), "export").out


def test_a_node_gets_the_settings(app: Path, gaffer: Commands) -> None:
    (app / "Procfile").write_text("web: sleep 1000\n")
    (app / "gaffer.yml").write_text(
        "jobs:\n  web: {nice: 3, graceful_timeout: 2s, start: no}\n  db: {cmd: sleep 1000, start: no, after: web}\n"
    )
    with gafferd() as node, Server(node.url) as server:
        ran = gaffer("load", "--endpoint", node.url)
        assert (ran.status, ran.err) == (0, "")
        config = server.get_job("shop.web").info()["config"]
        assert (config["nice"], config["graceful_timeout"], config["start"]) == (3, 2.0, False)
        assert server.get_job("shop.db").info()["config"]["after"] == ["web"]


WRONG_YAML = """\
jobs:
  web:
    reddy: http:/
    after: [bd, migrate]
    numprocesses: two
    cmd: serve
    env: {A: 1}
    env: {A: 2}
  migrate:
    after: web
    umask: 999
    watch:
      - src
      - [x]
  wbe: {ready: tcp}
  db: database
  other.job: {cmd: x}
  12: {cmd: x}
  idle: !!set {}
  clock: [1]
job: 5
"""

WRONG_INI = """\
stray = 1
[job:web]
reddy = http:/
numprocesses = 2 ; or more
env:A = 1
env:A = 2
[process:web]
nice = 1
[env:wbe]
A = 1
[jobs:web]
A = 1
[gaffer]
http_endpoints = public
[job:db]
cmd = database
name = db
after = web, dbb
[env:db]
a = 1
A = 2
"""


@pytest.mark.parametrize("command", [["start"], ["export"], ["load", "--endpoint", "http://127.0.0.1:1"]])
def test_every_mistake_is_reported_at_once(gaffer: Commands, app: Path, command: list[str]) -> None:
    (app / "gaffer.yml").write_text(WRONG_YAML)
    ran = gaffer(*command)
    assert ran.status == 2
    known = "web, migrate, idle, db, other.job, 12"
    assert ran.err.replace(f"{app}/", "").splitlines() == [
        "gaffer: gaffer.yml:3: web: unknown key 'reddy'",
        "  did you mean 'ready'?",
        "gaffer: gaffer.yml:4: web: after: the Procfile has no type 'bd'",
        f"  known types: {known}",
        "gaffer: gaffer.yml:4: web: after: the types wait for each other: web -> migrate -> web",
        "  remove one of them",
        "gaffer: gaffer.yml:5: web: numprocesses: expected a whole number of 0 or more, got 'two'",
        "gaffer: gaffer.yml:6: web: cmd: the command is on Procfile:1",
        "  change that line, or remove one of the two",
        "gaffer: gaffer.yml:8: env is already set on line 7",
        "  remove one of the two",
        "gaffer: gaffer.yml:11: migrate: umask: expected an octal number as a text, got '999'",
        '  use a text such as "027"',
        "gaffer: gaffer.yml:14: migrate: watch: expected a non-empty text, got ['x']",
        "gaffer: gaffer.yml:15: the Procfile has no type 'wbe'",
        "  did you mean 'web'?",
        "gaffer: gaffer.yml:16: db: expected a mapping of settings, got 'database'",
        "  write cmd: database",
        "gaffer: gaffer.yml:17: other.job: a type belongs to no other session",
        "  leave out the session",
        "gaffer: gaffer.yml:18: 12: name: the job name '12' consists of digits only and could be mistaken for a "
        "process id",
        "  add a letter",
        "gaffer: gaffer.yml:19: the tag 'set' is not supported",
        "  remove it",
        "gaffer: gaffer.yml:20: clock: expected a mapping of settings, got ['1']",
        "gaffer: gaffer.yml:20: the Procfile has no type 'clock'",
        f"  add cmd to define it here; known types: {known}",
        "gaffer: gaffer.yml:21: unknown key 'job'",
        "  did you mean 'jobs'?",
    ]


def test_every_mistake_in_an_ini_file_is_reported_at_once(gaffer: Commands, app: Path) -> None:
    (app / "gaffer.ini").write_text(WRONG_INI)
    ran = gaffer("export")
    assert ran.status == 2
    assert ran.err.replace(f"{app}/", "").splitlines() == [
        "warning: gaffer.ini:13: [gaffer] ignored: only gafferd reads this section",
        "gaffer: gaffer.ini:1: 'stray = 1' before the first section",
        "  start with a section header such as [gaffer]",
        "gaffer: gaffer.ini:3: web: unknown key 'reddy'",
        "  did you mean 'ready'?",
        "gaffer: gaffer.ini:4: web: numprocesses: expected a whole number of 0 or more, got '2 ; or more'",
        "gaffer: gaffer.ini:6: [job:web] env:A is already set on line 5",
        "  remove one of the two",
        "gaffer: gaffer.ini:7: [process:web] web already has a section, on line 2",
        "  merge the two sections",
        "gaffer: gaffer.ini:9: the Procfile has no type 'wbe'",
        "  did you mean 'web'?",
        "gaffer: gaffer.ini:11: [jobs:web] unknown section",
        "  did you mean 'job'?",
        "gaffer: gaffer.ini:17: [job:db] unknown key 'name'",
        "  set the name in the section header: [process:NAME] or [process:SESSION:NAME]",
        "gaffer: gaffer.ini:18: db: after: the Procfile has no type 'dbb'",
        "  did you mean 'db'?",
        "gaffer: gaffer.ini:21: [env:db] A is given twice",
        "  variable names are converted to upper case",
    ]


def test_options_are_checked_with_the_settings_of_the_companion(gaffer: Commands, app: Path) -> None:
    (app / "gaffer.yml").write_text("jobs:\n  web:\n    port: 8000\n")
    assert gaffer("export").status == 0
    ran = gaffer("export", "-c", "web=2")
    assert ran.status == 2
    assert f"{app}/gaffer.yml:3: web: port: 2 processes can't share port 8000" in ran.err


def test_start_runs_no_jobs_of_other_applications(gaffer: Commands, app: Path) -> None:
    (app / "gaffer.yml").write_text("jobs:\n  web: {after: other.db}\n")
    assert gaffer("export").status == 0
    ran = gaffer("start")
    assert (ran.status, f"{app}/gaffer.yml:2: web: after: other.db is a job of another" in ran.err) == (2, True)


def test_two_companions_are_refused(gaffer: Commands, app: Path) -> None:
    (app / "gaffer.yml").write_text("")
    (app / "gaffer.ini").write_text("")
    ran = gaffer("start")
    assert (ran.status, ran.err) == (
        2,
        f"gaffer: {app}: gaffer.yml and gaffer.ini exist, only one is allowed\n  merge the files\n",
    )
    (app / "gaffer.ini").unlink()
    assert find_companion(str(app)) == str(app / "gaffer.yml")


QUOTE = "quote a text that begins with one of * & ! % @ `"


@pytest.mark.parametrize(
    ("text", "line", "message", "hint"),
    [
        ("jobs: {web: {watch: **/*.py}}", 1, "invalid YAML: expected alphabetic or numeric character", QUOTE),
        ("jobs:\n  web: {watch: *py}", 2, "invalid YAML: found undefined alias 'py'", QUOTE),
        ("jobs:\n  web:\n\tnice: 1", 3, "invalid YAML: found character '\\t'", "indent with blanks, not with tabs"),
        ("jobs:\n  web: {env: {A: @x}}", 2, "invalid YAML: found character '@'", QUOTE),
        (
            "jobs:\n  web:\n    cmd: a: b",
            3,
            "invalid YAML: mapping values are not allowed",
            "quote a text with a colon",
        ),
        ("jobs: {web: {cmd: a: b}}", 1, "invalid YAML: expected ',' or '}', but got ':'", "quote a text with a colon"),
        ("a: 1\n---\nb: 1", 2, "invalid YAML: expected a single document", "remove the line with ---"),
        ("jobs:\n  web: {env: {A: '\x07'}}", 2, "invalid YAML: special characters", "save the file as UTF-8 text"),
        ("[" * 5000, None, "nested too deeply", None),
        pytest.param("x" * (MAX_CHARACTERS + 1), None, "the file is larger than 4 MiB", None, id="large"),
    ],
)
def test_what_is_not_yaml_is_refused(tmp_path: Path, text: str, line: int, message: str, hint: str | None) -> None:
    path = tmp_path / "gaffer.yml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_companion(str(path))
    problem = caught.value.problems[0]
    assert problem.path == (f"{path}:{line}" if line else str(path))
    assert problem.message.startswith(message)
    assert (problem.hint or "").startswith(hint or "")


BOMB = "x-a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
    f"x-{after}: &{after} [{', '.join([f'*{before}'] * 8)}]\n"
    for before, after in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("- web", 1, "expected a mapping with the key jobs"),
        ("\njobs: [web]", 2, "jobs: expected a mapping of process types"),
        ("? [a]\n: b", 1, "expected a text as a key"),
        ("jobs: &a {web: *a}", 1, "nested too deeply"),
        ("jobs:\n  web: {env: &e [*e]}", 2, "nested too deeply"),
        ("jobs:\n  web: &w {<<: *w}", 2, "nested too deeply"),
        ("jobs:\n  web: {<<: [1]}", 2, "expected a mapping to merge"),
        (BOMB + "jobs: {web: {args: *h}}", 1, "the file has too many parts"),
    ],
)
def test_shapes_that_describe_no_types_are_refused(tmp_path: Path, text: str, line: int, message: str) -> None:
    path = tmp_path / "gaffer.yml"
    path.write_text(text)
    problems = read_companion(str(path)).problems
    assert [(problem.path, problem.message.startswith(message)) for problem in problems] == [(f"{path}:{line}", True)]


def test_an_unreadable_companion_is_reported(gaffer: Commands, app: Path) -> None:
    (app / "gaffer.yml").write_bytes(b"jobs:\n  web: {env: {A: \xe9}}\n")
    ran = gaffer("export")
    assert (ran.status, ran.err.splitlines()[0]) == (2, f"gaffer: {app}/gaffer.yml:2: invalid UTF-8: byte 0xe9")


ROOT = Path(__file__).resolve().parents[2]


def test_the_companion_on_the_page_works(app: Path) -> None:
    page = (ROOT / "docs" / "laptop.md").read_text()
    for kind, name in (("text", "Procfile"), ("yaml", "gaffer.yml")):
        text = re.search(rf"^```{kind}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
        assert text is not None
        (app / name).write_text(text[1])
    with piped(app, "start", PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}") as process:
        lines = [line[9:].strip() for line in until(process, "clock | spawn")]
    order = [
        next(at for at, line in enumerate(lines) if re.search(each, line))
        for each in (
            r"^db +\| spawn",
            r"^db +\| .* is ready",
            r"^migrate +\| migrating",
            r"^web\.[12] +\| spawn",
            r"^clock +\| spawn",
        )
    ]
    assert order == sorted(order)


def test_the_example_has_a_companion(gaffer: Commands) -> None:
    ran = gaffer("export", "-d", ROOT / "examples" / "procfile")
    assert (ran.status, ran.err) == (0, "")
    assert "ready = log:is listening" in ran.out
