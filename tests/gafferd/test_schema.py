"""The JSON Schema of the configuration file."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from gaffer.runtime.ini import parse_ini
from gafferd.config.file import load_config
from gafferd.config.schema import make_schema

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "deploy/gafferd.schema.json"


@pytest.fixture(scope="module")
def schema() -> Draft202012Validator:
    document = json.loads(PUBLISHED.read_text())
    Draft202012Validator.check_schema(document)
    return Draft202012Validator(document)


def sections(text: str) -> dict[str, dict[str, str]]:
    found, problems = parse_ini(text, "gafferd.ini")
    assert problems == []
    return {name: section.texts() for name, section in found.items()}


def test_the_published_one_is_current() -> None:
    stale = "run `.venv/bin/python -m gafferd.config.schema > deploy/gafferd.schema.json`"
    assert json.loads(PUBLISHED.read_text()) == make_schema(), stale


@pytest.mark.parametrize("path", ["deploy/gafferd.ini", "deploy/compose/gafferd.ini", "examples/gaffer.ini"])
def test_it_accepts_the_files_that_are_shipped(schema: Draft202012Validator, path: str) -> None:
    text = (ROOT / path).read_text()
    with_examples = re.sub(r"^; (?=[A-Za-z_]+ = |\[)", "", text, flags=re.MULTILINE)
    for each in (text, with_examples):
        schema.validate(sections(each))


@pytest.mark.parametrize(
    "config",
    [
        {
            "gaffer": {
                "backlog": 128,
                "require_key": True,
                "lookupd_address": "http://a",
                "lookupd_address2": "http://b",
            }
        },
        {"gaffer": {"backlog": "128", "include": "a.ini b.ini", "plugins_dir": "/srv/plugins"}},
        {"http": {"max_body": "8M", "max_header": 1024, "idle_timeout": 0.5}},
        {"endpoint:a": {"bind": "127.0.0.1:0"}, "webhooks": {".": "http://a", "exit": "http://b"}},
        {"process:shop:web": {"cmd": "web", "numprocesses": 2, "env:Port": "1", "flapping": "2, 1, 7, 5"}},
        {"job:web": {"cmd": "web", "numprocesses": "2", "labels": "tier=web"}, "env:web": {"A": "1"}},
        {"a section of a plugin": {"any": ["thing"]}},
        {"job:web": {"cmd": "web", "action.migrate": "run it"}},
        {"gaffer": {"include": ["a.yaml"], "bind": ["127.0.0.1:0"], "labels": {"zone": "a"}, "http_endpoints": ["a"]}},
        {"endpoints": {"a": {"bind": ["127.0.0.1:0", "unix:/a"]}}, "webhooks": {"exit": ["http://a"]}},
        {"jobs": {"shop.web": {"cmd": "web", "env": {"A": 1, "B": True}, "labels": {"tier": "web"}, "umask": 23}}},
        {"jobs": {"web": {"cmd": "web", "after": ["db"], "action": {"clear": "x"}, "env:A": "1", "ready": None}}},
    ],
)
def test_it_accepts(schema: Draft202012Validator, config: dict[str, Any]) -> None:
    schema.validate(config)


@pytest.mark.parametrize(
    ("config", "place"),
    [
        ({"gaffer": {"bnd": "127.0.0.1:0"}}, ["gaffer"]),
        ({"gaffer": {"certfile": "a.pem"}}, ["gaffer"]),
        ({"gaffer": {"backlog": 0}}, ["gaffer", "backlog"]),
        ({"gaffer": {"loop": "fast"}}, ["gaffer", "loop"]),
        ({"gaffer": {"lookupd_addressx": "http://a"}}, ["gaffer"]),
        ({"http": {"header_timeout": 0}}, ["http", "header_timeout"]),
        ({"endpoint:a": {"backlog": "7"}}, ["endpoint:a"]),
        ({"webhooks": {"exit": 7}}, ["webhooks", "exit"]),
        ({"process:web": {"numprocesses": 2}}, ["process:web"]),
        ({"process:web": {"cmd": " "}}, ["process:web", "cmd"]),
        ({"process:web": {"cmd": "web", "numprocesses": -1}}, ["process:web", "numprocesses"]),
        ({"process:shop:web": {"cmd": "web", "comand": "x"}}, ["process:shop:web"]),
        ({"job:web": {"cmd": "web", "env": {"A": "1"}}}, ["job:web"]),
        ({"jobs": {"web": {"cmd": "web", "comand": "x"}}}, ["jobs", "web"]),
        ({"jobs": {"web": {"cmd": "web", "env": "A=1"}}}, ["jobs", "web", "env"]),
        ({"jobs": {"web": {"cmd": "web", "name": "web"}}}, ["jobs", "web"]),
        ({"jobs": {"web": {"env": {"A": "1"}}}}, ["jobs", "web"]),
        ({"jobs": {"a.b.c": {"cmd": "web"}}}, ["jobs"]),
        ({"endpoints": {"a": {"backlog": 7}}}, ["endpoints", "a"]),
        ({"endpoints": {"a": {"bind": [7]}}}, ["endpoints", "a", "bind"]),
    ],
)
def test_it_refuses(schema: Draft202012Validator, config: dict[str, Any], place: list[str]) -> None:
    assert [list(error.absolute_path) for error in schema.iter_errors(config)] == [place]


def test_it_accepts_the_file_in_yaml_with_its_examples(schema: Draft202012Validator) -> None:
    text = (ROOT / "deploy/gafferd.yaml").read_text()
    with_examples = re.sub(r"^( *)# (?= *[A-Za-z_.]+:( |$))", r"\1", text, flags=re.MULTILINE)
    config = yaml.safe_load(with_examples)
    assert list(config["jobs"]) == ["shop.web"]
    schema.validate(config)


JOB = make_schema()["$defs"]["Job"]["properties"]


@pytest.mark.parametrize("name", sorted(JOB))
def test_the_example_of_each_setting_is_accepted(schema: Draft202012Validator, tmp_path: Path, name: str) -> None:
    if name == "env_json":
        assert "examples" not in JOB[name]
        return
    (example,) = JOB[name]["examples"]
    needed: dict[str, dict[str, Any]] = {
        "ready": {"port": 8000},
        "idle_timeout": {"start": "on-connection", "socket": "tcp:127.0.0.1:8080"},
        "start": {"socket": "tcp:127.0.0.1:8080"},
        "endpoints": {"port": "auto"},
        "timezone": {"schedule": "* * * * *"},
    }
    others = {job: {"cmd": "x", "kind": "once"} for job in ("db", "cache", "migrate")}
    config = {"jobs": {"web": {"cmd": "run", **needed.get(name, {}), name: example}, **others}}
    schema.validate(config)
    file = tmp_path / "gafferd.yaml"
    file.write_text(yaml.safe_dump(config))
    job = next(job for job in load_config(file).jobs.values() if job.name == "web")
    plain = {"name": "web", "cmd": "run", "os_env": True, **needed.get(name, {})}
    assert (job != type(job).from_dict(plain, lax=True)) is (name != "os_env")  # its example is its default in files
