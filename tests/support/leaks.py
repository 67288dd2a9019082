"""A pytest plugin: a test that leaves something behind fails.

Checked after each test, when its own fixtures are torn down (those with a wider scope don't count):

- descriptors that are open and were not before
- children of the test process, zombies among them, and processes that lost their parent
- log records of level ERROR, and WARNING of Gaffer's own loggers, other than those that the test announces with
  `@pytest.mark.expects_errors("a regular expression", ...)`

`@pytest.mark.leaks("why")` turns the first two off for a test. Leaked processes are killed.
"""

import gc
import logging
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from gaffer.loop import new_loop
from gaffer.processes.launch import null_device
from support import subreaper

# What is on its way out when a test ends may finish: processes that were just killed, connections closing on a loop.
GRACE = 2.0

if TYPE_CHECKING:
    from execnet.xspec import XSpec

OWN_LOGGERS = ("gaffer", "gafferd", "gaffer_lookupd", "gaffer_client")

_DESCRIPTORS = Path("/proc/self/fd")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput"):
        return  # the tests run in workers
    # A shell that starts pytest in the background, or nohup, has these ignored, and children would inherit it.
    for signum in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, signal.default_int_handler if signum is signal.SIGINT else signal.SIG_DFL)
    subreaper.install()
    # What stays open as long as the process: the first loop of libuv opens a pipe, the first process the null device.
    new_loop().close()
    null_device()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(specs: list["XSpec"]) -> None:
    for spec in specs:
        spec.python = shlex.join([sys.executable, subreaper.__file__])


def pytest_collection_finish() -> None:
    # The collection after each test then looks at what the test made, not at pytest's own tens of thousands of objects.
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail the test when it leaves descriptors or processes behind or logs an error that it did not announce."""
    descriptors, processes = open_descriptors(), running_processes()
    with _Records() as records:
        yield
        gc.collect()  # an error in a task that nobody awaited is logged when the task is collected
    problems = _unexpected(records.seen, request.node)
    if request.node.get_closest_marker("leaks") is None:
        problems += _left_over(descriptors, processes)
    if problems:
        pytest.fail("the test left something behind:\n  " + "\n  ".join(problems), pytrace=False)


def open_descriptors() -> dict[str, str]:
    """Number and target of each open descriptor of this process."""
    found = {}
    for entry in _DESCRIPTORS.iterdir() if _DESCRIPTORS.exists() else ():
        try:
            found[entry.name] = os.readlink(entry)
        except FileNotFoundError:  # the one that reads this directory
            continue
    return found


def running_processes() -> set[psutil.Process]:
    """The children of this process, and the processes that lost their parent in one of its tests."""
    return {*psutil.Process().children(), *subreaper.orphans()}


def _left_over(descriptors: dict[str, str], processes: set[psutil.Process]) -> list[str]:
    """What is there after the grace period and was not before, one line each. The processes are killed."""
    deadline = time.monotonic() + GRACE
    while True:
        opened = open_descriptors().items() - descriptors.items()
        started = running_processes() - processes
        if not (opened or started):
            return []
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
        gc.collect()
    lines = [f"descriptor {number}: {target}" for number, target in opened] + [_describe(p) for p in started]
    _kill(started)
    return lines


def _describe(process: psutil.Process) -> str:
    try:
        with process.oneshot():
            if process.status() == psutil.STATUS_ZOMBIE:
                return f"zombie {process.pid}: {process.name()}, which nobody waited for"
            parent = "" if process.ppid() == os.getpid() else ", whose parent is gone"
            return f"process {process.pid}: {' '.join(process.cmdline())}{parent}"
    except psutil.NoSuchProcess:
        return f"process {process.pid}, which has ended since"


def _kill(processes: set[psutil.Process]) -> None:
    for process in processes:
        try:
            tree = [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
        for member in tree:
            try:
                member.kill()
            except psutil.NoSuchProcess:
                continue
        process.wait(10)


class _Records(logging.Handler):
    """Collects, while entered, what reaches the root logger at WARNING and above."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.seen: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(record)

    def __enter__(self) -> "_Records":
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_exc: object) -> None:
        logging.getLogger().removeHandler(self)


def _unexpected(records: list[logging.LogRecord], test: pytest.Item) -> list[str]:
    expected = [re.compile(pattern) for mark in test.iter_markers("expects_errors") for pattern in mark.args]
    problems = []
    for record in records:
        own = record.name.partition(".")[0] in OWN_LOGGERS
        if record.levelno < (logging.WARNING if own else logging.ERROR):
            continue
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        if not any(pattern.search(text) for pattern in expected):
            problems.append(f"log record of {record.name}, {record.levelname}: {text}")
    return problems
