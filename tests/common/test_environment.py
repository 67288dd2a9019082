"""The variables of a process: env files, `env`, those of Gaffer, and PORT."""

import asyncio
import ctypes
import os
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gaffer.errors import StartFailed
from gaffer.jobs.names import JobName
from gaffer.process import Process, ProcessConfig
from gaffer.processes import launch
from gaffer.runtime.env_files import MAX_SIZE
from support.managers import Recording, running_manager
from support.needs import needs_root
from support.poll import eventually, eventually_async
from support.strangers import STRANGER

JOB = JobName("shop", "web")


def variables(*files: object, extra: dict[str, str] | None = None, **settings: Any) -> dict[str, str]:
    config = ProcessConfig("web", "true", env_file=list(map(str, files)), **settings)
    found = launch.variables(config, extra or {}, job=JOB)
    return {name: value for name, value in found.items() if not name.startswith("GAFFER_")}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A=1\nB = two words # comment\n# C=3\n\nexport D=4\n", {"A": "1", "B": "two words", "D": "4"}),
        ("KEY=\"-----BEGIN\nab+/=\n-----END\"\nA='x\n y'\n", {"KEY": "-----BEGIN\nab+/=\n-----END", "A": "x\n y"}),
        ("A=1\nB=${A}$A\nC='$(id)'\n", {"A": "1", "B": "${A}$A", "C": "$(id)"}),
        ("A=\"a\\nb\"\nB='a\\nb'\nE=\n", {"A": "a\nb", "B": "a\\nb", "E": ""}),
        ("\ufeffA=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("", {}),
    ],
    ids=["plain", "several lines", "no expansion", "escapes", "from Windows", "empty"],
)
def test_variables_in_an_env_file(tmp_path: Path, text: str, expected: dict[str, str]) -> None:
    (tmp_path / "env").write_text(text, newline="")
    assert variables(tmp_path / "env") == expected


def test_later_files_win_over_earlier_ones_and_env_over_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("A=a\nB=a\nC=a\nD=a\nHOME=/a\n")
    (tmp_path / "b").write_text("B=b\nC=b\nD=b\n")
    found = variables("a", "b", cwd=str(tmp_path), env={"C": "env", "D": "env"}, extra={"D": "extra"})
    assert found == {"A": "a", "B": "b", "C": "env", "D": "extra", "HOME": "/a"}
    config = ProcessConfig("web", "true", os_env=True, uid=os.getuid())
    env = launch.environment(config, found, {"HOME": "/parent", "A": "parent", "E": "parent"})
    assert (env["HOME"], env["A"], env["E"]) == ("/a", "a", "parent")


def bad(path: Path, case: str) -> str:
    """Make a bad env file; return what the error must say after its path."""
    match case:
        case "missing":
            return ": can't be read: No such file"
        case "a folder":
            path.mkdir()
            return ": not a regular file"
        case "a pipe":
            os.mkfifo(path)
            return ": not a regular file"
        case "too large":
            path.write_text("#" * (MAX_SIZE + 1))
            return f": more than {MAX_SIZE} bytes"
    path.write_bytes(
        {
            "not UTF-8": b"A=1\n\nB=\xff\n",
            "a NUL byte": b"A=1\n\nB=\0\n",
            "no value": b"A=1\n\nhunter2\n",
            "no line": b"A=1\n\n'hunter2\n",
            "a name with =": b"A=1\n\n'hunter2=x'=1\n",
        }[case]
    )
    message = {"not UTF-8": "invalid UTF-8: byte 0xff", "a NUL byte": "unexpected NUL byte"}
    return f":3: {message.get(case, 'expected KEY=VALUE')}"


BAD = (
    *("missing", "a folder", "a pipe", "too large", "not UTF-8"),
    *("a NUL byte", "no value", "no line", "a name with ="),
)


@pytest.mark.parametrize("case", BAD)
def test_a_bad_env_file_is_reported_with_its_place_and_remedy(tmp_path: Path, case: str) -> None:
    (tmp_path / "good").write_text("A=1\n")
    expected = bad(tmp_path / "bad", case)
    with pytest.raises(StartFailed) as caught:
        variables("good", "bad", cwd=str(tmp_path))
    error = caught.value
    assert error.message.startswith(f"env_file: {tmp_path}/bad{expected}")
    assert (error.reason, error.path) == ("bad_env_file", "$.env_file[1]")
    assert error.hint
    assert "hunter2" not in error.message  # it may be a secret


@needs_root
def test_an_env_file_that_the_manager_may_not_read(tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_text("A=1\n")
    path.chmod(0)
    found: list[StartFailed] = []

    def read() -> None:
        ctypes.CDLL(None).setfsuid(STRANGER)  # of this thread only, setfsuid(2)
        try:
            variables(path)
        except StartFailed as error:
            found.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    assert "can't be read: Permission denied" in found[0].message
    assert "readable" in (found[0].hint or "")


@pytest.mark.expects_errors("default.j can't be started: env_file: .*/env: can't be read")
def test_env_files_are_read_again_at_each_start(tmp_path: Path) -> None:
    def shows(value: str) -> bool:
        return value in (tmp_path / "out").read_text().split()

    recording = Recording()
    config = ProcessConfig("j", f"sh -c 'echo $A >> {tmp_path}/out; exit 1'", env_file=["env"], cwd=str(tmp_path))
    with running_manager([recording]) as manager:
        manager.load(config)
        eventually(lambda: recording.of("start_failed"))
        assert recording.of("start_failed")[0]["reason"] == "bad_env_file"
        for value in ("one", "two"):
            (tmp_path / "new").write_text(f"A={value}\n")
            (tmp_path / "new").rename(tmp_path / "env")
            eventually(partial(shows, value), retry_on=(FileNotFoundError,))


async def output(config: ProcessConfig, **settings: Any) -> str:
    process = Process(asyncio.get_running_loop(), config, pid=1, job=JOB, **settings)
    process.spawn()
    await eventually_async(lambda: process.closed)
    return process.ring("out").read(0).data.decode()


async def test_the_variables_of_gaffer_in_the_environment_and_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAFFER_JOB", "outer.job")
    monkeypatch.setenv("GAFFER_INSTANCE", "9")
    names = ("$GAFFER_JOB", "$GAFFER_SESSION", "${GAFFER_INSTANCE}", "$PORT")
    config = ProcessConfig("web", "echo", args=names, env={"GAFFER_JOB": "x"}, os_env=True, redirect_output=["out"])
    assert await output(config, slot=2, port=8001) == "shop.web shop 2 8001\n"
    assert await output(config) == "shop.web shop ${GAFFER_INSTANCE} $PORT\n"
    shell = config.replace(cmd="echo $GAFFER_JOB,$GAFFER_SESSION,$GAFFER_INSTANCE,$PORT", args=[], shell=True)
    assert await output(shell, slot=2, port=8001) == "shop.web,shop,2,8001\n"


async def test_values_of_env_files_are_never_read_as_syntax(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("A='\"; echo $B \\ #'\nB=b\n")
    config = ProcessConfig("web", "echo $A", args=["x$A"], env_file=[str(tmp_path / "env")], redirect_output=["out"])
    assert await output(config) == '"; echo $B \\ # x"; echo $B \\ #\n'


@pytest.mark.parametrize(
    ("given", "env", "extra", "expected"),
    [
        ("", {}, {}, 8000),
        ("PORT=5000", {}, {}, 5000),
        ("PORT=5000", {"PORT": "6000"}, {}, 6000),
        ("PORT=5000", {"PORT": "6000"}, {"PORT": "7000"}, 7000),
        ("PORT=http", {}, {}, None),
    ],
)
async def test_a_given_port_is_that_of_the_process(
    tmp_path: Path, given: str, env: dict[str, str], extra: dict[str, str], expected: int | None
) -> None:
    (tmp_path / "env").write_text(given)
    config = ProcessConfig("web", "sleep 1000", env_file=[str(tmp_path / "env")], env=env, port="8000")
    process = Process(asyncio.get_running_loop(), config, pid=1, job=JOB, slot=1, port=8000, env=extra)
    process.spawn()
    assert process.port == process.record().port == expected
    process.close()
    await eventually_async(lambda: process.closed)


async def test_a_port_of_the_manager_is_not_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "3000")
    process = Process(
        asyncio.get_running_loop(), ProcessConfig("web", "sleep 1000", os_env=True), pid=1, job=JOB, slot=1
    )
    process.spawn()
    assert process.port is None
    process.close()
    await eventually_async(lambda: process.closed)


def test_the_port_of_an_env_file_is_announced(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("PORT=5000\n")
    with running_manager() as manager:
        manager.load(ProcessConfig("j", "sleep 1000", env_file=[str(tmp_path / "env")], port="auto"))
        eventually(lambda: manager.pids("j"))
        instance = manager.info("j")["instances"][0]
        assert [endpoint["port"] for endpoint in instance["endpoints"]] == [instance["port"]] == [5000]
        (announced,) = manager.announced()["default.j"].values()
        assert [endpoint["port"] for endpoint in announced.endpoints] == [5000]
