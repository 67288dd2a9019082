import asyncio
import logging
import os
import signal
import threading
from collections.abc import Iterator
from typing import cast

import pytest

import gaffer
from gaffer.loop import new_loop
from gaffer.sig_handler import BaseSigHandler, SigHandler
from support.poll import eventually_async


class Manager:
    """Stands for the manager: what a handler may call."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def stop(self) -> None:
        self.calls.append("stop")

    def restart(self) -> None:
        self.calls.append("restart")


@pytest.fixture(params=["asyncio", pytest.param("uvloop", marks=pytest.mark.leaks("libuv keeps a pipe for signals"))])
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    loop = new_loop(request.param)
    yield loop
    loop.close()


@pytest.mark.row("MISC-SH-02", "MISC-SH-03")
@pytest.mark.parametrize(
    ("signum", "call"),
    [(signal.SIGQUIT, "stop"), (signal.SIGTERM, "stop"), (signal.SIGINT, "stop"), (signal.SIGHUP, "restart")],
)
def test_signals_reach_the_manager_and_handlers_are_put_back(
    loop: asyncio.AbstractEventLoop, signum: signal.Signals, call: str
) -> None:
    before = signal.getsignal(signum)
    manager, handler = Manager(), SigHandler()

    async def receive() -> None:
        handler.start(asyncio.get_running_loop(), cast(gaffer.Manager, manager))
        os.kill(os.getpid(), signum)
        await eventually_async(lambda: manager.calls)
        handler.restart()
        handler.stop()
        handler.stop()

    loop.run_until_complete(receive())
    assert manager.calls == [call]
    assert signal.getsignal(signum) == before


def test_a_signal_between_two_runs_of_the_loop_is_not_lost(loop: asyncio.AbstractEventLoop) -> None:
    manager, handler = Manager(), SigHandler()

    async def start() -> None:
        handler.start(asyncio.get_running_loop(), cast(gaffer.Manager, manager))

    async def wait() -> None:
        await eventually_async(lambda: manager.calls)
        handler.stop()

    loop.run_until_complete(start())
    os.kill(os.getpid(), signal.SIGHUP)
    loop.run_until_complete(wait())
    assert manager.calls == ["restart"]


@pytest.mark.row("MISC-SH-02")
def test_quit_signals() -> None:
    assert BaseSigHandler.QUIT_SIGNALS == (3, 15, 2)


@pytest.mark.row("MISC-SH-01")
def test_the_base_handlers_must_be_implemented() -> None:
    handler = BaseSigHandler()
    for handle in (handler.handle_quit, handler.handle_reload):
        with pytest.raises(NotImplementedError):
            handle(handler, 15)


@pytest.mark.row("MISC-SH-03")
def test_handlers_may_be_called_directly() -> None:
    manager, handler = Manager(), SigHandler()
    handler.handle_quit(None, 15)
    handler.manager = cast(gaffer.Manager, manager)
    handler.handle_quit(None, 15)
    handler.handle_reload(None, 1)
    assert manager.calls == ["stop", "restart"]


@pytest.mark.expects_errors("signals are not caught")
def test_outside_the_main_thread_no_signal_is_caught(caplog: pytest.LogCaptureFixture) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def run() -> None:
        async def start() -> None:
            handler = SigHandler()
            handler.start(asyncio.get_running_loop(), cast(gaffer.Manager, Manager()))
            handler.stop()

        asyncio.run(start())

    with caplog.at_level(logging.WARNING):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert "signals are not caught" in caplog.text
    assert signal.getsignal(signal.SIGTERM) == before
