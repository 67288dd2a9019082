"""Plugins that pip installed, found by their entry points."""

import importlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gafferd.plugins.candidates import find_candidates
from gafferd.plugins.folder import PluginFolder
from support.plugins import PluginTree, add_distribution, node_with, plugin_tree
from support.poll import eventually_async
from support.writable import let_everybody_write

RUNNING = ("running", None)


@pytest.fixture
def tree(tmp_path: Path) -> PluginTree:
    return plugin_tree(tmp_path)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory on the path, for distributions."""
    place = tmp_path / "packages"
    place.mkdir()
    before = {*sys.modules}
    monkeypatch.syspath_prepend(str(place))
    yield place
    for name in {*sys.modules} - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(place)):
            del sys.modules[name]
    importlib.invalidate_caches()


async def test_a_distribution_has_plugins(tree: PluginTree, installed: Path) -> None:
    add_distribution(installed, "one", tree.source("first", "second"), "by_class = one:Noting")
    add_distribution(installed, "two", tree.source("second"), "by_module = two")
    async with node_with(tree.path) as node:
        assert tree.notes() == ["second start", "first start"]
        found = {each["name"]: each for each in await node.list()}
        assert found["first"] == {
            "name": "first",
            "version": "1.0",
            "description": "",
            "source": "entry_point",
            "origin": "one:Noting of one 1.0",
            "mandatory": ["second"],
            "state": "running",
            "reason": None,
            "site": None,
        }
        assert found["second"]["origin"] == "two of two 1.0"
    assert tree.notes() == ["first stop", "second stop"]


@pytest.mark.expects_errors("the plugin .* failed: ")
async def test_failures_of_entry_points(tree: PluginTree, installed: Path) -> None:
    add_distribution(installed, "broken", "raise ValueError('boom')", "a = broken:Plugin")
    add_distribution(installed, "absent", "x = 1", "b = absent:Plugin", "c = absent:x", "d = absent.nowhere")
    add_distribution(installed, "exits", "raise SystemExit(2)", "e = exits")
    add_distribution(installed, "good", tree.source("good"), "good = good:Noting")
    async with node_with(tree.path) as node:
        no_module = (
            "importing it raised ModuleNotFoundError: No module named 'absent.nowhere'; 'absent' is not a package"
        )
        assert await node.states() == {
            "a": ("failed", "importing it raised ValueError: boom"),
            "b": ("failed", "importing it raised AttributeError: module 'absent' has no attribute 'Plugin'"),
            "c": (
                "failed",
                "importing it failed: absent:x is not a class derived from gaffer.Plugin, nor a module that lists one",
            ),
            "d": ("failed", no_module),
            "e": ("failed", "importing it called sys.exit(2)"),
            "good": RUNNING,
        }


@pytest.mark.expects_errors("the plugin .* failed: ")
async def test_a_directory_goes_before_an_entry_point_of_its_name(tree: PluginTree, installed: Path) -> None:
    add_distribution(installed, "one", "raise ValueError('imported')", "a = one")
    add_distribution(installed, "two", tree.source("b"), "b = two")
    add_distribution(installed, "three", "raise ValueError('imported')", "b = three:X")
    tree.add("a")
    async with node_with(tree.path) as node:
        found = [(each["name"], each["source"], each["state"], each["reason"]) for each in await node.list()]
        # Of two distributions, the one whose entry point sorts first.
        assert found == [
            ("a", "directory", "running", None),
            ("a", "entry_point", "failed", f"{tree.path / 'a'} has the same name"),
            ("b", "entry_point", "failed", "importing it raised ValueError: imported"),
            ("b", "entry_point", "failed", "three:X of three 1.0 has the same name"),
        ]
    async with node_with(tree.path, chosen=["a"]) as node:
        assert [each["name"] for each in await node.list()] == ["a", "a"]


@pytest.mark.row("PLG-15")
async def test_a_reload_finds_new_distributions_and_misses_removed_ones(tree: PluginTree, installed: Path) -> None:
    add_distribution(installed, "old", tree.source("old"), "old = old")
    async with node_with(tree.path) as node:
        assert tree.notes() == ["old start"]
        add_distribution(installed, "late", tree.source("late"), "late = late")
        (installed / "old-1.0.dist-info" / "entry_points.txt").unlink()
        await node.reload()
        assert tree.notes() == ["old stop", "late start"]
        assert await node.states() == {"late": RUNNING}


@pytest.mark.expects_errors("the plugin a: one of one 2.0 is installed")
async def test_a_new_version_waits_for_a_restart_of_the_node(tree: PluginTree, installed: Path) -> None:
    add_distribution(installed, "one", tree.source("a"), "a = one")
    async with node_with(tree.path) as node:
        assert tree.notes() == ["a start"]
        shutil.rmtree(installed / "one-1.0.dist-info")
        add_distribution(installed, "one", tree.source("a", start="note('new')"), "a = one", version="2.0")
        await node.reload()
        await eventually_async(lambda: tree.journal.exists())
        assert tree.notes() == ["a restart"]
        assert await node.states() == {"a": ("running", "one of one 2.0 is installed: restart gafferd to use it")}


@pytest.mark.expects_errors("the plugin failed failed: importing it", "not serving .*/one: everyone can write to it")
async def test_sites_of_distributions(tree: PluginTree, installed: Path) -> None:
    add_distribution(installed, "one", tree.source("own name"), "a = one")
    add_distribution(installed, "two", "raise ValueError", "failed = two")
    package = installed / "one"
    package.mkdir(0o755)
    (installed / "one.py").rename(package / "__init__.py")
    for place in (package, tree.path / "b"):
        (place / "_site").mkdir(0o755, parents=True)
        (place / "_site" / "index.html").write_text(place.name)
    (package / "_site" / "out").symlink_to("../__init__.py")
    async with node_with(tree.path) as node:

        async def page(path: str) -> tuple[int, bytes]:
            answer = await node.node.call("GET", f"/_plugin/{path}")
            return answer.status, answer.body if answer.status == 200 else b""

        sites = {each["name"]: each["site"] for each in await node.list()}
        assert sites == {"own name": "/_plugin/a/", "failed": None, "b": "/_plugin/b/"}
        assert await page("a/") == (200, b"one")
        assert await page("b/") == (200, b"b")
        for path in ("failed/", "own%20name/", "a/out", "a/%2e%2e/__init__.py"):
            assert await page(path) == (404, b"")
        let_everybody_write(package)
        assert await page("a/") == (404, b"")
        tree.write("a", "replaced", "_site/index.html")
        assert await page("a/") == (200, b"replaced")
        assert await node.states() == {
            "own name": RUNNING,
            "failed": ("failed", "importing it raised ValueError"),
            "b": ("loaded", None),
        }


def test_nothing_is_imported_to_look_for_plugins(tree: PluginTree, installed: Path) -> None:
    add_distribution(installed, "one", "raise ValueError", "a = one", "b = one")
    tree.write("c", "raise ValueError\n__all__ = []")
    found = find_candidates(PluginFolder([tree.path]))
    assert [(each.name, each.fault) for each in found] == [("c", None), ("a", None), ("b", None)]


def test_without_plugins_no_metadata_is_read(tree: PluginTree) -> None:
    code = "import sys; from pathlib import Path; from gafferd.plugins.candidates import find_candidates as find"
    code += "; from gafferd.plugins.folder import PluginFolder as Folder; before = {*sys.modules}"
    code += f"; print(find(Folder([Path({str(tree.path)!r})])), *({{*sys.modules}} - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
