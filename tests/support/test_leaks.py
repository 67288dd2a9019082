"""The leak checks find each kind of leak, name it, end it, and leave clean tests alone."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from support import subreaper
from support.poll import eventually

TESTS = Path(__file__).parents[1]

# A parent that leaves a child behind and prints the child's pid.
ORPHAN_MAKER = """
import subprocess, sys
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdout=subprocess.DEVNULL).pid)
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project of its own whose tests run under the leak checks."""
    pytester.makeini(f"[pytest]\npythonpath = {TESTS}\nmarkers =\n  expects_errors(*patterns)\n  leaks(reason)\n")
    pytester.makeconftest('pytest_plugins = ("support.leaks",)\nfrom support import leaks\nleaks.GRACE = 0.1\n')
    return pytester


def run(project: pytest.Pytester, body: str) -> pytest.RunResult:
    project.makepyfile("import logging, os, subprocess, sys\nimport pytest\n" + body)
    return project.runpytest_subprocess("-p", "no:cacheprovider")


LEAKS = {
    "os.pipe()": "*descriptor *: pipe:*",
    "kept = subprocess.Popen(['/bin/sleep', '600']); kept.returncode = 0": "*process *: /bin/sleep 600",
    "os.posix_spawn('/bin/true', ['true'], {})": "*zombie *: true, which nobody waited for",
    f"subprocess.run([sys.executable, '-c', {ORPHAN_MAKER!r}])": "*process *whose parent is gone",
    "logging.getLogger('someone').error('it %s', 'broke')": "*log record of someone, ERROR: it broke",
    "logging.getLogger('gafferd.state.lock').warning('odd')": "*log record of gafferd.state.lock, WARNING: odd",
}


def test_each_leak_fails_its_test_alone(project: pytest.Pytester) -> None:
    tests = [f"def test_leak_{n}(): {leak}\ndef test_after_{n}(): pass\n" for n, leak in enumerate(LEAKS)]
    result = run(project, "".join(tests))

    result.assert_outcomes(passed=2 * len(LEAKS), errors=len(LEAKS))
    for n, message in enumerate(LEAKS.values()):
        result.stdout.fnmatch_lines([f"*ERROR at teardown of test_leak_{n} *", message])


def test_leaked_processes_are_ended(project: pytest.Pytester) -> None:
    result = run(
        project,
        f"""
def test_leak():
    out = subprocess.run([sys.executable, "-c", {ORPHAN_MAKER!r}], stdout=subprocess.PIPE, text=True).stdout
    with open("pid", "w") as file:
        file.write(out)
""",
    )

    result.assert_outcomes(passed=1, errors=1)
    assert not psutil.pid_exists(int((project.path / "pid").read_text()))


def test_clean_tests_pass(project: pytest.Pytester) -> None:
    result = run(
        project,
        """
@pytest.fixture(scope="module")
def shared():
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as process:
        yield process

@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    os.close(ends[0]), os.close(ends[1])

def test_wider_fixture(shared): pass
def test_own_fixture(pipe): pass
def test_waited_for(): subprocess.run(["/bin/true"], check=True)
def test_strangers_warning(): logging.getLogger("someone").warning("odd")

@pytest.mark.expects_errors("it br.ke")
def test_announced(): logging.getLogger("gaffer").error("it broke")

@pytest.mark.leaks("shows that the mark works")
def test_marked(): os.pipe()
""",
    )

    result.assert_outcomes(passed=6)


def test_only_the_announced_error_is_accepted(project: pytest.Pytester) -> None:
    result = run(
        project,
        """
@pytest.mark.expects_errors("this")
def test_other(): logging.getLogger("gaffer").error("that")
""",
    )

    result.assert_outcomes(passed=1, errors=1)


def test_an_adopted_process_that_ends_is_gone() -> None:
    """Tests wait for pids to vanish: a dead orphan must not stay as anyone's zombie."""
    made = subprocess.run([sys.executable, "-c", ORPHAN_MAKER], stdout=subprocess.PIPE, text=True, check=True)
    (orphan,) = (process for process in subreaper.orphans() if process.pid == int(made.stdout))

    orphan.kill()

    assert orphan.wait(10) is None
    assert not psutil.pid_exists(orphan.pid)


@pytest.mark.parametrize(("body", "code"), [("assert False", 1), ("os.abort()", 134)])
def test_the_exit_code_is_pytests_own(project: pytest.Pytester, body: str, code: int) -> None:
    assert run(project, f"def test_it(): {body}").ret == code


def test_ends_when_the_process_above_it_is_killed(project: pytest.Pytester) -> None:
    result = run(
        project,
        """
def test_it():
    with open("pid", "w") as file:
        file.write(str(os.getpid()))
    os.kill(os.getppid(), 9)
    os.read(os.pipe()[0], 1)
""",
    )

    assert result.ret == -9
    eventually(lambda: not psutil.pid_exists(int((project.path / "pid").read_text())))
