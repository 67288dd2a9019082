"""What a program of one's own relies on: applications of any kind, clear errors for wrong arguments, waiting, reprs."""

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
import requests
from tornado.web import RequestHandler
from tornado.websocket import WebSocketHandler, websocket_connect

from gaffer import Manager
from gaffer.errors import BadValue, ManagerStopping, ProcessNotFound
from gaffer.http_handler import HttpEndpoint, HttpHandler
from gaffer.jobs.job import Job
from gaffer.jobs.names import JobName
from gaffer.loop import new_loop
from gaffer.process import ProcessConfig
from gaffer.webhooks import WebHooks
from support.daemons import clean_env
from support.http_node import running_node
from support.managers import Recording, last_exit, running_manager
from support.poll import eventually
from support.webhooks import receiver

SLEEP = "sleep 1000"


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = new_loop()
    yield loop
    loop.close()


class Slow:
    """An application whose every method is a coroutine function."""

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails
        self.done: list[str] = []

    async def start(self, loop: asyncio.AbstractEventLoop, manager: Manager) -> None:
        await asyncio.sleep(0)
        if self.fails:
            raise RuntimeError("no database")
        self.done.append("start")

    async def restart(self) -> None:
        await asyncio.sleep(0)
        self.done.append("restart")

    async def stop(self) -> None:
        await asyncio.sleep(0)
        self.done.append("stop")


# Applications


def test_coroutine_functions_of_an_application_are_awaited() -> None:
    slow = Slow()
    with running_manager([slow]) as manager:
        assert slow.done == ["start"]
        manager.restart()
        eventually(lambda: slow.done == ["start", "restart"])
    assert slow.done == ["start", "restart", "stop"]


def test_an_asynchronous_start_that_fails_is_that_of_the_manager(loop: asyncio.AbstractEventLoop) -> None:
    first, manager = Slow(), Manager(loop)
    with pytest.raises(RuntimeError, match="no database"):
        manager.start([first, Slow(fails=True)])
    assert first.done == ["start", "stop"]
    assert not manager.started


def test_on_the_running_loop_an_asynchronous_start_is_refused(loop: asyncio.AbstractEventLoop) -> None:
    slow, manager = Slow(), Manager(loop)

    async def start() -> None:
        with pytest.raises(RuntimeError, match=r"asynchronous start\(\).*before the loop runs"):
            manager.start([slow])

    loop.run_until_complete(start())
    loop.run_until_complete(asyncio.sleep(0.01))
    assert slow.done == []


@pytest.mark.parametrize(
    ("apps", "message"),
    [
        ([object()], r"is not an application: it has no method start\(loop, manager\)"),
        (["http"], "'http' is not an application"),
        (Slow(), r"expected a list of applications, got .*: write start\(\[\.\.\.\]\)"),
    ],
)
def test_what_is_no_application_is_refused(loop: asyncio.AbstractEventLoop, apps: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Manager(loop).start(apps)


def test_an_asynchronous_callback_of_the_stop_is_awaited(loop: asyncio.AbstractEventLoop) -> None:
    called = []

    async def callback(manager: Manager) -> None:
        await asyncio.sleep(0)
        called.append(manager)

    manager = Manager(loop)
    manager.start()
    manager.stop(callback)
    manager.run()
    assert called == [manager]


def test_a_stopped_manager_may_be_started_again(loop: asyncio.AbstractEventLoop) -> None:
    manager = Manager(loop)
    for round_ in range(3):
        recording = Recording("exit")
        manager.start([recording])
        assert (manager.jobs(), manager.active) == ([], True)
        manager.load(ProcessConfig("j", SLEEP, startsecs=0))
        assert manager.wait("j")["running"] == 1
        manager.stop()
        manager.run()
        assert len(recording.seen) == 1, f"round {round_}"
        assert not manager.active
        assert manager.running == {}


def test_a_manager_whose_start_failed_may_be_started_again(loop: asyncio.AbstractEventLoop) -> None:
    manager = Manager(loop)
    with pytest.raises(RuntimeError, match="no database"):
        manager.start([Slow(fails=True)])
    manager.start()
    manager.load(ProcessConfig("j", SLEEP, startsecs=0))
    assert manager.wait("j")["running"] == 1
    manager.stop()
    manager.run()


# Arguments


def test_a_program_that_ends_with_a_failed_start_logs_no_other_error() -> None:
    """asyncio.run cancels what is left, such as the stop of the manager."""

    class Failing:
        def start(self, loop: Any, manager: Any) -> None:
            raise RuntimeError("no database")

    async def main() -> None:
        Manager(asyncio.get_running_loop()).start([Failing()])

    with pytest.raises(RuntimeError, match="no database"):
        asyncio.run(main())


def test_only_a_process_config_can_be_loaded(loop: asyncio.AbstractEventLoop) -> None:
    manager = Manager(loop)
    calls: list[Callable[[Any], object]] = [manager.load, manager.update]
    for call in calls:
        with pytest.raises(TypeError, match=r"got dict .*: write ProcessConfig\.from_dict"):
            call({"name": "web", "cmd": "true"})
        with pytest.raises(TypeError, match=r"got str 'web': write ProcessConfig\(name, cmd\)"):
            call("web")
    with pytest.raises(TypeError, match=r"expected a list of ProcessConfig, got one: call load\(\)"):
        manager.load_all(ProcessConfig("web", "true"))  # type: ignore[arg-type]
    assert manager.jobs() == []


@pytest.mark.parametrize("endpoints", ["127.0.0.1:5000", ["127.0.0.1:5000"], HttpEndpoint(), 5000, {"uri": "x"}])
def test_endpoints_are_a_list_of_endpoints(endpoints: Any) -> None:
    with pytest.raises(TypeError, match=r"write HttpHandler\(\[HttpEndpoint\('host:port'\)\]\)"):
        HttpHandler(endpoints)


@pytest.mark.parametrize("uri", [5000, None, [], [5000], ("127.0.0.1", 5000)])
def test_an_endpoint_has_uris(uri: Any) -> None:
    with pytest.raises(TypeError, match="expected a URI such as"):
        HttpEndpoint(uri)


class Hello(RequestHandler):
    pass


@pytest.mark.parametrize(
    "pattern", ["/jobs", "/jobs/?", r"/jobs/(\w+)", "/p.*s", "/ping$", r"/streams/\d+/\w+", "/", "/jobs.*", "/metrics"]
)
def test_a_handler_that_would_never_be_called_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="would never be called: it is shadowed by the API's /"):
        HttpHandler(handlers=[(pattern, Hello)])


@pytest.mark.parametrize("pattern", ["/hello", "/jobsite", "/.*", r"/(.*)", r"/my/jobs/(\w+)", "/pinger"])
def test_other_handlers_are_fine(pattern: str) -> None:
    HttpHandler(handlers=[(pattern, Hello)])


@pytest.mark.parametrize("rule", ["/hello", ("/hello",), Hello, ("/a", Hello, {}, "name", 1)])
def test_a_handler_is_a_rule(rule: Any) -> None:
    with pytest.raises(TypeError, match="expected a rule"):
        HttpHandler(handlers=[rule])


def test_a_job_is_named_by_its_name(loop: asyncio.AbstractEventLoop) -> None:
    manager = Manager(loop)
    wrong: list[Any] = [5, None, {"name": "web"}, ["web"]]
    for name in wrong:
        with pytest.raises(TypeError, match="expected the name of a job"):
            manager.info(name)
        with pytest.raises(TypeError, match="expected the name of a job"):
            manager.start_job(name)


@pytest.mark.parametrize("hooks", ["http://a", ["http://a"], [("exit",)], [("exit", "http://a", 1)]])
def test_webhooks_are_pairs(hooks: Any) -> None:
    with pytest.raises(TypeError, match="event, url"):
        WebHooks(hooks)


def test_a_listener_that_nothing_would_await_is_refused(loop: asyncio.AbstractEventLoop) -> None:
    async def listener(name: str, message: object) -> None:
        pass

    with pytest.raises(TypeError, match="is a coroutine function: subscribe a function that makes a task"):
        Manager(loop).events.subscribe("exit", listener)


# Waiting


@pytest.mark.expects_errors("default.bad can't be started")
def test_waiting_for_a_job_from_another_thread() -> None:
    with running_manager() as manager:
        manager.load(ProcessConfig("web", SLEEP, startsecs=0.2))
        assert manager.wait("web", "starting", timeout=10)["state"] == "starting"
        assert manager.wait("web", "running", timeout=10)["state"] == "running"
        threading.Timer(0.05, manager.stop_job, ["web"]).start()
        assert manager.wait("web", ["stopped", "failed"])["state"] == "stopped"
        with pytest.raises(TimeoutError, match=r"default\.web is stopped, not running, after 0\.05 s"):
            manager.wait("web", "running", timeout=0.05)
        manager.load(ProcessConfig("bad", "/no/such", backoff=1000))
        with pytest.raises(TimeoutError, match=r"default\.bad is backoff \(program_not_found: .*\), not running"):
            manager.wait("bad", "running", timeout=0.05)


def test_waiting_on_the_loop(loop: asyncio.AbstractEventLoop) -> None:
    async def work(manager: Manager) -> None:
        manager.start()
        manager.load(ProcessConfig("web", SLEEP, startsecs=0))
        assert (await manager.wait("web"))["running"] == 1
        manager.stop()
        with pytest.raises(ManagerStopping):
            await manager.wait("web", "failed")

    manager = Manager(loop)
    loop.run_until_complete(work(manager))
    manager.run()


def test_waiting_ends_with_the_job_and_with_the_manager() -> None:
    with running_manager() as manager:
        with pytest.raises(ProcessNotFound):
            manager.wait("web")
        with pytest.raises(BadValue, match="unknown job state in 'up'"):
            manager.wait("web", "up")
        manager.load(ProcessConfig("web", SLEEP))
        threading.Timer(0.05, manager.unload, ["web"]).start()
        with pytest.raises(ProcessNotFound):
            manager.wait("web", "failed")
        manager.load(ProcessConfig("db", SLEEP))
        threading.Timer(0.05, manager.stop).start()
        with pytest.raises(ManagerStopping):
            manager.wait("db", "failed")


def test_waiting_before_the_start(loop: asyncio.AbstractEventLoop) -> None:
    with pytest.raises(RuntimeError, match="start the manager before"):
        Manager(loop).wait("web")


# How processes end


def test_a_process_that_a_signal_ended_has_no_exit_code() -> None:
    recording = Recording("exit")
    with running_manager([recording]) as manager:
        manager.load(ProcessConfig("j", "sh -c 'kill -KILL $$'", backoff=1000))
        eventually(lambda: recording.seen)
        last = last_exit(manager, "j")
        assert (last["exit_code"], last["term_signal"]) == (None, 9)
        (event,) = recording.of("exit")
        assert (event["exit_code"], event["exit_status"], event["term_signal"]) == (None, None, 9)


# Websockets


class Echo(WebSocketHandler):
    closed: ClassVar[list[int | None]] = []

    def open(self) -> None:
        self.write_message("open")

    def on_close(self) -> None:
        self.closed.append(self.close_code)


async def test_websockets_of_ones_own_are_closed_as_going_away() -> None:
    Echo.closed.clear()
    async with running_node(handlers=[("/echo", Echo)]) as node:
        client = await websocket_connect(f"{node.address.replace('http', 'ws')}/echo")
        gone = await websocket_connect(f"{node.address.replace('http', 'ws')}/echo")
        assert [await each.read_message() for each in (client, gone)] == ["open", "open"]
        gone.close(1000)
        assert await gone.read_message() is None
    assert await client.read_message() is None
    client.close()
    assert (client.close_code, client.close_reason) == (1001, "the node is stopping")
    assert Echo.closed == [1000, 1001]


# What a debugger shows


def test_reprs() -> None:
    config = ProcessConfig("web", "sleep 1000", numprocesses=2, env={"PASSWORD": "secret"}, labels={})
    assert repr(config) == "ProcessConfig('web', 'sleep 1000', env=<1 variables>, numprocesses=2)"
    assert repr(ProcessConfig("web", "true")) == "ProcessConfig('web', 'true')"
    assert repr(Job(JobName("s", "web"), config, lambda: 1)) == "<Job s.web: stopped, 0 of 2 processes>"
    assert repr(HttpHandler()) == "<HttpHandler not started>"
    with running_manager() as manager:
        assert repr(manager) == "<Manager started, 0 jobs, 0 processes>"
        manager.load(ProcessConfig("web", SLEEP))
        manager.wait("web")
        (process,) = manager.list("web")
        assert repr(process) == f"<Process 1 of default.web: active, os pid {process.os_pid}>"
        assert repr(manager) == "<Manager started, 1 jobs, 1 processes>"
    assert repr(manager) == "<Manager stopped, 1 jobs, 0 processes>"
    assert repr(process) == f"<Process 1 of default.web: exited, os pid {process.os_pid}>"


ALL_APPLICATIONS = """
import sys
from gaffer import Manager
from gaffer.console_output import ConsoleOutput
from gaffer.http_handler import HttpEndpoint, HttpHandler
from gaffer.process import ProcessConfig
from gaffer.sig_handler import SigHandler
from gaffer.webhooks import WebHooks

manager, http = Manager(), HttpHandler([HttpEndpoint("127.0.0.1:0")])
manager.start(apps=[ConsoleOutput(), SigHandler(), WebHooks([("exit", sys.argv[1])]), http])
print(*http.addresses, flush=True)
manager.load(ProcessConfig("dummy", "sh -c 'echo hello; exec sleep 1000'", redirect_output=["out"]))
manager.run()
"""


@pytest.mark.row("APP-05")
def test_the_applications_that_come_along_serve_one_manager_together() -> None:
    with (
        receiver() as hooks,
        subprocess.Popen(
            [sys.executable, "-c", ALL_APPLICATIONS, hooks.url], env=clean_env(), stdout=subprocess.PIPE, text=True
        ) as embedder,
    ):
        try:
            assert embedder.stdout is not None
            url = embedder.stdout.readline().strip()
            eventually(lambda: requests.get(f"{url}/status/dummy").json().get("running") == 1)
            shown = ""
            while "hello" not in shown:
                shown += embedder.stdout.readline()
            embedder.send_signal(signal.SIGTERM)
            assert embedder.wait(10) == 0
            assert hooks.names("/") == ["exit"]
        finally:
            embedder.kill()
