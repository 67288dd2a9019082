"""The libraries of the dashboard are those that the lock file pins, unchanged, and load without npm."""

import hashlib
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VENDOR = ROOT / "common" / "src" / "gaffer" / "ui" / "static" / "vendor"
LOCK = ROOT / "tools" / "vendor"

pytestmark = pytest.mark.pure


def test_the_files_are_those_that_the_tool_wrote() -> None:
    files = {path.name: path.read_bytes() for path in VENDOR.iterdir()}
    manifest = json.loads(files.pop("manifest.json"))
    assert {name: hashlib.sha256(content).hexdigest() for name, content in files.items()} == manifest["files"]


def test_the_files_are_of_the_releases_that_the_lock_file_pins() -> None:
    wanted = json.loads((LOCK / "package.json").read_text())["dependencies"]
    locked = json.loads((LOCK / "package-lock.json").read_text())["packages"]
    manifest = json.loads((VENDOR / "manifest.json").read_text())
    assert {name: entry["version"] for name, entry in manifest["packages"].items()} == wanted
    for name, entry in manifest["packages"].items():
        assert entry["integrity"] == locked[f"node_modules/{name}"]["integrity"]
        assert (VENDOR / f"LICENSE.{name.replace('/', '-').removeprefix('@')}.txt").exists()


def test_no_import_is_bare_and_no_source_map_is_missing() -> None:
    for path in VENDOR.glob("*.js"):
        text = path.read_text()
        assert re.findall(r"\b(?:from|import)\s*[\"'](?!\./)[^\"']*[\"']", text) == [], path.name
        assert "sourceMappingURL=" not in text
