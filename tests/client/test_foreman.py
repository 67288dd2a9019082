"""`gaffer start` with a companion: order, jobs that run once, essential ones, and files that are watched."""

import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.console import Terminal, piped, until
from support.daemons import command_path


@pytest.fixture
def app(tmp_path: Path) -> Path:
    root = tmp_path / "shop"
    (root / "src" / "deep").mkdir(parents=True)
    return root


def write(app: Path, procfile: str, companion: str) -> None:
    (app / "Procfile").write_text(procfile)
    (app / "gaffer.yml").write_text(companion)


def finished(process: "subprocess.Popen[str]") -> tuple[int, list[str]]:
    """Return the exit status, and the lines without the time of day and padding."""
    assert process.stdout is not None
    lines = [re.sub(r"pid \d+", "pid N", line[9:].strip()) for line in process.stdout]
    return process.wait(20), lines


def test_jobs_start_in_order_and_it_ends_when_all_have_completed(app: Path) -> None:
    write(
        app,
        "web: echo serving\nmigrate: echo migrating\n",
        "jobs:\n  web: {kind: once, after: 'migrate:completed'}\n  migrate: {kind: once, after: [db]}\n"
        "  db: {kind: once, cmd: sleep 0.2}\n",
    )
    with piped(app, "start") as process:
        status, lines = finished(process)
    assert status == 0
    assert "migrate | waiting for db to be ready: it is starting" in lines
    order = ["db | completed", "migrate | migrating", "migrate | completed", "web | serving", "web | completed"]
    assert [line for line in lines if line in order] == order
    waits = [line for line in lines if line.startswith("web | waiting")]
    assert len(waits) == len(set(waits))
    assert waits[0].startswith("web | waiting for migrate to complete: it is ")


def test_it_ends_with_the_first_failure_when_nothing_is_left_that_can_run(app: Path) -> None:
    write(
        app,
        "web: echo serving; sleep 1000\nmigrate: exit 7\nlate: sleep 0.5; kill -9 $$\n",
        "jobs:\n  web: {after: 'migrate:completed'}\n  migrate: {kind: once}\n  late: {kind: once}\n",
    )
    with piped(app, "start") as process:
        status, lines = finished(process)
    assert status == 7
    assert "migrate | exit process with pid N (exit code 7)" in lines
    assert re.search(r"migrate \| failed: the last process exited with 7 after 0\.\d s", "\n".join(lines))
    assert "late | exit process with pid N (SIGKILL)" in lines
    assert any(line.startswith("web | waiting for migrate, which has failed") for line in lines)
    assert "web | serving" not in lines


def test_a_job_that_was_killed_or_not_found_is_a_failure_too(app: Path) -> None:
    write(app, "web: kill -9 $$\n", "jobs: {web: {kind: once}}\n")
    with piped(app, "start") as process:
        assert finished(process)[0] == 128 + 9
    write(app, "web: no-such-program\n", "jobs: {web: {kind: once}}\n")
    with piped(app, "start") as process:
        status, lines = finished(process)
    assert status == 1
    assert lines[0] == "web | can't be started: there is no program 'no-such-program'"


def test_a_process_in_back_off_is_shown_until_it_is_back(app: Path) -> None:
    script = "echo x >> tries; [ $(wc -l < tries) -gt 4 ] && exec sleep 1000; exit 3"
    write(app, f"worker: {script}\n", "jobs: {worker: {ready: 'exec:true'}}\n")
    with piped(app, "start", "-c", "worker=2") as process:
        lines = [re.sub(r"pid \d+", "pid N", line[9:]) for line in until(process, "is back")]
        lines += [re.sub(r"pid \d+", "pid N", line[9:]) for line in until(process, "is back")]
    for name in ("worker.1", "worker.2"):
        mine = [line.partition(" | ")[2] for line in lines if line.startswith(name)]
        exits = [index for index, line in enumerate(mine) if line.startswith("exit")]
        assert exits
        for index in exits:
            assert mine[index] == "exit process with pid N (exit code 3)"
            assert re.fullmatch(r"in back-off, next start in \d\.\d s: .*the last process .*", mine[index + 1])
            assert mine[index + 2] == "spawn process with pid N"
        assert [line for line in mine if "back" in line][len(exits) :] == ["is back"]


def test_a_pause_by_flapping_detection_is_shown_once(app: Path) -> None:
    write(app, "web: exit 3\n", "jobs: {web: {flapping: [1, 1, 60, 5]}}\n")
    with piped(app, "start") as process:
        lines = [line[9:].rstrip() for line in until(process, "flapping")]
        process.send_signal(signal.SIGINT)
        rest = finished(process)[1]
    assert lines[-1].startswith("web | flapping: 1 exits within 1 s, retry 1 of 5 after 60 s")
    assert not [line for line in [*lines[:-1], *rest] if "next start" in line or "flapping" in line]


def test_a_start_that_fails_is_followed_by_a_back_off(app: Path) -> None:
    write(app, "web: no-such-program\n", "")
    with piped(app, "start") as process:
        line = until(process, "crash loop")[-1][9:]
    why = "crash loop, 3 times in a row: program_not_found: there is no program 'no-such-program'"
    assert re.fullmatch(rf"web \| in back-off, next start in \d\.\d s: {re.escape(why)}", line)


@pytest.mark.parametrize("code", [0, 4])
def test_an_essential_job_ends_it_with_its_exit_code(app: Path, code: int) -> None:
    write(
        app, f"test: exit {code}\ndb: sleep 1000\n", "jobs: {test: {kind: once, essential: yes, after: 'db:started'}}\n"
    )
    with piped(app, "start") as process:
        status, lines = finished(process)
    assert status == code
    assert "test | is essential: stopping all jobs" in lines
    assert "db | exit process with pid N (SIGTERM)" in lines


def test_a_type_is_started_with_those_it_comes_after(app: Path) -> None:
    write(
        app,
        "other: echo other\nweb: echo serving\ndb: echo database\n",
        "jobs:\n  web: {kind: once, after: db}\n  db: {kind: once}\n",
    )
    with piped(app, "start", "web") as process:
        status, lines = finished(process)
    assert status == 0
    assert [line for line in lines if line in ("db | database", "web | serving", "other | other")] == [
        "db | database",
        "web | serving",
    ]


def test_a_type_without_processes_is_not_waited_for(app: Path) -> None:
    write(app, "web: echo serving\ndb: echo database\n", "jobs:\n  web: {kind: once, after: db}\n  db: {kind: once}\n")
    with piped(app, "start", "-c", "db=0") as process:
        status, lines = finished(process)
    assert status == 0
    assert "web | serving" in lines
    assert not any(line.startswith("db |") for line in lines)


def test_processes_run_where_and_as_the_companion_says(app: Path) -> None:
    write(
        app,
        "web: printenv PWD A PORT\n",
        "jobs: {web: {kind: once, cwd: src, env: {A: x}, port: 7070}}\n",
    )
    with piped(app, "start") as process:
        _, lines = finished(process)
    assert lines[1:4] == [f"web | {app}/src", "web | x", "web | 7070"]


WATCHING = """\
jobs:
  web: {watch: 'src/**/*.py, *.toml'}
  front: {after: 'web:restart'}
  other: {watch: other.txt}
"""
SERVERS = "web: echo up; sleep 1000\nfront: echo up; sleep 1000\nother: echo up; sleep 1000\n"


def replaced(process: "subprocess.Popen[str]", *names: str) -> list[str]:
    """Return the lines until each of the jobs is up."""
    lines: list[str] = []
    for name in names:
        while not any(re.search(rf"\b{name} \| up", line) for line in lines):
            lines += until(process, "| up")
    return [line[9:].strip() for line in lines]


def test_a_job_is_restarted_when_its_files_change_and_so_are_those_that_follow_it(app: Path) -> None:
    write(app, SERVERS, WATCHING)
    with piped(app, "start") as process:
        replaced(process, "web", "front", "other")
        touch_until_seen(app / "src" / "deep" / "app.py", process)
        lines = replaced(process, "web", "front")
        assert not any(line.startswith("other |") for line in lines)
        (app / "a.toml").touch()
        lines = replaced(process, "web", "front")
        assert "web | restarting, a.toml changed" in lines
        (app / "other.txt").touch()
        assert "other | restarting, other.txt changed" in replaced(process, "other")
        process.terminate()
        assert process.wait(20) == 0


def touch_until_seen(path: Path, process: "subprocess.Popen[str]") -> None:
    """Change a file; the watcher begins some time after the processes do, so as often as needed."""
    watcher = subprocess.Popen(["sh", "-c", 'while :; do echo x > "$0"; sleep 0.5; done', path])
    try:
        lines = until(process, "restarting")
    finally:
        watcher.kill()
        watcher.wait()
    assert lines[-1][9:].strip().startswith(f"web | restarting, {path.relative_to(path.parents[2])} changed")


def test_a_job_that_has_ended_runs_again_when_its_files_change(app: Path) -> None:
    write(app, "test: echo up; exit 3\n", "jobs: {test: {kind: once, watch: src}}\n")
    with piped(app, "start") as process:
        until(process, "failed: the last process exited with 3")
        watcher = subprocess.Popen(["sh", "-c", 'while :; do echo x > "$0"; sleep 0.5; done', app / "src" / "a"])
        try:
            until(process, "restarting, src/a changed")
            until(process, "failed: ")
        finally:
            watcher.kill()
            watcher.wait()
        process.terminate()
        assert process.wait(20) == 0


def test_watching_can_be_turned_off(app: Path) -> None:
    write(app, "test: echo up; exit 3\n", "jobs: {test: {kind: once, watch: src}}\n")
    with piped(app, "start", "--no-watch") as process:
        status, lines = finished(process)
    assert (status, "test | up" in lines) == (3, True)


@pytest.fixture
def on_terminal(app: Path) -> Iterator[Callable[..., Terminal]]:
    """Run `gaffer` with these arguments on a terminal, in the folder of the application."""
    opened: list[Terminal] = []

    def run(*args: str, **env: str) -> Terminal:
        opened.append(Terminal(command_path("gaffer"), *args, cwd=app, **env))
        return opened[-1]

    yield run
    for terminal in opened:
        terminal.close()


def test_on_a_terminal_lines_about_a_job_have_its_colour(app: Path, on_terminal: Callable[..., Terminal]) -> None:
    write(app, SERVERS, "jobs: {web: {after: db}, db: {cmd: sleep 0.3, kind: once}, other: {watch: src}}\n")
    terminal = on_terminal("start")
    label = r"\x1b\[(?:1;)?\d+mweb   \|\x1b\[0m"
    terminal.shows(rf"{label} waiting for db to be ready: it is starting\n")
    terminal.shows(rf"{label} up\n")
    terminal.type("\x03")
    assert terminal.wait() == 130
