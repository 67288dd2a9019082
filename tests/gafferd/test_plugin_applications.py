"""Plugins with Python code: found, loaded, started, stopped, reloaded; and all the ways in which they can fail."""

import os
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gafferd.plugins import foreign, host
from support.plugins import PluginTree, node_with, plugin_tree
from support.poll import eventually_async
from support.writable import OTHERS_WRITE

Reasons = dict[str, tuple[str, str | None]]
RUNNING = ("running", None)


@pytest.fixture
def tree(tmp_path: Path) -> PluginTree:
    return plugin_tree(tmp_path)


@pytest.mark.row("PLG-01", "PLG-04", "PLG-06", "PLG-09")
async def test_an_application_lives_as_long_as_the_node(tree: PluginTree) -> None:
    tree.add("a")
    tree.write("a", "<p>hello</p>", "_site/index.html")
    tree.write("pages", "<p>pages</p>", "_site/index.html")
    tree.add("b", app="return None")
    async with node_with(tree.path) as node:
        assert tree.notes() == ["a start"]
        assert await node.list() == [
            {
                "name": "a",
                "version": "1.0",
                "description": "",
                "source": "directory",
                "origin": str(tree.path / "a"),
                "mandatory": [],
                "state": "running",
                "reason": None,
                "site": "/_plugin/a/",
            },
            {
                "name": "b",
                "version": "1.0",
                "description": "",
                "source": "directory",
                "origin": str(tree.path / "b"),
                "mandatory": [],
                "state": "loaded",
                "reason": None,
                "site": None,
            },
            {
                "name": "pages",
                "version": "",
                "description": "",
                "source": "directory",
                "origin": str(tree.path / "pages"),
                "mandatory": [],
                "state": "loaded",
                "reason": None,
                "site": "/_plugin/pages/",
            },
        ]
        assert (await node.node.call("GET", "/_plugin/a/")).body == b"<p>hello</p>"
        node.node.manager.restart()
        await eventually_async(lambda: tree.journal.exists())
        assert tree.notes() == ["a restart"]
    assert tree.notes() == ["a stop"]


@pytest.mark.row("PLG-02", "PLG-03")
async def test_where_code_may_be(tree: PluginTree) -> None:
    tree.add("package", module="plugin/__init__.py")
    tree.add("module", module="plugin/code.py")
    tree.write("module", "", "plugin/__init__.py")
    tree.write("other-name", tree.source("own"), "anything/__init__.py")
    tree.add("flat", module="flat.py")
    tree.add("itself", module="__init__.py")
    tree.write("relative", "from .names import *\nfrom gaffer import Plugin\n__all__ = ['One', 'Two', 'VERSION']\n"
        "class One(Plugin):\n    name = 'one'\n    version = VERSION\nclass Two(One):\n    name = 'two'\n")  # fmt: skip
    tree.write("relative", "VERSION = 7", "plugin/names.py")
    tree.write("relative", "raise Exception", "plugin/unused.py")
    tree.write(
        "relative", "from gaffer import Plugin\nfrom .plugin import One\n__all__ = ['One', 'Plugin']", "again.py"
    )
    async with node_with(tree.path) as node:
        assert await node.states() == {
            **dict.fromkeys(("package", "module", "own", "flat", "itself"), RUNNING),
            **dict.fromkeys(("one", "two"), ("loaded", None)),
        }
        assert {each["version"] for each in await node.list() if each["name"] == "one"} == {"7"}


@pytest.mark.row("PLG-05", "CFG-01")
async def test_the_configuration_is_passed_on(tree: PluginTree) -> None:
    tree.add("a", app="cfg['anything']['key'] = None; cfg.clear()")
    tree.add("b", start="note(repr(self.cfg))")
    config = "[gaffer]\nbacklog = 7\n[anything]\nkey = x\n[plugin:a]\nkey = value\n"
    async with node_with(tree.path, config):
        assert tree.notes() == [
            "a start",
            "b start",
            "b {'gaffer': {'backlog': '7'}, 'anything': {'key': 'x'}, 'plugin:a': {'key': 'value'}}",
        ]


# Failures

BAD = {
    "import": ("raise ValueError('boom')", "importing it raised ValueError: boom"),
    "syntax": ("__all__ = [\n", "importing it raised SyntaxError: '[' was never closed (__init__.py, line 1)"),
    "exits": ("import sys\n__all__ = []\nsys.exit(3)", "importing it called sys.exit(3)"),
    "interrupts": ("raise KeyboardInterrupt", "importing it raised KeyboardInterrupt"),
    "base": ("class E(BaseException): pass\nraise E", "importing it raised E"),
    "absolute": ("__all__ = []\nimport nowhere_to_be_found", "importing it raised ModuleNotFoundError: "),
    "nothing": ("x = 1", "importing it failed: no module lists a class derived from gaffer.Plugin in its __all__"),
    "missing": ("__all__ = ['X']", "importing it failed: gaffer_plugins.missing.plugin has no 'X', which its __all__"),
    "nameless": (
        "from gaffer import Plugin\n__all__ = ['X']\nclass X(Plugin): pass",
        "describing it raised ValueError: X has no name",
    ),
    "needy": (
        "from gaffer import Plugin\n__all__ = ['X']\nclass X(Plugin):\n    name = 'x'\n    mandatory = 'dep'",
        "describing it raised ValueError: mandatory of X is not a list of names: 'dep'",
    ),
    "silent": (
        "__all__ = []\nclass E(Exception):\n    def __str__(self): raise SystemExit\nraise E",
        "importing it raised E",
    ),
}  # fmt: skip

BAD_CODE = {
    "init": ({"init": "1 / 0"}, "importing it raised ZeroDivisionError: division by zero"),
    "app": ({"app": "raise OSError(2, 'gone')"}, "app() raised FileNotFoundError: [Errno 2] gone"),
    "app-exits": ({"app": "raise SystemExit"}, "app() called sys.exit(None)"),
    "no-app": ({"app": "return 7"}, "app() raised TypeError: 7 is not an application: it has no method start"),
    "start": ({"start": "raise ValueError('no port')"}, "start() raised ValueError: no port"),
    "start-exits": ({"start": "raise SystemExit(1)"}, "start() called sys.exit(1)"),
    "start-interrupts": ({"start": "raise KeyboardInterrupt"}, "start() raised KeyboardInterrupt"),
    "start-base": ({"start": "raise BaseExceptionGroup('a', [KeyboardInterrupt()])"}, "start() raised BaseEx"),
    "later": ({"start": "return loop.run_in_executor(None, int, 'x')"}, "start() raised ValueError: invalid literal"),
    "cancelled": ({"start": "f = loop.create_future(); f.cancel(); return f"}, "start() raised CancelledError"),
    "assert": ({"start": "assert loop is None"}, "start() raised AssertionError"),
}  # fmt: skip


@pytest.mark.row("APP-09")
@pytest.mark.expects_errors("the plugin .* failed: ")
async def test_a_failure_has_a_reason_and_harms_no_other(tree: PluginTree, caplog: pytest.LogCaptureFixture) -> None:
    for name, (text, _) in BAD.items():
        tree.write(name, text if "__all__" in text or name == "nothing" else f"__all__ = []\n{text}")
    for name, (code, _) in BAD_CODE.items():
        tree.add(name, **code)
    tree.add("good")
    expected = {name: reason for name, (_, reason) in [*BAD.items(), *BAD_CODE.items()]}
    async with node_with(tree.path) as node:
        states = await node.states()
        assert states.pop("good") == RUNNING
        assert states.keys() == expected.keys()
        for name, (state, reason) in states.items():
            assert state == "failed"
            assert reason is not None
            assert reason.startswith(expected[name]), name
            assert f"the plugin {name} failed: {reason}" in caplog.text
        assert "Traceback" in caplog.text
    assert tree.notes()[-1] == "good stop"


@pytest.mark.row("APP-09")
@pytest.mark.expects_errors("the plugin (a|c): (stop|restart)\\(\\) raised", "the plugin b: stop\\(\\) called sys.exit")
async def test_a_failure_to_stop_keeps_no_other_from_stopping(
    tree: PluginTree, caplog: pytest.LogCaptureFixture
) -> None:
    tree.add("a", stop="raise ValueError", restart="raise ValueError('again')")
    tree.add("b", stop="raise SystemExit")
    tree.add("c", stop="raise ValueError")
    async with node_with(tree.path) as node:
        node.node.manager.restart()
        await eventually_async(lambda: node.plugins.hosted[0].reason)
        assert (await node.states())["a"] == ("running", "restart() raised ValueError: again")
        tree.notes()
    assert tree.notes() == ["c stop", "b stop", "a stop"]
    assert "the plugin b: stop() called sys.exit(None)" in caplog.text


@pytest.mark.expects_errors("a listener of 'anything' failed")
async def test_a_failing_listener_harms_no_other(tree: PluginTree) -> None:
    tree.add("a", start="manager.events.subscribe('anything', lambda *args: 1 / 0)")
    tree.add("b", start="manager.events.subscribe('anything', lambda *args: note('heard'))")
    async with node_with(tree.path) as node:
        node.node.manager.events.publish("anything")
        await eventually_async(lambda: "b heard" in tree.journal.read_text())


@pytest.mark.expects_errors(
    "importing it has not finished after 0.5 seconds:[\\s\\S]*time.sleep", "the plugin slow failed"
)
async def test_an_import_that_hangs_is_given_up(tree: PluginTree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "LOAD_TIMEOUT", 0.5)
    tree.write("slow", "__all__ = []\nimport time\ntime.sleep(3)")
    tree.add("z")
    async with node_with(tree.path) as node:
        assert await node.states() == {
            "slow": ("failed", "importing it has not finished after 0.5 seconds"),
            "z": RUNNING,
        }


@pytest.mark.expects_errors(
    "the plugin [ab]: it has not started after 0.2 seconds", "a: stop\\(\\) has not finished in"
)
async def test_a_start_that_hangs_is_said_and_delays_only_those_that_need_it(
    tree: PluginTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "START_TIMEOUT", 0.2)
    monkeypatch.setattr(host, "_STOP_TIME", 0.2)
    started = "import asyncio; self.go = asyncio.Event(); manager.go = self.go; return self.go.wait()"
    tree.add("a", start=started, stop="self.go.clear(); return self.go.wait()")
    tree.add("b", "a")
    tree.add("c")
    async with node_with(tree.path) as node:
        late = "it has not started after 0.2 seconds"
        assert await node.states() == {"a": ("starting", late), "b": ("starting", late), "c": RUNNING}
        node.node.manager.go.set()  # type: ignore[attr-defined]
        await eventually_async(lambda: all(each.works for each in node.plugins.hosted))
        assert await node.states() == dict.fromkeys("abc", RUNNING)
        tree.notes()
    assert tree.notes() == ["c stop", "b stop", "a stop"]


@pytest.mark.expects_errors("start\\(\\) has been blocking gafferd for 0.05 seconds:[\\s\\S]*event.wait")
async def test_a_call_that_blocks_is_said_with_its_stack(tree: PluginTree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "SLOW", 0.05)
    start = "import logging, threading; event = threading.Event(); handler = logging.Handler()"
    start += "; handler.emit = lambda record: event.set(); logging.getLogger('gafferd').addHandler(handler)"
    start += "; event.wait(10); logging.getLogger('gafferd').removeHandler(handler)"
    tree.add("a", start=start)
    async with node_with(tree.path) as node:
        assert await node.states() == {"a": RUNNING}


# Which are used


@pytest.mark.row("PLG-13")
@pytest.mark.expects_errors("the plugin .* failed: ")
async def test_plugins_start_after_those_they_need(tree: PluginTree) -> None:
    tree.add("a", "c", "b")
    tree.add("b", "c")
    tree.add("c")
    tree.add("d", "somedep")
    tree.add("e", "bad")
    tree.add("f", "e")
    tree.add("bad", start="raise ValueError")
    async with node_with(tree.path) as node:
        assert [note for note in tree.notes() if note != "bad start"] == ["c start", "b start", "a start"]
        assert await node.states() == {
            **dict.fromkeys("abc", RUNNING),
            "d": ("failed", "it needs the plugin 'somedep', which is not installed"),
            "bad": ("failed", "start() raised ValueError"),
            "e": ("failed", "it needs the plugin 'bad', which failed"),
            "f": ("failed", "it needs the plugin 'e', which failed"),
        }
    assert tree.notes() == ["a stop", "b stop", "c stop"]


@pytest.mark.expects_errors("the plugin .* failed: ")
async def test_only_the_chosen_ones_are_used(tree: PluginTree) -> None:
    for name in ("a", "b", "page"):
        tree.add(name)
    tree.write("page", "hello", "_site/index.html")
    async with node_with(tree.path, chosen=["b", "absent"]) as node:
        absent = "there is no plugin of this name, as a directory or an entry point"
        assert await node.states() == {"b": RUNNING, "absent": ("failed", absent)}
        assert tree.notes() == ["b start"]
        assert (await node.node.call("GET", "/_plugin/page/")).status == 404
    async with node_with(tree.path, chosen=[]) as node:
        assert await node.list() == []


@pytest.mark.expects_errors("the plugin a failed: the plugin in .*/a has the same name")
async def test_of_two_with_one_name_the_first_is_used(tree: PluginTree) -> None:
    tree.add("a")
    tree.write("b", tree.source("a"))
    async with node_with(tree.path) as node:
        first, second = await node.list()
        assert (first["state"], first["origin"]) == ("running", str(tree.path / "a"))
        assert second["reason"] == f"the plugin in {tree.path / 'a'} has the same name"
        assert tree.notes() == ["a start"]


@pytest.mark.expects_errors("the plugin a failed: ", "serving no pages|not serving")
@pytest.mark.parametrize(
    "place",
    [
        ".",
        "a",
        "a/plugin",
        "a/plugin/__init__.py",
        "a/plugin/__pycache__/old.pyc",
        "loose",
        "loose/target",
        "loose/target/data",
    ],
)
@pytest.mark.parametrize(("let_others_write", "why"), OTHERS_WRITE)
async def test_code_that_others_can_change_is_refused(
    tree: PluginTree, place: str, let_others_write: Callable[[Path], None], why: str
) -> None:
    tree.add("a")
    tree.write("a", "", "plugin/__pycache__/old.pyc")
    outside = tree.path.parent / "loose" / "target"
    outside.mkdir(0o755, parents=True)
    (outside / "data").touch(0o644)
    (tree.path / "a" / "linked").symlink_to(outside)
    changed = (tree.path.parent if place.startswith("loose") else tree.path) / place
    let_others_write(changed)
    async with node_with(tree.path) as node:
        state, reason = (await node.states())["a"]
        assert state == "failed"
        assert reason is not None
        assert why in reason
        assert "chmod" in reason
        assert tree.notes() == []
        changed.chmod(stat.S_IMODE(changed.stat().st_mode) & ~0o022)
        await node.reload()
        assert await node.states() == {"a": RUNNING}


async def test_no_bytecode_is_written_and_odd_files_are_left_alone(tree: PluginTree) -> None:
    tree.add("a")
    os.mkfifo(tree.path / "a" / "pipe.py")
    (tree.path / "a" / "plugin" / "gone.py").symlink_to("nowhere")
    (tree.path / "a" / "itself").symlink_to(".")
    (tree.path / "a" / "not-a-name.py").write_text("__all__ = []\nraise ValueError")
    tree.write("a", "__all__ = []\nraise ValueError", "plugin/deeper/__init__.py")
    tree.write("a", "__all__ = []\nraise ValueError", ".hidden/__init__.py")
    tree.write("a", "__all__ = []\nraise ValueError", "_site/__init__.py")
    tree.write("a", "__all__ = []\nraise ValueError", "data/script.py")
    async with node_with(tree.path) as node:
        assert await node.states() == {"a": RUNNING}
        assert not list(tree.path.rglob("__pycache__"))


# Reload


def packages() -> set[str]:
    """The packages of plugins that are imported."""
    return {name for name in sys.modules if name.startswith("gaffer_plugins.") and name.count(".") == 1}


@pytest.mark.row("PLG-15", "PLG-09")
async def test_a_reload_applies_what_has_changed(tree: PluginTree) -> None:
    for name in ("changed", "kept", "removed"):
        tree.add(name)
    before = packages()
    async with node_with(tree.path) as node:
        tree.notes()
        tree.add("changed", start="note('new')")
        shutil.rmtree(tree.path / "removed")
        tree.add("added")
        await node.reload()
        assert sorted(tree.notes()[:2]) == ["changed stop", "removed stop"]
        assert await node.states() == dict.fromkeys(("added", "changed", "kept"), RUNNING)
        assert len(packages() - before) == 3  # those of former versions are gone
        await node.reload()
        await eventually_async(lambda: len(tree.journal.read_text().splitlines()) == 3)
        assert tree.notes() == ["added restart", "changed restart", "kept restart"]
    assert sorted(tree.notes()) == ["added stop", "changed stop", "kept stop"]


async def test_reloads_take_their_turn(tree: PluginTree) -> None:
    async with node_with(tree.path) as node:
        tree.write("late", f"import time\ntime.sleep(0.2)\n{tree.source('late')}")  # both would find it new
        node.plugins.reload({})
        node.plugins.reload({})
        await node.plugins.ready()
        await eventually_async(lambda: "late restart" in tree.journal.read_text())
        assert tree.notes() == ["late start", "late restart"]


async def test_a_reload_replaces_those_whose_configuration_has_changed(tree: PluginTree) -> None:
    for name in ("a", "b"):
        tree.add(name, start="note(self.cfg.get('plugin:' + name, {}).get('x'))".replace("name", repr(name)))
    async with node_with(tree.path, "[gaffer]\nbacklog = 1\n[plugin:a]\nx = 1\n[plugin:b]\nx = 1\n") as node:
        assert tree.notes() == ["a start", "a 1", "b start", "b 1"]
        await node.reload("[gaffer]\nbacklog = 2\n[plugin:a]\nx = 2\n[plugin:b]\nx = 1\n")
        await eventually_async(lambda: "b restart" in tree.journal.read_text())
        assert sorted(tree.notes()) == ["a 2", "a start", "a stop", "b restart"]


@pytest.mark.row("PLG-15")
@pytest.mark.expects_errors("the plugins stay as they are: b can't go on: it needs the plugin 'a', which is not inst")
async def test_a_reload_takes_no_plugin_from_one_that_needs_it(tree: PluginTree) -> None:
    code = tree.add("a")
    tree.add("b", "a")
    async with node_with(tree.path) as node:
        tree.notes()
        text = code.read_text()
        before = packages()
        code.unlink()
        tree.add("c")
        await node.reload()
        assert tree.notes() == []
        assert await node.states() == dict.fromkeys("ab", RUNNING)
        assert packages() == before  # nothing of c is left
        code.write_text(text)
        await node.reload()
        assert await node.states() == dict.fromkeys("abc", RUNNING)


@pytest.mark.expects_errors("the plugin a failed: importing it raised SyntaxError")
async def test_a_broken_new_version_leaves_the_former_one_running(tree: PluginTree) -> None:
    tree.add("a")
    async with node_with(tree.path) as node:
        tree.notes()
        tree.write("a", "__all__ = [")
        await node.reload()
        state, reason = (await node.states())["a"]
        assert state == "running"
        assert reason is not None
        assert reason.startswith("its former version runs: importing it raised SyntaxError")
        assert "a stop" not in tree.notes()
        tree.add("a")
        await node.reload()
        assert await node.states() == {"a": RUNNING}


@pytest.mark.expects_errors("the plugin a: it has not started after 0.2 seconds")
async def test_a_reload_replaces_a_plugin_that_hangs_in_start(
    tree: PluginTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "START_TIMEOUT", 0.2)
    tree.add("a", start="return loop.create_future()")
    async with node_with(tree.path) as node:
        assert (await node.states())["a"][0] == "starting"
        tree.add("a", start="note('works')")
        monkeypatch.setattr(host, "START_TIMEOUT", 10.0)
        await node.reload()
        assert tree.notes() == ["a start", "a stop", "a start", "a works"]
        assert await node.states() == {"a": RUNNING}
