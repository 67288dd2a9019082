"""Measure webhooks: events delivered to two URLs, with a third one that lives, refuses, is silent or fails.

python bench/webhooks.py [--events 10000] [--rounds 5] [--loop auto]

Each with queues in memory and on disk, in turn. The receivers run in another process. Events are published as fast as
the two URLs confirm them. Prints medians, and the ratio to three URLs that live.
"""

import argparse
import asyncio
import socket
import statistics
import subprocess
import sys
import time
from tempfile import TemporaryDirectory

from gaffer import Manager
from gaffer.loop import KINDS, new_loop
from gaffer.webhooks import WebHooks

RECEIVERS = """
import asyncio
async def answer(status, reader, writer):
    while head := await reader.readuntil(b"\\r\\n\\r\\n"):
        length = next(line for line in head.lower().split(b"\\r\\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.partition(b":")[2]))
        writer.write(b"HTTP/1.1 %d OK\\r\\nContent-Length: 0\\r\\n\\r\\n" % status)
async def main():
    servers = []
    for status in (200, 200, 200, 503):
        async def serve(reader, writer, status=status):
            try:
                await answer(status, reader, writer)
            except (asyncio.IncompleteReadError, OSError):
                writer.close()
        servers.append(await asyncio.start_server(serve, "127.0.0.1", 0))
        print(servers[-1].sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""
IN_FLIGHT = 500  # events, below the limit of the queues


async def deliver(manager: Manager, hooks: WebHooks, count: int) -> tuple[float, float]:
    """Publish `count` events; return the events each of the first two URLs got per second, and the longest pause."""
    await asyncio.sleep(0.1)  # not measured: the events of the start
    before = [state["delivered"] for state in hooks.status()[:2]]
    published = done = 0
    longest = 0.0
    began = last = time.perf_counter()
    while done < count:
        for _ in range(min(count - published, IN_FLIGHT - (published - done))):
            manager.events.publish("bench.event", {"number": published, "text": "x" * 200})
            published += 1
        await asyncio.sleep(0.001)
        now = time.perf_counter()
        longest = max(longest, now - last)
        last = now
        done = min(state["delivered"] - base for state, base in zip(hooks.status(), before, strict=False))
    return count / (time.perf_counter() - began), longest


def measure(kind: str, urls: list[str], count: int, directory: str | None) -> tuple[float, float]:
    loop = new_loop(kind)
    manager = Manager(loop)
    hooks = WebHooks([("bench", url) for url in urls], queue_dir=directory)
    manager.start([hooks])
    try:
        return loop.run_until_complete(deliver(manager, hooks, count))
    finally:
        manager.stop()
        manager.run()
        loop.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--loop", choices=KINDS, default="auto")
    options = parser.parse_args()
    with (
        subprocess.Popen([sys.executable, "-c", RECEIVERS], stdout=subprocess.PIPE, text=True) as receivers,
        socket.create_server(("127.0.0.1", 0)) as silent,
        socket.socket() as refusing,
    ):
        assert receivers.stdout is not None
        refusing.bind(("127.0.0.1", 0))
        first, second, living, failing = (f"http://127.0.0.1:{receivers.stdout.readline().strip()}/" for _ in range(4))
        third = {
            "living": living,
            "refusing": f"http://127.0.0.1:{refusing.getsockname()[1]}/",
            "silent": f"http://127.0.0.1:{silent.getsockname()[1]}/",
            "failing": failing,
        }
        found: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for _ in range(options.rounds):
            for name, url in third.items():
                for kind in ("memory", "disk"):
                    with TemporaryDirectory() as directory:
                        queues = directory if kind == "disk" else None
                        result = measure(options.loop, [first, second, url], options.events, queues)
                    found.setdefault((name, kind), []).append(result)
        for (name, kind), results in found.items():
            rate = statistics.median(rate for rate, _ in results)
            pairs = zip(results, found["living", kind], strict=True)
            ratio = statistics.median(rate / base for (rate, _), (base, _) in pairs)
            longest = max(longest for _, longest in results)
            print(
                f"{name:9} {kind:6} {rate:8.0f} events/s for each of two URLs, {ratio:.2f} of three living, "
                f"longest pause {longest * 1000:.1f} ms"
            )
        receivers.terminate()


if __name__ == "__main__":
    main()
