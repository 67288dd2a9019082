"""The wheels without the checkout: each has what it imports, and together they are the four commands."""

import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]

# folder in the checkout -> import name
PACKAGES = {"common": "gaffer", "gafferd": "gafferd", "lookupd": "gaffer_lookupd", "client": "gaffer_client"}

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
    """A folder with the wheels of the four packages."""
    sources, wheels = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("wheels")
    for folder in PACKAGES:  # a build in the checkout would write there, and take up what an earlier one left
        shutil.copytree(ROOT / folder, sources / folder, ignore=shutil.ignore_patterns("build", "*.egg-info"))
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", wheels)
    run(*pip, *(sources / folder for folder in PACKAGES))
    return wheels


def environment(path: Path, wheels: Path, *folders: str) -> Path:
    """A virtual environment with these packages and what they declare; returns the folder of its commands."""
    venv.create(path)
    pip = (sys.executable, "-m", "pip", "--python", path / "bin" / "python", "install", "--quiet")
    run(*pip, "--find-links", wheels, *(METADATA[folder]["name"] for folder in folders))
    return path / "bin"


@pytest.mark.parametrize("folder", PACKAGES)
def test_each_alone_has_what_it_imports(tmp_path: Path, wheels: Path, folder: str) -> None:
    commands = environment(tmp_path / "venv", wheels, folder)
    name = PACKAGES[folder]
    others = [other for other in PACKAGES.values() if other not in (name, "gaffer")]

    where, *found = run(commands / "python", "-I", "-c", IMPORT_ALL, name, *others).split()

    assert Path(where).is_relative_to(tmp_path)
    assert found == []


def test_the_framework_brings_the_client_of_sockjs_and_its_licence(wheels: Path) -> None:
    [wheel] = wheels.glob("gaffer_common-*.whl")
    with ZipFile(wheel) as archive:
        assert archive.read("gaffer/http/sockjs/client/sockjs.min.js").startswith(b"/* sockjs-client v1.6.1")
        assert b"MIT License" in archive.read("gaffer/http/sockjs/client/LICENSE")


@pytest.mark.row("FEAT-19")
def test_together_they_are_the_four_commands(tmp_path: Path, wheels: Path) -> None:
    commands = environment(tmp_path / "venv", wheels, *PACKAGES)

    versions = {
        name: run(commands / name, "--version").strip()
        for data in METADATA.values()
        for name in data.get("scripts", ())
    }

    assert versions.keys() == {"gafferd", "gaffer_lookupd", "gaffer", "gafferctl"}
    for name, version in versions.items():
        assert METADATA["common"]["version"] in version, name
