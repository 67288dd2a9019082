"""Hooks of schemathesis (SCHEMATHESIS_HOOKS): fuzz what exists, and follow nothing for long.

Random names and pids hardly ever hit a job, and a request for a feed may be answered for ever. GAFFER_URL says where
the node is, GAFFER_API_KEY how to be let in. Only schemathesis imports this: doing so registers the hook.
"""

import os
import re
from collections import Counter
from typing import Any

import requests
import schemathesis

from support.poll import eventually
from support.sandbox import PLUGIN

KNOWN, SPARE = "known", "spare"
# Each in a session of its own name: one to look at, whose processes come back, and one that orders may change.
JOB = {
    "cmd": "cat",
    "redirect_output": ["out", "err"],
    "redirect_input": True,
    "custom_streams": ["more"],
    "startsecs": 0,
    "graceful_timeout": 0.3,  # they may have got a SIGSTOP
    "action": {"greet": "echo hello"},
}
# Processes of a fuzzed job. What the node allows is meant for larger machines.
MAX_PROCESSES, LIMIT = 3, 10_000

_cases: Counter[str] = Counter()
_node = requests.Session()
_node.headers["X-Api-Key"] = os.environ["GAFFER_API_KEY"]
_url = os.environ["GAFFER_URL"]


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Change every other case into one that means a known job, and bound all of them."""
    operation = f"{case.method} {case.path}"
    number = _cases[operation]
    _cases[operation] += 1
    # Events that there are come at once, others not before the heartbeat.
    known = number % 2 == 0 or case.path.startswith("/watch/")
    if known and case.path_parameters:
        case.path_parameters.update(_known(case, by_pid=number % 4 == 2))
    if str(case.path_parameters.get("count", "")).isdecimal():
        case.path_parameters["count"] = _bounded(case.path_parameters["count"])
    if isinstance(case.body, dict):
        _change_body(case.body, known=known)
        if number % 8 == 0 and "cmd" in case.body:  # of settings by chance, some exclude each other
            case.body.clear()
            case.body.update(name=f"fuzzed{number}", cmd="cat", numprocesses=1)
    if case.method == "GET" and case.path.startswith(("/streams", "/watch", "/stats/")):
        _end_soon(case)


def _known(case: Any, *, by_pid: bool) -> dict[str, Any]:
    """The parameters of the path that mean a known job or process; `/processes/` takes both."""
    job = KNOWN if case.method == "GET" else SPARE
    asked = case.path_parameters.keys()
    pid = str(eventually(lambda: _pids(KNOWN))[0]) if asked & {"pid", "name"} else ""
    if asked & {"job", "name"}:
        _pids(job)
    found = {
        "sid": job,
        "job": job,
        "name": pid if by_pid and case.path.startswith("/processes/") else f"{job}.{job}",
        "pid": pid,
        "label": "out" if case.method == "GET" else "stdin",
        "signal": "CONT",
        "action": "greet",
        "server": "iframe.html",
        "first": "job",
        "second": KNOWN,
        "third": KNOWN,  # parts of the names of its events
        "file": "",
    }
    if "file" in case.path_parameters:  # without one the answer leads elsewhere
        found["plugin"] = PLUGIN
    return {name: value for name, value in found.items() if name in case.path_parameters}


def _pids(job: str) -> list[int]:
    """The processes of a known job, which is loaded again when it is gone, stopped, scaled to none or another one."""
    info = _node.get(f"{_url}/jobs/{job}/{job}").json()
    if info.get("active") and info["max_processes"] and JOB.items() <= info["config"].items():
        pids: list[int] = info["processes"]
        return pids
    _node.delete(f"{_url}/jobs/{job}/{job}")
    _node.post(f"{_url}/jobs/{job}", json={"name": job, **JOB, "priority": 1})  # what a rollback returns to
    _node.put(f"{_url}/jobs/{job}/{job}", json={"name": job, **JOB})
    return []


def _change_body(body: dict[str, Any], *, known: bool) -> None:
    for key in ("numprocesses", "scale", "surge"):
        if key in body:
            body[key] = _bounded(body[key])
    if known and "signal" in body:
        body["signal"] = "CONT"


def _bounded(count: Any) -> Any:
    """A number of processes, as in `"+2"` too, as one that this machine can have; what the node refuses, as it is."""
    match = re.fullmatch(r"([-+=]?)([0-9]+)(\.0)?", str(count), re.ASCII)
    if match is None or not MAX_PROCESSES < int(match[2]) <= LIMIT:
        return count
    return type(count)(f"{match[1]}{MAX_PROCESSES}")


def _end_soon(case: Any) -> None:
    """A longpoll that has a position ends with the first heartbeat; a wrong feed ends at once anyway."""
    feed = case.query.get("feed", "longpoll")
    if feed in ("longpoll", "continuous", "eventsource"):
        case.query.update(feed="longpoll", after="0", heartbeat="0.1")
        case.query.pop("tail", None)
