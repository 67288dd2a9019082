"""The libraries of the dashboard and its tests are those that the lock file pins, unchanged, and load without npm."""

import hashlib
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "common" / "src" / "gaffer" / "ui" / "static"
VENDOR = STATIC / "vendor"
TESTS = ROOT / "tests" / "support" / "vendor"
LOCK = ROOT / "tools" / "vendor"

pytestmark = pytest.mark.pure


@pytest.mark.parametrize("folder", [VENDOR, TESTS], ids=["served", "tests"])
def test_the_files_are_those_that_the_tool_wrote(folder: Path) -> None:
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    manifest = json.loads(files.pop("manifest.json"))
    assert {name: hashlib.sha256(content).hexdigest() for name, content in files.items()} == manifest["files"]


@pytest.mark.parametrize(
    ("folder", "kind"), [(VENDOR, "dependencies"), (TESTS, "devDependencies")], ids=["served", "tests"]
)
def test_the_files_are_of_the_releases_that_the_lock_file_pins(folder: Path, kind: str) -> None:
    wanted = json.loads((LOCK / "package.json").read_text())[kind]
    locked = json.loads((LOCK / "package-lock.json").read_text())["packages"]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {name: entry["version"] for name, entry in manifest["packages"].items()} == wanted
    for name, entry in manifest["packages"].items():
        assert entry["integrity"] == locked[f"node_modules/{name}"]["integrity"]
        assert (folder / f"LICENSE.{name.replace('/', '-').removeprefix('@')}.txt").exists()


def test_libraries_of_the_tests_are_not_served() -> None:
    tested = {path.name for path in TESTS.iterdir()} - {"manifest.json"}
    assert "axe.js" in tested
    assert tested.isdisjoint(path.name for path in STATIC.rglob("*"))


def test_no_import_is_bare_and_no_source_map_is_missing() -> None:
    for path in VENDOR.glob("*.js"):
        text = path.read_text()
        assert re.findall(r"\b(?:from|import)\s*[\"'](?!\./)[^\"']*[\"']", text) == [], path.name
        assert "sourceMappingURL=" not in text
