"""The wheels without the checkout: each has what it imports, and together they are the four commands."""

import json
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
from pathlib import Path
from zipfile import ZipFile

import metadata
import pytest
import release
import requests
from metadata import PACKAGES, ROOT

from support.daemons import daemon
from support.poll import eventually
from support.wheels import built_wheels, dependency_wheels

METADATA = {folder: tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"] for folder in PACKAGES}

# Import a package with every module below it; print where it is, and which of the other names exist.
IMPORT_ALL = """
import importlib, importlib.util, pkgutil, sys
name, *others = sys.argv[1:]
package = importlib.import_module(name)
for module in pkgutil.walk_packages(package.__path__, name + "."):
    importlib.import_module(module.name)
print(package.__file__, *filter(importlib.util.find_spec, others))
"""

pytestmark = pytest.mark.timeout(240)


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the source distributions of the four packages, and the wheels that were built from them."""
    return built_wheels(tmp_path_factory)


@pytest.fixture(scope="module")
def dependencies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the wheels of all that the packages depend on."""
    return dependency_wheels(tmp_path_factory, sys.executable)


def environment(path: Path, wheels: Path, dependencies: Path, *folders: str) -> Path:
    """A virtual environment with these packages and what they declare; returns the directory of its commands."""
    venv.create(path)
    pip = (sys.executable, "-m", "pip", "--python", path / "bin" / "python", "install", "--quiet", "--no-compile")
    sources = ("--no-index", "--find-links", wheels, "--find-links", dependencies)
    run(*pip, *sources, *(METADATA[folder]["name"] for folder in folders))
    return path / "bin"


@pytest.mark.parametrize("folder", PACKAGES)
def test_each_alone_has_what_it_imports(tmp_path: Path, wheels: Path, dependencies: Path, folder: str) -> None:
    commands = environment(tmp_path / "venv", wheels, dependencies, folder)
    name = PACKAGES[folder]
    others = [other for other in PACKAGES.values() if other not in (name, "gaffer")]

    where, *found = run(commands / "python", "-I", "-c", IMPORT_ALL, name, *others).split()

    assert Path(where).is_relative_to(tmp_path)
    assert found == []
    for command in METADATA[folder].get("scripts", ()):
        assert METADATA[folder]["version"] in run(commands / command, "--version")


def test_the_framework_brings_the_client_of_sockjs_and_its_licence(wheels: Path) -> None:
    [wheel] = wheels.glob("gaffer_common-*.whl")
    with ZipFile(wheel) as archive:
        assert archive.read("gaffer/http/sockjs/client/sockjs.min.js").startswith(b"/* sockjs-client v1.6.1")
        assert b"MIT License" in archive.read("gaffer/http/sockjs/client/LICENSE")


def test_the_framework_brings_the_files_of_the_dashboard(wheels: Path) -> None:
    [wheel] = wheels.glob("gaffer_common-*.whl")
    folder = ROOT / "common/src/gaffer/ui/static"
    files = {f"gaffer/ui/static/{path.relative_to(folder)}" for path in folder.rglob("*") if path.is_file()}
    with ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if name.startswith("gaffer/ui/static/")}
    assert found == files


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory, wheels: Path, dependencies: Path) -> Path:
    """The commands of an environment with all packages."""
    return environment(tmp_path_factory.mktemp("all") / "venv", wheels, dependencies, *PACKAGES)


@pytest.mark.row("FEAT-19")
def test_together_they_are_the_four_commands(commands: Path) -> None:
    names = {name for data in METADATA.values() for name in data.get("scripts", ())}

    assert names == {"gafferd", "gaffer_lookupd", "gaffer", "gafferctl"}
    for name in names:
        assert METADATA["common"]["version"] in run(commands / name, "--version"), name


def test_an_installed_node_runs_a_job(commands: Path, tmp_path: Path) -> None:
    # A resource limit: the process is started by the exec stub, a file of its own.
    config = tmp_path / "gafferd.ini"
    config.write_text("[process:shop:web]\ncmd = sleep 1000\nrlimit_nofile = 77\n")
    options = ("--config", str(config), "--state-dir", str(tmp_path / "state"), "--bind", "127.0.0.1:0")

    def fetch(path: str) -> str:
        response = requests.get(node.url + path, timeout=20)
        assert response.status_code == 200, response.text
        return response.text

    def find_process() -> int:
        [job] = json.loads(run(commands / "gaffer", "--endpoint", node.url, "ps", "shop", "--json"))["jobs"]
        [instance] = job["instances"]
        assert instance["state"] == "ready"
        found: int = instance["os_pid"]
        return found

    with daemon(str(commands / "gafferd"), *options) as node:
        limits = Path(f"/proc/{eventually(find_process, 20)}/limits").read_text()
        routes = json.loads(fetch("/openapi.json"))["paths"]
        script = fetch("/channel/sockjs.min.js")

    assert re.search(r"^Max open files +77 ", limits, re.MULTILINE)
    assert "/jobs" in routes
    assert script.startswith("/* sockjs-client v1.6.1")


def test_an_installed_node_prints_the_schema_of_its_configuration(commands: Path) -> None:
    schema = run(commands / "python", "-m", "gafferd.config.schema")

    assert schema == (ROOT / "deploy/gafferd.schema.json").read_text()


def test_what_is_published_is_complete(wheels: Path) -> None:
    assert list(release.find_problems(wheels)) == []


def test_a_release_says_what_a_wheel_and_a_source_distribution_lack(wheels: Path, tmp_path: Path) -> None:
    shutil.copytree(wheels, tmp_path, dirs_exist_ok=True)
    [wheel] = tmp_path.glob("gafferd-*.whl")
    [sdist] = tmp_path.glob("gaffer_client-*.tar.gz")
    [gone] = tmp_path.glob("gaffer_lookupd-*.whl")
    gone.unlink()
    with ZipFile(wheels / wheel.name) as whole, ZipFile(wheel, "w") as part:
        for name in whole.namelist():
            if not name.endswith(("/LICENSE", "/py.typed")):
                part.writestr(name, whole.read(name))
        part.writestr("gafferd/tests/test_config.py", "")
    with tarfile.open(sdist, "w:gz"):
        pass

    problems = list(release.find_problems(tmp_path))

    assert problems[:3] == [
        f"{wheel.name} has no gafferd-{metadata.read_version()}.dist-info/licenses/LICENSE",
        f"{wheel.name} has no gafferd/py.typed",
        f"{wheel.name} contains test gafferd/tests/test_config.py",
    ]
    assert problems[3] == f"{gone.name} is missing"
    assert all(problem.startswith(sdist.name) for problem in problems[4:])
    assert f"{sdist.name} has no {sdist.name.removesuffix('.tar.gz')}/README.md" in problems


def test_every_place_has_the_version_and_the_addresses() -> None:
    assert metadata.find_stale() == []


def test_setting_the_version_sets_it_everywhere(tmp_path: Path) -> None:
    for path in metadata.render(metadata.read_version()):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)

    for path, text in metadata.render("1.20.3", tmp_path).items():
        path.write_text(text)

    assert metadata.find_stale(tmp_path) == []
    assert metadata.read_version(tmp_path) == "1.20.3"
    for folder in PACKAGES:
        project = tomllib.loads((tmp_path / folder / "pyproject.toml").read_text())["project"]
        assert project["version"] == "1.20.3"
        pins = [dependency for dependency in project["dependencies"] if dependency.startswith("gaffer")]
        assert pins == ([] if folder == "common" else ["gaffer-common==1.20.3"])


@pytest.mark.parametrize("version", ["1.2", "1.2.3rc1", "v1.2.3", "1.02.3"])
def test_a_version_is_three_numbers(version: str) -> None:
    with pytest.raises(SystemExit, match="three numbers"):
        metadata.main([version])
