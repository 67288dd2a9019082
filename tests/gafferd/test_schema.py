"""The JSON Schema of the configuration file."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from gaffer.runtime.ini import parse_ini
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
    ],
)
def test_it_refuses(schema: Draft202012Validator, config: dict[str, Any], place: list[str]) -> None:
    assert [list(error.absolute_path) for error in schema.iter_errors(config)] == [place]
