"""`gaffer mcp`: the commands of `gaffer` as tools of the Model Context Protocol, made from the command table."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gaffer.runtime.options import Option
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import Exit
from gaffer_client.cli.mcp_server import InvalidArguments, Result, Tool, ToolServer
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.several import OPTIONS as ON_SEVERAL_NODES
from gaffer_client.cli.table import Command, Program

# For terminals; `start` may run an application on this host, which `ps:start` does not; keys are not for assistants.
_NOT_OFFERED = ("top", "attach", "mcp", "start", "key:create")
_FOLLOW = "--follow"  # `seconds` limits what is followed
_MAX_OUTPUT = 256 * 1024  # bytes of standard output, and of standard error
_SECONDS = 60  # a call takes at most this long unless it says so
_MAX_SECONDS = 3600
_POLL_INTERVAL = 0.05
_GRACE = 5.0  # seconds between SIGINT and SIGKILL
_ARGUMENT = re.compile(r"(?P<optional>\[)?<(?P<name>[^>]+)>\]?(?P<dots>\.\.\.)?")
_NODE = r"^[^/:]*$"  # a name or an id: the API key goes to an address that is given

_INSTRUCTIONS = """\
Gaffer supervises processes on nodes (gafferd), and lookups know which node runs which job. A job is SESSION.NAME.
Start with `status` or `ps` for one node, `lookup_nodes` and `lookup_jobs` for the cluster. `why` explains why a job
does not run, `logs` and `exits` show what happened. With `cluster`, `node` or `label` a tool acts on several nodes.
"""


def mcp(context: Context, args: Arguments, passed_on: Sequence[str]) -> int:
    """Serve the tools on standard input and output; their commands get the options `passed_on` as well."""
    allowed = args.flag("--allow-writes")
    given = _given(context.program, args, passed_on)
    offered = [command for command in context.program.commands if _is_offered(command)]
    tools = [_tool(context.program, command, given) for command in offered if allowed or command.effect == "read"]
    reason = "changes something: start `gaffer mcp` with --allow-writes to offer it"
    hidden = {_tool_name(command): f"the tool {_tool_name(command)} {reason}" for command in offered if not allowed}
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # running commands end with the server
    ToolServer(tools, _INSTRUCTIONS, hidden).serve(sys.stdin.buffer, sys.stdout.buffer)
    return Exit.OK


def _is_offered(command: Command) -> bool:
    return command.target != "none" and command.name not in _NOT_OFFERED and not command.passes_on


def _tool_name(command: Command) -> str:
    return command.name.replace(":", "_")


def _tool(program: Program, command: Command, passed_on: Sequence[str]) -> Tool:
    """Return the tool for a command."""
    arguments = list(_ARGUMENT.finditer(command.arguments))
    options = {_property(option): option for option in _options(command)}
    properties: dict[str, Any] = {match["name"]: _argument_schema(match) for match in arguments}
    properties |= {name: _option_schema(option) for name, option in options.items()}
    properties["seconds"] = {
        "type": "number",
        "exclusiveMinimum": 0,
        "maximum": _MAX_SECONDS,
        "description": f"Interrupt it after so many seconds, and return what it printed (default: {_SECONDS}).",
    }
    required = [match["name"] for match in arguments if not match["optional"]]
    description = {
        "name": _tool_name(command),
        "title": command.summary,
        "description": _description(command),
        "inputSchema": {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        },
        "annotations": {
            "title": command.summary,
            "readOnlyHint": command.effect == "read",
            "destructiveHint": command.effect == "destructive",
            "openWorldHint": False,
        },
    }
    prefix = [*passed_on, command.name, *(["--json"] if _prints_json(program, command) else [])]

    def call(given: Mapping[str, Any], cancelled: threading.Event) -> Result:
        _check(properties, required, given)
        words = [word for name, option in options.items() for word in _words(option, given.get(name))]
        positional = [word for match in arguments for word in _list(given.get(match["name"]))]
        limit = float(given.get("seconds", _SECONDS))
        result, interrupted = _run([*prefix, *words, "--", *positional], limit, cancelled)
        return result._replace(failed=result.failed or (interrupted and command.effect != "read"))

    return Tool(description, call)


def _description(command: Command) -> str:
    details = "\n\n".join(" ".join(part.split()) for part in command.details.split("\n\n") if part.strip())
    return f"{command.summary}.\n\n{details}".strip()


def _options(command: Command) -> Iterator[Option]:
    """Yield the options that a caller may set: none for files and addresses, which the user of the server sets."""
    own = [option for option in command.options if option.long != _FOLLOW]
    yield from own
    if command.on_several is not None:
        yield from (option for option in ON_SEVERAL_NODES if all(option.long != each.long for each in own))


def _property(option: Option) -> str:
    return option.long.removeprefix("--").replace("-", "_")


def _argument_schema(match: re.Match[str]) -> dict[str, Any]:
    text: dict[str, Any] = {"type": "string"}
    if match["name"] == "node":
        text |= {"pattern": _NODE, "description": "The name or id of a node."}
    return {"type": "array", "items": text} if match["dots"] else text


def _option_schema(option: Option) -> dict[str, Any]:
    if option.value is None:
        return {"type": "boolean", "description": option.help}
    text: dict[str, Any] = {"type": "string"}
    if option.value == "NODE":
        text["pattern"] = _NODE
    described = f"{option.value}: {option.help}"
    if option.repeat:
        return {"type": "array", "items": text, "description": described}
    return {**text, "description": described}


def _check(properties: Mapping[str, Any], required: Sequence[str], given: Mapping[str, Any]) -> None:
    """Raise InvalidArguments unless the arguments fit the schema."""
    for name in required:
        if name not in given:
            raise InvalidArguments(f"{name} is missing")
    for name, value in given.items():
        schema = properties.get(name)
        if schema is None:
            raise InvalidArguments(f"unknown argument {name}; known: {', '.join(properties)}")
        _check_value(name, schema, value)


def _check_value(name: str, schema: Mapping[str, Any], value: object) -> None:
    match schema["type"]:
        case "boolean":
            valid = isinstance(value, bool)
        case "number":
            valid = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= schema["maximum"]
        case "array":
            valid = isinstance(value, list)
            for item in value if isinstance(value, list) else ():
                _check_value(name, schema["items"], item)
        case _:
            valid = isinstance(value, str) and "\0" not in value
            pattern = schema.get("pattern")
            if isinstance(value, str) and pattern is not None and not re.fullmatch(pattern, value):
                raise InvalidArguments(f"{name}: {value!r} is not a name")
    if not valid:
        raise InvalidArguments(f"{name}: {value!r} is not a valid {schema['type']}")


def _words(option: Option, value: object) -> list[str]:
    if option.value is None:
        return [option.long] if value else []
    return [f"{option.long}={text}" for text in _list(value)]


def _list(value: object) -> list[str]:
    return list(value) if isinstance(value, list) else [] if value is None else [str(value)]


def _given(program: Program, args: Arguments, passed_on: Sequence[str]) -> list[str]:
    """Return the options `passed_on` as they are given, as words of a command line."""
    options = [option for option in program.options if option.long in passed_on]
    return [word for option in options for word in _words(option, args.values.get(option.long) or None)]


def _prints_json(program: Program, command: Command) -> bool:
    return any(option.long == "--json" and command.uses_option(option) for option in program.options)


def _run(words: Sequence[str], seconds: float, cancelled: threading.Event) -> tuple[Result, bool]:
    """Run `gaffer` with these words; return what it printed, and whether it was interrupted.

    It is interrupted after some seconds, when it has printed too much, and when cancelled.
    """
    command = [sys.executable, "-P", "-c", "from gaffer_client.entry import gaffer; gaffer()", *words]
    deadline = time.monotonic() + seconds
    interrupted_at: float | None = None
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)
        try:
            while process.poll() is None:
                now = time.monotonic()
                full = max(os.fstat(out.fileno()).st_size, os.fstat(err.fileno()).st_size) > _MAX_OUTPUT
                if interrupted_at is None and (now >= deadline or full or cancelled.is_set()):
                    interrupted_at = now
                    process.send_signal(signal.SIGINT)
                elif interrupted_at is not None and now - interrupted_at > _GRACE:
                    process.kill()
                cancelled.wait(_POLL_INTERVAL) if not cancelled.is_set() else time.sleep(_POLL_INTERVAL)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        printed, errors = _content(out), _content(err)
    text = "\n".join(filter(None, (printed, errors)))
    if interrupted_at is not None:
        why = f"(interrupted after {seconds:g} s, or more than {_MAX_OUTPUT} bytes of output)"
        return Result(f"{text}\n{why}".lstrip(), failed=False), True
    return Result(text or "done", failed=process.returncode != Exit.OK), False


def _content(file: Any) -> str:
    file.seek(0)
    data: bytes = file.read(_MAX_OUTPUT)
    return data.decode(errors="replace").strip()
