"""gafferd with plugins: the examples, the options, and plugins that try to end it."""

import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from gaffer.errors import ConfigError, Problem
from gafferd.config.settings import resolve
from gafferd.main import command, parse_options
from support.daemons import Daemon, gafferd, lookupd, run_command
from support.plugins import PluginTree, add_distribution, plugin_tree
from support.poll import eventually

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def tree(tmp_path: Path) -> PluginTree:
    return plugin_tree(tmp_path)


def states(node: Daemon) -> dict[str, tuple[str, str | None]]:
    found = requests.get(f"{node.url}/plugins", timeout=10).json()["plugins"]
    return {each["name"]: (each["state"], each["reason"]) for each in found}


@pytest.mark.row("PLG-14", "PLG-01", "PLG-02", "PLG-06", "PLG-15", "FEAT-21", "GD-03")
def test_the_example_tree(tmp_path: Path) -> None:
    examples, output = tmp_path / "examples", tmp_path / "output"
    shutil.copytree(EXAMPLES, examples)
    subprocess.run(["chmod", "-R", "go-w", examples], check=True)
    config = examples / "gaffer.ini"
    config.write_text(config.read_text().replace(":5000", ":0"))
    enter = ("sh", "-c", f'cd {examples} && exec "$@" > {output}', "sh")
    with gafferd("-c", "gaffer.ini", "-p", "plugins/", enter=enter) as node:
        assert states(node) == {"dummy": ("running", None), "hello": ("loaded", None)}
        assert requests.get(f"{node.url}/_plugin/hello/", timeout=10).status_code == 200
        assert output.read_text() == "start dummy app\n"
        node.signal(signal.SIGHUP)
        eventually(lambda: output.read_text() == "start dummy app\nrestart dummy\n")
    assert output.read_text() == "start dummy app\nrestart dummy\nstop dummy\n"


def test_the_example_that_pip_installs(tmp_path: Path) -> None:
    source, packages, file = tmp_path / "source", tmp_path / "packages", tmp_path / "beat"
    shutil.copytree(EXAMPLES / "heartbeat", source)  # pip builds in it
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--no-compile", "--target", packages, source], check=True, timeout=60)
    config = tmp_path / "gafferd.ini"
    config.write_text(f"[plugin:heartbeat]\nfile = {file}\ninterval = 0.05\n")
    with gafferd("-c", str(config), env={"PYTHONPATH": str(packages)}) as node:
        assert states(node) == {"heartbeat": ("running", None)}
        before = file.stat().st_mtime_ns
        eventually(lambda: file.stat().st_mtime_ns > before)
        config.write_text(f"[plugin:heartbeat]\nfile = {tmp_path}/nowhere/beat\n")
        node.signal(signal.SIGHUP)
        node.wait_for_line("the plugin heartbeat failed: start() raised FileNotFoundError")
        assert not file.exists()
    assert "unknown section" not in node.stderr


ESCAPES = {
    "soon": "import sys; loop.call_soon(sys.exit, 1)",
    "later": "import sys; loop.call_later(0.01, sys.exit, 1)",
    "task": "import asyncio, sys; exits = lambda: sys.exit(1); self.t = loop.create_task(asyncio.to_thread(exits))",
    "listener": "import sys; manager.events.subscribe('spawn', lambda *a: sys.exit(1))",
    "change": "import sys; manager.on_change(lambda: sys.exit(1))",
    "stderr": "import sys; sys.stderr = None",
    "interrupt": "import signal; loop.call_soon(signal.default_int_handler, signal.SIGINT, None)",
    "cancelled": "f = loop.create_future(); f.cancel(); manager.events.subscribe('spawn', lambda *a: f.result())",
    "loop": "again = lambda: (loop.stop(), loop.call_later(0.1, again)); again()",
    "now": "loop.stop()",
    "job": "from gaffer.process import ProcessConfig; manager.load(ProcessConfig('a', 'false'))",
}


@pytest.mark.row("APP-09")
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_no_plugin_ends_the_node(tree: PluginTree, tmp_path: Path, loop: str) -> None:
    for name, code in ESCAPES.items():
        tree.add(name, start=code)
    tree.add("zz", start="manager.events.subscribe('spawn', lambda *a: note('heard'))")
    config = tmp_path / "gafferd.ini"
    config.write_text("[process:a]\ncmd = sleep 1000\nnumprocesses = 3\n")
    with gafferd("-c", str(config), "-p", str(tree.path), "--loop", loop) as node:
        expected = dict.fromkeys((*ESCAPES, "zz"), ("running", None))
        assert states(node) == {**expected, "job": ("failed", "start() failed: the job default.a already exists")}
        requests.post(f"{node.url}/jobs/default/a/numprocesses", json={"scale": 3}, timeout=10)
        eventually(lambda: tree.journal.read_text().count("zz heard") == 3)
        node.wait_for_line("a plugin called sys.exit(1) on the event loop, which is ignored")
        node.wait_for_line("a plugin stopped the event loop: running it again")
        assert requests.get(f"{node.url}/health", timeout=10).json()["processes"] == 6
    assert next(line for line in tree.notes() if line.endswith(" stop")) == "zz stop"


def test_a_signal_ends_a_node_that_waits_for_a_plugin(tree: PluginTree) -> None:
    tree.write("slow", f"__all__ = []\nimport time\nopen({str(tree.journal)!r}, 'w').close()\ntime.sleep(60)")
    node = Daemon("gafferd", "--bind=127.0.0.1:0", "-p", str(tree.path), f"--state-dir={tree.path.parent}/state")
    try:
        eventually(tree.journal.exists)
        node.signal(signal.SIGTERM)
        assert node.wait() == 0
    finally:
        if node.returncode is None:
            node.kill()
    assert node.stderr == ""


def test_a_mandatory_plugin_that_does_not_work_keeps_the_node_from_starting(tree: PluginTree) -> None:
    config = tree.path.parent / "gafferd.ini"
    config.write_text("[gaffer]\nbind = 127.0.0.1:0\nmandatory = good, bad\n")
    tree.add("good")
    tree.add("bad", start="raise ValueError('no port')")
    env = {"GAFFER_STATE_DIR": str(tree.path.parent / "state"), "GAFFER_PLUGIN_DIR": str(tree.path)}
    done = run_command("gafferd", "-c", str(config), env=env)
    assert done.returncode == 1
    assert "gafferd: the plugin 'bad', which is mandatory, is missing or failed\n  hint: " in done.stderr
    assert "the plugin bad failed: start() raised ValueError: no port" in done.stderr
    assert tree.notes() == ["bad start", "good start", "good stop"]
    config.write_text("[gaffer]\nmandatory = good\nplugins = good\n")
    with gafferd("-c", str(config), env=env) as node:
        assert states(node) == {"good": ("running", None)}


def test_which_plugins_are_used() -> None:
    def chosen(*flags: str, **keys: tuple[str, ...]) -> tuple[str, ...] | None:
        return resolve(parse_options(list(flags)), {}, keys).plugins

    assert chosen() is None
    assert chosen("--plugins=a, b") == ("a", "b")
    assert chosen("--plugins=none", plugins=("a",)) == ()
    assert chosen(plugins=("a",)) == ("a",)
    for wrong in ("none, a", ","):
        with pytest.raises(ConfigError) as caught:
            chosen(f"--plugins={wrong}")
        [problem] = caught.value.problems
        assert problem == Problem("--plugins", "expected names of plugins, or none", "such as `hello, dummy`")


def test_a_configuration_is_checked_and_printed_without_running_plugins(
    tree: PluginTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*args: str) -> tuple[str, str]:
        assert command(["-c", str(config), "--no-keeper", *args], {"GAFFER_STATE_DIR": str(tmp_path / "state")}) == 0
        return capsys.readouterr()

    tree.write("a", "raise SystemExit(9)\n__all__ = []")
    tree.write("b", "__all__ = []").chmod(0o666)
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    add_distribution(tmp_path / "packages", "one", "raise SystemExit(9)", "one = one", "a = one:X")
    config = tmp_path / "gafferd.ini"
    plugins = "[plugin:a]\npassword = tell\n[own]\nx = y\n"
    config.write_text(f"[gaffer]\nplugin_dir = {tree.path}\nplugins = a, b, one, absent\n{plugins}")
    out, err = run("--check-config")
    assert out == f"OK: {config}: 0 jobs, 1 endpoint, 0 webhooks, 2 plugins\n"
    untrusted = f"{tree.path}/b/plugin/__init__.py is not trusted: everyone can write to it; fix it with"
    assert f"warning: plugin a: {tree.path / 'a'} has the same name\n" in err
    assert f"warning: plugin b: {untrusted}" in err
    assert "warning: plugin absent: there is no plugin of this name" in err
    assert "[own] unknown section, ignored unless a plugin reads it" in err
    printed, _ = run("--print-config")
    assert f"# {config}:3\nplugins = a, b, one, absent\n" in printed
    assert f"[plugin:a]\n# {config}:5\npassword <masked>\n" in printed
    assert f"\n# plugin a: {tree.path / 'a'}\n" in printed
    assert "\n# plugin one: one of one 1.0\n" in printed
    shown, _ = run("--print-config", "--show-secrets")
    assert "password = tell\n" in shown
    config.write_text(shown)
    run("--check-config")


def test_sections_of_plugins_in_yaml(tree: PluginTree, tmp_path: Path) -> None:
    tree.add("a", start="note(repr(self.cfg['plugin:a']))")
    config = tmp_path / "gafferd.yaml"
    config.write_text("plugins:\n  a:\n    key: value\n    list: [x, y]\n    deep: {x: y}\n")
    with gafferd("-c", str(config), "-p", str(tree.path)) as node:
        assert tree.notes() == ["a start", "a {'key': 'value', 'list': ['x', 'y'], 'deep': {'x': 'y'}}"]
    assert "unknown section" not in node.stderr


WAITS = """import asyncio, os
        async def wait():
            while not os.path.exists({path!r}):
                await asyncio.sleep(0.01)
        return wait()"""


def test_a_node_is_announced_once_its_plugins_work(tmp_path: Path) -> None:
    tree, config, go = plugin_tree(tmp_path), tmp_path / "gafferd.ini", tmp_path / "go"
    tree.add("slow", start=WAITS.format(path=str(go)))
    config.write_text(f"[gaffer]\nmandatory = slow\nplugin_dir = {tree.path}\n")
    with lookupd() as registry, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        free.close()
        state = ("--state-dir", str(tmp_path / "state"))
        node = Daemon("gafferd", *state, "--bind", url[7:], "--lookupd-address", registry.url, str(config))
        try:
            for _ in range(30):
                [link] = eventually(
                    lambda: requests.get(f"{url}/health", timeout=10).json()["lookupds"],
                    retry_on=(requests.ConnectionError,),
                )
                assert not link["connected"]
            go.touch()
            node.wait_for_line("listening on http:")
            eventually(lambda: requests.get(f"{registry.url}/nodes", timeout=10).json()["nodes"])
        finally:
            node.stop()
