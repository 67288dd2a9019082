"""A proxy on loopback whose connections are cut on demand, with what is on its way."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit


class CuttingProxy:
    """Passes connections to `url` on; run by `cutting_proxy`."""

    def __init__(self, url: str) -> None:
        self.url = ""
        self.cuts = 0
        self._target = urlsplit(url)
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()

    def cut(self) -> None:
        """Cut all connections at once. Call it in another thread."""
        asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result()

    async def _cut(self) -> None:
        for writer in self._writers:
            self.cuts += 1
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        theirs, to_target = await asyncio.open_connection(self._target.hostname, self._target.port)
        self._writers |= {writer, to_target}
        try:
            await asyncio.gather(self._pass(reader, to_target), self._pass(theirs, writer))
        finally:
            self._writers -= {writer, to_target}

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(4096):
                writer.write(data)
                await writer.drain()
        writer.transport.abort()

    async def _run(self, started: threading.Event, ended: asyncio.Event) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = "http://{}:{}".format(*server.sockets[0].getsockname())
        started.set()
        await ended.wait()
        server.close()
        await self._cut()
        await asyncio.gather(*self._serving, return_exceptions=True)


@contextmanager
def cutting_proxy(url: str) -> Iterator[CuttingProxy]:
    """Run a proxy to the http server at `url`."""
    proxy = CuttingProxy(url)
    started, ended = threading.Event(), asyncio.Event()
    thread = threading.Thread(target=lambda: proxy._loop.run_until_complete(proxy._run(started, ended)))
    thread.start()
    started.wait()
    try:
        yield proxy
    finally:
        proxy._loop.call_soon_threadsafe(ended.set)
        thread.join()
        proxy._loop.close()
