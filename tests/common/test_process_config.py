from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaffer.errors import ConfigError, quoted
from gaffer.jobs.config import PROCESS_KEYS, JobConfig, find_problems
from gaffer.process import FlappingInfo

pytestmark = pytest.mark.pure

row = pytest.mark.row


@row("TPL-27")
def test_it_is_a_frozen_mapping() -> None:
    config = JobConfig("web", "python -u web.py", numprocesses=2)
    assert config["numprocesses"] == config.numprocesses == config.get("numprocesses") == 2
    assert config.get("nothing", 5) == 5
    assert "cmd" in config
    assert "nothing" not in config
    with pytest.raises(KeyError):
        config["nothing"]
    with pytest.raises(AttributeError):
        config.cmd = "other"  # type: ignore[misc]


@row("TPL-02", "TPL-03")
@pytest.mark.parametrize(
    ("cmd", "args", "expected"),
    [
        ("true", None, ["true"]),
        ("python -u 'a b.py'", None, ["python", "-u", "a b.py"]),
        ("python -u", "x.py --name 'a b'", ["python", "-u", "x.py", "--name", "a b"]),
        ("python", ["x.py", "a b", 3], ["python", "x.py", "a b", "3"]),
    ],
)
def test_the_command_line(cmd: str, args: Any, expected: list[str]) -> None:
    assert JobConfig("j", cmd, args=args).command() == expected


@row("TPL-11", "TPL-16", "TPL-17", "TPL-20", "TPL-08", "TPL-09", "TPL-10", "TPL-13")
def test_defaults() -> None:
    config = JobConfig("j", "true")
    assert config.numprocesses == 1
    assert config.graceful_timeout == 30
    assert config.priority is None
    assert config.flapping is None
    assert config.start is True
    assert (config.shell, config.os_env, config.detach, config.redirect_input) == (False, False, False, False)
    assert config.redirect_output == ()


@row("TPL-30")
def test_null_is_the_default_of_every_setting() -> None:
    optional = dict.fromkeys(key for key in PROCESS_KEYS if key not in ("name", "cmd"))
    assert JobConfig.from_dict({"name": "a", "cmd": "b", **optional}) == JobConfig("a", "b")
    flapping = JobConfig.from_dict({"name": "a", "cmd": "b", "flapping": {"attempts": 9, "window": None}}).flapping
    assert flapping == FlappingInfo(attempts=9)
    for key in ("name", "cmd"):
        [problem] = find_problems({"name": "a", "cmd": "b", key: None})
        assert problem.path == f"$.{key}"


def test_flapping_in_every_spelling() -> None:
    expected = FlappingInfo(attempts=3, window=1.0, retry_in=7.0, max_retry=5)
    spellings: list[Any] = [expected, {"attempts": 3}, [3, 1.0, 7.0, 5], "3, 1., 7., 5", "3 1. 7. 5"]
    for given_as in spellings:
        assert JobConfig("j", "true", flapping=given_as).flapping == expected
    assert FlappingInfo() == FlappingInfo(2, 1.0, 7.0, 5)


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"cmd": ""}, "$.cmd", "non-empty"),
    ({"cmd": "a 'b"}, "$.cmd", "split into words"),
    ({"cmd": 5}, "$.cmd", "expected a non-empty text"),
    ({"cmd": "a\0b"}, "$.cmd", "NUL"),
    ({"name": "123"}, "$.name", "digits only"),
    ({"name": "a b"}, "$.name", "not a valid job name"),
    ({"name": "s.exit"}, "$.name", "name of an event"),
    ({"numprocesses": -1}, "$.numprocesses", "0 or more"),
    ({"numprocesses": 1.5}, "$.numprocesses", "whole number"),
    ({"numprocesses": "2"}, "$.numprocesses", "whole number"),
    ({"numprocesses": True}, "$.numprocesses", "whole number"),
    ({"numprocesses": 10**9}, "$.numprocesses", "10000"),
    ({"graceful_timeout": "soon"}, "$.graceful_timeout", "seconds"),
    ({"graceful_timeout": float("nan")}, "$.graceful_timeout", "seconds"),
    ({"detach": "yes"}, "$.detach", "true or false"),
    ({"uid": -1}, "$.uid", "a name or a number"),
    ({"args": ["a", None]}, "$.args[1]", "expected a text"),
    ({"env": {"A=B": "x"}}, "$.env", "invalid variable name"),
    ({"env": {"A": ["x"]}}, "$.env.A", "expected a text"),
    ({"env": "A=1"}, "$.env", "an object"),
    ({"redirect_output": ["a", "b", "c"]}, "$.redirect_output", "at most 2"),
    ({"redirect_output": ["a/b"]}, "$.redirect_output[0]", "label"),
    ({"redirect_output": ["stdin"]}, "$.redirect_output", "reserved for the input"),
    ({"redirect_output": ["out"], "detach": True}, "$.redirect_output", "detached"),
    ({"survive": False, "detach": True}, "$.survive", "always survives"),
    ({"survive": "never"}, "$.survive", "true or false"),
    ({"orphans": "kill"}, "$.orphans", "expected adopt or end"),
    ({"flapping": {"attempts": 0}}, "$.flapping.attempts", "1 or more"),
    ({"flapping": {"atempts": 1}}, "$.flapping.atempts", "unknown key"),
    ({"flapping": [1, 2, 3, 4, 5]}, "$.flapping", "up to 4"),
    ({"flapping": "a,b"}, "$.flapping.attempts", "number"),
    ({"port": 0}, "$.port", "expected a port"),
    ({"port": "70000"}, "$.port", "expected a port"),
    ({"port": 8000, "numprocesses": 2}, "$.port", "can't share"),
    ({"port": "65535+", "numprocesses": 2}, "$.port", "past 65535"),
    ({"endpoints": "http"}, "$.endpoints[0]", "NAME:PORT"),
    ({"endpoints": [f"e{number}:{1000 + number}" for number in range(65)]}, "$.endpoints", "too many endpoints: 65"),
    ({"endpoints": "http:$PORT"}, "$.endpoints", "no port is set"),
    ({"numproceses": 2}, "$.numproceses", "unknown key"),
    ({"x" * 9000: 2}, "$." + "x" * 100, "unknown key"),
    ({"cmd": "x" * 131072}, "$.cmd", "131072 bytes exceed the maximum of 131071"),
    ({"cmd": "é" * 65536}, "$.cmd", "131072 bytes exceed the maximum of 131071"),
    ({"cmd": "\ud800"}, "$.cmd", "surrogate"),
    ({"args": "x" * 131072}, "$.args", "131072 bytes exceed the maximum of 131071"),
    ({"args": ["x" * 131072]}, "$.args[0]", "131072 bytes exceed the maximum of 131071"),
    ({"args": [10**400]}, "$.args[0]", "too large"),
    ({"env": {"A": "x" * 131072}}, "$.env.A", "131072 bytes exceed the maximum of 131071"),
    ({"env": {"A": 10**5000}}, "$.env.A", "too large"),
    ({"env": {"x" * 131072: "a"}}, "$.env", "131072 bytes exceed the maximum of 131071"),
    ({"numprocesses": float("nan")}, "$.numprocesses", "a whole number"),
    ({"numprocesses": 10**5000}, "$.numprocesses", "a whole number"),
    ({"priority": 10**400}, "$.priority", "a whole number"),
    ({"graceful_timeout": 10**400}, "$.graceful_timeout", "a number of seconds"),
    ({"graceful_timeout": 1e10}, "$.graceful_timeout", "at most 10^9"),
    ({"graceful_timeout": float("inf")}, "$.graceful_timeout", "a number of seconds"),
    ({"uid": "9" * 5000}, "$.uid", "a name or a number"),
    ({"uid": 2**32 - 1}, "$.uid", "a name or a number below 4294967295"),
    ({"gid": 10**5000}, "$.gid", "a name or a number"),
    ({"flapping": "nan 1 1 1"}, "$.flapping.attempts", "1 or more"),
    ({"flapping": {"attempts": "inf"}}, "$.flapping.attempts", "1 or more"),
    ({"flapping": {"window": 10**400}}, "$.flapping.window", "at most 10^9"),
    ({"flapping": {"retry_in": "1e999"}}, "$.flapping.retry_in", "at most 10^9"),
    ({"port": 10**5000}, "$.port", "expected a port"),
    ({"ready": "log:a{99999999999999}"}, "$.ready", "invalid regular expression"),
    ({"ready": "log:" + "(" * 5000 + ")" * 5000}, "$.ready", "invalid regular expression"),
    ({"ready": "log:\ud800"}, "$.ready", "surrogate"),
    ({"ready": "exec:a\0b"}, "$.ready", "NUL"),
    ({"live": "exec:a 'b"}, "$.live", "split into words"),
    ({"rlimit_nofile": 10**5000}, "$.rlimit_nofile", "expected a limit"),
    ({"exit_codes": [1.5]}, "$.exit_codes[0]", "an exit code"),
]


@row("TPL-12", "TPL-28")
@pytest.mark.parametrize(("settings", "path", "message"), BAD, ids=[quoted(case[0])[:40] for case in BAD])
def test_what_makes_no_sense_is_refused_with_its_place(settings: dict[str, Any], path: str, message: str) -> None:
    described = {"name": "j", "cmd": "true", **settings}
    with pytest.raises(ConfigError) as caught:
        JobConfig.from_dict(described)
    assert caught.value.path == path
    assert message in caught.value.message
    assert len(caught.value.message) < 300
    assert isinstance(caught.value, ValueError)


@row("TPL-01", "TPL-02")
def test_every_mistake_is_told_at_once() -> None:
    problems = find_problems({"nam": "x", "numprocesses": "two", "port": 0}, "$.jobs[2]")
    assert [problem.path for problem in problems] == [
        "$.jobs[2].nam",
        "$.jobs[2].numprocesses",
        "$.jobs[2].port",
        "$.jobs[2].name",
        "$.jobs[2].cmd",
    ]
    assert problems[0].hint == "did you mean 'name'?"


@pytest.mark.parametrize("value", [None, [], "text", 3])
def test_what_is_no_object_is_refused(value: Any) -> None:
    assert find_problems(value)[0].path == "$"


def test_text_formats_spell_every_type() -> None:
    config = JobConfig.from_dict(
        {
            "name": "j",
            "cmd": "true",
            "numprocesses": " 3 ",
            "graceful_timeout": "2.5",
            "detach": "off",
            "os_env": "Yes",
            "redirect_output": "out, err",
            "flapping": "2, 1., 7., 5",
            "uid": "1000",
            "gid": "",
            "port": "8000+",
            "endpoints": "http:$PORT, admin:9000",
            "priority": "0",
        },
        lax=True,
    )
    assert config.numprocesses == 3
    assert config.graceful_timeout == 2.5
    assert config.os_env is True
    assert config.redirect_output == ("out", "err")
    assert config.flapping == FlappingInfo()
    assert (config.uid, config.gid, config.priority) == (1000, None, 0)
    assert config.endpoints == ("http:$PORT", "admin:9000")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*PROCESS_KEYS, "unknown"]), json_values, max_size=6), st.booleans())
def test_any_json_is_either_a_config_or_a_list_of_problems(described: dict[str, Any], lax: bool) -> None:
    described.pop("custom_channels", None)
    problems = find_problems(described, lax=lax)
    if problems:
        assert all(problem.path.startswith("$") and problem.message for problem in problems)
    else:
        config = JobConfig.from_dict(described, lax=lax)
        again = JobConfig.from_dict(msgspec.json.decode(msgspec.json.encode(config.to_dict())))
        assert again == config


@pytest.mark.parametrize(
    ("port", "slot", "expected"), [("8000", 1, 8000), ("8000+", 1, 8000), ("8000+", 3, 8002), ("auto", 1, None)]
)
def test_fixed_ports(port: str, slot: int, expected: int | None) -> None:
    assert JobConfig("j", "true", port=port).port_of(slot) == expected


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, []),
        ({"port": "auto"}, [("http", 7000)]),
        ({"port": "auto", "endpoints": "https:$PORT, admin:9"}, [("https", 7000), ("admin", 9)]),
        ({"port": "auto", "endpoints": []}, []),
    ],
)
def test_endpoints(settings: dict[str, Any], expected: list[tuple[str, int]]) -> None:
    assert JobConfig("j", "true", **settings).endpoints_of(7000 if settings else None) == expected


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("numprocesses", "three"),
        ("args", 5),
        ("args", ["a", True]),
        ("args", "'open"),
        ("log_max_bytes", "10 bananas"),
        ("log_max_bytes", 1.5),
        ("uid", True),
        ("uid", 2**32),
        ("flapping", "1 2 3 4 5"),
        ("flapping", 7),
        ("custom_streams", ["in", "in"]),
        ("custom_streams", ["stdin"]),
    ],
)
def test_a_value_of_another_kind_is_a_mistake_at_its_setting(setting: str, value: Any) -> None:
    with pytest.raises(ConfigError) as raised:
        JobConfig.from_dict({"name": "web", "cmd": "true", setting: value}, lax=True)
    assert f"$.{setting}" in {problem.path.partition("[")[0] for problem in raised.value.problems}


def test_a_copy_takes_only_settings_that_exist() -> None:
    config = JobConfig("web", "true")
    assert config.replace(numprocesses=2).numprocesses == 2
    with pytest.raises(TypeError, match="no setting 'procs'"):
        config.replace(procs=2)
    assert list(config) == list(PROCESS_KEYS)


def test_what_is_empty_in_a_file_is_not_set() -> None:
    empty = {
        "name": "web",
        "cmd": "true",
        "flapping": " ",
        "endpoints": "",
        "args": None,
        "uid": "",
        "custom_streams": None,
    }
    config = JobConfig.from_dict(empty, lax=True)
    assert (config.flapping, config.endpoints, config.args, config.uid, config.custom_streams) == (
        None,
        None,
        (),
        None,
        (),
    )
    assert JobConfig.from_dict({"name": "web", "cmd": "true", "endpoints": "none"}, lax=True).endpoints == ()


@pytest.mark.parametrize(("port", "expected"), [("8080", 8080), ("0", None), ("65536", None), ("http", None)])
def test_a_port_in_the_environment_is_that_of_every_process(port: str, expected: int | None) -> None:
    config = JobConfig("web", "true", port="9000", env={"PORT": port})
    assert [config.port_of(slot) for slot in (1, 2)] == [expected, expected]


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({"custom_channels": [1, -1]}, "$.custom_channels[1]"),
        ({"custom_channels": [object()]}, "$.custom_channels[0]"),
        ({"custom_streams": ["a"], "redirect_output": ["a"]}, "$.custom_streams"),
    ],
)
def test_streams_that_can_not_be_told_apart_or_opened_are_mistakes(settings: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError) as raised:
        JobConfig("web", "true", **settings)
    assert [problem.path for problem in raised.value.problems] == [path]
