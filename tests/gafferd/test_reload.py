from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaffer.jobs.names import JobName
from gaffer.manager import Manager
from gaffer.process import ProcessConfig
from gaffer.processes.stats import finish
from gafferd.config.file import load_config
from gafferd.config.file_jobs import Failure, FileJobs
from gafferd.config.reload import outdated_settings, plan, starts
from gafferd.config.settings import find_settings
from support.managers import running_manager

WEB = JobName("default", "web")
DB = JobName("shop", "db")


def config(name: str = "web", cmd: str = "run", **settings: Any) -> ProcessConfig:
    return ProcessConfig(name, cmd, **settings)


@pytest.mark.row("GD-19")
@pytest.mark.parametrize(
    ("before", "after", "loaded", "changes"),
    [
        pytest.param({WEB: config()}, {WEB: config()}, {WEB}, [], id="unchanged"),
        pytest.param({}, {WEB: config()}, set(), [(WEB, "add")], id="new"),
        pytest.param({WEB: config()}, {}, {WEB}, [(WEB, "remove")], id="gone"),
        pytest.param({WEB: config()}, {}, set(), [], id="gone, and unloaded by hand before"),
        pytest.param({WEB: config()}, {WEB: config()}, set(), [(WEB, "add")], id="unloaded by hand"),
        pytest.param({}, {}, {DB}, [], id="loaded by hand"),
        pytest.param({}, {DB: config("db")}, {DB}, [(DB, "update")], id="loaded by hand, now in the file"),
        pytest.param({WEB: config()}, {WEB: config(cmd="walk")}, {WEB}, [(WEB, "update")], id="other command"),
        pytest.param({WEB: config()}, {WEB: config(numprocesses=3)}, {WEB}, [(WEB, "scale")], id="other number"),
        pytest.param(
            {WEB: config()},
            {WEB: config(numprocesses=3, cmd="walk")},
            {WEB},
            [(WEB, "update")],
            id="other number and command",
        ),
        pytest.param(
            {WEB: config(port="8000")},
            {WEB: config(port="8000+", numprocesses=3)},
            {WEB},
            [(WEB, "update")],
            id="one port for one, then a port each",
        ),
        pytest.param(
            {WEB: config(), DB: config("db")},
            {JobName("default", "new"): config("new")},
            {WEB, DB},
            [(DB, "remove"), (WEB, "remove"), (JobName("default", "new"), "add")],
            id="removals first, in reverse",
        ),
    ],
)
def test_plan(
    before: dict[JobName, ProcessConfig],
    after: dict[JobName, ProcessConfig],
    loaded: set[JobName],
    changes: list[tuple[JobName, str]],
) -> None:
    assert plan(before, after, loaded) == changes


files = st.dictionaries(
    st.sampled_from([WEB, DB, JobName("shop", "web")]),
    st.builds(config, cmd=st.sampled_from("ab"), numprocesses=st.integers(0, 2)),
)


@given(before=files, after=files, by_hand=st.sets(st.sampled_from([WEB, DB])))
def test_a_reload_leads_to_the_new_file_and_the_next_one_changes_nothing(
    before: dict[JobName, ProcessConfig], after: dict[JobName, ProcessConfig], by_hand: set[JobName]
) -> None:
    loaded = before.keys() | by_hand
    changes = plan(before, after, loaded)
    assert len({change.job for change in changes}) == len(changes)
    for job, action in changes:
        loaded = loaded - {job} if action == "remove" else loaded | {job}
    assert loaded == after.keys() | (by_hand - before.keys())
    assert plan(after, after, loaded) == []


def test_a_job_starts_when_the_file_no_longer_keeps_it_stopped() -> None:
    assert starts(config(start=False), config())
    assert not starts(config(start=False), config(start=False))
    assert not starts(config(), config(start=False))
    assert not starts(config(), config())
    assert not starts(None, config())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "gafferd.ini"


@pytest.fixture
def node(file: Path) -> Iterator[tuple[Manager, FileJobs]]:
    """Loads the jobs of a text, and those of others later."""
    with running_manager() as manager:
        file.write_text("[process:a]\ncmd = sleep 1000\n[process:b]\ncmd = sleep 1000\n")
        jobs = FileJobs(manager, load_config(file).jobs)
        jobs.load()
        yield manager, jobs


def reload(jobs: FileJobs, file: Path, text: str) -> tuple[list[tuple[str, ...]], list[str]]:
    file.write_text(text)
    wanted = load_config(file).jobs
    changes = jobs.plan(wanted)
    failed: list[Failure] = finish(jobs.apply(wanted, changes))
    refused = [failure.change for failure in failed]
    applied = [tuple(map(str, change)) for change in changes if change not in refused]
    return applied, [str(change.job) for change in refused]


PORTS = "[process:a]\ncmd = sleep 1000\nport = 8123\n[process:b]\ncmd = sleep 999\n[process:c]\ncmd = sleep 1000\n"


def test_a_change_that_fails_is_tried_again_and_keeps_no_other_from_being_applied(
    node: tuple[Manager, FileJobs], file: Path
) -> None:
    manager, jobs = node
    manager.scale("a", 2)
    applied, failed = reload(jobs, file, PORTS)
    assert (applied, failed) == ([("default.b", "update"), ("default.c", "add")], ["default.a"])
    assert manager.get("b").cmd == "sleep 999"
    assert manager.get("a").port is None
    manager.scale("a", "=1")
    assert reload(jobs, file, PORTS) == ([("default.a", "update")], [])
    assert manager.get("a").port == "8123"
    assert reload(jobs, file, PORTS) == ([], [])


def test_taking_a_failed_change_out_of_the_file_needs_no_work(node: tuple[Manager, FileJobs], file: Path) -> None:
    manager, jobs = node
    before = file.read_text()
    manager.scale("a", 2)
    reload(jobs, file, before.replace("1000\n[", "1000\nport = 8123\n["))
    assert reload(jobs, file, before) == ([], [])
    assert manager.info("a")["max_processes"] == 3


def test_a_job_that_was_kept_stopped_starts_with_the_reload(node: tuple[Manager, FileJobs], file: Path) -> None:
    manager, jobs = node
    reload(jobs, file, "[process:a]\ncmd = sleep 1000\nstart = no\n[process:d]\ncmd = sleep 1000\nstart = no\n")
    assert manager.info("d")["state"] == "stopped"
    assert manager.info("a")["active"], "`start` is about loading"
    reload(jobs, file, "[process:d]\ncmd = sleep 1000\n")
    assert manager.info("d")["active"]


def test_a_port_that_another_job_gives_back_is_taken_in_the_same_reload(
    node: tuple[Manager, FileJobs], file: Path
) -> None:
    manager, jobs = node
    text = "[process:c]\ncmd = sleep 1000\nport = {}\n[process:d]\ncmd = sleep 1000\nport = {}\n"
    assert reload(jobs, file, text.format(8123, 8124))[1] == []
    assert reload(jobs, file, text.format(8124, 8125)) == ([("default.c", "update"), ("default.d", "update")], [])
    assert (manager.get("c").port, manager.get("d").port) == ("8124", "8125")


def test_a_number_in_the_file_becomes_that_of_the_definition(node: tuple[Manager, FileJobs], file: Path) -> None:
    manager, jobs = node
    text = "[process:a]\ncmd = sleep 1000\nnumprocesses = {}\npriority = {}\n"
    manager.update(config("a", "sleep 1000", os_env=True, nice=1))
    assert reload(jobs, file, text.format(2, 1))[0][-1] == ("default.a", "update")
    manager.update(config("a", "sleep 1000", os_env=True, numprocesses=2, priority=1, nice=1))
    manager.scale("a", "=5")
    assert reload(jobs, file, text.format(3, 1)) == ([("default.a", "scale")], [])
    assert (manager.get("a").numprocesses, manager.info("a")["max_processes"]) == (3, 3)
    assert manager.get("a").nice == 1, "what the file did not change stays"
    manager.update(manager.get("a").replace(numprocesses=4))
    manager.scale("a", "=5")
    assert reload(jobs, file, text.format(4, 1)) == ([("default.a", "scale")], [])
    assert manager.info("a")["max_processes"] == 4
    manager.scale("a", "=5")
    assert reload(jobs, file, text.format(4, 2)) == ([("default.a", "update")], [])
    assert manager.info("a")["max_processes"] == 5, "the file did not change the number"


def test_the_effect_of_a_change(node: tuple[Manager, FileJobs], file: Path) -> None:
    """Against what runs, not against the earlier file."""
    manager, jobs = node
    manager.update(config("b", "sleep 1000", env={"A": "b"}, os_env=True))
    file.write_text("[process:a]\ncmd = sleep 1000\nnumprocesses = 2\n[process:b]\ncmd = sleep 1000\npriority = 1\n")
    wanted = load_config(file).jobs
    assert [jobs.describe(change, wanted) for change in jobs.plan(wanted)] == [
        {"job": "default.b", "action": "update", "settings": ["env", "priority"], "restart": True},
        {"job": "default.a", "action": "scale", "settings": ["numprocesses"], "restart": False},
    ]


SETTINGS = "[gaffer]\nhttp_endpoints = a\nlog_level = info\n[endpoint:a]\nbind = 127.0.0.1:1\n"


@pytest.mark.parametrize(
    ("text", "given", "names"),
    [
        (SETTINGS, [], []),
        (SETTINGS.replace("info", "debug"), [], ["log_level"]),
        (SETTINGS.replace("info", "debug"), ["log_level"], []),
        (SETTINGS.replace("log_level = info", "labels = a=b"), [], ["labels"]),
        (SETTINGS.replace(":1", ":2"), [], ["endpoint:a"]),
        (SETTINGS.replace("= a", "= a, b") + "[endpoint:b]\nbind = 127.0.0.1:2\n", [], ["http_endpoints"]),
    ],
)
def test_settings_that_need_a_restart(file: Path, text: str, given: list[str], names: list[str]) -> None:
    file.write_text(SETTINGS)
    before = load_config(file)
    settings = find_settings({}, {}, before.settings).settings()
    file.write_text(text)
    assert list(outdated_settings(settings, given, before, load_config(file))) == names
