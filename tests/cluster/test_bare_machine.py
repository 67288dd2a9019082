"""The README on a machine that has nothing but Debian's minimal system and the packages that the README names.

The machine is a container of the base image, which debootstrap makes, with Debian's own Python.
"""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.docker import BASE_IMAGE, DOCKER, ROOT, has_base_image, make_base_image, run
from support.needs import needs_base_image, needs_docker, needs_root

IMAGE = "gaffer-bare-machine"
UID = 1234

README = (ROOT / "README.md").read_text()
PACKAGES = " ".join(re.findall(r"^    apt-get install (.+)$", README, re.MULTILINE))

DOCKERFILE = f"""\
FROM {BASE_IMAGE}
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates {PACKAGES}
RUN useradd --uid {UID} --home-dir /home somebody
"""

# One quick file a package: pure code, real processes, daemons, commands.
SOME_TESTS = (
    "tests/common/test_process.py tests/gafferd/test_state.py tests/lookupd/test_protocol.py tests/client/test_keys.py"
)

pytestmark = [needs_docker, needs_base_image, needs_root]


@dataclass
class Machine:
    """Runs commands in a checkout, as one user. Only `online` commands have a network beyond loopback."""

    home: Path
    uid: int

    def __call__(self, command: str, *, online: bool = False, timeout: float = 300) -> str:
        """Run a shell command; return its stdout. AssertionError with all it wrote when it fails."""
        docker = [DOCKER, "run", "--rm", "--init", "--user", str(self.uid), "--volume", f"{self.home}:/home"]
        options = ["--env", "HOME=/home", "--workdir", "/home/gaffer", "--network", "host" if online else "none"]
        return run([*docker, *options, IMAGE, "bash", "-ec", command], timeout)


@pytest.fixture(scope="module")
def image() -> None:
    if not has_base_image():
        make_base_image()
    command = [DOCKER, "build", "--network", "host", "--tag", IMAGE, "-"]
    done = subprocess.run(command, input=DOCKERFILE, text=True, capture_output=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr


# CI runs on a bare machine as root anyway.
ROOT_USER = pytest.param(0, id="root", marks=pytest.mark.faults)


@pytest.fixture(scope="module", params=[ROOT_USER, pytest.param(UID, id="user")])
def machine(request: pytest.FixtureRequest, image: None, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    home = tmp_path_factory.mktemp("home")
    run(["git", "clone", "--quiet", "--depth=1", f"file://{ROOT}", home / "gaffer"])
    for path in (home, *home.rglob("*")):
        os.chown(path, request.param, request.param, follow_symlinks=False)
    return Machine(home, request.param)


@pytest.mark.timeout(900)
def test_make_demo(machine: Machine) -> None:
    assert machine("make demo ONCE=1 PYTHON=python3.11", online=True).endswith("ok\n")


@pytest.mark.faults  # CI itself runs this command on a bare machine
@pytest.mark.timeout(900)
def test_make_test(machine: Machine) -> None:
    machine("make venv", online=True)

    assert " passed" in machine(f'make test ARGS="{SOME_TESTS}"')


@pytest.mark.timeout(300)
def test_the_laptop_of_the_readme(machine: Machine) -> None:
    (section,) = re.findall(r"^## On one laptop\n(.*?)^## ", README, re.MULTILINE | re.DOTALL)
    lines = [line.removeprefix("    ") for line in section.splitlines() if line.startswith("    ")]
    daemon = next(number for number, line in enumerate(lines) if line.startswith("gafferd &"))
    machine("\n".join(lines[:daemon]), online=True)
    follow = lines.pop()
    assert follow.startswith("curl")
    assert "feed=continuous" in follow
    # As typed, but for the pauses between commands of somebody who types.
    commands = [
        f"timeout 20 sh -c 'until {line.partition('#')[0].strip()}; do sleep 0.1; done'" for line in lines[daemon + 1 :]
    ]

    shown = machine("\n".join([". .venv-gaffer/bin/activate", lines[daemon], *commands, "kill %1; wait %1"]))

    assert re.search(r"demo\.web", shown)
    assert '"openapi":"3.1' in shown.replace(" ", "")
    assert machine("git status --porcelain") == ""


@pytest.mark.faults
@pytest.mark.timeout(2400)
def test_the_whole_of_make_test(machine: Machine) -> None:
    machine("make venv", online=True)

    assert " passed" in machine("make test", online=True, timeout=2300)
