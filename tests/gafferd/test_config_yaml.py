"""Configuration files in YAML: the same model, rules and messages as in INI."""

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from gaffer.errors import ConfigError
from gafferd.config.file import Config, find_config, load_config, show_problem

Load = Callable[..., Config]
Mistakes = Callable[..., list[str]]

INI = """\
[gaffer]
http_endpoints = main, local
lookupd_address = http://10.0.0.5:5010, http://10.0.0.6:5010
labels = zone=a, disk=ssd
backlog = 64
require_key = yes
[http]
max_body = 4M
[endpoint:main]
bind = 127.0.0.1:5001, unix:/tmp/gafferd.sock
[endpoint:local]
bind = [::1]:5002
[webhooks]
exit = http://a, http://b
. = http://c
[job:shop:web]
cmd = serve --port $PORT
args = "two words" $HOME
numprocesses = 2
port = 8000+
umask = 027
detach = off
graceful_timeout = 1m
max_memory = 512M
after = db, migrate:completed
exit_codes = 0, 3
flapping = 4, 10, 30, 5
ready = http:8000/health
labels = tier=web, team=shop
action.migrate = python manage.py migrate
[env:shop:web]
PORT_OF_DB = 22:22
MODE = on
[job:shop:db]
cmd = db
[job:shop:migrate]
cmd = migrate
kind = once
"""

YAML = """\
x-defaults: &defaults {detach: off}
gaffer:
  http_endpoints: [main, local]
  lookupd_address:
    - http://10.0.0.5:5010
    - http://10.0.0.6:5010
  labels: {zone: a, disk: ssd}
  backlog: 64
  require_key: yes
http: {max_body: 4M}
endpoints:
  main: {bind: ["127.0.0.1:5001", "unix:/tmp/gafferd.sock"]}
  local: {bind: "[::1]:5002"}
webhooks:
  exit: [http://a, http://b]
  .: http://c
jobs:
  shop.web:
    <<: *defaults
    cmd: serve --port $PORT
    args: [two words, $HOME]
    numprocesses: 2
    port: 8000+
    umask: 027
    graceful_timeout: 1m
    max_memory: 512M
    after: [db, migrate:completed]
    exit_codes: [0, 3]
    flapping: {attempts: 4, window: 10, retry_in: 30, max_retry: 5}
    ready: http:8000/health
    labels: {tier: web, team: shop}
    action: {migrate: python manage.py migrate}
    env:
      PORT_OF_DB: 22:22
      MODE: on
  shop.db: {cmd: db}
  shop.migrate: {cmd: migrate, kind: once}
"""


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Loads the first of several files, given by name and text."""
    monkeypatch.chdir(tmp_path)

    def run(files: dict[str, str]) -> Config:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return load_config(Path(next(iter(files))))

    return run


@pytest.fixture
def mistakes(load: Load) -> Mistakes:
    """The mistakes in a file in YAML, as they are shown."""

    def run(text: str, **files: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load({"gafferd.yaml": text, **files})
        return [show_problem(problem) for problem in caught.value.problems]

    return run


@pytest.mark.parametrize("name", ["gafferd.yaml", "other.yml"])
def test_it_describes_the_same_as_ini(load: Load, name: str) -> None:
    ini, yaml = load({"gafferd.ini": INI}), load({name: YAML})
    assert yaml.warnings == ()
    assert yaml.settings == ini.settings
    assert yaml.endpoints == ini.endpoints
    assert yaml.webhooks == ini.webhooks
    assert list(yaml.jobs.items()) == list(ini.jobs.items())
    assert len(yaml.jobs) == 3


def test_every_mistake_at_once(mistakes: Mistakes) -> None:
    assert mistakes("""\
        gaffer:
          bind: nowhere:1:2
          lookupd_address: ["http://a", "http://b,http://c"]
          http_endpoints: [mainn]
          certfile: a.pem
          labels: [[a]]
        job: {}
        endpoints:
          main:
            backlog: 7
        webhooks: [http://a]
        jobs:
          web:
            cmd: run
            comand: x
            numprocesses: many
            exit_codes:
              - 0
              - 300
            env:
              A: 1
              B: [2]
            env: {C: 3}
          db: run
          a.b.c: {cmd: x}
        """) == [
        "gafferd.yaml:2: gaffer: bind: 'nowhere:1:2' is not a valid address; write IPv6 as [address]:port\n"
        "  hint: such as 127.0.0.1:5000, [::1]:5000 or unix:/run/gafferd.sock",
        "gafferd.yaml:3: gaffer: lookupd_address: 'http://b,http://c' contains a comma\n"
        "  hint: write each item on its own",
        "gafferd.yaml:4: gaffer: http_endpoints: unknown endpoint 'mainn'\n  hint: did you mean 'main'?",
        "gafferd.yaml:5: gaffer: unknown key 'certfile'\n  hint: move it to [ssl]",
        "gafferd.yaml:6: gaffer: labels: expected a text, got ['a']",
        "gafferd.yaml:7: unknown key 'job'\n  hint: did you mean 'jobs'?",
        "gafferd.yaml:9: endpoints.main: bind is missing\n  hint: add bind, such as bind = 127.0.0.1:5000",
        "gafferd.yaml:11: webhooks: expected a mapping\n  hint: write KEY: VALUE",
        "gafferd.yaml:15: jobs.web: unknown key 'comand'\n  hint: did you mean 'cmd'?",
        "gafferd.yaml:16: jobs.web: numprocesses: expected a whole number of 0 or more, got 'many'",
        "gafferd.yaml:19: jobs.web: exit_codes: expected an exit code from 0 to 255, got 300",
        "gafferd.yaml:22: jobs.web: env: expected a text, got ['2']",
        "gafferd.yaml:23: env is already set on line 20\n  hint: remove one of the two",
        "gafferd.yaml:24: jobs.db: expected a mapping\n  hint: write KEY: VALUE",
        "gafferd.yaml:24: jobs.db: cmd is missing\n  hint: set cmd to the command to run",
        "gafferd.yaml:25: jobs.a.b.c: 'b.c' is not a valid job name\n"
        "  hint: use 1 to 64 of A-Z a-z 0-9 _ + -, starting with a letter, a digit or _",
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("jobs: {web: {cmd: a: b}}", "gafferd.yaml:1: invalid YAML: expected ',' or '}', but got ':'"),
        ("jobs:\n  web: {cmd: x}\n  web: {cmd: y}", "gafferd.yaml:3: web is already set on line 2"),
        ("[job:web]\ncmd = x", "gafferd.yaml:2: invalid YAML"),
        ("- web", "gafferd.yaml:1: the file: expected a mapping"),
        ("gaffer:\n  include: {a: b}", "gafferd.yaml:2: gaffer: include: can't read a=b: No such file or directory"),
        (
            "jobs:\n  web:\n    cmd: x\n    env: A=1",
            "gafferd.yaml:4: jobs.web: unknown key 'env'\n  hint: set variables",
        ),
        ("jobs:\n  shop.web: {cmd: x}\n  shop/web: {cmd: x}", "gafferd.yaml:3: jobs.shop/web: the job shop.web is"),
    ],
)
def test_one_mistake(mistakes: Mistakes, text: str, shown: str) -> None:
    assert mistakes(text)[0].startswith(shown)


@pytest.mark.parametrize("text", ["", "# nothing\n", "jobs:\n", "gaffer: ~\nx-anything: [1]\n"])
def test_a_file_without_contents(load: Load, text: str) -> None:
    config = load({"gafferd.yaml": text})
    assert (config.settings, config.jobs, config.warnings) == ({}, {}, ())


def test_null_stands_for_the_default(load: Load) -> None:
    (job,) = load({"gafferd.yaml": "jobs: {web: {cmd: run, numprocesses: null, env: , after: ~}}"}).jobs.values()
    assert (job.numprocesses, job.env, job.after) == (1, {}, ())


def test_files_include_each_other(load: Load) -> None:
    config = load(
        {
            "gafferd.ini": "[gaffer]\ninclude = one.yaml\ninclude_dir = more\n[job:zero]\ncmd = x\n",
            "one.yaml": "gaffer: {include: [two.ini, 'with blank.yml']}\njobs: {one: {cmd: x}}\n",
            "two.ini": "[job:two]\ncmd = x\n[env:one]\nA = 1\n",
            "with blank.yml": "jobs: {three: {cmd: x}}\n",
            "more/four.yml": "jobs: {four: {cmd: x}}\n",
            "more/notes.txt": "no configuration",
        }
    )
    assert [str(name) for name in config.jobs] == [
        f"default.{name}" for name in ("zero", "one", "two", "three", "four")
    ]
    assert next(job.env for job in config.jobs.values() if job.name == "one") == {"A": "1"}


def test_mistakes_across_files_name_both(mistakes: Mistakes) -> None:
    assert mistakes("gaffer: {include: a.ini}\njobs: {web: {cmd: x}}\n", **{"a.ini": "[job:web]\ncmd =\n"}) == [
        "a.ini:1: [job:web] this section already exists at gafferd.yaml:2\n  hint: merge the sections"
    ]


def test_the_file_of_a_directory(tmp_path: Path) -> None:
    for name in ("gaffer.yaml", "gafferd.yml"):
        (tmp_path / name).touch()
        assert find_config(str(tmp_path), {}, tmp_path, False) == tmp_path / name
    home = tmp_path / "home"
    (home / ".gaffer").mkdir(parents=True)
    (home / ".gaffer/gaffer.yaml").touch()
    assert find_config(None, {}, home, False) is None
    (home / ".gaffer/gafferd.yaml").touch()
    assert find_config(None, {}, home, False) == home / ".gaffer/gafferd.yaml"
    (home / ".gaffer/gafferd.ini").touch()
    with pytest.raises(ConfigError, match=r"contains gafferd\.ini and gafferd\.yaml, only one is allowed"):
        find_config(None, {}, home, False)
