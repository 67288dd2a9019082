"""Drift: jobs that differ from the configuration file, and processes older than their program."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import requests

from gaffer.errors import Problem
from gaffer.jobs.names import JobName
from gafferd.config.drift import drift_of_file, drift_of_job
from gafferd.config.file import load_config, read_config
from gafferd.config.on_disk import Contents, FileOnDisk
from support.daemons import Daemon, gafferd
from support.poll import eventually

WEB = JobName("default", "web")
TEXT = "[process:web]\ncmd = sleep 1000\n[process:db]\ncmd = sleep 1000\n"


def write(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def drift(node: Daemon, job: str = "web") -> list[Any]:
    return list(requests.get(f"{node.url}/jobs/default/{job}", timeout=30).json()["drift"])


def reasons(node: Daemon, job: str = "web") -> list[str]:
    return [f"{each['kind']}: {each['reason']}" for each in drift(node, job)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (TEXT, None),
        (TEXT + "[process:new]\ncmd = true\n", None),
        ("# a comment\n" + TEXT, None),
        (TEXT.replace("1000", "1001", 1), "FILE:1 has changes that are not applied: cmd"),
        (TEXT.replace("\n[", "\nnice = 1\nenv:A = x\n[", 1), "FILE:1 has changes that are not applied: env, nice"),
        (TEXT.replace("web", "other"), "the configuration file no longer has this job: a reload removes it"),
        (TEXT + "cdm = 1\n", "the configuration file is invalid: FILE:5: [process:db] unknown key 'cdm'"),
    ],
)
def test_the_drift_of_a_file(tmp_path: Path, text: str, reason: str | None) -> None:
    file = tmp_path / "gafferd.ini"
    file.write_text(TEXT)
    applied = load_config(file).jobs
    file.write_text(text)
    config, problems = read_config(file)
    found = drift_of_file(WEB, applied[WEB], Contents(config, tuple(problems)))
    assert found == (reason and {"kind": "file", "reason": reason.replace("FILE", str(file))})


def test_the_drift_of_a_job_that_was_not_loaded_from_the_file(tmp_path: Path) -> None:
    file = tmp_path / "gafferd.ini"
    file.write_text(TEXT)
    contents = Contents(load_config(file))
    assert drift_of_file(JobName("default", "other"), None, contents) is None
    assert drift_of_file(JobName("default", "other"), None, contents._replace(problems=(Problem("x", "y"),))) is None
    assert drift_of_file(WEB, None, contents) == {
        "kind": "file",
        "reason": f"{file}:1 describes this job, but it was loaded otherwise: a reload updates it",
    }


def test_the_drift_of_a_job_that_was_changed(tmp_path: Path) -> None:
    file = tmp_path / "gafferd.ini"
    file.write_text(TEXT)
    applied = load_config(file).jobs[WEB]
    assert drift_of_job(applied, applied.replace(), 1) is None
    assert drift_of_job(applied, applied.replace(numprocesses=3, nice=1), 3) == {
        "kind": "job",
        "reason": "differs from the configuration file: nice, numprocesses (3 instead of 1)",
    }


def test_every_file_and_included_directory_is_watched(tmp_path: Path) -> None:
    main, included, folder = tmp_path / "gafferd.ini", tmp_path / "more.ini", tmp_path / "jobs.d"
    (folder / "deep").mkdir(parents=True)
    main.write_text("[gaffer]\ninclude = more.ini absent.ini\ninclude_dir = jobs.d\n")
    included.write_text(TEXT)
    config, problems = read_config(main)
    file = FileOnDisk(main, config)
    assert len(problems) == 1

    def changed() -> bool:
        before = file.contents
        file.refresh()
        return file.contents is not before

    assert not changed()
    write(included, TEXT.replace("1000", "1001"))
    assert changed()
    (folder / "deep" / "job.ini").write_text("[process:a]\ncmd = true\n")
    assert changed()
    assert JobName("default", "a") in file.contents.config.jobs
    (folder / "deep" / "job.ini").write_text("[process:b]\ncmd = true\n")
    assert changed()
    (tmp_path / "absent.ini").write_text("")
    assert changed()
    assert file.contents.problems == ()
    assert not changed()


def test_a_file_that_was_changed_and_a_job_that_was_changed(tmp_path: Path) -> None:
    file = tmp_path / "gafferd.ini"
    file.write_text(TEXT)
    with gafferd(str(file)) as node:
        assert drift(node) == []
        write(file, TEXT.replace("1000", "1001", 1))
        eventually(lambda: reasons(node) == [f"file: {file}:1 has changes that are not applied: cmd"])
        assert drift(node, "db") == []
        requests.post(f"{node.url}/reload", timeout=30).raise_for_status()
        assert drift(node) == []
        write(file, "[process:web]\n")
        eventually(
            lambda: (
                reasons(node) == [f"file: the configuration file is invalid: {file}:1: [process:web] cmd is missing"]
            )
        )
        write(file, TEXT.replace("1000", "1001", 1))
        eventually(lambda: drift(node) == [])
        requests.post(f"{node.url}/jobs/default/web/numprocesses", json={"scale": "=2"}, timeout=30)
        changed = "job: differs from the configuration file: numprocesses (2 instead of 1)"
        eventually(lambda: reasons(node) == [changed])
        requests.post(f"{node.url}/jobs/shop", json={"name": "web", "cmd": "sleep 1000"}, timeout=30)
        assert requests.get(f"{node.url}/jobs/shop/web", timeout=30).json()["drift"] == []


def test_a_program_that_was_replaced(tmp_path: Path) -> None:
    program = tmp_path / "program"
    shutil.copy2("/bin/sleep", program)
    with gafferd() as node:
        requests.post(f"{node.url}/jobs/default", json={"name": "web", "cmd": f"{program} 1000"}, timeout=30)
        eventually(lambda: requests.get(f"{node.url}/jobs/default/web", timeout=30).json()["running"] == 1)
        assert drift(node) == []
        shutil.copy2("/bin/sleep", tmp_path / "new")
        (tmp_path / "new").replace(program)
        changed = f"program: {program} has changed since the start of process 1"
        eventually(lambda: reasons(node) == [changed])
        requests.post(f"{node.url}/jobs/default/web/restart", timeout=30)
        eventually(lambda: drift(node) == [])
