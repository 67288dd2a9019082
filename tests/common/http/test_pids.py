"""Processes by id, in the form of 0.5 (R-57 to R-61) and of 0.4 (R-10 to R-28)."""

from typing import Any

import pytest

from support.http_node import HttpNode, sleeper
from support.poll import eventually_async


async def start(node: HttpNode, path: str = "/jobs/blog", **settings: Any) -> int:
    """Load a job that sleeps; returns the pid of its first process."""
    assert (await node.call("POST", path, sleeper(**settings))).status == 200
    return (await eventually_async(lambda: pids(node)))[0]


async def pids(node: HttpNode) -> list[int]:
    found: list[int] = (await node.call("GET", "/pids")).json["pids"]
    return found


async def replaced(node: HttpNode, pid: int) -> bool:
    found = await pids(node)
    return bool(found) and pid not in found


@pytest.mark.row("R-57", "R-58")
async def test_a_process_can_be_looked_at(node: HttpNode) -> None:
    pid = await start(node)
    info = (await node.call("GET", f"/{pid}")).json
    assert (info["pid"], info["name"], info["cmd"], info["active"]) == (pid, "blog.sleeper", "sleep 1000", True)
    assert info["os_pid"] == node.manager.get_process(pid).os_pid
    assert (await node.call("HEAD", f"/{pid}")).status == 200


@pytest.mark.row("R-59")
async def test_a_stopped_process_is_replaced(node: HttpNode) -> None:
    pid = await start(node)
    answer = await node.call("DELETE", f"/{pid}")
    assert (answer.status, answer.json) == (202, {"ok": True})
    await eventually_async(lambda: replaced(node, pid))


@pytest.mark.row("R-60")
@pytest.mark.parametrize("sig", ["KILL", "sigkill", 9, "9"])
async def test_a_signal_for_one_process(node: HttpNode, sig: str | int) -> None:
    pid = await start(node)
    answer = await node.call("POST", f"/{pid}/signal", {"signal": sig})
    assert (answer.status, answer.json) == (202, {"ok": True})
    await eventually_async(lambda: replaced(node, pid))


@pytest.mark.row("R-60")
async def test_a_wrong_signal_is_refused(node: HttpNode) -> None:
    pid = await start(node)
    answer = await node.call("POST", f"/{pid}/signal", {"signal": "NOPE"})
    assert (answer.status, answer.error) == (400, "bad_signal")
    assert await pids(node) == [pid]


@pytest.mark.row("R-61")
async def test_stats_of_a_process(node: HttpNode) -> None:
    pid = await start(node)
    stats = (await node.call("GET", f"/{pid}/stats")).json["stats"]
    assert stats["pid"] == pid
    assert {"cpu", "mem", "mem_info1", "mem_info2", "username", "nice", "cmdline"} <= set(stats)


@pytest.mark.parametrize("pid", ["999", "0", "007", "99999999999999999999"])
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("HEAD", "/{}", None),
        ("GET", "/{}", None),
        ("DELETE", "/{}", None),
        ("POST", "/{}/signal", {"signal": 15}),
        ("GET", "/{}/stats", None),
        ("HEAD", "/processes/{}", None),
        ("GET", "/processes/{}", None),
        ("DELETE", "/processes/{}", None),
        ("POST", "/processes/{}/_stop", None),
        ("POST", "/processes/{}/_signal/15", None),
    ],
)
async def test_an_unknown_process_is_not_found(node: HttpNode, method: str, path: str, body: object, pid: str) -> None:
    answer = await node.call(method, path.format(pid), body)
    assert answer.status == 404
    assert method == "HEAD" or answer.error == "not_found"


@pytest.mark.row("R-10", "R-11", "HTTP-07")
async def test_templates_are_loaded_and_listed_by_their_short_name(node: HttpNode) -> None:
    pid = await start(node, "/processes")
    assert (await node.call("POST", "/processes", sleeper("blog.web", start=False))).json == {"ok": True}
    assert (await node.call("GET", "/processes")).json == ["sleeper", "blog.web"]
    assert (await node.call("GET", "/processes?running=true")).json == [pid]
    assert (await node.call("GET", "/processes?running=1")).json == [pid]


@pytest.mark.row("R-11")
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{nope", 400, "invalid_json"),
        ({"name": "a"}, 400, "invalid_process_info"),
        ({"cmd": "a"}, 400, "invalid_process_info"),
        ({"name": 1, "cmd": "a"}, 400, "invalid_process_info"),
        ({"name": "a b", "cmd": "a"}, 400, "invalid_process_info"),
        (sleeper(), 409, "process_conflict"),
        (sleeper("default:sleeper"), 409, "process_conflict"),
    ],
)
async def test_wrong_templates_are_refused(node: HttpNode, body: object, status: int, code: str) -> None:
    await node.call("POST", "/processes", sleeper(start=False))
    answer = await node.call("POST", "/processes", body)
    assert (answer.status, answer.error) == (status, code)
    assert (await node.call("GET", "/processes")).json == ["sleeper"]


@pytest.mark.row("R-12", "R-13", "HTTP-50")
@pytest.mark.parametrize("name", ["blog.web", "blog:web", "blog%2Eweb", "blog%3aweb", "blog%2Fweb"])
async def test_a_template_by_each_form_of_its_name(node: HttpNode, name: str) -> None:
    await node.call("POST", "/jobs/blog", sleeper("web", start=False))
    template = (await node.call("GET", f"/processes/{name}")).json
    assert (template["name"], template["cmd"], template["start"]) == ("blog.web", "sleep 1000", False)
    assert (await node.call("HEAD", f"/processes/{name}")).status == 200


@pytest.mark.row("R-14")
@pytest.mark.parametrize("method", ["PUT", "POST"])
@pytest.mark.parametrize("given", [{}, {"name": "web"}, {"name": "blog.web"}, {"name": "blog:web"}])
async def test_a_template_is_updated(node: HttpNode, method: str, given: dict[str, str]) -> None:
    await node.call("POST", "/jobs/blog", sleeper("web", start=False))
    answer = await node.call(method, "/processes/blog.web", {**given, "cmd": "sleep 7", "start": False})
    assert (answer.status, answer.json) == (200, {"ok": True})
    assert (await node.call("GET", "/processes/blog.web")).json["cmd"] == "sleep 7"


@pytest.mark.row("R-14")
async def test_an_update_starts_a_template_unless_it_says_otherwise(node: HttpNode) -> None:
    await node.call("POST", "/processes", sleeper(start=False))
    assert (await node.call("PUT", "/processes/sleeper", {"cmd": "sleep 7"})).status == 200
    await eventually_async(lambda: pids(node))


@pytest.mark.row("R-14")
@pytest.mark.parametrize("body", [{}, {"name": "other", "cmd": "a"}, {"name": "shop.web", "cmd": "a"}, {"name": 1}])
async def test_a_wrong_update_changes_nothing(node: HttpNode, body: dict[str, object]) -> None:
    await node.call("POST", "/jobs/blog", sleeper("web", start=False))
    assert (await node.call("PUT", "/processes/blog.web", body)).status == 400
    assert (await node.call("GET", "/processes/blog.web")).json["cmd"] == "sleep 1000"


@pytest.mark.row("R-15")
async def test_a_template_is_deleted(node: HttpNode) -> None:
    await start(node, "/processes")
    assert (await node.call("DELETE", "/processes/sleeper")).json == {"ok": True}
    assert (await node.call("GET", "/processes/sleeper")).error == "not_found"


@pytest.mark.row("R-16", "R-17", "R-18", "R-19", "R-28", "HTTP-33", "HTTP-35")
async def test_a_template_is_started_stopped_and_restarted(node: HttpNode) -> None:
    await node.call("POST", "/processes", sleeper(start=False, numprocesses=2))
    assert (await node.call("GET", "/status/sleeper")).json == {
        "active": False,
        "running": 0,
        "numprocesses": 2,
        "max_processes": 2,
    }
    assert (await node.call("POST", "/processes/sleeper/_start")).json == {"ok": True}
    first = await eventually_async(lambda: _two_pids(node))
    status = (await node.call("GET", "/status/sleeper")).json
    assert status == {"active": True, "running": 2, "numprocesses": 2, "max_processes": 2}
    assert (await node.call("GET", "/processes/sleeper/_pids")).json == {"ok": True, "pids": first}
    assert (await node.call("POST", "/processes/sleeper/_restart")).json == {"ok": True}
    await eventually_async(lambda: replaced(node, first[0]))
    assert (await node.call("POST", "/processes/sleeper/_stop")).json == {"ok": True}
    await eventually_async(lambda: _no_pids(node))


@pytest.mark.row("R-20", "R-21")
async def test_adding_and_subtracting_processes(node: HttpNode) -> None:
    await node.call("POST", "/processes", sleeper(start=False))
    steps = [("_add", 2), ("_add/3", 5), ("_sub", 4), ("_sub/2", 2), ("_sub/9", 0)]
    for path, count in steps:
        answer = await node.call("POST", f"/processes/sleeper/{path}")
        assert answer.json == {"ok": True, "numprocesses": count}
    for wrong in ("many", "-1", "0", "1.5", "99999999"):
        answer = await node.call("POST", f"/processes/sleeper/_add/{wrong}")
        assert (answer.status, answer.error) == (400, "bad_value")


@pytest.mark.row("R-22", "R-27")
async def test_signals_in_the_path(node: HttpNode) -> None:
    pid = await start(node, "/processes")
    for target in ("sleeper", str(pid)):
        assert (await node.call("POST", f"/processes/{target}/_signal/CONT")).json == {"ok": True}
        assert (await node.call("POST", f"/processes/{target}/_signal/nope")).error == "bad_value"
        assert (await node.call("POST", f"/processes/{target}/_signal")).error == "no_signal_number"
    await node.call("POST", f"/processes/{pid}/_signal/9")
    await eventually_async(lambda: replaced(node, pid))
    second = (await pids(node))[0]
    await node.call("POST", "/processes/sleeper/_signal/KILL")
    await eventually_async(lambda: replaced(node, second))


@pytest.mark.row("R-23")
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
async def test_an_unknown_part_of_a_template(node: HttpNode, method: str) -> None:
    await node.call("POST", "/processes", sleeper(start=False))
    answer = await node.call(method, "/processes/sleeper/_nope")
    assert (answer.status, answer.error) == (404, "resource_not_found")


@pytest.mark.row("R-24", "R-25", "R-26")
async def test_a_process_in_the_old_form(node: HttpNode) -> None:
    pid = await start(node, "/processes")
    answer = (await node.call("GET", f"/processes/{pid}")).json
    assert (answer["name"], answer["cmd"], answer["pid"], answer["active"]) == ("sleeper", "sleep 1000", pid, True)
    assert (await node.call("HEAD", f"/processes/{pid}")).status == 200
    assert (await node.call("DELETE", f"/processes/{pid}")).json == {"ok": True}
    await eventually_async(lambda: replaced(node, pid))
    [second] = await pids(node)
    assert (await node.call("POST", f"/processes/{second}/_stop")).json == {"ok": True}
    await eventually_async(lambda: replaced(node, second))


async def _two_pids(node: HttpNode) -> list[int]:
    found = await pids(node)
    return found if len(found) == 2 else []


async def _no_pids(node: HttpNode) -> bool:
    return not await pids(node)
