"""Processes that end while there is no gafferd: the next one knows how, and does what follows once."""

import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from support.poll import eventually
from support.survival import TIMEOUT, kept_node, without_gafferd
from support.webhooks import receiver

# Arguments: what to do when told to end; it is told by SIGHUP.
ENDING = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
print("waiting", flush=True)
signal.sigwait([signal.SIGHUP])
print("ending", flush=True)
exec(sys.argv[1])
"""
BY_SIGNAL = "os.kill(os.getpid(), signal.SIGUSR1)"
WITH_CORE = "os.abort()"


def ending(name: str, how: str, **settings: Any) -> dict[str, Any]:
    """The description of a job whose process ends in this way when it is told to."""
    arguments = ["-I", "-S", "-c", ENDING, how]
    return {"name": name, "cmd": sys.executable, "args": arguments, "ready": "log:waiting", **settings}


def is_zombie(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_exits_without_gafferd_are_known_exactly_and_have_their_effect_once(tmp_path: Path) -> None:
    config = tmp_path / "gafferd.ini"
    config.write_text("[gaffer]\n")
    unlimited = resource.getrlimit(resource.RLIMIT_CORE)[1] == resource.RLIM_INFINITY
    cores = {"rlimit_core": "unlimited" if unlimited else "0", "cwd": str(tmp_path)}
    never, always = {"restart": "never"}, {"restart": "always", "backoff": 0, "startsecs": 0}
    jobs = [
        ending("zero", "sys.exit(0)", **never),
        ending("code", "sys.exit(42)", **always),
        ending("signalled", BY_SIGNAL, restart="on-failure", backoff=0, startsecs=0),
        ending("cored", WITH_CORE, **never, **cores),
        ending("done", "sys.exit(0)", kind="once"),
        ending("undone", "sys.exit(3)", kind="once"),
        ending("steady", "sys.exit(0)"),
    ]
    with kept_node(tmp_path, str(config)) as node:
        for job in jobs:
            node.load(job)
        names = [job["name"] for job in jobs]
        eventually(lambda: all(node.info(name)["state"] == "running" for name in names), timeout=TIMEOUT)
        before = {name: node.instances(name)[0] for name in names}
        started_at = node.info("steady")["instances"][0]["started_at"]
        with without_gafferd(node, config):
            told_at = time.time()
            for name in names[:-1]:
                os.kill(before[name].os_pid, signal.SIGHUP)
            for name in names[:-1]:
                eventually(lambda name=name: is_zombie(before[name].os_pid))  # type: ignore[misc]
            ended_at = time.time()
        assert node.instances("steady") == [before["steady"]]
        assert node.info("steady")["instances"][0]["started_at"] == started_at

        def outcome() -> dict[str, Any]:
            return {
                name: (
                    [(each["pid"], each["exit_code"], each["term_signal"]) for each in node.exits(name)],
                    node.info(name)["state"],
                    node.info(name)["restarts"],
                )
                for name in names
            }

        pids = {name: each.pid for name, each in before.items()}
        expected = {
            "zero": ([(pids["zero"], 0, 0)], "completed", 0),
            "code": ([(pids["code"], 42, 0)], "running", 1),
            "signalled": ([(pids["signalled"], None, signal.SIGUSR1)], "running", 1),
            "cored": ([(pids["cored"], None, signal.SIGABRT)], "failed", 0),
            "done": ([(pids["done"], 0, 0)], "completed", 0),
            "undone": ([(pids["undone"], 3, 0)], "failed", 0),
            "steady": ([], "running", 0),
        }

        def as_expected() -> bool:
            assert outcome() == expected
            return True

        eventually(as_expected, timeout=TIMEOUT)
        assert all("ending" in node.exits(name)[0]["output"] for name in names[:-1])
        exits = [node.exits(name)[0] for name in names[:-1]]
        assert [each["at"] for each in exits if not told_at - 0.1 < each["at"] < ended_at + 0.1] == []
        assert [each["uptime"] for each in exits if not 0 < each["uptime"] < ended_at - started_at + 1] == []
        assert None not in [each["rusage"] for each in exits]
        again = {name: node.instances(name)[0] for name in ("code", "signalled")}
        assert all(each.pid != pids[name] for name, each in again.items())
        node.kill()  # the next one does not do it all again
        eventually(as_expected, timeout=TIMEOUT)
        assert {name: node.instances(name)[0] for name in again} == again
        ended = [before[name].os_pid for name in names[:-1]]
        eventually(lambda: not any(map(psutil.pid_exists, ended)), message="they are not reaped")


def test_how_long_a_process_ran_is_known_after_it_was_reaped(tmp_path: Path) -> None:
    with kept_node(tmp_path) as node:
        node.load({"name": "x", "cmd": "sh -c 'exit 3'", "backoff": 1000, "backoff_max": 1000})
        eventually(lambda: node.exits("x"), timeout=TIMEOUT)
        node.kill()  # before what follows from the exit is stored
        assert eventually(lambda: node.exits("x"), timeout=TIMEOUT)[0]["uptime"] < 1


def test_webhooks_get_the_adoption_and_not_again_what_happened_before(tmp_path: Path) -> None:
    with receiver() as server:
        config = tmp_path / "gafferd.ini"
        config.write_text(f"[process:x]\ncmd = sleep 1000\nnumprocesses = 2\n[webhooks]\n. = {server.url}/\n")
        with kept_node(tmp_path, str(config)) as node:
            eventually(lambda: server.names("/").count("ready") == 2, timeout=TIMEOUT)
            before = len(server.events["/"])
            node.kill()
            node.load({"name": "last", "cmd": "sleep 1000"})
            eventually(lambda: "create" in server.names("/")[before:], timeout=TIMEOUT)
        after = [event for _, event in server.events["/"][before:] if event.get("job") == "default.x"]
        assert [event["event"] for event in after if not event["event"].startswith("proc.")][:2] == ["adopt"] * 2
        assert {event["event"] for event in after}.isdisjoint({"create", "start", "ready"})


def test_an_essential_job_that_ends_without_gafferd_ends_the_node(tmp_path: Path) -> None:
    config = tmp_path / "gafferd.ini"
    config.write_text("[gaffer]\n")
    with kept_node(tmp_path, str(config)) as node:
        node.load(ending("vital", "sys.exit(7)", essential=True, restart="never"))
        node.load({"name": "other", "cmd": "sleep 1000"})
        [vital], [other] = node.running("vital", 1), node.running("other", 1)
        eventually(lambda: node.info("vital")["state"] == "running", timeout=TIMEOUT)
        with without_gafferd(node, config):
            os.kill(vital.os_pid, signal.SIGHUP)
            eventually(lambda: is_zombie(vital.os_pid))
        assert eventually(lambda: node.keeper.returncode, timeout=TIMEOUT) == 7
        assert not psutil.pid_exists(other.os_pid)


@pytest.mark.parametrize(
    "settings", [{"backoff": 1000, "backoff_max": 1000}, {"flapping": [2, 60, 1000, 5]}], ids=["back-off", "flapping"]
)
def test_delays_after_failures_go_on(tmp_path: Path, settings: dict[str, Any]) -> None:
    with kept_node(tmp_path) as node:
        node.load({"name": "x", "cmd": "sh -c 'exit 3'", **settings})
        retry_in = eventually(lambda: node.info("x")["instances"][0]["retry_in"], timeout=TIMEOUT)
        before, exits = node.info("x"), node.exits("x")
        past = node.state / "past.json"
        eventually(lambda: b'"failures":{' in past.read_bytes(), timeout=TIMEOUT, retry_on=(FileNotFoundError,))
        node.kill()
        after = node.info("x")
        assert (after["state"], after["restarts"], node.exits("x")) == (before["state"], before["restarts"], exits)
        assert retry_in - 60 < after["instances"][0]["retry_in"] < retry_in
        assert after["reason"].split(";")[0] == before["reason"].split(";")[0]
        requests.post(f"{node.url}/jobs/default/x/state", data="1", timeout=TIMEOUT).raise_for_status()
        eventually(lambda: len(node.exits("x")) > len(exits), timeout=TIMEOUT)  # a start does not wait
