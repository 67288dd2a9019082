"""Custom streams over HTTP: R-70 and R-71 by their label."""

import pytest

from support.http_node import HttpNode, script
from support.poll import eventually_async

ECHO = "import os\nwhile data := os.read(3, 1 << 16): os.write(3, data)"


@pytest.mark.row("R-70", "R-71", "TPL-18", "IO-17")
async def test_a_custom_stream_is_written_and_followed_by_its_label(node: HttpNode) -> None:
    assert (await node.call("POST", "/jobs/default", script("job", ECHO, custom_streams=["extra"]))).status == 200

    async def pids() -> list[int]:
        found: list[int] = (await node.call("GET", "/pids")).json["pids"]
        return found

    pid = (await eventually_async(pids))[0]
    for text in (b"one\n", b"two\n"):
        assert (await node.call("POST", f"/streams/{pid}/extra", text)).json == {"ok": True}
        answer = await node.call("GET", f"/streams/{pid}/extra?feed=longpoll")
        assert (answer.status, answer.body) == (200, text)
    assert (await node.call("POST", f"/streams/{pid}/nope", b"x")).error == "stream_not_found"
    assert (await node.call("GET", f"/streams/{pid}/nope")).error == "io_not_found"
    assert (await node.call("POST", f"/streams/{pid}/stdin", b"x")).error == "forbidden_write"
