import re
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaffer.errors import ConfigError
from gaffer.http.access import Scope
from gaffer.process import ProcessConfig
from gaffer.procfile import Procfile
from gaffer.runtime.ini import parse_ini
from gafferd.config.file import Config, find_config, load_config, show_problem

Load = Callable[..., Config]
Mistakes = Callable[..., list[str]]

SAMPLE = """\
[gaffer]
http_endpoints = public
[endpoint:public]
bind = 127.0.0.1:5000
;certfile=
; keyfile=
[webhooks]
;create = http://some/url
;proc.dummy.spawn = http://some/otherurl
[process:dummy]
cmd = ./dummy.py
; cwd = .
;uid =
; gid =
;detach = false
;shell = false
; flapping format: attempts=2, window=1., retry_in=7., max_retry=5
; flapping = 2, 1., 7., 5
numprocesses = 1
redirect_output = stdout, stderr
; redirect_input = true
; graceful_timeout = 30
[process:echo]
cmd = ./echo.py
numprocesses = 1
redirect_output = stdout, stderr
redirect_input = true
"""


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Loads a configuration from its text; further files by name."""
    monkeypatch.chdir(tmp_path)

    def run(text: str, **files: str) -> Config:
        for name, content in {"gaffer.ini": text, **files}.items():
            path = tmp_path / name.replace("__", "/")
            path.parent.mkdir(exist_ok=True)
            path.write_text(textwrap.dedent(content))
        return load_config((tmp_path / "gaffer.ini").relative_to(tmp_path))

    return run


@pytest.fixture
def mistakes(load: Load) -> Mistakes:
    """The mistakes in a configuration as they are shown, one or two lines each."""

    def run(text: str, **files: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(text, **files)
        return [show_problem(problem) for problem in caught.value.problems]

    return run


def names(config: Config) -> list[str]:
    return [str(name) for name in config.jobs]


def only_job(config: Config) -> ProcessConfig:
    (job,) = config.jobs.values()
    return job


@pytest.mark.row("CFG-33", "CFG-01", "CFG-02", "CFG-03", "CFG-04", "CFG-12")
def test_the_documented_sample(load: Load) -> None:
    assert load(re.sub("(?m)^;.*\n", "", SAMPLE)).jobs == load(SAMPLE).jobs
    config = load(SAMPLE)
    assert [endpoint.bind for endpoint in config.endpoints] == [("127.0.0.1:5000",)]
    assert names(config) == ["default.dummy", "default.echo"]
    assert config.webhooks == ()
    assert config.warnings == ()
    dummy, echo = config.jobs.values()
    assert (dummy.cmd, dummy.redirect_output, dummy.redirect_input) == ("./dummy.py", ("stdout", "stderr"), False)
    assert echo.redirect_input
    assert config.sections["process:echo"].texts()["cmd"] == "./echo.py"


@pytest.mark.row("CFG-02")
@pytest.mark.parametrize("mark", [";", "; ", " ;", "#", "# ", "\t#"])
@pytest.mark.parametrize("line", ["certfile = /missing.pem", "bind = 127.0.0.1:1", "[process:b]", "nothing at all"])
def test_what_stands_in_a_comment_is_not_active(load: Load, mark: str, line: str) -> None:
    config = load(f"{mark}{line}\n[gaffer]\nhttp_endpoints = x\n[endpoint:x]\n{mark}{line}\nbind = 127.0.0.1:5001\n")
    (endpoint,) = config.endpoints
    assert (endpoint.bind, endpoint.certfile) == (("127.0.0.1:5001",), None)
    assert config.jobs == {}
    assert config.warnings == ()


@pytest.mark.row("CFG-02")
def test_a_comment_within_a_long_value_is_not_part_of_it(load: Load) -> None:
    assert only_job(load("[process:a]\ncmd = sh -c\n  ; 'exit 1'\n  # 'exit 2'\n  'exit 3'\n")).cmd == "sh -c\n'exit 3'"


@pytest.mark.row("CFG-14", "CFG-15", "CFG-16", "CFG-17", "CFG-18", "CFG-19", "CFG-20", "CFG-21", "CFG-22", "CFG-23")
@pytest.mark.row("CFG-24", "CFG-25", "CFG-26", "CFG-27", "CFG-30", "CFG-31")
def test_every_key_of_a_process(load: Load) -> None:
    config = only_job(
        load("""\
        [process:web]
        cmd = date +%Y-%m-%d
        args = "two words" $PORT
        cwd = /tmp
        uid = www-data
        gid = 33
        detach = no
        shell = on
        flapping = 2, 1., 7., 5
        redirect_input = True
        redirect_output = out, err
        custom_streams = ctl
        graceful_timeout = 2.5
        os_env = off
        priority = 3
        numprocesses = 4
        start = 0
        port = 8000+
        endpoints = http:$PORT, admin:9000
        labels = tier=front, x=
        """)
    )
    expected = {
        "name": "web",
        "cmd": "date +%Y-%m-%d",
        "args": ["two words", "$PORT"],
        "cwd": "/tmp",
        "uid": "www-data",
        "gid": 33,
        "detach": False,
        "shell": True,
        "flapping": {"attempts": 2, "window": 1.0, "retry_in": 7.0, "max_retry": 5},
        "redirect_input": True,
        "redirect_output": ["out", "err"],
        "custom_streams": ["ctl"],
        "graceful_timeout": 2.5,
        "os_env": False,
        "priority": 3,
        "numprocesses": 4,
        "start": False,
        "port": "8000+",
        "endpoints": ["http:$PORT", "admin:9000"],
        "labels": {"tier": "front", "x": ""},
    }
    assert {key: config.to_dict()[key] for key in expected} == expected


@pytest.mark.row("CFG-17", "CFG-24")
def test_what_is_left_out_or_empty(load: Load) -> None:
    config = only_job(load("[process:web]\ncmd = x\nuid =\ngid =\npriority =\nflapping =\nport =\n"))
    assert config.os_env
    assert config.start
    assert (config.uid, config.gid, config.priority, config.flapping, config.port) == (None,) * 5
    assert (config.numprocesses, config.graceful_timeout) == (1, 30.0)


@pytest.mark.row("CFG-13", "CFG-12")
@pytest.mark.parametrize("header", ["process:shop:web", "process:shop.web", "process:shop/web", "job:shop:web"])
def test_a_process_in_a_group(load: Load, header: str) -> None:
    assert names(load(f"[{header}]\ncmd = x\n")) == ["shop.web"]


@pytest.mark.row("CFG-25", "TPL-14")
def test_jobs_start_by_priority_then_in_file_order(load: Load) -> None:
    config = load("""\
        [process:last]
        cmd = x
        [process:second]
        cmd = x
        priority = 5
        [process:first]
        cmd = x
        priority = 0
        [process:third]
        cmd = x
        priority = 5
        [process:after]
        cmd = x
        """)
    assert names(config) == [f"default.{name}" for name in ("first", "second", "third", "last", "after")]


@pytest.mark.row("CFG-28", "CFG-29")
def test_environments(load: Load) -> None:
    config = load("""\
        [env:web]
        port = 80
        Mode = fast
        url = http://x/?a=b%20c
        [process:web]
        cmd = x
        env:MODE = slow
        env:no_proxy = *
        [process:shop:web]
        cmd = x
        [env:shop:web]
        port = 81
        """)
    first, second = (job.env for job in config.jobs.values())
    assert first == {"PORT": "80", "MODE": "slow", "URL": "http://x/?a=b%20c", "no_proxy": "*"}
    assert second == {"PORT": "81"}


@pytest.mark.row("CFG-08", "CFG-09")
def test_settings(load: Load, tmp_path: Path) -> None:
    for name in ("cert.pem", "key.pem", "ca.pem"):
        (tmp_path / name).touch()
    config = load("""\
        [gaffer]
        bind = 127.0.0.1:0, [::1]:5000, unix:/run/x.sock
        backlog = 64
        broadcast_address = http://10.0.0.7:5000
        lookupd_address1 = http://a:5010
        lookupd_address2 = https://b
        lookupd_address = http://c, http://d
        daemonize = yes
        pidfile = /run/gafferd.pid
        error_log = /var/log/gafferd.log
        log_level = WARNING
        require_key = false
        trust_local = no
        local_users = root:read, 1:read+control+define
        socket_group = root:control
        allowed_host = a.example, b.example
        labels = zone=a
        [ssl]
        certfile = cert.pem
        keyfile = key.pem
        [lookup_ssl]
        ca_certs = ca.pem
        """)
    assert config.settings == {
        "bind": ("127.0.0.1:0", "[::1]:5000", "unix:/run/x.sock"),
        "backlog": 64,
        "broadcast_address": "http://10.0.0.7:5000",
        "lookupd_address": ("http://a:5010", "https://b", "http://c", "http://d"),
        "daemon": True,
        "pidfile": "/run/gafferd.pid",
        "error_log": "/var/log/gafferd.log",
        "log_level": "warning",
        "require_key": False,
        "trust_local": False,
        "local_users": {0: (Scope.READ,), 1: (Scope.READ, Scope.CONTROL, Scope.DEFINE)},
        "socket_group": {0: (Scope.CONTROL,)},
        "allowed_host": ("a.example", "b.example"),
        "labels": {"zone": "a"},
        "certfile": "cert.pem",
        "keyfile": "key.pem",
        "cacert": "ca.pem",
    }


@pytest.mark.row("CFG-04")
def test_only_named_endpoints_are_opened(load: Load) -> None:
    config = load("""\
        [gaffer]
        http_endpoints = b , a
        [endpoint:a]
        bind = 127.0.0.1:1, unix:/x
        backlog = 7
        [endpoint:b]
        bind = [::1]:2
        [endpoint:closed]
        bind = 127.0.0.1:3
        """)
    assert [(e.bind, e.backlog) for e in config.endpoints] == [
        (("[::1]:2",), None),
        (("127.0.0.1:1", "unix:/x"), 7),
    ]


@pytest.mark.row("CFG-07")
def test_includes_are_relative_to_the_file(load: Load) -> None:
    config = load(
        """\
        [gaffer]
        include = more/a.ini
        include_dir = more
        [process:main]
        cmd = x
        """,
        **{
            "more__a.ini": "[process:a]\ncmd = x\n",
            "more__b.ini": "[process:b]\ncmd = x\n",
            "more__ignored.txt": "garbage",
        },
    )
    assert names(config) == ["default.main", "default.a", "default.b"]


@pytest.mark.row("CFG-11")
def test_webhooks_keep_the_case_of_events(load: Load) -> None:
    config = load("[webhooks]\nproc.Web.spawn = http://a/?x=1, https://b\n. = http://c\n")
    assert config.webhooks == (
        ("proc.Web.spawn", "http://a/?x=1"),
        ("proc.Web.spawn", "https://b"),
        (".", "http://c"),
    )
    assert not config.warnings


@pytest.mark.row("CFG-01")
def test_unknown_sections_warn_and_are_kept(load: Load) -> None:
    config = load("[proces:web]\ncmd = x\n[my plugin]\nKey = value\n[program:web]\ncommand = x\n[process]\ncmd = x\n")
    assert [show_problem(w) for w in config.warnings] == [
        "gaffer.ini:1: [proces:web] unknown section, ignored unless a plugin reads it\n  hint: did you mean 'process'?",
        "gaffer.ini:3: [my plugin] unknown section, ignored unless a plugin reads it",
        "gaffer.ini:5: [program:web] unknown section, ignored unless a plugin reads it\n"
        "  hint: jobs are sections [process:SESSION:NAME]",
        "gaffer.ini:7: [process] unknown section, ignored unless a plugin reads it\n"
        "  hint: jobs are sections [process:SESSION:NAME]",
    ]
    assert config.sections["my plugin"].texts() == {"Key": "value"}


def test_layout_of_the_text(load: Load) -> None:
    config = load(
        "\ufeff# comment\n[process:web]\r\n  cmd = run\n    --one\n  ; not part of it\n    --two\n\n  args=\n"
        "  env:X = a=b\n  env:Y = ; no comment\n"
    )
    web = only_job(config)
    assert web.cmd.split() == ["run", "--one", "--two"]
    assert web.env == {"X": "a=b", "Y": "; no comment"}


@pytest.mark.row("MISC-PF-02")
def test_a_procfile_as_configuration(load: Load, tmp_path: Path) -> None:
    app = tmp_path / "shop"
    app.mkdir()
    (app / "Procfile").write_text("web: serve --port $PORT\nworker: work 'two words'\n")
    (app / ".env").write_text("A=100%\nno_proxy=*\n")
    with open(app / "exported.ini", "w") as file:
        Procfile(app / "Procfile").as_configparser({"worker": 2}).write(file)
    config = load("[gaffer]\ninclude = shop/exported.ini\n")
    assert names(config) == ["shop.web", "shop.worker"]
    _, worker = config.jobs.values()
    assert worker.command() == ["work", "two words"]
    assert worker.numprocesses == 2
    assert worker.env == {"A": "100%", "no_proxy": "*"}


EVERYTHING_WRONG = """\
stray
[gaffer]
http_endpoints = public, privat
lookupd_adress = http://a
lookupd_address1 = ftp://a
log_level = loud
[endpoint:public]
bind = 127.0.0.1:http
[process:web]
comand = run
numprocesses = two
numprocesses = 3
[process:web]
cmd = again
[job:default:web]
cmd = twice
[process:cache]
cmd = run "it
flapping = 2, x
after = web, wb
port = 8000
numprocesses = 2
name = cache
env = A=1
labels = x
[process:12]
cmd = run
[env:wb]
A = 1
[env:cache]
port = 1
PORT = 2
[webhooks]
create = nowhere
[process:web
oops
"""


@pytest.mark.row("CFG-12", "CFG-20")
def test_every_mistake_at_once(mistakes: Mistakes) -> None:
    assert mistakes(EVERYTHING_WRONG) == [
        "gaffer.ini:1: 'stray' before the first section\n  hint: start with a section header such as [gaffer]",
        "gaffer.ini:3: [gaffer] http_endpoints: unknown endpoint 'privat'\n"
        "  hint: add a section [endpoint:privat] with bind = HOST:PORT",
        "gaffer.ini:4: [gaffer] unknown key 'lookupd_adress'\n  hint: did you mean 'lookupd_address'?",
        "gaffer.ini:5: [gaffer] lookupd_address1: expected an http or https URL, got 'ftp://a'\n"
        "  hint: such as http://10.0.0.7:5010",
        "gaffer.ini:6: [gaffer] log_level: unknown log level 'loud'\n"
        "  hint: use one of debug, info, warning, error, critical",
        "gaffer.ini:8: [endpoint:public] bind: 'http' is not a valid port number\n"
        "  hint: such as 127.0.0.1:5000, [::1]:5000 or unix:/run/gafferd.sock",
        "gaffer.ini:9: [process:web] cmd is missing\n  hint: set cmd to the command to run",
        "gaffer.ini:10: [process:web] unknown key 'comand'\n  hint: did you mean 'cmd'?",
        "gaffer.ini:11: [process:web] numprocesses: expected a whole number of 0 or more, got 'two'",
        "gaffer.ini:12: [process:web] numprocesses is already set on line 11\n  hint: remove one of the two",
        "gaffer.ini:13: [process:web] already exists on line 9\n  hint: merge the two sections",
        "gaffer.ini:15: [job:default:web] the job web is already defined at gaffer.ini:9\n  hint: rename one of them",
        "gaffer.ini:18: [process:cache] cmd: can't be split into words: No closing quotation\n"
        "  hint: close the quotation",
        "gaffer.ini:19: [process:cache] flapping: expected a number, got 'x'",
        "gaffer.ini:20: [process:cache] after: there is no job 'default.wb'\n  hint: did you mean 'web'?",
        "gaffer.ini:23: [process:cache] unknown key 'name'\n"
        "  hint: set the name in the section header: [process:NAME] or [process:SESSION:NAME]; in YAML,"
        " as the key in jobs",
        "gaffer.ini:24: [process:cache] unknown key 'env'\n"
        "  hint: set variables in a section [env:NAME] or with keys such as env:PORT; in YAML, in a mapping env",
        "gaffer.ini:25: [process:cache] labels: expected name=value pairs, got 'x'\n  hint: such as zone=a, disk=ssd",
        "gaffer.ini:26: [process:12] the job name '12' consists of digits only and could be mistaken for a process id\n"
        "  hint: add a letter",
        "gaffer.ini:28: [env:wb] no such job: wb\n  hint: did you mean 'web'?",
        "gaffer.ini:32: [env:cache] PORT is given twice\n  hint: variable names are converted to upper case",
        "gaffer.ini:34: [webhooks] create: expected an http or https URL, got 'nowhere'\n"
        "  hint: such as http://10.0.0.7:5010",
        "gaffer.ini:35: '[process:web' is not a section header\n  hint: write [name] on a line of its own",
        "gaffer.ini:36: [process:web] expected key = value, got 'oops'",
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param(
            "[process:web]\ncmd = x\nport = 8000\nnumprocesses = 2\n",
            "gaffer.ini:3: [process:web] port: 2 processes can't share port 8000\n"
            "  hint: write 8000+ to give each its own port from 8000 on, or auto",
            id="settings that exclude each other",
        ),
        pytest.param(
            f"[gaffer]\nlabels = zone={'a' * 1025}\n",
            "gaffer.ini:2: [gaffer] labels: invalid labels: Expected `str` of length <= 1024 - at `$[...]`\n"
            "  hint: use at most 64 labels, with names and values of at most 1024 characters",
            id="a label that is too long for lookupds",
        ),
        pytest.param(
            "[process:web]\ncmd = x\nnumprocesses = 2 ; or more\n",
            "gaffer.ini:3: [process:web] numprocesses: expected a whole number of 0 or more, got '2 ; or more'\n"
            "  hint: put comments on their own line",
            id="a comment behind a value",
        ),
        pytest.param(
            "[process:web]\ncmd = x\nport 80\n",
            "gaffer.ini:3: [process:web] expected key = value, got 'port 80'",
            id="no equals sign",
        ),
        pytest.param(
            "[process:web]\ncmd = x\ncustom_channels = 3\n",
            "gaffer.ini:3: [process:web] unknown key 'custom_channels'",
            id="a setting for programs only",
        ),
        pytest.param(
            "[process:]\ncmd = x\n",
            "gaffer.ini:1: [process:] '' is not a valid job name\n"
            "  hint: use 1 to 64 of A-Z a-z 0-9 _ + -, starting with a letter, a digit or _",
            id="no name",
        ),
        pytest.param(
            "[env:web]\nA = 1\n",
            "gaffer.ini:1: [env:web] no such job: web\n  hint: add a section [process:web]",
            id="an environment for nothing",
        ),
        pytest.param(
            "[endpoint:x]\n",
            "gaffer.ini:1: [endpoint:x] bind is missing\n  hint: add bind, such as bind = 127.0.0.1:5000",
            id="an endpoint nowhere",
        ),
        pytest.param(
            "[ssl]\ncertfile = missing.pem\n",
            "gaffer.ini:2: [ssl] certfile: there is no file 'missing.pem'",
            id="no such file",
        ),
        pytest.param(
            "[gaffer]\ncertfile = x\n",
            "gaffer.ini:2: [gaffer] unknown key 'certfile'\n  hint: move it to [ssl]",
            id="a key of another section",
        ),
        pytest.param(
            "[gaffer]\nbacklog = 0\n",
            "gaffer.ini:2: [gaffer] backlog: expected a whole number from 1 to 65535, got '0'",
            id="number out of range",
        ),
        pytest.param(
            "[gaffer]\nlocal_users = root:everything\n",
            "gaffer.ini:2: [gaffer] local_users: expected scopes joined with +, got 'everything'\n"
            "  hint: scopes: read, control, define",
            id="an unknown scope",
        ),
        pytest.param(
            "[gaffer]\nlocal_users = no-such-user:read\n",
            "gaffer.ini:2: [gaffer] local_users: unknown user 'no-such-user'\n"
            "  hint: write NAME:SCOPE, such as alice:read or bob:read+control",
            id="an unknown user",
        ),
        pytest.param(
            "[gaffer]\nsocket_group = root:read, 1:read\n",
            "gaffer.ini:2: [gaffer] socket_group: a socket can belong to only one group",
            id="two groups",
        ),
        pytest.param(
            "[gaffer]\nrequire_key = maybe\n",
            "gaffer.ini:2: [gaffer] require_key: expected true or false, got 'maybe'",
            id="neither true nor false",
        ),
        pytest.param(
            "[gaffer]\ninclude = missing.ini\n",
            "gaffer.ini:2: [gaffer] include: can't read missing.ini: No such file or directory",
            id="a missing include",
        ),
        pytest.param(
            "[gaffer]\ninclude_dir = missing\n",
            "gaffer.ini:2: [gaffer] include_dir: no such directory: 'missing'\n"
            "  hint: create it, or remove include_dir",
            id="a missing directory",
        ),
    ],
)
def test_one_mistake(mistakes: Mistakes, text: str, shown: str) -> None:
    assert mistakes(text) == [shown]


def test_mistakes_in_included_files_name_them(mistakes: Mistakes) -> None:
    assert mistakes(
        "[gaffer]\ninclude = a.ini\n[process:web]\ncmd = x\n",
        **{"a.ini": "[process:web]\ncmd = y\n[process:db]\ncmd =\n"},
    ) == [
        "a.ini:1: [process:web] this section already exists at gaffer.ini:3\n  hint: merge the sections",
        "a.ini:4: [process:db] cmd: expected a non-empty text, got ''",
    ]


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "gaffer.ini").write_bytes(b"[gaffer]\n\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(tmp_path / "gaffer.ini")


def test_a_file_may_include_itself(load: Load) -> None:
    assert names(load("[gaffer]\ninclude = gaffer.ini\ninclude_dir = .\n[process:a]\ncmd = x\n")) == ["default.a"]


@pytest.mark.row("CFG-07")
def test_an_included_file_includes_others(load: Load) -> None:
    config = load(
        "[gaffer]\ninclude = one.ini\n",
        **{
            "one.ini": "[gaffer]\ninclude = more/two.ini\n[process:one]\ncmd = x\n",
            "more__two.ini": "[gaffer]\ninclude_dir = deep\n[process:two]\ncmd = x\n",
            "more__deep__three.ini": "[process:three]\ncmd = x\n",
        },
    )
    assert names(config) == ["default.one", "default.two", "default.three"]
    assert config.warnings == ()


def test_a_loop_of_includes_is_reported(load: Load) -> None:
    config = load(
        "[gaffer]\ninclude = one.ini two.ini\n",
        **{
            "one.ini": "[gaffer]\ninclude = two.ini\n[process:one]\ncmd = x\n",
            "two.ini": "[gaffer]\ninclude = one.ini\n[process:two]\ncmd = x\n",
        },
    )
    assert names(config) == ["default.one", "default.two"]
    assert [show_problem(warning) for warning in config.warnings] == [
        "two.ini:2: [gaffer] include: ignored a cycle: gaffer.ini -> one.ini -> two.ini -> one.ini\n"
        "  hint: remove one of the includes"
    ]


def test_variables_as_a_json_object(load: Load, mistakes: Mistakes) -> None:
    config = load(
        '[process:web]\ncmd = x\nenv:A = 1\nenv_json = {"B": "one\\n\\n[process:two]\\ncmd = y", "c d": " x "}\n'
    )
    assert only_job(config).env == {"A": "1", "B": "one\n\n[process:two]\ncmd = y", "c d": " x "}
    assert "expected a JSON object of strings" in mistakes('[process:web]\ncmd = x\nenv_json = {"B": 1}\n')[0]


@given(st.text(alphabet=st.sampled_from("[]=:;# \t\n\rabc\u2028\x0c\x85"), max_size=60))
def test_any_text_is_read_with_its_line_numbers(text: str) -> None:
    sections, problems = parse_ini(text, "x.ini")
    lines = text.split("\n")
    for section in sections.values():
        assert section.name in lines[section.line - 1]
        for key, value in section.values.items():
            assert lines[value.line - 1].strip().startswith(key)
    for problem in problems:
        file, line = problem.path.split(":")
        assert file == "x.ini"
        assert 1 <= int(line) <= len(lines)


# Finding it


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.mark.row("GD-02", "GD-01", "CL-01")
def test_a_file_or_a_directory(tmp_path: Path, home: Path) -> None:
    directory = tmp_path / "etc"
    directory.mkdir()
    (directory / "gaffer.ini").touch()
    assert find_config(str(directory / "gaffer.ini"), {}, home, False) == directory / "gaffer.ini"
    assert find_config(str(directory), {}, home, False) == directory / "gaffer.ini"
    (directory / "gafferd.ini").touch()
    assert find_config(str(directory), {}, home, False) == directory / "gafferd.ini"
    assert find_config(None, {"GAFFERD_CONFIG": str(directory)}, home, False) == directory / "gafferd.ini"


@pytest.mark.row("CFG-32", "GD-17")
def test_the_default_places(tmp_path: Path, home: Path) -> None:
    assert find_config(None, {}, home, False) is None
    (home / ".gaffer").mkdir()
    (home / ".gaffer" / "gafferd.ini").touch()
    assert find_config(None, {}, home, False) == home / ".gaffer" / "gafferd.ini"
    assert find_config(None, {}, home, True) is None


def test_a_configuration_that_was_asked_for_must_exist(tmp_path: Path, home: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        find_config(str(tmp_path / "missing"), {}, home, False)
    with pytest.raises(ConfigError, match=r"contains no gafferd or gaffer with one of the suffixes \.ini") as caught:
        find_config(None, {"GAFFERD_CONFIG": str(tmp_path)}, home, False)
    assert "GAFFERD_CONFIG" in (caught.value.hint or "")
