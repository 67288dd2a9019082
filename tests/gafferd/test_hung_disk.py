"""A disk that does not respond delays neither the loop nor the end of gafferd, when it has the configuration file."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gaffer.errors import ManagerStopping
from gaffer.manager import Manager
from gaffer.runtime.daemonize import ProcessTitle
from gaffer.runtime.service_manager import ServiceManager
from gaffer.webhooks import WebHooks
from gafferd import drift, reloader
from gafferd.config.effective import Effective
from gafferd.config.file import EMPTY, Config
from gafferd.config.file_jobs import FileJobs
from gafferd.config.on_disk import FileOnDisk
from gafferd.config.settings import Settings
from gafferd.drift import Drift
from gafferd.history.recorder import History
from gafferd.plugins.folder import PluginFolder
from gafferd.plugins.host import Plugins
from gafferd.reloader import ReadTimeout, Reloader
from gafferd.service import Service
from support.poll import eventually_async

pytestmark = pytest.mark.usefixtures("no_patience")


class HungFile(FileOnDisk):
    """A file on a disk that hangs until `released`."""

    def __init__(self) -> None:
        super().__init__(Path("/nonexistent/gafferd.ini"), EMPTY)
        self.released = threading.Event()
        self.reads = 0

    def read(self) -> Config:
        self.reads += 1
        self.released.wait()
        return super().read()

    def refresh(self) -> None:
        self.reads += 1
        self.released.wait()
        super().refresh()


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reloader, "READ_TIMEOUT", 0.1)
    monkeypatch.setattr(drift, "PATIENCE", 0.1)
    monkeypatch.setattr(drift, "HANGING", 0.0)


@pytest.fixture
async def hung() -> AsyncIterator[HungFile]:
    file = HungFile()
    yield file
    file.released.set()
    await eventually_async(lambda: not any(thread.name == "gafferd-call" for thread in threading.enumerate()))


@pytest.fixture
def manager() -> Manager:
    return Manager(asyncio.get_event_loop())


def make_reloader(manager: Manager, file: FileOnDisk) -> Reloader:
    effective = Effective(path=file.path, file=EMPTY, settings=Settings(), given={})
    service = Service("node", ServiceManager(), ProcessTitle("gafferd", []))
    service.start(manager.loop, manager)
    history = History(file.path.with_name("history.jsonl"))
    return Reloader(effective, file, FileJobs(manager, {}), WebHooks(), Plugins(PluginFolder([]), {}), service, history)


@pytest.mark.expects_errors("looking for changed files takes more than")
async def test_drift_is_that_of_the_last_look(
    hung: HungFile, manager: Manager, caplog: pytest.LogCaptureFixture
) -> None:
    found = Drift(FileJobs(manager, {}), hung)
    found.start(manager.loop, manager)

    async def refreshed() -> bool:
        """Whether a request has nothing to wait for."""
        if (waiting := found.refresh()) is not None:
            await waiting
        return waiting is None

    await eventually_async(refreshed)
    assert found.refresh() is None, "further requests don't wait"
    assert hung.reads == 1
    assert caplog.messages == ["looking for changed files takes more than 0 s: check the disks"]
    hung.released.set()

    async def looked_again() -> bool:
        await refreshed()
        return hung.reads == 2

    await eventually_async(looked_again)


@pytest.mark.expects_errors("the configuration was not applied: the configuration could not be read within")
async def test_a_reload_gives_up_and_further_ones_start_no_more_threads(hung: HungFile, manager: Manager) -> None:
    reloads = make_reloader(manager, hung)
    for _ in range(3):
        with pytest.raises(ReadTimeout):
            await reloads.reload()
    assert hung.reads == 1


@pytest.mark.expects_errors("the configuration was not applied: the node is stopping")
async def test_the_end_of_the_node_ends_a_reload(
    hung: HungFile, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloader, "READ_TIMEOUT", 60.0)
    reloads = make_reloader(manager, hung)
    reloads.start(manager.loop, manager)
    running = asyncio.ensure_future(reloads.reload())
    await eventually_async(lambda: hung.reads == 1)
    reloads.quiesce()
    for reload in (running, reloads.reload(), reloads.reload(dry_run=True)):
        with pytest.raises(ManagerStopping):
            await reload
