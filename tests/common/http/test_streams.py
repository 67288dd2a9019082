"""Following outputs and writing to inputs over HTTP: R-70, R-71, STR-01 to STR-14."""

import asyncio
from typing import Any

import pytest

from support.http_node import HttpNode, script
from support.poll import eventually_async

ECHO = "import os\nwhile data := os.read(0, 1 << 16): os.write(1, data)"
LIMIT = 256 * 1024


async def start(node: HttpNode, code: str = ECHO, **settings: Any) -> int:
    """Run a script with its streams redirected; returns its pid."""
    job = script("job", code, **{"redirect_output": ["out", "err"], "redirect_input": True, **settings})
    assert (await node.call("POST", "/jobs/default", job)).status == 200

    async def pids() -> list[int]:
        found: list[int] = (await node.call("GET", "/pids")).json["pids"]
        return found

    return (await eventually_async(pids))[0]


async def say(node: HttpNode, pid: int, data: bytes) -> None:
    assert (await node.call("POST", f"/streams/{pid}/stdin", data)).json == {"ok": True}


def position(node: HttpNode, pid: int, offset: int) -> str:
    """What resumes the output of a process at an offset."""
    return str(node.manager.ring(pid, "out").position(offset))


async def said(node: HttpNode, pid: int, data: bytes) -> None:
    """Write to the echo and wait until it has come back, on a feed of its own."""
    feed = await node.follow(f"/streams/{pid}/out?feed=continuous")
    await say(node, pid, data)
    await feed.read_until(data)
    feed.close()
    await _watched(node, pid, 0)


@pytest.mark.row("STR-10", "STR-13", "STR-14", "R-71", "STR-11")
@pytest.mark.parametrize("label", ["stdin", "ttin"])
async def test_a_longpoll_after_a_write_gets_the_reply(node: HttpNode, label: str) -> None:
    pid = await start(node)
    for text in (b"ECHO\n", b"\xff\x00\r\n", b"third\n"):
        assert (await node.call("POST", f"/streams/{pid}/{label}", text)).json == {"ok": True}
        answer = await node.call("GET", f"/streams/{pid}/out?feed=longpoll")
        assert (answer.status, answer.body) == (200, text)
        assert answer.headers["content-type"] == "application/octet-stream"


async def test_a_longpoll_gets_the_reply_also_when_it_came_before(node: HttpNode) -> None:
    pid = await start(node)
    await said(node, pid, b"ECHO\n")
    assert (await node.call("GET", f"/streams/{pid}/out")).body == b"ECHO\n"


@pytest.mark.row("STR-05", "STR-07")
async def test_a_longpoll_serves_a_reply_once_and_then_waits_for_the_next(node: HttpNode) -> None:
    pid = await start(node)
    await said(node, pid, b"first\n")
    assert (await node.call("GET", f"/streams/{pid}/out")).body == b"first\n"
    waiting = asyncio.create_task(node.call("GET", f"/streams/{pid}/out"))
    await _watched(node, pid, 1)
    await say(node, pid, b"second\n")
    assert (await waiting).body == b"second\n"
    third = asyncio.create_task(node.call("GET", f"/streams/{pid}/out"))
    await _watched(node, pid, 1)
    await say(node, pid, b"third\n")
    assert (await third).body == b"third\n", "what a waiting longpoll served is not served again"


async def test_longpolls_go_on_where_the_last_one_ended(node: HttpNode) -> None:
    pid = await start(node)
    await said(node, pid, b"one\n")
    first = await node.call("GET", f"/streams/{pid}/out")
    await said(node, pid, b"two\n")
    await said(node, pid, b"three\n")
    second = await node.call("GET", f"/streams/{pid}/out?after={first.headers['x-gaffer-offset']}")
    assert second.body == b"two\nthree\n"
    assert second.headers["x-gaffer-offset"] == position(node, pid, len(b"one\ntwo\nthree\n"))


async def test_a_heartbeat_ends_a_longpoll_with_after_and_tells_the_offset(node: HttpNode) -> None:
    pid = await start(node)
    await said(node, pid, b"one\n")
    answer = await node.call("GET", f"/streams/{pid}/out?after=4&heartbeat=0.1")
    assert (answer.status, answer.body, answer.headers["x-gaffer-offset"]) == (200, b"", position(node, pid, 4))


@pytest.mark.row("STR-03")
@pytest.mark.parametrize(
    ("kind", "beat"), [("longpoll", b"\n\n"), ("continuous", b"\n\n"), ("eventsource", b":\n\n:\n\n")]
)
async def test_heartbeats_keep_a_silent_feed_open(node: HttpNode, kind: str, beat: bytes) -> None:
    pid = await start(node)
    feed = await node.follow(f"/streams/{pid}/out?feed={kind}&heartbeat=0.1")
    assert (await feed.read_until(beat)).replace(beat[: len(beat) // 2], b"") == b""
    await say(node, pid, b"ECHO\n")
    await feed.read_until(b"ECHO\n")


@pytest.mark.row("STR-01", "STR-04")
async def test_a_continuous_feed_gives_raw_output_until_the_process_ends(node: HttpNode) -> None:
    pid = await start(node, f"{ECHO}\nprint('bye')", numprocesses=1)
    feed = await node.follow(f"/streams/{pid}/out?feed=continuous")
    assert feed.headers["content-type"] == "application/octet-stream"
    await say(node, pid, b"a\n")
    await feed.read_until(b"a\n")
    await say(node, pid, b"\xfe\x00b")
    await node.call("DELETE", f"/{pid}")
    await asyncio.wait_for(feed.read_all(), 10)


@pytest.mark.row("STR-06")
async def test_an_eventsource_gives_events(node: HttpNode) -> None:
    pid = await start(node)
    feed = await node.follow(f"/streams/{pid}/out?feed=eventsource")
    assert feed.headers["content-type"] == "text/event-stream"
    await say(node, pid, b"ECHO\n")
    assert (
        await feed.read_until(b"\n\n") == f"event: out\nid: {position(node, pid, 5)}\ndata: ECHO\ndata: \n\n".encode()
    )
    await say(node, pid, "é\rb\n\nc\n".encode())
    events = await feed.read_until(b"data: c\ndata: \n\n")
    text = f"event: out\nid: {position(node, pid, 13)}\ndata: é\ndata: b\ndata: \ndata: c\ndata: \n\n"
    assert events.endswith(text.encode())


async def test_an_eventsource_can_give_the_bytes(node: HttpNode) -> None:
    pid = await start(node)
    feed = await node.follow(f"/streams/{pid}/out?feed=eventsource&encoding=base64")
    await say(node, pid, b"\xff\r\n")
    assert await feed.read_until(b"\n\n") == f"event: out\nid: {position(node, pid, 3)}\ndata: /w0K\n\n".encode()


@pytest.mark.parametrize(
    "query", ["feed=eventsource&encoding=utf-8", "feed=continuous&encoding=base64", "encoding=base64"]
)
async def test_encodings_that_do_not_exist(node: HttpNode, query: str) -> None:
    answer = await node.call("GET", f"/streams/{await start(node)}/out?{query}")
    assert (answer.status, answer.error) == (400, "bad_value")


async def test_an_eventsource_ends_with_all_that_was_written(node: HttpNode) -> None:
    pid = await start(node, "import os\nos.read(0, 1)\nos.write(1, b'50%\\r')")
    feed = await node.follow(f"/streams/{pid}/out?feed=eventsource")
    await say(node, pid, b"x")
    assert (await feed.read_all()).endswith(b"data: \ndata: \n\n")


async def test_an_eventsource_goes_on_after_the_last_event(node: HttpNode) -> None:
    pid = await start(node)
    await said(node, pid, b"one\n")
    await said(node, pid, b"two\n")
    feed = await node.follow(f"/streams/{pid}/out?feed=eventsource", {"Last-Event-ID": position(node, pid, 4)})
    assert await feed.read_until(b"\n\n") == f"event: out\nid: {position(node, pid, 8)}\ndata: two\ndata: \n\n".encode()


@pytest.mark.parametrize("foreign", ["0123456789abcdef:4", "4", "nonsense"])
async def test_an_eventsource_that_has_a_position_elsewhere_gets_a_gap_and_all_there_is(
    node: HttpNode, foreign: str
) -> None:
    pid = await start(node)
    await said(node, pid, b"one\n")
    feed = await node.follow(f"/streams/{pid}/out?feed=eventsource", {"Last-Event-ID": foreign})
    assert (await feed.read_until(b"data: one\n")).startswith(b'event: gap\ndata: {"from":0,"to":0}\n\nevent: out\n')


async def test_other_feeds_begin_anew_for_a_position_elsewhere(node: HttpNode) -> None:
    pid = await start(node)
    await said(node, pid, b"one\n")
    after = node.manager.event_log.position(1)
    answer = await node.call("GET", f"/streams/{pid}/out?after={after}")
    assert (answer.body, answer.headers["x-gaffer-offset"]) == (b"one\n", position(node, pid, 4))
    feed = await node.follow(f"/streams/{pid}/out?feed=continuous&after={after}")
    assert await feed.read_until(b"\n") == b"one\n"


async def test_an_eventsource_tells_what_was_lost(node: HttpNode) -> None:
    pid = await start(node, f"print('x' * 80)\nprint('y' * {80 * LIMIT})\n{ECHO}")
    await said(node, pid, b"done\n")
    feed = await node.follow(f"/streams/{pid}/out?feed=eventsource", {"Last-Event-ID": position(node, pid, 0)})
    events = await feed.read_until(b"\n\n")
    ring = node.manager.ring(pid, "out")
    assert events.startswith(f'event: gap\ndata: {{"from":0,"to":{ring.start}}}\n\n'.encode())
    assert ring.start > 0


@pytest.mark.parametrize(
    ("tail", "expected"),
    [("2", b"two\nthree\n"), ("99", b"one\ntwo\nthree\n"), ("4b", b"ree\n"), ("0", b"new\n"), ("0b", b"new\n")],
)
async def test_a_feed_can_begin_with_the_tail(node: HttpNode, tail: str, expected: bytes) -> None:
    pid = await start(node)
    await said(node, pid, b"one\ntwo\nthree\n")
    feed = await node.follow(f"/streams/{pid}/out?feed=continuous&tail={tail}")
    await _watched(node, pid, 1)
    await say(node, pid, b"new\n")
    assert (await feed.read_until(b"new\n")).startswith(expected)


@pytest.mark.row("STR-24")
async def test_both_outputs_have_their_label_and_may_share_one(node: HttpNode) -> None:
    code = ECHO.replace("write(1", "write(2")
    pid = await start(node, code)
    await say(node, pid, b"oops\n")
    assert (await node.call("GET", f"/streams/{pid}/err")).body == b"oops\n"
    await node.call("DELETE", "/jobs/default/job")
    merged = script("merged", code, redirect_output=["all", "all"], redirect_input=True)
    await node.call("POST", "/jobs/default", merged)
    pid = await eventually_async(lambda: _pid_of(node, "merged"))
    await say(node, pid, b"oops\n")
    assert (await node.call("GET", f"/streams/{pid}/all")).body == b"oops\n"


@pytest.mark.row("STR-02", "STR-03", "STR-08", "STR-12")
@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/streams/abc/out", 400, "bad_value"),
        ("GET", "/streams/-1/out", 400, "bad_value"),
        ("GET", "/streams/999/out", 404, "not_found"),
        ("GET", "/streams/0/out", 404, "not_found"),
        ("GET", "/streams/99999999999999999999/out", 404, "not_found"),
        ("GET", "/streams/{pid}/nope", 404, "io_not_found"),
        ("GET", "/streams/{pid}/out?feed=nope", 400, "bad_value"),
        ("GET", "/streams/{pid}/out?heartbeat=nope", 400, "bad_value"),
        ("GET", "/streams/{pid}/out?heartbeat=-1", 400, "bad_value"),
        ("GET", "/streams/{pid}/out?heartbeat=nan", 400, "bad_value"),
        ("GET", "/streams/{pid}/out?heartbeat=inf", 400, "bad_value"),
        ("GET", "/streams/{pid}/out?tail=-1", 400, "bad_value"),
        ("GET", "/streams/{pid}/out?tail=1k", 400, "bad_value"),
        ("GET", "/streams/{pid}/out?after=x", 400, "bad_value"),
        ("GET", "/streams/{pid}/out?after=1000", 400, "bad_value"),
        ("GET", "/streams/{pid}/out?after=0&tail=1", 400, "bad_value"),
        ("POST", "/streams/999/stdin", 404, "not_found"),
        ("POST", "/streams/abc/stdin", 400, "bad_value"),
        ("POST", "/streams/{pid}/nope", 404, "stream_not_found"),
    ],
)
async def test_what_cannot_be_followed_or_written(
    node: HttpNode, method: str, path: str, status: int, code: str
) -> None:
    pid = await start(node)
    answer = await node.call(method, path.format(pid=pid), b"x" if method == "POST" else None)
    assert (answer.status, answer.error) == (status, code)


@pytest.mark.row("STR-08", "STR-12")
async def test_streams_that_are_not_redirected(node: HttpNode) -> None:
    pid = await start(node, "import time; time.sleep(1000)", redirect_output=[], redirect_input=False)
    answer = await node.call("GET", f"/streams/{pid}/stdout")
    assert (answer.status, answer.error) == (400, "io_not_redirected")
    answer = await node.call("POST", f"/streams/{pid}/stdin", b"x")
    assert (answer.status, answer.error) == (403, "forbidden_write")


async def test_head_tells_whether_there_is_a_stream(node: HttpNode) -> None:
    pid = await start(node)
    assert (await node.call("HEAD", f"/streams/{pid}/out")).status == 200
    assert (await node.call("HEAD", f"/streams/{pid}/nope")).status == 404


@pytest.mark.parametrize("kind", ["longpoll", "continuous", "eventsource"])
async def test_a_client_that_leaves_is_forgotten(node: HttpNode, kind: str) -> None:
    pid = await start(node)
    feeds = [asyncio.create_task(node.follow(f"/streams/{pid}/out?feed={kind}")) for _ in range(5)]
    await _watched(node, pid, 5)
    for feed in feeds:
        if kind == "longpoll":
            feed.cancel()
        else:
            (await feed).close()
    await _watched(node, pid, 0)


async def test_a_reader_that_does_not_read_costs_the_others_nothing(node: HttpNode) -> None:
    pid = await start(node, f"{ECHO}\n")
    lazy = await node.follow(f"/streams/{pid}/out?feed=continuous")
    for number in range(1, 41):
        await say(node, pid, b"z" * LIMIT)
        await _written(node, pid, number * LIMIT)
    await lazy.read_until(b"z")


async def test_feeds_end_well_when_the_node_stops(node: HttpNode) -> None:
    pid = await start(node)
    feeds = [await node.follow(f"/streams/{pid}/out?feed={kind}") for kind in ("continuous", "eventsource")]
    await say(node, pid, b"last words\n")
    await asyncio.gather(*(feed.read_until(b"last words\n") for feed in feeds))
    await node.stop()
    for feed in feeds:
        await asyncio.wait_for(feed.read_all(), 10)  # to the end of the body, not to a cut


async def _watched(node: HttpNode, pid: int, readers: int) -> None:
    await eventually_async(lambda: node.manager.ring(pid, "out").watchers == readers)


async def _written(node: HttpNode, pid: int, count: int) -> None:
    await eventually_async(lambda: node.manager.ring(pid, "out").end == count)


async def _pid_of(node: HttpNode, job: str) -> int | None:
    pids = (await node.call("GET", f"/jobs/default/{job}/pids")).json["pids"]
    return pids[0] if pids else None
