"""`gaffer context` and `gaffer config`: sets of settings, and where each setting comes from."""

import sys
from collections.abc import Callable, Mapping

from gaffer.errors import did_you_mean
from gaffer.jobs.names import check_name
from gaffer.runtime.settings import Given, Setting, spell
from gaffer_client.cli.config import CONTEXT, SETTINGS, Context, known_keys
from gaffer_client.cli.errors import Exit, UsageError
from gaffer_client.cli.files import Contexts, config_path
from gaffer_client.cli.output import print_json, printable, table
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.table import Command

_SECRET = "(set)"  # stands for a key


def config(context: Context, args: Arguments) -> int:
    url = context.given(context.program.endpoint)
    rows = []
    for declared in SETTINGS:
        given = context.given(declared, None if url is None else url.text)
        if declared is CONTEXT and given is None and context.contexts.current is not None:
            given = Given("contexts.ini", context.contexts.current)
        value = spell(declared.default) or declared.shown if given is None else given.text
        if given is not None and declared.variable == "GAFFER_API_KEY":
            value = _SECRET
        rows.append((_name(declared), value, "default" if given is None else given.source))
    if context.json:
        print_json({name: {"value": value, "source": source} for name, value, source in rows})
    else:
        print(table(("SETTING", "VALUE", "SOURCE"), [(name, value or "-", source) for name, value, source in rows]))
        print(f"Files: {config_path(context.environ)}, {context.contexts.path}", file=sys.stderr)
    return Exit.OK


def _name(declared: Setting) -> str:
    """Return the key of a setting in the file, or that of a setting that has none there."""
    return declared.keys[0][1] if declared.keys else str(declared.variable).removeprefix("GAFFER_").lower()


def context_(context: Context, args: Arguments) -> int:
    action, name, pairs = args.text("<action>"), args.text("<name>"), args.words("<setting>")
    if action is None:
        return _list(context)
    if action not in _ACTIONS:
        hint = did_you_mean(action, list(_ACTIONS)) or f"use {', '.join(_ACTIONS)}, or no action to list the contexts"
        raise UsageError(f"unknown action {action!r}", hint=hint)
    if name is None and action == "use":
        return _write(context.contexts, None, {})
    if name is None:
        raise UsageError("no context given", hint=f"name one: gaffer context {action} NAME")
    check_name(name, "context")
    if pairs and action != "set":
        raise UsageError(f"{action} takes no settings", hint="change a context with `gaffer context set`")
    return _ACTIONS[action](context, name, pairs)


def _write(contexts: Contexts, current: str | None, changed: Mapping[str, dict[str, str] | None]) -> int:
    """Write the file with another current context; a context that is `changed` to None is left out."""
    named = {**{name: contexts.texts(name) for name in contexts.named}, **changed}
    contexts.write(current, {name: keys for name, keys in named.items() if keys is not None})
    return Exit.OK


def _list(context: Context) -> int:
    contexts = context.contexts
    named = {name: contexts.texts(name) for name in contexts.named}
    if context.json:
        print_json({"current": contexts.current, "contexts": named})
    elif named:
        print(
            table(
                ("CURRENT", "NAME", "NODE", "LOOKUPS"),
                [
                    ("*" if name == contexts.current else "", name, keys.get("endpoint", "-"), keys.get("lookupd", "-"))
                    for name, keys in named.items()
                ],
            )
        )
    else:
        print("There are no contexts; `gaffer context set NAME endpoint=URL` makes one.")
    return Exit.OK


def _show(context: Context, name: str, pairs: list[str]) -> int:
    keys = context.contexts.texts(name)
    if context.json:
        print_json(keys)
    else:
        for key, value in keys.items():
            print(printable(f"{key} = {value}"))
    return Exit.OK


def _use(context: Context, name: str, pairs: list[str]) -> int:
    context.contexts.require(name)
    return _write(context.contexts, name, {})


def _set(context: Context, name: str, pairs: list[str]) -> int:
    known = known_keys("client")
    contexts = context.contexts
    keys = contexts.texts(name) if name in contexts.named else {}
    for pair in pairs:
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not equals:
            raise UsageError(f"{pair!r} is not KEY=VALUE", hint="for example endpoint=https://node1.example.com:5000")
        if key not in known:
            hint = did_you_mean(key, known) or f"known settings: {', '.join(known)}"
            raise UsageError(f"unknown setting {key!r}", hint=hint)
        if not value.isprintable():
            raise UsageError(f"{key}: {value!r} has control characters", hint="give a line of text")
        _check(key, value)
        keys[key] = value
        if not value:
            del keys[key]
    if not keys:
        raise UsageError("no settings given", hint="give KEY=VALUE, or remove the context")
    return _write(contexts, contexts.current, {name: keys})


def _check(key: str, value: str) -> None:
    """Raise UsageError if a value is not valid; keys are checked when they are used, as their files may come later."""
    from gaffer.errors import InvalidValue

    if not value or key.endswith(("_file", "cacert", "certfile", "keyfile")):
        return
    declared = next(each for each in SETTINGS if ("client", key) in each.keys)
    try:
        declared.rule(value)
    except InvalidValue as wrong:
        raise UsageError(f"{key}: {wrong.message}", hint=wrong.hint) from None


def _remove(context: Context, name: str, pairs: list[str]) -> int:
    contexts = context.contexts
    contexts.require(name)
    return _write(contexts, None if contexts.current == name else contexts.current, {name: None})


_ACTIONS: dict[str, Callable[[Context, str, list[str]], int]] = {
    "show": _show,
    "use": _use,
    "set": _set,
    "remove": _remove,
}

COMMANDS = (
    Command(
        "context",
        "Choose among named sets of settings",
        context_,
        "none",
        "[<action>] [<name>] [<setting>...]",
        effect="write",
        details=f"""
            Without <action>, lists the contexts. `set NAME KEY=VALUE...` makes or changes one; an empty value removes a
            setting. `use NAME` makes it the current one, and `use` alone none. `show NAME` and `remove NAME` do as they
            say. {CONTEXT.option.long} and {CONTEXT.variable} choose a context for one command.

            A context has the settings of [client] in ~/.gaffer/gaffer.ini, such as endpoint, lookupd, nodes and
            api_key_file, and takes precedence over them; it is kept in contexts.ini next to that file. Environment
            variables take precedence over the current context, but not over {CONTEXT.option.long}.
        """,
        examples=(
            "context set prod endpoint=https://node1.example.com:5000",
            "context use prod",
            "context",
        ),
        uses=("--json", "--plain"),
    ),
    Command(
        "config",
        "Show the settings in effect and the source of each",
        config,
        "none",
        "[show]",
        effect="read",
        details="""
            The source is a flag, an environment variable, a context, a section of ~/.gaffer/gaffer.ini (or of the file
            that GAFFER_CONFIG names), or the default. Keys themselves are not shown.
        """,
        examples=("config show", "config show --context=prod --json"),
        uses=("--context", "--endpoint", "--lookupd", "--api-key-file", "--cacert", "--insecure", "--json", "--plain"),
    ),
)
