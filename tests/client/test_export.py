"""What `gaffer export` writes is the application that `gaffer load` loads, whatever is in it."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gaffer.jobs.names import parse_job_name
from gaffer.process import ProcessConfig
from gaffer.procfile import Procfile
from gaffer_client.cli.companion import Companion, Entry
from gaffer_client.cli.errors import UsageError
from gaffer_client.cli.export import as_ini, as_json, as_yaml
from gaffer_client.cli.procfile_app import Application
from gaffer_client.cli.units import as_compose, units
from gafferd.config.file import load_config

PROCFILE = """\
plain: run --port $PORT "two words" '$HOME;' # in a shell
quoted: "./my program" 'a "b" $A' c\\ d
shell: cd sub && A=1 run ${B:-"it's"} | tee %s; exit 3
direct: sh -c 'echo "$A"; #no comment'
semicolon: ;
"""
HOSTILE = {
    "PEM": "-----BEGIN X-----\nA: b\n\nYWJj=\n-----END X-----\n",
    "SECTION": "first\n\n[process:stowaway]\ncmd = touch STOWAWAY",
    "KEY": "x\ncmd = other\n\tenv:A = b",
    "BLANKS": "  two around  ",
    "TAB": "\tx",
    "COMMENT": "# no comment ; nor this",
    "SEMICOLON": "; a",
    "PERCENT": "100% %(here)s %%",
    "QUOTES": "\"'\\",
    "DOLLAR": "$HOME ${HOME} $$",
    "EMPTY": "",
    "RETURN": "a\rb\r\nc\x0b\x85\u2028d",
    "lower": "case",
    "Both": "1",
    "BOTH": "2",
    "[process:x]": "y",
    "; x": "y",
    " a b ": "z",
    "é": "é",
}

variables = st.dictionaries(
    st.text(st.characters(exclude_characters="=\0", exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
        lambda name: not name.startswith("GAFFER_")
    ),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
    | st.text(st.sampled_from("[]=:;# \t\n\r%$'\"\\ab"), max_size=30),
    max_size=5,
)


@pytest.mark.row("GF-31")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(variables)
@example(HOSTILE)
@example({"PORT": "80"})
def test_jobs_are_the_same_loaded_directly_and_by_way_of_an_export(tmp_path: Path, env: dict[str, str]) -> None:
    root = tmp_path / "shop"
    root.mkdir(exist_ok=True)
    (root / "Procfile").write_text(PROCFILE)
    app = Application(Procfile(root / "Procfile", variables=env))
    names = app.types
    jobs = {
        job["name"]: job
        for job in app.describe({"plain": 2}, {name: f"{8000 + 100 * at}+" for at, name in enumerate(names)}, "shop")
    }
    (root / "shop.ini").write_text(as_ini(app, "shop", jobs), encoding="utf-8")
    from_ini = load_config(root / "shop.ini").jobs
    from_json = json.loads(as_json("shop", jobs, None))["jobs"]

    assert [str(name) for name in from_ini] == [job["name"] for job in from_json] == [f"shop.{name}" for name in names]
    environ = {"PORT": "8000", **env}
    for document in from_json:
        name = parse_job_name(document["name"])
        loaded = ProcessConfig.from_dict(jobs[name.name])
        assert loaded.env == env
        for exported in (ProcessConfig.from_dict({**document, "name": name.name}), from_ini[name]):
            assert exported.arguments(environ) == loaded.arguments(environ)
            same = {"cmd": "", "args": (), "priority": None}  # written in another way
            assert exported.replace(**same | {"cmd": "x"}) == loaded.replace(**same | {"cmd": "x"})


GREEDY = "printf '%s|' \"$PORT\" 'a b' \"it's\" '100%' '$HOME' \\\\\\\\n"


@pytest.fixture
def shop(tmp_path: Path) -> Application:
    """An application whose variables and commands hold what the formats take for their own syntax."""
    root = tmp_path / "shop"
    root.mkdir()
    (root / "Procfile").write_text(f"web: {GREEDY}\nafter: cd sub && exec ./run\n")
    variables = {name: value for name, value in HOSTILE.items() if name.isidentifier() and name.isascii()}
    companion = Companion("gaffer.yml")
    companion.entries["web"] = Entry({"stop_signal": "INT", "graceful_timeout": 20.0}, "gaffer.yml", 1)
    companion.entries["after"] = Entry({"after": ["web"], "restart": "never", "watch": ["*.py"]}, "gaffer.yml", 2)
    return Application(Procfile(root / "Procfile", variables=variables), companion)


def described(app: Application) -> dict[str, Any]:
    return {job["name"]: job for job in app.describe({"web": 2}, {"web": "8000+", "after": "8100+"}, "shop")}


def ran(words: list[str], env: dict[str, str]) -> str:
    return subprocess.run(words, env=env, capture_output=True, text=True, check=True, timeout=30).stdout


def test_units_of_systemd_run_the_same_commands(
    shop: Application, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = described(shop)
    files = units(shop, "shop", jobs)
    assert list(files) == ["shop-web@.service", "shop-after@.service", "shop.target"]
    assert "\nWants=shop-web@8000.service shop-web@8001.service shop-after@8100.service\n" in files["shop.target"]
    web = files["shop-web@.service"]
    assert {"KillSignal=SIGINT", "TimeoutStopSec=20", "Restart=always", "Environment=PORT=%i"} <= set(web.splitlines())
    after = files["shop-after@.service"]
    assert "\nAfter=shop-web@8000.service shop-web@8001.service\n" in after
    assert "Restart=no" in after
    assert capsys.readouterr().err == "warning: after: this format has nothing for watch\n"
    # A word of a unit is C-quoted, with %% for % and, in commands, $$ for $ (systemd.service(5)).
    variables = dict(
        unquoted(line.partition("=")[2]).split("=", 1) for line in web.splitlines() if line.startswith('Environment="')
    )
    assert variables == jobs["web"]["env"]
    line = unquoted(web.partition("ExecStart=/bin/sh -c ")[2].partition("\n")[0]).replace("$$", "$")
    env = {"PORT": "8000", "HOME": "/h"}
    assert ran(["sh", "-c", line], env) == ran(["sh", "-c", GREEDY], env)
    if shutil.which("systemd-analyze"):
        (tmp_path / "shop" / "sub").mkdir()
        for name, text in files.items():
            (tmp_path / name.replace("@.", "@8000.")).write_text(text)
        words = ["systemd-analyze", "verify", "--man=no", str(tmp_path / "shop-web@8000.service")]
        env = {**os.environ, "SYSTEMD_UNIT_PATH": str(tmp_path)}
        checked = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30, env=env)
        assert re.search(r"\.service:\d+:", checked.stderr) is None, checked.stderr


def unquoted(word: str) -> str:
    assert (word[0], word[-1]) == ('"', '"')
    escaped = word[1:-1].replace("%%", "%").encode()

    def plain(match: re.Match[bytes]) -> bytes:
        return bytes.fromhex(match[1].decode()) if match[1] else match[2]

    return re.sub(rb'\\(?:x([0-9a-f]{2})|([\\"]))', plain, escaped).decode()


def test_services_of_compose_run_the_same_commands(shop: Application) -> None:
    jobs = described(shop)
    document = yaml.safe_load(as_compose(shop, "shop", jobs))
    web, after = document["services"]["web"], document["services"]["after"]
    assert {key: value.replace("$$", "$") for key, value in web["environment"].items()} == {
        **jobs["web"]["env"],
        "PORT": "8000",
    }
    env = {"PORT": "8000", "HOME": "/h"}
    assert ran([word.replace("$$", "$") for word in web["command"]], env) == ran(["sh", "-c", GREEDY], env)
    assert (web["ports"], web["deploy"], web["stop_signal"]) == (["8000-8001:8000"], {"replicas": 2}, "SIGINT")
    assert after["depends_on"] == {"web": {"condition": "service_started"}}
    assert (after["restart"], "ports" in after) == ("no", False)


def test_yaml_is_a_configuration_of_gafferd(shop: Application, tmp_path: Path) -> None:
    jobs = described(shop)
    (tmp_path / "shop.yaml").write_text(as_yaml("shop", jobs), encoding="utf-8")
    loaded = load_config(tmp_path / "shop.yaml").jobs
    assert {str(name): config.env for name, config in loaded.items()} == {
        f"shop.{name}": job["env"] for name, job in jobs.items()
    }


def test_a_value_can_t_add_a_line_to_a_unit(shop: Application) -> None:
    jobs = described(shop)
    jobs["web"]["uid"] = "me\nExecStartPre=touch STOWAWAY"
    with pytest.raises(UsageError, match="a unit can't hold"):
        units(shop, "shop", jobs)


@pytest.mark.parametrize("folder", ["a]b", "a\nb"])
def test_a_name_that_an_ini_file_can_not_hold_is_refused(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "Procfile").write_text("web: run\n")
    with pytest.raises(ValueError, match="can't have a section"):
        Procfile(tmp_path / folder / "Procfile").as_configparser()


def test_a_user_that_an_ini_file_can_not_hold_is_refused(tmp_path: Path) -> None:
    (tmp_path / "Procfile").write_text("web: run\n")
    (tmp_path / ".env").write_text('GAFFER_UID="me\n[process:stowaway]\ncmd = x"\n')
    with pytest.raises(ValueError, match="can't hold the value of uid"):
        Procfile(tmp_path / "Procfile").as_configparser()
