"""`gaffer why`: which nodes run a job, and what contradicts that."""

from gaffer_client.cli.config import Context
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.table import Command


def why(context: Context, args: Arguments) -> int:
    from gaffer_client.cli import inquiry  # imports threads and the client of lookups

    return inquiry.why(context, args)


COMMANDS = (
    Command(
        "why",
        "Explain which nodes run a job, given as SESSION.NAME, and report inconsistencies",
        why,
        "lookup",
        "<job>",
        effect="read",
        details="""
            Shows what each lookup reports about the nodes with the job, with the time since it last heard from each
            node (AGE), then what these nodes report themselves. If no lookup knows the job, all nodes are queried; if
            no lookup responds, only the node of --endpoint (default: the node of this host).

            Your API key is sent only to nodes that you list, as `nodes = *.example.com, 10.0.0.0/24` in [client] of
            ~/.gaffer/gaffer.ini or in GAFFER_NODES, and to nodes whose certificate --cacert verifies.

            A list of findings follows: servers that do not respond, lookups that are behind, nodes that are silent or
            draining, nodes that share a name, and nodes that contradict the lookups.

            The exit status is 4 if no node has the job according to the lookups, and 3 if no lookup responds or all
            have just started.
        """,
        examples=("why shop.web", "why shop.web --json"),
        uses=("--endpoint", "--api-key-file", "--insecure"),
    ),
)
