import io
import json
from pathlib import Path
from typing import Any

import pytest

from gaffer.errors import ConfigError
from gaffer.procfile import Procfile, get_env

PROCFILE = """\
# the types of the application
web: python serve.py --port $PORT "two words"
worker-2:\tpython work.py
not a type
  clock:   sleep 60
empty:
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    root = tmp_path / "shop"
    root.mkdir()
    (root / "Procfile").write_text(PROCFILE)
    (root / ".env").write_text('A=1\nB="two words" # comment\n\n# comment\nexport C=3\nD=${A} $A\nE=\nF\n')
    return root


@pytest.mark.row("PF-01", "MISC-PF-07", "MISC-PF-05")
def test_types_in_file_order(app: Path) -> None:
    assert list(Procfile(app / "Procfile").processes()) == [
        ("web", 'python serve.py --port $PORT "two words"'),
        ("worker-2", "python work.py"),
        ("clock", "sleep 60"),
    ]


@pytest.mark.row("PF-02", "MISC-PF-01")
def test_the_env_file_of_the_folder_is_read(app: Path) -> None:
    assert Procfile(app / "Procfile").env == {"A": "1", "B": "two words", "C": "3", "D": "${A} $A", "E": ""}


@pytest.mark.row("PF-03", "MISC-PF-08")
def test_later_env_files_win_and_missing_ones_are_skipped(app: Path, tmp_path: Path) -> None:
    (tmp_path / "more").write_text("A=9\nG=7\n")
    env = Procfile(app / "Procfile", envs=[tmp_path / "more", tmp_path / "missing"]).env
    assert (env["A"], env["C"], env["G"]) == ("9", "3", "7")
    assert get_env() == get_env([tmp_path / "missing"]) == {}


@pytest.mark.row("MISC-PF-04", "MISC-PF-01")
def test_the_application_is_named_after_its_folder(app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Procfile(app / "Procfile").get_appname() == "shop"
    assert Procfile(app / "Procfile", root=f"{tmp_path}/other/").get_appname() == "other"
    monkeypatch.chdir(app)
    assert Procfile("Procfile", root=".").get_appname() == "shop"
    assert Procfile("Procfile").env["A"] == "1"


@pytest.mark.row("MISC-PF-03")
def test_as_dict(app: Path) -> None:
    procfile = Procfile(app / "Procfile")
    description = procfile.as_dict("web", {"web": 3})
    assert description == {
        "name": "web",
        "cmd": "python",
        "args": ["serve.py", "--port", "$PORT", "two words"],
        "env": procfile.env,
        "numprocesses": 3,
    }
    json.dumps(description)
    assert procfile.as_dict("clock")["numprocesses"] == 1
    with pytest.raises(KeyError):
        procfile.as_dict("nope")


@pytest.mark.row("MISC-PF-06")
def test_parse_cmd(app: Path) -> None:
    procfile = Procfile(app / "Procfile")
    assert procfile.parse_cmd("a 'b c' d") == ("a", ["b c", "d"])
    for wrong in ("", "a 'b"):
        with pytest.raises(ValueError, match=r"empty|No closing quotation"):
            procfile.parse_cmd(wrong)


@pytest.mark.row("PF-04")
def test_special_variables(app: Path) -> None:
    (app / ".env").write_text("GAFFER_UID=www\nGAFFER_GID=33\nGAFFER_REDIRECT_INPUT=clock, web\nA=1\n")
    procfile = Procfile(app / "Procfile")
    assert procfile.env == {"A": "1"}
    web, worker = procfile.as_dict("web"), procfile.as_dict("worker-2")
    assert (web["uid"], web["gid"], web["redirect_input"]) == ("www", "33", True)
    assert "redirect_input" not in worker
    assert procfile.as_configparser()["process:shop:clock"]["redirect_input"] == "true"


@pytest.mark.row("MISC-PF-02")
def test_as_configparser(app: Path) -> None:
    (app / ".env").write_text("A=100%\nhttp_proxy=http://x\n")
    config = Procfile(app / "Procfile").as_configparser({"worker-2": 2})
    assert config.sections() == [
        f"{kind}:shop:{name}" for name in ("web", "worker-2", "clock") for kind in ("process", "env")
    ]
    assert dict(config["process:shop:worker-2"]) == {
        "cmd": "python work.py",
        "priority": "1",
        "numprocesses": "2",
        "env:http_proxy": "http://x",
    }
    assert dict(config["env:shop:web"]) == {"A": "100%"}
    config.write(io.StringIO())


@pytest.mark.row("PF-01", "MISC-PF-03")
def test_a_line_with_shell_syntax_is_run_by_a_shell(app: Path) -> None:
    (app / "Procfile").write_text(
        "chain: cd sub && run\nscript: sh -c 'echo $A'\nquoted: \"./my program\" a\\ b '$A'\nopen: run 'x\n"
    )
    procfile = Procfile(app / "Procfile")

    def launched(name: str) -> dict[str, Any]:
        return {key: value for key, value in procfile.as_dict(name).items() if key in ("cmd", "args", "shell")}

    assert launched("chain") == {"cmd": "cd sub && run", "args": [], "shell": True}
    assert launched("script") == {"cmd": "sh", "args": "-c 'echo $A'"}
    assert launched("quoted") == {"cmd": '"./my program"', "args": "a\\ b '$A'"}
    with pytest.raises(ValueError, match="No closing quotation"):
        procfile.as_dict("open")


@pytest.mark.row("PF-01", "PF-02")
def test_lines_that_can_not_be_used_are_kept_as_warnings(app: Path) -> None:
    (app / "Procfile").write_text("web: one\r\n\r\nweb = two\nclock: x\nweb: three\nempty:\n")
    (app / ".env").write_text("A=1\n\n\nsecret value\nF\nB='open\nC=3\n")
    procfile = Procfile(app / "Procfile")
    assert [(problem.path.removeprefix(f"{app}/"), problem.message) for problem in procfile.warnings] == [
        (".env:4", "line ignored: expected KEY=VALUE"),
        (".env:5", "line ignored: expected KEY=VALUE"),
        (".env:6", "line ignored: expected KEY=VALUE"),
        ("Procfile:3", "ignored 'web = two': expected TYPE: COMMAND"),
        ("Procfile:5", "the type 'web' is already on line 1, which is ignored"),
        ("Procfile:6", "ignored 'empty:': expected TYPE: COMMAND"),
    ]
    assert dict(procfile.processes()) == {"clock": "x", "web": "three"}
    assert procfile.env == {"A": "1", "C": "3"}


def test_a_byte_order_mark_is_no_part_of_a_name(app: Path) -> None:
    for file in ("Procfile", ".env"):
        (app / file).write_bytes(b"\xef\xbb\xbf" + (b"web: run\n" if file == "Procfile" else b"A=1\n"))
    procfile = Procfile(app / "Procfile")
    assert (dict(procfile.processes()), procfile.env, procfile.warnings) == ({"web": "run"}, {"A": "1"}, [])


@pytest.mark.parametrize("file", ["Procfile", ".env"])
@pytest.mark.parametrize(("data", "message"), [(b"A=\xe9\n", "invalid UTF-8: byte 0xe9"), (b"A=a\0\n", "NUL byte")])
def test_a_file_that_is_no_text_is_named(app: Path, file: str, data: bytes, message: str) -> None:
    (app / file).write_bytes(b"\n" + data)
    with pytest.raises(ConfigError, match=message) as refused:
        Procfile(app / "Procfile")
    assert refused.value.path == f"{app}/{file}:2"


def test_variables_come_last_and_may_be_special(app: Path) -> None:
    procfile = Procfile(app / "Procfile", variables={"A": "9", "GAFFER_UID": "www"})
    assert (procfile.env["A"], procfile.as_dict("web")["uid"], "GAFFER_UID" in procfile.env) == ("9", "www", False)


def test_an_env_folder_is_no_env_file(app: Path) -> None:
    (app / ".env").unlink()
    (app / ".env").mkdir()
    assert Procfile(app / "Procfile").env == {}
