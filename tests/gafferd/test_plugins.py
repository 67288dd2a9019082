"""The folder of plugins, as a real gafferd finds and serves it."""

import os
import re
import shutil
from pathlib import Path

import pytest
import requests

from gafferd.config.settings import resolve
from gafferd.main import parse_options
from gafferd.plugins.folder import PluginFolder, plugin_folders
from gafferd.sites.layout import settle_sites
from support.daemons import Daemon, gafferd, run_command

EXAMPLES = Path(__file__).parents[2] / "examples" / "plugins"
PAGE = "<!doctype html><title>Hello</title>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The plugins of the examples, in a folder of our own, beside one that has its page where it should not be."""
    folder = tmp_path / "plugins"
    shutil.copytree(EXAMPLES, folder)
    (folder / "bare" / "img").mkdir(parents=True)
    (folder / "bare" / "index.html").write_text(PAGE)
    (folder / "bare" / "img" / "a.svg").write_text("<svg/>")
    (folder / "bare" / ".git").mkdir()
    for path in [folder, *folder.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o022)
    return folder


def page(node: Daemon, path: str) -> requests.Response:
    return requests.get(f"{node.url}/_plugin/{path}", timeout=10)


@pytest.mark.row("PLG-07", "PLG-09", "PLG-10", "GD-03", "FEAT-21")
def test_the_example_is_served_and_its_page_finds_the_api(folder: Path) -> None:
    with gafferd("-p", str(folder)) as node:
        answer = page(node, "hello")
        assert (answer.url, answer.status_code) == (f"{node.url}/_plugin/hello/", 200)
        assert answer.content == (EXAMPLES / "hello/_site/index.html").read_bytes()
        [script] = re.findall(r'<script src="([^"]+)"', answer.text)
        code = page(node, f"hello/{script}")
        assert code.headers["content-type"] == "text/javascript; charset=UTF-8"
        [path] = re.findall(r'call\("GET", "([^"]+)"\)', code.text)
        assert requests.get(node.url + path, timeout=10).json()["jobs"] == []


@pytest.mark.row("PLG-12")
def test_a_plugin_without_python_becomes_a_site(folder: Path) -> None:
    with gafferd("-p", str(folder)) as node:
        assert page(node, "bare/").text == PAGE
        assert page(node, "bare/img/a.svg").text == "<svg/>"
        node.wait_for_line(f"the plugin {folder / 'bare'} is a site")
    assert sorted(os.listdir(folder / "bare")) == [".git", "_site"]
    assert (folder / "bare/_site/img/a.svg").is_file()
    assert sorted(os.listdir(folder / "hello")) == ["_site"]


@pytest.mark.row("PLG-08")
@pytest.mark.parametrize("places", [[".gafferd"], [".gaffer"], [".gafferd", ".gaffer"]])
def test_the_default_folders_may_come_later(tmp_path: Path, places: list[str]) -> None:
    with gafferd(env={"HOME": str(tmp_path)}) as node:
        assert page(node, "hello/").status_code == 404
        for place in places:
            site = tmp_path / place / "plugins" / "hello" / "_site"
            site.mkdir(parents=True, mode=0o755)
            (site / "index.html").write_text(place)
        assert page(node, "hello/").text == places[0]


@pytest.mark.row("GD-03", "PLG-07")
@pytest.mark.parametrize("flags", [["-p", "{}"], ["--plugins-dir={}"], ["--plugin-dir", "{}"]])
def test_each_spelling_of_the_flag(folder: Path, flags: list[str]) -> None:
    options = parse_options([flag.format(folder) for flag in flags])
    found = resolve(options, {"GAFFER_PLUGIN_DIR": "/"}, {"plugin_dir": "/"}).plugin_dir
    assert plugin_folders(found, Path("/home")) == [folder]
    assert resolve({}, {"GAFFER_PLUGIN_DIR": str(folder)}, {"plugin_dir": "/"}).plugin_dir == str(folder)


@pytest.mark.row("CFG-06", "PLG-07")
@pytest.mark.parametrize("key", ["plugin_dir", "plugins_dir"])
def test_each_spelling_in_the_file(folder: Path, tmp_path: Path, key: str) -> None:
    config = tmp_path / "gafferd.ini"
    config.write_text(f"[gaffer]\n{key} = {folder}\n")
    with gafferd("-c", str(config)) as node:
        assert page(node, "hello/").status_code == 200


@pytest.mark.parametrize(
    ("args", "text", "place"),
    [
        (["-p", "/nonexistent"], "", "--plugins-dir: no such directory: '/nonexistent'"),
        (["--plugin-dir=/nonexistent"], "", "--plugin-dir: no such directory: '/nonexistent'"),
        (["-p", "/", "--plugin-dir=/"], "", "--plugin-dir: conflicts with --plugins-dir, which is the same option"),
        ([], "plugins_dir = /nonexistent", ":2: [gaffer] plugins_dir: no such directory: '/nonexistent'"),
        ([], "plugin_dir = /\nplugins_dir = /", ":3: [gaffer] plugins_dir duplicates another key"),
    ],
)
def test_a_wrong_folder_is_told(tmp_path: Path, args: list[str], text: str, place: str) -> None:
    config = tmp_path / "gafferd.ini"
    config.write_text(f"[gaffer]\n{text}\n")
    done = run_command("gafferd", "-c", str(config), *args, env={"GAFFER_STATE_DIR": str(tmp_path / "state")})
    assert done.returncode == 2
    assert place in done.stderr
    assert "hint: " in done.stderr


def test_memory_stays_small_while_a_large_file_is_sent(folder: Path) -> None:
    size = 128 << 20
    with (folder / "hello/_site/large.bin").open("wb") as file:
        file.truncate(size)
    with gafferd("-p", str(folder)) as node:
        assert page(node, "hello/").status_code == 200
        before = memory(node.pid, "VmRSS")
        with requests.get(f"{node.url}/_plugin/hello/large.bin", stream=True, timeout=20) as answer:
            assert sum(map(len, answer.iter_content(1 << 20))) == size
        assert memory(node.pid, "VmHWM") - before < 16 << 20


def memory(pid: int, name: str) -> int:
    """A size of a process, in bytes."""
    [found] = re.findall(rf"{name}:\s+([0-9]+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found) * 1024


# Moving the files of a site


def tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["plugin/__init__.py", "setup.cfg", "img/old.pyc"])
def test_a_plugin_with_python_is_left_alone(folder: Path, name: str) -> None:
    (folder / "bare" / "plugin").mkdir()
    (folder / "bare" / name).touch()
    before = tree(folder)
    settle_sites(PluginFolder([folder]), os.geteuid())
    assert tree(folder) == before


def test_a_folder_without_a_page_is_left_alone(folder: Path) -> None:
    (folder / "photos").mkdir(mode=0o755)
    (folder / "photos" / "1.png").touch()
    settle_sites(PluginFolder([folder]), os.geteuid())
    assert (folder / "photos" / "1.png").exists()


@pytest.mark.expects_errors("can.t move the files of the site .*bare: File exists")
def test_what_can_not_be_moved_stays(folder: Path) -> None:
    (folder / "bare" / ".site").touch()  # in the way of the move
    before = tree(folder)
    settle_sites(PluginFolder([folder]), os.geteuid())
    assert tree(folder) == before


def test_a_move_that_was_interrupted_goes_on(folder: Path) -> None:
    (folder / "bare" / ".site").mkdir()
    (folder / "bare" / "index.html").rename(folder / "bare/.site/index.html")
    settle_sites(PluginFolder([folder]), os.geteuid())
    assert tree(folder / "bare") == {"_site/index.html": PAGE, "_site/img/a.svg": "<svg/>"}


@pytest.mark.expects_errors("serving no pages of .*: everyone can write to it")
def test_what_others_may_change_is_told_and_left_alone(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "bare").chmod(0o777)
    before = tree(folder)
    settle_sites(PluginFolder([folder]), os.geteuid())
    assert tree(folder) == before
    assert f"serving no pages of {folder / 'bare'}" in caplog.text


def test_without_a_folder_nothing_happens(tmp_path: Path) -> None:
    settle_sites(PluginFolder(plugin_folders(None, tmp_path)), os.geteuid())
    assert os.listdir(tmp_path) == []
