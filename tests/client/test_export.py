"""What `gaffer export` writes is the application that `gaffer load` loads, whatever is in it."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gaffer.jobs.names import parse_job_name
from gaffer.process import ProcessConfig
from gaffer.procfile import Procfile
from gaffer_client.cli.export import as_ini, as_json
from gaffer_client.cli.procfile_app import Application
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
