"""Each setting of a job has an example in the reference; here each is taken at its word."""

import dataclasses
from typing import Any

import msgspec
import pytest

from gaffer.jobs.config import PROCESS_KEYS, JobConfig

pytestmark = pytest.mark.pure

FIELDS = {field.name: field for field in dataclasses.fields(JobConfig)}
SOCKET = {"socket": "tcp:8080"}
# What else a job needs for a setting to make sense.
NEEDED: dict[str, dict[str, str]] = {
    "start": SOCKET,
    "idle_timeout": {**SOCKET, "start": "on-connection"},
    "endpoints": {"port": "8000"},
}
OBJECTS = ("env", "labels", "action")


def described(key: str) -> dict[str, Any]:
    text: str = FIELDS[key].metadata["example"]
    value = msgspec.json.decode(text) if key in OBJECTS else text
    return {"name": "web", "cmd": "true", **NEEDED.get(key, {}), key: value}


@pytest.mark.parametrize("key", PROCESS_KEYS)
def test_the_example_of_each_setting_is_valid_in_a_file_and_changes_it(key: str) -> None:
    config = JobConfig.from_dict(described(key), lax=True)
    default = FIELDS[key].default
    assert getattr(config, key) not in (default, None, (), {})


@pytest.mark.parametrize("key", PROCESS_KEYS)
def test_a_config_made_from_each_example_can_be_sent_as_json(key: str) -> None:
    config = JobConfig.from_dict(described(key), lax=True)
    assert JobConfig.from_dict(msgspec.json.decode(msgspec.json.encode(config.to_dict()))) == config
