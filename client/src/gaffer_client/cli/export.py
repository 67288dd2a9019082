"""`gaffer export`: an application as configuration of gafferd, or as JSON."""

import io
import json
import os
from collections.abc import Mapping
from typing import Any

from gaffer.errors import did_you_mean
from gaffer.jobs.sections import ini_settings
from gaffer.procfile import add_ini_job, ini_document
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import Exit, UsageError
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.places import app_name
from gaffer_client.cli.procfile_app import Application, choose_ports, concurrency, open_application
from gaffer_client.cli.units import as_compose, units

FORMATS = ("ini", "json", "yaml", "systemd", "compose")


def export(context: Context, args: Arguments) -> int:
    format_ = args.text("--format") or ("json" if context.json else "ini")
    if format_ not in FORMATS:
        hint = did_you_mean(format_, list(FORMATS)) or f"use {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        raise UsageError(f"unknown format {format_!r}", hint=hint)
    app = open_application(args)
    name = args.text("<name>")
    if name is not None:
        app.check_type(name)
    numbers = app.numbers(concurrency(args.words("--concurrency"), app.types))
    session = app_name(args, None)
    described = app.describe(numbers, choose_ports(args.text("--port"), app, numbers), session)
    jobs = {job["name"]: job for job in described if name in (None, job["name"])}
    path = args.text("--out")
    if format_ == "systemd":
        files = units(app, session, jobs)
        if path is None:
            print("\n".join(f"# {file}\n{text}" for file, text in files.items()), end="")
            return Exit.OK
        os.makedirs(path, exist_ok=True)
        for file, text in files.items():
            _write(os.path.join(path, file), text)
        return Exit.OK
    text = {
        "ini": lambda: as_ini(app, session, jobs),
        "json": lambda: as_json(session, jobs, name),
        "yaml": lambda: as_yaml(session, jobs),
        "compose": lambda: as_compose(app, session, jobs),
    }[format_]()
    if path is None:
        print(text, end="")
    else:
        _write(path, text)
    return Exit.OK


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def as_json(app: str, jobs: Mapping[str, Any], name: str | None) -> str:
    """Return the job descriptions as JSON, with qualified names; only the job `name`, not in a list, if given."""
    qualified = {key: {**job, "name": f"{app}.{key}"} for key, job in jobs.items()}
    document = qualified[name] if name is not None else {"jobs": list(qualified.values())}
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def as_yaml(session: str, jobs: Mapping[str, Any]) -> str:
    """Return the jobs as a gafferd configuration in YAML that behaves as if loaded by `gaffer load`."""
    import yaml

    named = {
        f"{session}.{name}": {"os_env": False, **{key: value for key, value in job.items() if key != "name"}}
        for name, job in jobs.items()
    }
    return str(yaml.safe_dump({"jobs": named}, sort_keys=False, allow_unicode=True))


def as_ini(app: Application, session: str, jobs: Mapping[str, Any]) -> str:
    """Return the jobs as sections of a gafferd configuration that behave as if loaded by `gaffer load`."""
    document = ini_document()
    lines = dict(app.procfile.processes())
    try:
        for priority, name in enumerate(app.types):
            if name in jobs:
                job = {"priority": priority, "os_env": False, **jobs[name]}
                if name in lines:
                    job |= {"cmd": lines[name], "args": None}
                add_ini_job(document, f"{session}:{name}", ini_settings(job), job["env"])
    except ValueError as error:
        raise UsageError(str(error), hint="use --format=json") from None
    text = io.StringIO()
    document.write(text)
    return text.getvalue()
