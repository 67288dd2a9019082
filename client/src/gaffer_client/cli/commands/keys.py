"""`gaffer key:create`, `key:list` and `key:revoke`: the API keys of a node."""

import sys
from datetime import datetime

from gaffer.errors import did_you_mean
from gaffer.http.scopes import Scope
from gaffer.runtime.options import Option
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import CommandFailed, Exit, UsageError
from gaffer_client.cli.members import show_plan
from gaffer_client.cli.output import print_json, printable, table
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.table import Command


def create(context: Context, args: Arguments) -> int:
    scopes = _scopes(args)
    with context.server() as server:
        made = server.create_key(scopes, args.words("--session") or None)
    if context.json:
        print_json(made)
        return Exit.OK
    print(printable(made["key"]))
    print(printable(f"its id is {made['id']}; the key is not shown again"), file=sys.stderr)
    return Exit.OK


def _scopes(args: Arguments) -> list[str]:
    """Return the scopes for a key; raise UsageError."""
    scopes = args.words("--scope")
    if not scopes:
        raise UsageError(
            "a key needs at least one scope", hint=f"give --scope: one of {', '.join(Scope)}, and may be repeated"
        )
    for scope in scopes:
        if scope not in list(Scope):
            hint = did_you_mean(scope, list(Scope)) or f"known scopes: {', '.join(Scope)}"
            raise UsageError(f"unknown scope {scope!r}", hint=hint)
    return scopes


def plan(context: Context, args: Arguments, command: Command) -> int:
    """Show what `key:create` or `key:revoke` would do."""
    with context.server() as server:
        if command.name == "key:create":
            of = f" for {', '.join(args.words('--session'))}" if args.words("--session") else ""
            verb = f"create a key with the scopes {', '.join(_scopes(args))}{of}"
        else:
            identifier, keys = args.required("<id>"), server.keys()
            known = [key["id"] for key in keys]
            if identifier not in known:
                raise CommandFailed(
                    f"no key {identifier!r} on {server.url}",
                    hint=did_you_mean(identifier, known) or "run `gaffer key:list` to list the keys",
                    status=Exit.NOT_FOUND,
                )
            verb = f"revoke {identifier}"
        show_plan(context, context.node_name(server), server.url, verb)
    return Exit.OK


def list_(context: Context, args: Arguments) -> int:
    with context.server() as server:
        keys = server.keys()
    if context.json:
        print_json({"keys": keys})
        return Exit.OK
    rows = [
        (
            key["id"],
            " ".join(key["scopes"]),
            "all" if key["sessions"] is None else " ".join(key["sessions"]),
            "" if key["created"] is None else f"{datetime.fromtimestamp(key['created']):%Y-%m-%d %H:%M}",
        )
        for key in keys
    ]
    print(table(("ID", "SCOPES", "SESSIONS", "CREATED"), rows))
    return Exit.OK


def revoke(context: Context, args: Arguments) -> int:
    identifier = args.required("<id>")
    with context.server() as server:
        server.revoke_key(identifier)
    if context.json:
        print_json({"ok": True})
    else:
        print(printable(f"revoked {identifier}"))
    return Exit.OK


COMMANDS = (
    Command(
        "key:create",
        "Create an API key on the node and print it",
        create,
        "node",
        effect="write",
        plan="keys:plan",
        scope="define",
        options=(
            Option("--scope=SCOPE", f"scope of the key: {', '.join(Scope)}; may be repeated", repeat=True),
            Option("--session=SESSION", "limit the key to this session; may be repeated", repeat=True),
        ),
        details="""
            The key is shown only once; the node stores only its hash. A key can't grant more than your own key.
            Keep it in a file that only its owner can read: `(umask 077; gaffer key:create --scope read > api.key)`.
        """,
        examples=("key:create --scope=read", "key:create --scope=control --session=shop"),
    ),
    Command(
        "key:list",
        "List the API keys of the node",
        list_,
        "node",
        effect="read",
        scope="define",
        examples=("key:list",),
    ),
    Command(
        "key:revoke",
        "Revoke an API key of the node",
        revoke,
        "node",
        "<id>",
        effect="destructive",
        plan="keys:plan",
        scope="define",
        details="Connections opened with the key are closed at once, and pages that logged in with it are logged out.",
        examples=("key:revoke 1f3a5c7e",),
    ),
)
