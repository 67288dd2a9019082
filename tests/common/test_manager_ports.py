"""Fixed ports of the jobs of a manager: nothing gives a port to two of them."""

from collections.abc import Iterator

import pytest

from gaffer import Manager
from gaffer.errors import ConfigError, PortConflict
from gaffer.process import ProcessConfig
from support.managers import running_manager
from support.poll import eventually


def config(name: str, port: str, count: int = 1, cmd: str = "sleep 1000") -> ProcessConfig:
    return ProcessConfig(name, cmd, port=port, numprocesses=count, restart="never")


@pytest.fixture
def manager() -> Iterator[Manager]:
    with running_manager([]) as manager:
        yield manager


def test_an_earlier_definition_is_refused_when_its_port_belongs_to_another_job(manager: Manager) -> None:
    manager.load(config("web", "18000"))
    manager.update(config("web", "18001"))
    manager.load(config("api", "18000"))
    with pytest.raises(PortConflict, match="would get port 18000"):
        manager.rollback("web")
    assert manager.get("web").port == "18001"
    manager.stop_job("api")
    assert manager.rollback("web") == 3


def test_a_definition_must_allow_the_number_of_processes_that_the_job_was_scaled_to(manager: Manager) -> None:
    manager.load(config("web", "18000"))
    manager.update(config("web", "18010+"))
    manager.scale("web", "=3")
    with pytest.raises(ConfigError, match="3 processes can't share port 18000"):
        manager.rollback("web")
    manager.load(config("api", "18021"))
    with pytest.raises(PortConflict, match="would get port 18021"):
        manager.update(config("web", "18020+"))


@pytest.mark.parametrize("cmd", ["true", "false"])
def test_a_restart_that_starts_a_job_looks_for_conflicts(manager: Manager, cmd: str) -> None:
    manager.load(config("web", "18000", cmd=cmd))
    eventually(lambda: manager.info("web")["state"] in ("completed", "failed"))
    manager.load(config("api", "18000"))
    with pytest.raises(PortConflict):
        manager.restart_job("web")
    with pytest.raises(PortConflict):
        manager.reload("web")


def test_a_restart_with_the_configured_number_of_processes_looks_for_conflicts(manager: Manager) -> None:
    manager.load(config("web", "18000+", 3))
    manager.scale("web", "=1")
    manager.load(config("api", "18002"))
    with pytest.raises(PortConflict, match="would get port 18002"):
        manager.reload("web")
    manager.restart_job("web", rolling=True)
