"""The documented names of Tornado's old loop, on the loop of a manager."""

import asyncio
import datetime
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import tornado.ioloop
from tornado.platform.asyncio import BaseAsyncIOLoop

from gaffer import tornado_pyuv
from gaffer.loop import UvLoop, new_loop
from gaffer.manager import Manager
from gaffer.tornado_pyuv import IOLoop, PeriodicCallback, Waker
from support.managers import running_manager
from support.poll import eventually


@pytest.fixture(params=["uvloop", "asyncio"])
def io_loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[IOLoop]:
    monkeypatch.setattr(IOLoop, "_instance", None)
    loop = new_loop(request.param)
    io_loop = IOLoop(_loop=loop)
    yield io_loop
    io_loop.close()
    asyncio.set_event_loop(None)
    loop.close()


def run_until_stopped(io_loop: IOLoop) -> None:
    """Run the loop; whoever forgets to stop it gets a failure, not a hang."""
    guard = io_loop.asyncio_loop.call_later(10, io_loop.stop)
    io_loop.start()
    assert not guard.cancelled()
    assert guard.when() > io_loop.asyncio_loop.time(), "nobody stopped the loop"
    guard.cancel()


@pytest.mark.row("MISC-TP-02")
def test_constants() -> None:
    assert (IOLoop.NONE, IOLoop.READ, IOLoop.WRITE, IOLoop.ERROR) == (0, 1, 4, 24)


@pytest.mark.row("MISC-TP-01")
def test_another_implementation_is_refused() -> None:
    with pytest.raises(ValueError, match="impl is not supported"):
        IOLoop(impl=object())


@pytest.mark.row("MISC-TP-03", "MISC-TP-06")
def test_callbacks_run_in_order_from_any_thread(io_loop: IOLoop) -> None:
    seen: list[int] = []
    io_loop.add_callback(seen.append, 1)
    io_loop.add_callback(lambda: seen.append(io_loop.running()))

    def elsewhere() -> None:
        io_loop.add_callback(seen.append, 3)
        io_loop.add_callback(io_loop.stop)

    threading.Timer(0.05, elsewhere).start()
    assert not io_loop.running()
    run_until_stopped(io_loop)
    assert seen == [1, True, 3]
    assert not io_loop.running()


@pytest.mark.row("MISC-TP-06")
def test_a_stop_before_the_start_counts_once(io_loop: IOLoop) -> None:
    io_loop.stop()
    io_loop.start()
    io_loop.add_callback(io_loop.stop)
    run_until_stopped(io_loop)


@pytest.mark.row("MISC-TP-04")
def test_handlers(io_loop: IOLoop) -> None:
    seen = []
    ours, theirs = socket.socketpair()
    with ours, theirs:

        def handler(fd: int, events: int) -> None:
            seen.append((fd, events))
            if events == IOLoop.WRITE:
                io_loop.update_handler(ours, IOLoop.READ)
                theirs.send(b"x")
            else:
                io_loop.remove_handler(ours)
                io_loop.remove_handler(ours)
                io_loop.add_callback(io_loop.stop)

        io_loop.add_handler(ours, handler, IOLoop.WRITE)
        with pytest.raises(OSError, match="already has a handler"):
            io_loop.add_handler(ours.fileno(), handler, IOLoop.READ)
        run_until_stopped(io_loop)
        with pytest.raises(OSError, match="has no handler"):
            io_loop.update_handler(ours, IOLoop.READ)
        assert seen == [(ours.fileno(), IOLoop.WRITE), (ours.fileno(), IOLoop.READ)]


@pytest.mark.row("MISC-TP-04")
def test_the_end_of_a_pipe_is_an_event(io_loop: IOLoop) -> None:
    reading, writing = os.pipe()
    io_loop.add_handler(reading, lambda fd, events: io_loop.stop(), IOLoop.ERROR)
    os.close(writing)
    run_until_stopped(io_loop)
    io_loop.remove_handler(reading)
    os.close(reading)


@pytest.mark.row("MISC-TP-05")
def test_timeouts(io_loop: IOLoop) -> None:
    seen = []
    io_loop.add_timeout(time.time() + 0.04, lambda: seen.append("later"))
    io_loop.add_timeout(datetime.timedelta(milliseconds=20), lambda: seen.append("soon"))
    io_loop.remove_timeout(io_loop.add_timeout(time.time() + 0.01, lambda: seen.append("never")))
    io_loop.add_timeout(time.time() - 5, lambda: seen.append("late"))
    io_loop.add_timeout(datetime.timedelta(milliseconds=60), io_loop.stop)
    run_until_stopped(io_loop)
    assert seen == ["late", "soon", "later"]


@pytest.mark.row("MISC-TP-06")
def test_close_forgets_handlers_and_timeouts(io_loop: IOLoop) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        seen: list[object] = []
        io_loop.add_handler(ours, lambda fd, events: seen.append(events), IOLoop.WRITE)
        io_loop.add_timeout(datetime.timedelta(0), lambda: seen.append("timeout"))
        io_loop.close()
        io_loop.asyncio_loop.call_later(0.02, io_loop.stop)
        run_until_stopped(io_loop)
        assert seen == []


@pytest.mark.row("MISC-TP-07")
@pytest.mark.expects_errors("the callback .* failed")
def test_a_callback_that_raises_is_logged(io_loop: IOLoop, caplog: pytest.LogCaptureFixture) -> None:
    io_loop.add_callback(lambda: 1 / 0)
    io_loop.add_callback(io_loop.stop)
    run_until_stopped(io_loop)
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.row("MISC-TP-07")
def test_subclasses_may_handle_exceptions(io_loop: IOLoop) -> None:
    seen = []

    class Mine(IOLoop):
        def handle_callback_exception(self, callback: Callable[..., object]) -> None:
            seen.append((callback, sys.exc_info()[0]))
            self.stop()

    def bad() -> None:
        raise KeyError

    mine = Mine(_loop=io_loop.asyncio_loop)
    mine.add_callback(bad)
    run_until_stopped(mine)
    assert seen == [(bad, KeyError)]


@pytest.mark.row("MISC-TP-08", "MISC-TP-12")
def test_the_singleton(io_loop: IOLoop) -> None:
    assert not IOLoop.initialized()
    io_loop.install()
    assert IOLoop.initialized()
    assert IOLoop.instance() is io_loop
    tornado_pyuv.install()
    current = tornado.ioloop.IOLoop.current()
    assert isinstance(current, BaseAsyncIOLoop)
    assert current.asyncio_loop is io_loop.asyncio_loop


@pytest.mark.row("MISC-TP-08")
def test_the_singleton_is_made_when_it_is_needed(io_loop: IOLoop) -> None:
    first = IOLoop.instance()
    assert IOLoop.instance() is first
    first.asyncio_loop.close()


@pytest.mark.row("MISC-TP-09")
def test_what_was_never_there(io_loop: IOLoop) -> None:
    calls: list[Callable[[], object]] = [
        lambda: io_loop.log_stack(0, None),
        lambda: io_loop.set_blocking_log_threshold(1),
        lambda: io_loop.set_blocking_signal_threshold(1, None),
    ]
    for call in calls:
        with pytest.raises(NotImplementedError):
            call()


@pytest.mark.row("MISC-TP-10")
@pytest.mark.expects_errors("the callback .* failed")
def test_periodic_callback(io_loop: IOLoop) -> None:
    seen = []

    def tick() -> None:
        seen.append(io_loop.asyncio_loop.time())
        if len(seen) == 3:
            periodic.stop()
            io_loop.add_timeout(datetime.timedelta(milliseconds=50), io_loop.stop)
        raise ValueError

    periodic = PeriodicCallback(tick, 20, io_loop)
    periodic.start()
    periodic.start()
    began = io_loop.asyncio_loop.time()
    run_until_stopped(io_loop)
    assert len(seen) == 3
    assert seen[2] - began >= 0.055
    with pytest.raises(ValueError, match="must be positive"):
        PeriodicCallback(tick, 0, io_loop)


@pytest.mark.row("MISC-TP-10")
def test_a_late_periodic_callback_does_not_catch_up(io_loop: IOLoop) -> None:
    ends: list[float] = []

    def tick() -> None:
        if not ends:
            time.sleep(0.1)  # ten periods
        ends.append(time.monotonic())
        if len(ends) == 3:
            io_loop.stop()

    periodic = PeriodicCallback(tick, 10, io_loop)
    periodic.start()
    run_until_stopped(io_loop)
    periodic.stop()
    assert ends[2] - ends[0] > 0.005  # two turns of 10 ms, however late each is


@pytest.mark.row("MISC-TP-11")
@pytest.mark.parametrize("of_facade", [True, False])
def test_waker(of_facade: bool) -> None:
    loop = new_loop("asyncio")
    io_loop = IOLoop(_loop=loop)

    def elsewhere() -> None:
        loop.call_soon(loop.stop)  # the loop sleeps on and does not see it
        Waker(io_loop if of_facade else loop).wake()

    threading.Timer(0.05, elsewhere).start()
    run_until_stopped(io_loop)
    asyncio.set_event_loop(None)
    loop.close()


@pytest.mark.row("MISC-TP-01")
def test_an_application_finds_the_loop_of_its_manager() -> None:
    seen = []

    class Application:
        def start(self, loop: UvLoop, manager: Manager) -> None:
            self.io_loop = IOLoop(_loop=loop)
            self.periodic = PeriodicCallback(lambda: seen.append(self.io_loop.running()), 5, self.io_loop)
            self.periodic.start()

        def stop(self) -> None:
            self.periodic.stop()
            self.io_loop.close()

    with running_manager([Application()]):
        eventually(lambda: len(seen) > 3)
    assert all(seen)
