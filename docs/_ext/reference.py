"""Generate parts of pages: replace `<!-- made from: NAME -->` by the Markdown that `PARTS[NAME]` returns.

Build with --fresh-env: Sphinx does not track that a page depends on more than its own text.
"""

import dataclasses
import inspect
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from api_reference import api_reference
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer

from gaffer import __version__, http_handler
from gaffer.http.openapi import make_document
from gaffer.jobs import config, rules, schedule, slot, states
from gaffer.runtime.settings import Setting, settings_of, spell
from gaffer_client.cli import config as tool_config
from gaffer_client.cli.help import command_reference, program_help
from gaffer_client.cli.programs import GAFFER, GAFFERCTL
from gaffer_client.cli.table import Program
from gaffer_lookupd import config as lookupd_config
from gaffer_lookupd import handlers
from gafferd import main as gafferd_main
from gafferd import routes
from gafferd.config import settings

_PLACE = re.compile(r"^<!-- made from: ([a-z-]+) -->$", re.MULTILINE)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def code(text: str) -> str:
    """Return a block of verbatim text."""
    return f"```text\n{text.rstrip()}\n```"


def job_settings() -> str:
    """Return a table of the fields of ProcessConfig, with the rule that validates each."""
    docs = ModuleAnalyzer.for_module(config.__name__).find_attr_docs()
    rows = [
        (
            f"`{field.name}`",
            _sentence("\n".join(docs["JobConfig", field.name])),
            _sentence(inspect.getdoc(field.metadata["rule"]) or ""),
            _UNITS.get(field.metadata["rule"], ""),
            _default(field),
            f"`{field.metadata['example']}`" if field.metadata["example"] is not None else "",
            "yes" if field.metadata["live"] else "",
        )
        for field in dataclasses.fields(config.JobConfig)
    ]
    return table(("setting", "description", "value", "unit", "default", "example", "live"), rows)


_UNITS = {
    rules.seconds: "seconds",
    rules.positive_seconds: "seconds",
    schedule.interval: "seconds",
    rules.size: "bytes",
}


def _sentence(text: str) -> str:
    """Return the first paragraph on one line, without references to rows."""
    return re.sub(r" \([A-Z]+-\d+[^)]*\)", "", " ".join(text.split("\n\n")[0].split()))


def _default(field: "dataclasses.Field[Any]") -> str:
    if field.default_factory is not dataclasses.MISSING:
        return ""
    if field.default is dataclasses.MISSING:
        return "required"
    return "" if field.default in (None, ()) else f"`{_literal(field.default)}`"


def _literal(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _settings(declared: Iterable[Setting], *, file: bool = True) -> str:
    """Return a table of settings; without `file` for a program that reads no file."""
    rows = [
        (
            *([_places("[{}] {}".format(*place) for place in each.keys)] if file else []),
            _places([*each.flags, *filter(None, [each.variable])]),
            each.help,
            each.shown or _places(filter(None, [spell(each.default)])),
        )
        for each in declared
    ]
    return table((*(["in the file"] if file else []), "flag or variable", "description", "default"), rows)


def _places(places: Iterable[str]) -> str:
    return "<br>".join(f"`{place}`" for place in places)


def commands(program: Program) -> str:
    """Return the help of a program and of each of its commands."""
    parts = [code(program_help(program))]
    for command in program.commands:
        parts += [f"### `{program.name} {command.name}`", code(command_reference(program, command))]
    return "\n\n".join(parts)


def transitions() -> str:
    """Return the transitions of a slot, by state."""
    lines = []
    for state in slot.SlotState:
        leaving = [(cue, *to) for (before, cue), to in slot.TRANSITIONS.items() if before is state]
        for number, (cue, after, actions) in enumerate(leaving):
            lines.append(f"{state if number == 0 else '':<10}-- {f'{cue} ':-<9}--> {after:<10}{', '.join(actions)}")
        lines.append("")
    return code("\n".join(line.rstrip() for line in lines))


def phases() -> str:
    """Return a table of the phases of a job and the transitions between them."""
    rows = [
        [f"**{phase}**", *(states.PHASES.get((phase, order), "") for order in states.Order)] for phase in states.Phase
    ]
    return table(["phase", *states.Order], rows)


def role_variables(role: str) -> str:
    """Return a table of the variables of an Ansible role that users set, from its argument specification."""
    path = Path(__file__).parents[2] / "deploy/ansible/roles" / role / "meta/argument_specs.yml"
    options = yaml.safe_load(path.read_text())["argument_specs"]["main"]["options"]
    rows = [
        (
            f"`{name}`",
            option["description"],
            option["type"] if "choices" not in option else _places(option["choices"]).replace("<br>", ", "),
            "required" if option.get("required") else f"`{json.dumps(option['default'])}`",
        )
        for name, option in options.items()
        if not option["description"].endswith("set by the roles gaffer_node and gaffer_lookupd.")
    ]
    return table(("variable", "description", "type", "default"), rows)


PARTS: dict[str, Callable[[], str]] = {
    "node-routes": lambda: api_reference(
        make_document(
            [*http_handler.ROUTES, *routes.ROUTES],
            title="node",
            version=__version__,
        ),
        "node",
    ),
    "lookupd-routes": lambda: api_reference(
        make_document(handlers.make_routes(), title="lookupd", version=__version__), "lookupd"
    ),
    "job-settings": job_settings,
    "daemon-settings": lambda: _settings(settings.SETTINGS.values()),
    "lookupd-settings": lambda: _settings(settings_of(lookupd_config.Settings).values(), file=False),
    "tool-settings": lambda: _settings(tool_config.SETTINGS),
    "gaffer-commands": lambda: commands(GAFFER),
    "gafferctl-commands": lambda: commands(GAFFERCTL),
    "gafferd-usage": lambda: code(gafferd_main.USAGE),
    "lookupd-usage": lambda: code(lookupd_config.USAGE),
    "slot-transitions": transitions,
    "job-phases": phases,
    "ansible-node": lambda: role_variables("gaffer_node"),
    "ansible-lookupd": lambda: role_variables("gaffer_lookupd"),
    "ansible-install": lambda: role_variables("gaffer_install"),
}


def _fill(app: Sphinx, page: str, source: list[str]) -> None:
    source[0] = _PLACE.sub(lambda place: PARTS[place[1]](), source[0])


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("source-read", _fill)
    return {"parallel_read_safe": True}
