"""What only a start would find: missing users, directories, files and programs."""

import os
import shutil
from collections.abc import Iterator, Mapping

from gaffer.errors import ConfigError, Problem, quoted
from gaffer.jobs.config import JobConfig
from gaffer.jobs.names import JobName
from gaffer.jobs.probing import ProbeKind, parse_probe
from gaffer.jobs.words import parse_words
from gaffer.processes import launch
from gaffer.runtime.accounts import check_gid, check_uid
from gaffer.runtime.env_files import read_env_file
from gafferd.config.file import Config


def find_faults(file: Config, environ: Mapping[str, str]) -> Iterator[Problem]:
    """Yield what would keep the processes of jobs from starting now, at its place in the file.

    `environ` is the environment of the daemon. Nothing is started or changed.
    """
    for name, config in file.jobs.items():
        for fault in _faults(name, config, environ):
            yield file.described[name].problem(fault)


def _faults(name: JobName, config: JobConfig, environ: Mapping[str, str]) -> Iterator[Problem]:
    yield from _unknown_accounts(config)
    if config.cwd is not None and not os.path.isdir(config.cwd):
        yield Problem("$.cwd", f"cwd: no such directory: {quoted(config.cwd)}", "create it, or use another one")
        return  # relative paths of files and programs are below it
    variables: dict[str, str] = {}
    for index, path in enumerate(config.env_file):
        try:
            variables |= read_env_file(os.path.join(config.cwd or "", path))
        except ConfigError as error:
            for problem in error.problems:
                yield Problem(f"$.env_file[{index}]", f"env_file: {problem.path}: {problem.message}", problem.hint)
    port = config.port_of(1) or (1 if config.port else None)
    own = {"GAFFER_JOB": str(name), "GAFFER_SESSION": name.session, "GAFFER_INSTANCE": "1"}
    given = {**({"PORT": str(port)} if port else {}), **variables, **config.env, **own}
    env = launch.environment(config, given, environ)
    for path, program in _programs(config, env):
        if not _is_program(program, config.cwd or "", env):
            key = path.removeprefix("$.")
            where = "" if os.path.dirname(program) else f" on the PATH of the job, {env['PATH']}"
            yield Problem(
                path, f"{key}: no program {quoted(program)}{where}", "install it, or correct the name or PATH"
            )


def _unknown_accounts(config: JobConfig) -> Iterator[Problem]:
    for key, given, check, own in (
        ("uid", config.uid, check_uid, os.geteuid()),
        ("gid", config.gid, check_gid, os.getegid()),
    ):
        if given is None:
            continue
        try:
            number = check(given)
        except ValueError as error:
            yield Problem(f"$.{key}", f"{key}: {error}", "create it, or use another one")
        else:
            if os.geteuid() != 0 and number != own:
                yield Problem(f"$.{key}", f"{key}: only root can run a process as {given!r}", "run gafferd as root")


def _programs(config: JobConfig, env: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the programs that the job executes, each with the path of its setting."""
    if not config.shell:
        yield "$.cmd", config.arguments(env)[0]
    lines = {"$.before_start": config.before_start, "$.after_exit": config.after_exit}
    lines |= {f"$.action.{name}": line for name, line in config.action.items()}
    for key, probe in (("ready", config.ready), ("live", config.live)):
        if probe is not None and (parsed := parse_probe(probe)).kind is ProbeKind.EXEC:
            lines[f"$.{key}"] = parsed.argument
    for path, line in lines.items():
        if line is not None:
            yield path, parse_words(line)[0].expand(env)


def _is_program(program: str, cwd: str, env: Mapping[str, str]) -> bool:
    if os.path.dirname(program):
        path = os.path.join(cwd, program)
        return os.path.isfile(path) and os.access(path, os.X_OK)
    return shutil.which(program, path=env["PATH"]) is not None
