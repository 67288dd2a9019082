"""schemathesis against a real gafferd: whatever comes, the answer is a documented one, and never a failure of ours."""

import re
import subprocess
from pathlib import Path

import pytest

from gaffer import http_handler
from gaffer.http.operations import operation_of
from gafferd import routes
from support.daemons import command_path
from support.metrics import Samples, parse_metrics
from support.needs import needs_netns, needs_root
from support.sandbox import KEY, Sandbox, sandboxed_gafferd

TESTS = Path(__file__).parents[2]

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
)
# SockJS has a protocol of its own below a session, which wants a 500 in places. A drained node refuses what is to come.
# A stream of changes has no end.
LEFT_OUT = r"/channel/\{server\}/\{session\}/.*|/drain|/search/changes"
# Those that only ever tell what is wrong.
NEVER = {
    "POST /processes/{name}/_signal",
    "POST /processes/{pid:digits}/_signal",
    "POST /upgrade",  # without a keeper
}
TIMEOUT = 300.0  # seconds; it takes a tenth of that where nothing else runs
EXAMPLES = 5  # random requests to each operation, besides those that its schema suggests


@pytest.mark.timeout(TIMEOUT + 30)
@needs_root
@needs_netns
def test_every_answer_to_fuzzed_requests_is_a_documented_one(tmp_path: Path) -> None:
    with sandboxed_gafferd() as node:
        ran = fuzz(node, tmp_path)
        assert ran.returncode == 0, report(ran.stdout)
        samples = parse_metrics(node.get("/metrics").body.decode())
        assert "Traceback" not in node.stderr, node.stderr[node.stderr.find("Traceback") :][:4000]
    assert operations() - answered(samples) == NEVER


def operations() -> set[str]:
    """The operations that are fuzzed and end by themselves."""
    return {
        f"{method} {route.pattern}"
        for route in [*http_handler.ROUTES, *routes.ROUTES]
        for method in route.methods
        if (said := operation_of(route.handler, method)) is not None
        and not said.endless
        and said.status < 300
        and said.status != 101
        and not re.fullmatch(LEFT_OUT, route.pattern)
    }


def fuzz(node: Sandbox, folder: Path) -> "subprocess.CompletedProcess[str]":
    return node.run(
        [
            *(command_path("schemathesis"), "run", f"{node.url}/openapi.json", "--header", f"X-Api-Key: {KEY}"),
            *("--phases", "coverage,fuzzing", "--max-examples", str(EXAMPLES), "--generation-deterministic"),
            *("--generation-with-security-parameters", "false", "--no-shrink", "--request-timeout", "10"),
            *("--checks", ",".join(CHECKS), "--warnings", "off", "--no-color"),
            *("--exclude-method", "HEAD", "--exclude-path-regex", LEFT_OUT),
        ],
        cwd=folder,
        timeout=TIMEOUT,
        SCHEMATHESIS_HOOKS="support.fuzzing",
        PYTHONPATH=str(TESTS),
        GAFFER_URL=node.url,
        GAFFER_API_KEY=KEY,
    )


def report(output: str) -> str:
    """What schemathesis found, without its progress."""
    return output[output.find("=== ERRORS") if "=== ERRORS" in output else output.find("=== FAILURES") :]


def answered(samples: Samples) -> set[str]:
    """The operations that had a success."""
    return {
        f"{dict(labels)['method']} {dict(labels)['route']}"
        for name, labels in samples
        if name == "gaffer_http_request_duration_seconds_count" and dict(labels)["status"].startswith("2")
    }
