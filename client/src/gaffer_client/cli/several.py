"""The options that choose several nodes."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from gaffer.runtime.options import Option
from gaffer_client.cli.errors import UsageError
from gaffer_client.transport import DEFAULT_TIMEOUT

if TYPE_CHECKING:
    from gaffer_client.cli.parse import Arguments

_MAX_TIMEOUT = 86400.0  # seconds

CLUSTER = Option("--cluster", "act on all nodes that have the job, as the lookups list them")
NODE = Option("--node=NODE", "act on the node with this name or id; may be repeated", repeat=True)
LABEL = Option("--label=KEY=VALUE", "act on the nodes with this label; may be repeated", repeat=True)
YES = Option("--yes", "do not ask before something is stopped on several nodes")
DRY_RUN = Option("--dry-run", "show what would be done, and do nothing")
TIMEOUT = Option("--timeout=SECONDS", f"wait at most SECONDS for the answers of a node (default: {DEFAULT_TIMEOUT:g})")

CHOOSING = (CLUSTER, NODE, LABEL)
OPTIONS = (*CHOOSING, YES, DRY_RUN, TIMEOUT)
"""The options of commands that act on several nodes."""


def chooses_several_nodes(args: "Arguments") -> bool:
    """Return whether the arguments choose nodes of the cluster instead of one node."""
    return args.flag(CLUSTER.long) or any(args.words(name) for name in (NODE.long, LABEL.long, "--spread"))


def answer_timeout(args: "Arguments", options: Iterable[Option]) -> float:
    """Return how long the answers of a node are awaited, in seconds; raise UsageError.

    That is --timeout, unless it is among the `options` of the command, to which it means something else.
    """
    text = None if any(option.long == TIMEOUT.long for option in options) else args.text(TIMEOUT.long)
    if text is None:
        return DEFAULT_TIMEOUT
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= _MAX_TIMEOUT:
        raise UsageError(f"--timeout: {text!r} is not a valid number of seconds", hint="use more than 0 to 86400")
    return value
