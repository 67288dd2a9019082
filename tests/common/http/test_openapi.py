"""/openapi.json: complete, valid, true to the routes and to what they really answer."""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from gaffer import __version__, http_handler
from gaffer.api.node import NodeHandler
from gaffer.errors import BadRequest
from gaffer.http.openapi import make_document
from gaffer.http.operations import operation_of
from gaffer.http.routes import Open, Route
from gaffer.jobs.config import PROCESS_KEYS
from gaffer.jobs.names import JOB_NAME_PATTERN, NAME_PATTERN, PID_PATTERN, check_name, parse_job_name, parse_pid
from gaffer.process import ProcessConfig
from gaffer.streams.rings import Ring
from gafferd import routes
from support.http_node import Answer, HttpNode, script, sleeper
from support.poll import eventually_async

ROUTES = [*http_handler.ROUTES, *routes.ROUTES]
DOCUMENT = make_document(ROUTES, title="test", version=__version__, cookie="gaffer_5000")


def test_every_method_says_what_it_takes_and_answers() -> None:
    silent = [
        f"{method} {route.pattern}"
        for route in ROUTES
        for method in route.methods
        if operation_of(route.handler, method) is None
    ]
    assert silent == []


def test_the_document_is_valid() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()


def test_every_parameter_of_a_path_is_described() -> None:
    for route in ROUTES:
        used = set(re.findall(r"\{([a-z0-9_]+)", route.pattern))
        assert used <= route.handler.parameters.keys(), route.pattern


def test_every_route_is_there_with_its_scopes() -> None:
    documented = {(path, method): each for path, item in DOCUMENT["paths"].items() for method, each in item.items()}
    for route in ROUTES:
        path = next(path for path in DOCUMENT["paths"] if form(path) == form(route.pattern))
        for method, scope in route.methods.items():
            operation = documented[path, method.lower()]
            assert operation.get("x-scopes", {}).get(route.pattern, operation["x-scope"]) == scope.value
            assert ({} in operation.get("security", DOCUMENT["security"])) is (scope is not Open.PUBLIC)
            assert operation["summary"]
            assert operation["description"]


def form(pattern: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", pattern)


def test_a_feed_is_described_by_its_lines_and_a_document_as_a_whole() -> None:
    feed = DOCUMENT["paths"]["/watch"]["get"]["responses"]["200"]["content"]
    action = DOCUMENT["paths"]["/jobs/{sid}/{job}/actions/{action}"]["post"]["responses"]["200"]["content"]
    assert feed["application/json"].keys() == {"x-item-schema"}
    assert action["application/json"] == {"schema": {"$ref": "#/components/schemas/ActionResult"}}
    assert feed["text/event-stream"] == action["text/event-stream"] == {}


def test_a_route_without_a_word_of_itself_is_documented_too() -> None:
    class Silent(NodeHandler):
        """A handler that says nothing."""

        def put(self) -> None:
            """Do something."""

    document = make_document([Route("/silent/{what}", Silent, {"PUT": Open.PUBLIC})], title="test", version=__version__)
    OpenAPIV31SpecValidator(document).validate()
    assert document["paths"]["/silent/{what}"]["put"]["description"] == "Do something."


async def test_it_is_served(node: HttpNode) -> None:
    answer = await node.call("GET", "/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["openapi"] == "3.1.0"
    assert set(answer.json["paths"]) == set(
        make_document(http_handler.ROUTES, title="test", version=__version__)["paths"]
    )


# Real answers

CALLS = [
    ("GET", "/", None),
    ("GET", "/ping", None),
    ("GET", "/version", None),
    ("GET", "/health", None),
    ("GET", "/openapi.json", None),
    ("GET", "/sessions", None),
    ("GET", "/jobs", None),
    ("GET", "/jobs/shop", None),
    ("POST", "/jobs/shop", sleeper("late", start=False)),
    ("POST", "/jobs/shop", {"jobs": [sleeper("a", start=False), sleeper("b", start=False)]}),
    ("GET", "/jobs/shop/web", None),
    ("GET", "/jobs/shop/crashed", None),
    ("PUT", "/jobs/shop/crashed", sleeper("crashed", start=False)),
    ("GET", "/jobs/shop/web/stats", None),
    ("GET", "/jobs/shop/crashed/stats", None),
    ("GET", "/jobs/shop/web/numprocesses", None),
    ("POST", "/jobs/shop/web/numprocesses", {"scale": "+1"}),
    ("GET", "/jobs/shop/web/pids", None),
    ("POST", "/jobs/shop/web/signal", {"signal": "CONT"}),
    ("GET", "/jobs/shop/web/state", None),
    ("POST", "/jobs/shop/crashed/state", b"0"),
    ("POST", "/jobs/shop/web/commit", None),
    ("GET", "/pids", None),
    ("GET", "/{pid}", None),
    ("POST", "/{pid}/signal", {"signal": 18}),
    ("GET", "/{pid}/stats", None),
    ("GET", "/processes", None),
    ("GET", "/processes?running=1", None),
    ("POST", "/processes", sleeper("shop.c", start=False)),
    ("GET", "/processes/shop.web", None),
    ("PUT", "/processes/shop.c", sleeper("shop.c", start=False)),
    ("POST", "/processes/shop.c", sleeper("shop.c", start=False)),
    ("GET", "/processes/shop.web/_pids", None),
    ("POST", "/processes/shop.web/_start", None),
    ("POST", "/processes/shop.c/_stop", None),
    ("POST", "/processes/shop.c/_restart", None),
    ("POST", "/processes/shop.web/_add", None),
    ("POST", "/processes/shop.web/_add/2", None),
    ("POST", "/processes/shop.web/_sub", None),
    ("POST", "/processes/shop.web/_sub/2", None),
    ("POST", "/processes/shop.web/_signal/CONT", None),
    ("GET", "/processes/shop.web/_other", None),
    ("GET", "/processes/{pid}", None),
    ("POST", "/processes/{pid}/_signal/CONT", None),
    ("GET", "/status/shop.web", None),
    ("POST", "/processes/{pid}/_stop", None),
    ("DELETE", "/processes/{pid}", None),
    ("DELETE", "/{pid}", None),
    ("DELETE", "/processes/shop.c", None),
    ("DELETE", "/jobs/shop/web", None),
    # and errors
    ("GET", "/jobs/nope", None),
    ("POST", "/jobs/shop", sleeper("crashed")),
    ("POST", "/jobs/shop", {"name": "d", "cmd": "", "numprocesses": -1}),
    ("POST", "/jobs/shop/crashed/state", b"x"),
    ("POST", "/processes/shop.crashed/_signal", None),
]


async def test_real_answers_are_as_documented(node: HttpNode) -> None:
    settings = {"redirect_output": ["out", "err"], "redirect_input": True, "labels": {"tier": "1"}, "port": "auto"}
    flapping = {"attempts": 1, "window": 60, "retry_in": 60, "max_retry": 1}
    web = sleeper("web", numprocesses=2, flapping=flapping, custom_streams=["log"], **settings)
    crashed = script("crashed", "import sys; print('no', file=sys.stderr); sys.exit(3)", redirect_output=["o", "e"])
    assert (await node.call("POST", "/jobs/shop", {"jobs": [web, crashed]})).status == 200
    await eventually_async(lambda: node.manager.info("shop.crashed")["last_exit"])
    pid = (await node.call("GET", "/jobs/shop/web/pids")).json["pids"][0]
    wrong = []
    for method, path, body in CALLS:
        answer = await node.call(method, path.replace("{pid}", str(pid)), body)
        problems = difference(method, path.partition("?")[0], answer)
        wrong += [f"{method} {path} {answer.status}: {problem} in {answer.body[:500]!r}" for problem in problems]
    assert wrong == []


def difference(method: str, path: str, answer: Answer) -> list[str]:
    """What of an answer is not as documented; what it has beyond the documented is wrong too."""
    responses = DOCUMENT["paths"][path_of(path)][method.lower()]["responses"]
    if str(answer.status) not in responses:
        return [f"the status is none of {', '.join(responses)}"]
    response = responses[str(answer.status)]
    if "$ref" in response:
        response = DOCUMENT["components"]["responses"][response["$ref"].rpartition("/")[2]]
    media = answer.headers["content-type"].partition(";")[0]
    if media not in response["content"]:
        return [f"the content type {media} is none of {', '.join(response['content'])}"]
    value = answer.json if media == "application/json" else answer.body.decode()
    schema = closed({**response["content"][media]["schema"], "components": DOCUMENT["components"]})
    return [error.message for error in Draft202012Validator(schema).iter_errors(value)]


def path_of(path: str) -> str:
    """The path of the document that a path of a request is of."""
    segments = path.split("/")

    def rank(pattern: str) -> list[bool]:
        return [segment.startswith("{") for segment in pattern.split("/")]

    found: list[str] = [
        pattern
        for pattern in DOCUMENT["paths"]
        if len(pattern.split("/")) == len(segments)
        and all(a == b or a.startswith("{") for a, b in zip(pattern.split("/"), segments, strict=True))
    ]
    return min(found, key=rank)


def closed(schema: Any) -> Any:
    """The schema, without leave for keys that it doesn't name."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    narrowed = {key: closed(value) for key, value in schema.items()}
    if "properties" in narrowed and isinstance(narrowed.get("type"), str):
        narrowed.setdefault("additionalProperties", False)
    return narrowed


# What the schemas let pass is what the parsers let pass.

NAMES = st.text(st.sampled_from("ab0129_+-./: \né"), max_size=8) | st.text("a1", min_size=62, max_size=66)


@given(NAMES)
def test_the_patterns_of_names_say_what_the_parser_says(text: str) -> None:
    assert matches(NAME_PATTERN, text) is accepts(check_name, text)
    assert matches(PID_PATTERN, text) is (parse_pid(text) is not None)
    assert matches(JOB_NAME_PATTERN, text) is accepts(parse_job_name, text)


def matches(pattern: str, text: str) -> bool:
    # JSON Schema has the regular expressions of JavaScript, where $ is not before a newline.
    return re.search(pattern.replace("$", r"\Z"), text, re.ASCII) is not None


def accepts(parse: Callable[[str], object], text: str) -> bool:
    try:
        parse(text)
    except BadRequest:
        return False
    return True


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"args": ["-n", 1, 2.5], "env": {"A": "x", "B": 1}, "cwd": "/", "uid": 0, "gid": "daemon"},
        {"args": "-n 1", "redirect_output": "out, err", "custom_streams": "log", "endpoints": "http:80", "port": 80},
        {"redirect_output": ["out", "out"], "custom_streams": ["log"], "endpoints": ["http:$PORT"], "port": "auto"},
        {"log_max_bytes": "10 MiB", "log_backups": 0, "priority": 3, "port": "8000+", "numprocesses": 3},
        {"flapping": {"attempts": 2, "window": 1.0}, "graceful_timeout": 0.5, "labels": {"tier": "web"}},
        {"flapping": [2, 1.0, 7.0, 5]},
        {"flapping": "2, 1., 7., 5", "startsecs": 0, "backoff": 1, "backoff_max": 2, "drain_timeout": 3},
        dict.fromkeys(("args", "env", "uid", "gid", "cwd", "flapping", "port", "endpoints", "priority")),
        {"detach": True, "shell": False, "os_env": True, "logs": False, "kill_group": False, "start": False},
    ],
    ids=str,
)
def test_the_schema_of_a_description_takes_what_gaffer_takes(settings: dict[str, Any]) -> None:
    description = {"name": "web", "cmd": "sleep 1", **settings}
    ProcessConfig.from_dict(description)
    assert list(validator("JobDescription").iter_errors(description)) == []


@pytest.mark.parametrize("key", [key for key in PROCESS_KEYS if key not in ("labels", "env")])
@pytest.mark.parametrize("value", [{"a": []}, [[]]], ids=str)
def test_the_schema_of_a_description_knows_every_setting(key: str, value: object) -> None:
    description = {"name": "web", "cmd": "sleep 1", key: value}
    assert list(validator("JobDescription").iter_errors(description))
    with pytest.raises(BadRequest):
        ProcessConfig.from_dict(description)


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]},
    )


async def test_parameters_of_feeds_are_described_as_they_are_taken(node: HttpNode) -> None:
    document = (await node.call("GET", "/openapi.json")).json
    [ours, theirs] = node.manager.event_log.position(0), Ring().position(3)
    tried = {
        "heartbeat": ["true", "0", "0.5", "60", "86400", "0.01", "86401", "1e3", "yes"],
        "after": ["0", str(ours), str(theirs), "x", "-1", "a:b:1", ""],
        "tail": ["0", "20", "x", "-1", ""],
        "feed": ["longpoll", "continuous", "eventsource", "normal", ""],
    }
    parameters = {each["name"]: each["schema"] for each in document["paths"]["/watch"]["get"]["parameters"]}
    assert set(parameters) == set(tried)
    for name, values in tried.items():
        for value in values:
            described = value in parameters[name].get("enum", [value]) and bool(
                re.search(parameters[name].get("pattern", ""), value)
            )
            answer = await node.call("HEAD", f"/watch?{name}={quote(value)}")
            assert (answer.status == 200) is described, (name, value)
