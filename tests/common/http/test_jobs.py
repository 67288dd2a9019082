"""Jobs and sessions over HTTP: R-40 to R-56."""

import signal
from typing import Any

import pytest

from support.http_node import HttpNode, script, sleeper
from support.poll import eventually_async


@pytest.mark.row("R-43", "R-41", "R-40", "R-42")
async def test_a_loaded_job_is_listed(node: HttpNode) -> None:
    answer = await node.call("POST", "/jobs/blog", sleeper("web"))
    assert (answer.status, answer.json) == (200, {"ok": True})
    await node.call("POST", "/jobs/default", sleeper("cron"))
    assert (await node.call("GET", "/sessions")).json == {"sessions": ["blog", "default"]}
    assert (await node.call("GET", "/jobs")).json == {"jobs": ["blog.web", "default.cron"]}
    assert (await node.call("GET", "/jobs/blog")).json == {"sessionid": "blog", "jobs": ["blog.web"]}


async def test_all_jobs_come_with_their_info_and_usage_in_one_answer(node: HttpNode) -> None:
    for session, name in (("blog", "web"), ("shop", "web")):
        await node.call("POST", f"/jobs/{session}", sleeper(name, env={"SIZE": "1"}))
    await eventually_async(lambda: len(node.manager.running) == 2)
    infos = (await node.call("GET", "/jobs?view=info")).json["jobs"]
    assert [info["name"] for info in infos] == ["blog.web", "shop.web"]
    one = (await node.call("GET", "/jobs/shop/web")).json
    assert infos[1].keys() == one.keys()
    assert infos[1]["config"] == one["config"]
    found = (await node.call("GET", "/jobs/shop?view=stats")).json
    assert (found["sessionid"], [job["name"] for job in found["jobs"]]) == ("shop", ["shop.web"])
    assert [process["pid"] for process in found["jobs"][0]["stats"]["stats"]] == one["processes"]


async def test_jobs_are_shown_in_known_ways_only(node: HttpNode) -> None:
    answer = await node.call("GET", "/jobs?view=all")
    assert (answer.status, answer.error) == (400, "bad_value")
    assert (await node.call("GET", "/jobs/shop?view=info")).status == 404


@pytest.mark.row("R-43")
async def test_a_job_loaded_with_start_false_does_not_run(node: HttpNode) -> None:
    await node.call("POST", "/jobs/default", sleeper(start=False))
    info = (await node.call("GET", "/jobs/default/sleeper")).json
    assert (info["active"], info["processes"]) == (False, [])


@pytest.mark.row("R-43")
async def test_loading_a_name_twice_is_a_conflict(node: HttpNode) -> None:
    await node.call("POST", "/jobs/default", sleeper())
    answer = await node.call("POST", "/jobs/default", sleeper())
    assert (answer.status, answer.error) == (409, "process_conflict")


@pytest.mark.row("R-43", "TPL-29")
async def test_several_jobs_are_loaded_together(node: HttpNode) -> None:
    jobs = [sleeper("a"), sleeper("shop.b", start=False)]
    assert (await node.call("POST", "/jobs/shop", {"jobs": jobs})).status == 200
    assert (await node.call("GET", "/jobs/shop")).json["jobs"] == ["shop.a", "shop.b"]
    assert (await node.call("GET", "/jobs/shop/b/state")).body == b"0"


@pytest.mark.parametrize(
    ("second", "status", "code", "path"),
    [
        ({"name": "b"}, 400, "bad_request", "$.jobs[1].cmd"),
        (sleeper("b", nmprocesses=2), 400, "bad_request", "$.jobs[1].nmprocesses"),
        (sleeper("other.b"), 400, "bad_request", "$.jobs[1].name"),
        (sleeper("a"), 409, "process_conflict", None),
        ("b", 400, "bad_request", "$.jobs[1]"),
    ],
)
async def test_one_wrong_job_of_several_loads_none(
    node: HttpNode, second: object, status: int, code: str, path: str | None
) -> None:
    answer = await node.call("POST", "/jobs/shop", {"jobs": [sleeper("a"), second]})
    assert (answer.status, answer.error, answer.json["path"]) == (status, code, path)
    assert (await node.call("GET", "/jobs")).json == {"jobs": []}


async def test_the_mistakes_of_all_jobs_are_told_at_once(node: HttpNode) -> None:
    answer = await node.call("POST", "/jobs/shop", {"jobs": [{"name": "a"}, {"name": "b", "cmd": 3}]})
    assert [problem["path"] for problem in answer.json["problems"]] == ["$.jobs[0].cmd", "$.jobs[1].cmd"]


@pytest.mark.parametrize(
    ("body", "code", "path"),
    [
        (b"", "bad_request", None),
        (b'{"name": "a", ', "invalid_json", None),
        (b'{"name": "a\xff"}', "invalid_json", None),
        (b"[" * 40_000, "invalid_json", None),
        (b"[]", "bad_request", "$"),
        (b"null", "bad_request", "$"),
        (b'{"name": "a", "cmd": "x", "numprocesses": "many"}', "bad_request", "$.numprocesses"),
        (b'{"name": "12", "cmd": "x"}', "bad_request", "$.name"),
        (b'{"jobs": {}}', "bad_request", "$.jobs"),
        (b'{"jobs": [], "name": "a"}', "bad_request", "$.name"),
    ],
)
@pytest.mark.row("HTTP-08")
async def test_a_wrong_body_is_refused_with_its_place(node: HttpNode, body: bytes, code: str, path: str | None) -> None:
    answer = await node.call("POST", "/jobs/default", body)
    assert (answer.status, answer.error, answer.json["path"]) == (400, code, path)


async def test_the_place_of_a_json_mistake_is_told(node: HttpNode) -> None:
    answer = await node.call("POST", "/jobs/default", b'{"name": "a",\n "cmd": nope}')
    assert "line 2" in answer.json["message"]


async def test_an_unknown_key_comes_with_a_suggestion(node: HttpNode) -> None:
    answer = await node.call("POST", "/jobs/default", sleeper(numproceses=2))
    assert "numprocesses" in answer.json["hint"]


@pytest.mark.row("R-44", "R-45")
async def test_a_job_can_be_looked_at(node: HttpNode) -> None:
    await node.call("POST", "/jobs/blog", sleeper("web", numprocesses=2))
    info = await eventually_async(lambda: _info_with_processes(node, "blog/web", 2))
    assert info["name"] == "blog.web"
    assert (info["active"], info["running"], info["running_out"], info["max_processes"]) == (True, 2, 0, 2)
    assert info["config"]["cmd"] == "sleep 1000"
    assert [instance["pid"] for instance in info["instances"]] == info["processes"]
    assert (await node.call("HEAD", "/jobs/blog/web")).status == 200


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/jobs/nope", None),
        ("GET", "/jobs/blog/nope", None),
        ("HEAD", "/jobs/blog/nope", None),
        ("PUT", "/jobs/blog/nope", sleeper("nope")),
        ("DELETE", "/jobs/blog/nope", None),
        ("GET", "/jobs/blog/nope/stats", None),
        ("GET", "/jobs/blog/nope/numprocesses", None),
        ("POST", "/jobs/blog/nope/numprocesses", {"scale": 1}),
        ("GET", "/jobs/blog/nope/pids", None),
        ("POST", "/jobs/blog/nope/signal", {"signal": 15}),
        ("GET", "/jobs/blog/nope/state", None),
        ("POST", "/jobs/blog/nope/state", b"1"),
        ("POST", "/jobs/blog/nope/commit", None),
        ("GET", "/jobs/blog/web/nope", None),
        ("GET", "/nope", None),
        ("GET", "/jobs/", None),
    ],
)
async def test_what_does_not_exist_is_not_found(node: HttpNode, method: str, path: str, body: object) -> None:
    answer = await node.call(method, path, body)
    assert answer.status == 404
    assert method == "HEAD" or answer.error == "not_found"


@pytest.mark.row("R-46")
async def test_an_update_replaces_the_config(node: HttpNode) -> None:
    await node.call("POST", "/jobs/blog", sleeper("web", start=False))
    answer = await node.call("PUT", "/jobs/blog/web", {"cmd": "sleep 2000"})
    assert (answer.status, answer.json) == (201, {"ok": True})
    info = (await node.call("GET", "/jobs/blog/web")).json
    assert (info["config"]["cmd"], info["active"]) == ("sleep 2000", True)


@pytest.mark.row("R-46")
@pytest.mark.parametrize("body", [sleeper("other"), sleeper("shop.web"), {"name": "web"}, {"cmd": ""}])
async def test_a_wrong_update_changes_nothing(node: HttpNode, body: dict[str, object]) -> None:
    await node.call("POST", "/jobs/blog", sleeper("web"))
    assert (await node.call("PUT", "/jobs/blog/web", body)).status == 400
    assert (await node.call("GET", "/jobs/blog/web")).json["config"]["cmd"] == "sleep 1000"


async def test_what_was_changed_shows_at_once_and_uptimes_grow(node: HttpNode) -> None:
    await node.call("POST", "/jobs/default", sleeper())
    for count in range(2, 12):
        await node.call("POST", "/jobs/default/sleeper/numprocesses", {"scale": f"={count}"})
        assert (await node.call("GET", "/jobs/default/sleeper")).json["max_processes"] == count

    async def uptime() -> float:
        instances = (await node.call("GET", "/jobs/default/sleeper")).json["instances"]
        return float(instances[0]["uptime"])

    before = await uptime()

    async def has_grown() -> bool:
        return await uptime() > before

    await eventually_async(has_grown)


@pytest.mark.row("R-47")
async def test_a_deleted_job_is_gone_with_its_processes(node: HttpNode) -> None:
    await node.call("POST", "/jobs/blog", sleeper("web"))
    await eventually_async(lambda: _info_with_processes(node, "blog/web", 1))
    assert (await node.call("DELETE", "/jobs/blog/web")).json == {"ok": True}
    assert (await node.call("GET", "/jobs/blog/web")).status == 404
    await eventually_async(lambda: _pids(node, []))


@pytest.mark.row("R-48")
async def test_stats_of_a_job(node: HttpNode) -> None:
    await node.call("POST", "/jobs/default", sleeper())
    await eventually_async(lambda: _info_with_processes(node, "default/sleeper", 1))
    stats = (await node.call("GET", "/jobs/default/sleeper/stats")).json
    assert stats["name"] == "default.sleeper"
    assert len(stats["stats"]) == 1


@pytest.mark.row("R-49", "R-50", "R-51")
@pytest.mark.parametrize(("scale", "count"), [(2, 3), (-1, 0), ("+1", 2), ("-1", 0), ("=4", 4), ("2", 3)])
async def test_scaling(node: HttpNode, scale: object, count: int) -> None:
    await node.call("POST", "/jobs/default", sleeper())
    answer = await node.call("POST", "/jobs/default/sleeper/numprocesses", {"scale": scale})
    assert answer.json == {"numprocesses": count}
    assert (await node.call("GET", "/jobs/default/sleeper/numprocesses")).json == {"numprocesses": count}
    info = await eventually_async(lambda: _info_with_processes(node, "default/sleeper", count))
    assert (await node.call("GET", "/jobs/default/sleeper/pids")).json == {"pids": info["processes"]}


@pytest.mark.row("R-50")
@pytest.mark.parametrize("body", [{}, {"scale": "many"}, {"scale": True}, {"scale": 1.5}, {"scale": 1, "x": 1}])
async def test_wrong_scaling_is_refused(node: HttpNode, body: dict[str, object]) -> None:
    await node.call("POST", "/jobs/default", sleeper())
    answer = await node.call("POST", "/jobs/default/sleeper/numprocesses", body)
    assert answer.status == 400
    assert (await node.call("GET", "/jobs/default/sleeper/numprocesses")).json == {"numprocesses": 1}


@pytest.mark.row("R-52")
@pytest.mark.parametrize("sig", [int(signal.SIGUSR1), "USR1", "sigusr1"])
async def test_a_signal_reaches_every_process(node: HttpNode, sig: int | str) -> None:
    code = (
        "import signal; signal.signal(signal.SIGUSR1, lambda *a: print('got it')); print('on')\nwhile 1: signal.pause()"
    )
    await node.call("POST", "/jobs/default", script("catcher", code, redirect_output=["out"]))
    [pid] = (await eventually_async(lambda: _info_with_processes(node, "default/catcher", 1)))["processes"]
    feed = await node.follow(f"/streams/{pid}/out?feed=continuous&tail=10")
    await feed.read_until(b"on\n")
    answer = await node.call("POST", "/jobs/default/catcher/signal", {"signal": sig})
    assert (answer.status, answer.json) == (202, {"ok": True})
    await feed.read_until(b"got it\n")


@pytest.mark.row("R-52")
@pytest.mark.parametrize("body", [{"signal": "NOPE"}, {"signal": 1000}, {"signal": -1}, {"signal": None}, {}])
async def test_a_wrong_signal_is_refused(node: HttpNode, body: dict[str, object]) -> None:
    await node.call("POST", "/jobs/default", sleeper())
    assert (await node.call("POST", "/jobs/default/sleeper/signal", body)).status == 400


@pytest.mark.row("R-53", "R-54")
async def test_starting_stopping_and_reloading(node: HttpNode) -> None:
    await node.call("POST", "/jobs/default", sleeper(start=False))
    assert (await node.call("GET", "/jobs/default/sleeper/state")).body == b"0"
    answer = await node.call("POST", "/jobs/default/sleeper/state", b"1")
    assert (answer.status, answer.json) == (202, {"ok": True})
    assert (await node.call("GET", "/jobs/default/sleeper/state")).body == b"1"
    first = (await eventually_async(lambda: _info_with_processes(node, "default/sleeper", 1)))["processes"]
    await node.call("POST", "/jobs/default/sleeper/state", b"2")
    await eventually_async(lambda: _other_processes(node, "default/sleeper", first))
    await node.call("POST", "/jobs/default/sleeper/state", b"0\n")
    await eventually_async(lambda: _pids(node, []))
    assert (await node.call("POST", "/jobs/default/sleeper/state", b"3")).status == 400


@pytest.mark.row("R-55", "R-56")
async def test_a_committed_process_runs_beside_the_job(node: HttpNode) -> None:
    await node.call("POST", "/jobs/default", sleeper(start=False))
    body = {"graceful_timeout": 1, "env": {"MODE": "once"}}
    pid = (await node.call("POST", "/jobs/default/sleeper/commit", body)).json["pid"]
    await eventually_async(lambda: _pids(node, [pid]))
    assert (await node.call("GET", "/jobs/default/sleeper")).json["running_out"] == 1
    assert (await node.call("GET", f"/{pid}")).json["committed"] is True
    assert (await node.call("POST", "/jobs/default/sleeper/commit")).status == 200
    # What `gaffer run` of version 0.5 sends.
    nulls = {"graceful_timeout": None, "env": None}
    assert (await node.call("POST", "/jobs/default/sleeper/commit", nulls)).status == 200


@pytest.mark.row("R-55")
async def test_a_committed_process_has_the_environment_and_graceful_timeout_of_its_request(node: HttpNode) -> None:
    stubborn = {"name": "j", "cmd": "sh -c 'trap \"\" TERM; echo $MODE; sleep 1000'", "redirect_output": ["out"]}
    assert (await node.call("POST", "/jobs/default", {**stubborn, "numprocesses": 0})).status == 200
    body = {"graceful_timeout": 0.1, "env": {"MODE": "once"}}
    pid = (await node.call("POST", "/jobs/default/j/commit", body)).json["pid"]
    await eventually_async(lambda: _output(node, pid, b"once\n"))
    assert (await node.call("DELETE", f"/{pid}")).status == 202
    await eventually_async(lambda: _pids(node, []))


@pytest.mark.row("R-55")
@pytest.mark.parametrize("body", [{"graceful_timeout": -1}, {"env": {"A": 1}}, {"env": []}, {"timeout": 1}])
async def test_a_wrong_commit_is_refused(node: HttpNode, body: dict[str, object]) -> None:
    await node.call("POST", "/jobs/default", sleeper(start=False))
    assert (await node.call("POST", "/jobs/default/sleeper/commit", body)).status == 400
    assert (await node.call("GET", "/pids")).json == {"pids": []}


async def test_names_that_cannot_be_are_refused(node: HttpNode) -> None:
    assert (await node.call("POST", "/jobs/a%20b", sleeper())).error == "bad_name"
    assert (await node.call("GET", "/jobs/default/a%2Fb")).error == "bad_name"
    assert (await node.call("GET", "/jobs/default/%ff")).error == "bad_request"


async def _info_with_processes(node: HttpNode, path: str, count: int) -> dict[str, Any]:
    info: dict[str, Any] = (await node.call("GET", f"/jobs/{path}")).json
    return info if len(info["processes"]) == count else {}


async def _other_processes(node: HttpNode, path: str, earlier: list[int]) -> bool:
    pids = (await node.call("GET", f"/jobs/{path}/pids")).json["pids"]
    return bool(pids) and not set(pids) & set(earlier)


async def _output(node: HttpNode, pid: int, expected: bytes) -> bool:
    process = node.manager.running.get(pid)
    return process is not None and process.ring("out").read(0).data == expected


async def _pids(node: HttpNode, expected: list[int]) -> bool:
    return bool((await node.call("GET", "/pids")).json == {"pids": expected})
