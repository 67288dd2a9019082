"""`gaffer mcp`: the commands of `gaffer` as tools of the Model Context Protocol."""

from gaffer.runtime.options import Option
from gaffer_client.cli.config import CONNECTION_OPTIONS, ENDPOINT, LOOKUPD, Context
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.table import Command

_PASSED_ON = tuple(
    option.long
    for option in (ENDPOINT.option, LOOKUPD.option, *CONNECTION_OPTIONS)
    if option.long not in ("--json", "--plain", "--help")
)
"""The options of the server that its commands get as well: where to connect, and with which key."""


def mcp(context: Context, args: Arguments) -> int:
    from gaffer_client.cli import mcp_tools

    return mcp_tools.mcp(context, args, _PASSED_ON)


COMMANDS = (
    Command(
        "mcp",
        "Offer the commands as tools of the Model Context Protocol",
        mcp,
        "none",
        options=(Option("--allow-writes", "also offer commands that change something"),),
        effect="write",
        details="""
            Serves the Model Context Protocol on standard input and output, for programs such as assistants. Each
            command that asks a node or the lookups is a tool, `lookup:jobs` as lookup_jobs. Without --allow-writes,
            only those that change nothing are offered; with it, tools that stop or remove something are marked as
            destructive.

            The node, the lookups and the key are those of this command: callers can't name others. A read-only API key
            (`gaffer key:create --scope read`) makes sure on the node that nothing is changed.
        """,
        examples=("mcp", "mcp -g https://node1.example.com:5000 --allow-writes"),
        uses=_PASSED_ON,
    ),
)
