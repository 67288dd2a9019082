"""Job sections of INI files: reading them, and writing a job description as one."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaffer.jobs.config import JobConfig
from gaffer.jobs.sections import ini_settings, nearest, read_settings, read_variables
from gaffer.runtime.ini import Section, Value, parse_ini

pytestmark = pytest.mark.pure

TEXT = """\
[job:web]
cmd = serve
env:PORT = 80
env_json = {"a b": "1"}
labels = tier=front, x=
action.clear = rm -rf cache
[env:web]
port = 90
"""


def section(settings: dict[str, str]) -> Section:
    values = {key: Value(text, "x.ini", line) for line, (key, text) in enumerate(settings.items(), start=2)}
    return Section("job:web", "x.ini", 1, values)


def test_settings_of_a_section_and_their_keys() -> None:
    sections, problems = parse_ini(TEXT, "x.ini")
    assert problems == []
    found = read_settings(sections["job:web"])
    assert found.problems == []
    assert found.settings == {
        "cmd": "serve",
        "labels": {"tier": "front", "x": ""},
        "action.clear": "rm -rf cache",
        "env": {"PORT": "80", "a b": "1"},
    }
    lines = {path: value.line for path, value in found.places.items()}
    assert lines == {"$.env.PORT": 3, "$.env.a b": 4, "$.cmd": 2, "$.labels": 5, "$.action.clear": 6}
    variables = read_variables(sections["env:web"])
    assert variables.settings == {"env": {"PORT": "90"}}
    assert variables.places["$.env.PORT"].line == 8
    assert [problem.path for problem in read_variables(sections["env:web"], {"PORT"}).problems] == ["x.ini:8"]


@pytest.mark.parametrize(
    ("path", "known", "found"),
    [
        ("$.after", {"$", "$.after"}, "$.after"),
        ("$.after[1]", {"$", "$.after"}, "$.after"),
        ("$.env.A.B", {"$.env", "$.env.A.B"}, "$.env.A.B"),
        ("$.flapping.window", {"$.ready"}, None),
        ("$", {"$.ready"}, None),
    ],
)
def test_the_nearest_part_that_is_known(path: str, known: set[str], found: str | None) -> None:
    assert nearest(path, known) == found


words = st.text(st.sampled_from("aB1 $HOME\"'\\`,;#*{}é%="), max_size=12)
items = st.text(st.sampled_from("ab/.*1"), min_size=1, max_size=6)
labels = st.dictionaries(st.text("abc", min_size=1, max_size=3), st.text("ab=1", max_size=3), max_size=3)
descriptions = st.fixed_dictionaries(
    {"name": st.just("web"), "cmd": st.just("run")},
    optional={
        "args": st.lists(words, max_size=4),
        "watch": st.lists(items, max_size=3),
        "exit_codes": st.lists(st.integers(0, 255), max_size=3),
        "endpoints": st.sampled_from([[], ["http:80"], ["http:80", "admin:81"]]),
        "labels": labels,
        "action": st.dictionaries(st.text("abc", min_size=1, max_size=3), st.just("run 'x'"), max_size=2),
        "flapping": st.sampled_from([{"attempts": 3}, {"window": 0.25, "max_retry": 2}]),
        "graceful_timeout": st.floats(0, 10**9),
        "essential": st.booleans(),
        "nice": st.none() | st.integers(-20, 19),
        "umask": st.sampled_from([None, "027"]),
        "numprocesses": st.integers(0, 10),
    },
)


@given(descriptions)
def test_a_description_is_the_same_after_it_was_a_section(description: dict[str, Any]) -> None:
    config = JobConfig.from_dict(description)
    settings = ini_settings({key: value for key, value in config.to_dict().items() if key in description})
    written = read_settings(section(settings))
    assert written.problems == []
    again = JobConfig.from_dict({"name": "web", **written.settings}, lax=True)
    assert again.arguments({"HOME": "h"}) == config.arguments({"HOME": "h"})
    same = {"cmd": "x", "args": ()}  # written in another way
    assert dataclasses.asdict(again.replace(**same)) == dataclasses.asdict(config.replace(**same))


@pytest.mark.parametrize(
    "settings", [{"watch": ["a,b"]}, {"env_file": [" a"]}, {"labels": {"a": "b, c=d"}}, {"labels": {"a": " b"}}]
)
def test_what_a_section_can_not_hold_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"can't hold the value of {next(iter(settings))}"):
        ini_settings(settings)
