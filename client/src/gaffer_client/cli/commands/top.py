"""`gaffer top`: the jobs of a node or of a cluster, live on a terminal."""

from gaffer.runtime.options import Option
from gaffer_client.cli.config import Context
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.table import Command


def top(context: Context, args: Arguments) -> int:
    from gaffer_client.cli import top

    return top.top(context, args)


def top_of_several(context: Context, args: Arguments, command: Command) -> int:
    """Show the jobs of the chosen nodes."""
    from gaffer_client.cli import top

    return top.top_of_several(context, args)


COMMANDS = (
    Command(
        "top",
        "Show the jobs of a node or of the cluster live",
        top,
        "node",
        options=(
            Option("--interval=SECONDS", "time between two updates (default: 2)"),
            Option("--once", "print the jobs once and exit; needs no terminal"),
        ),
        effect="write",
        on_several="top:top_of_several",
        plan="",
        details="""
            Each job is shown with its state, its running and wanted processes, CPU in percent of a processor, memory in
            percent of that of the machine, restarts, and the uptime of its youngest process.

            Keys: up and down (or k and j), page up, page down, home and end select a job; o changes the order; r
            restarts and s stops the selected job, after a question; l or Enter shows its log; q or Escape quits. On a
            narrow terminal, columns are left out.

            With --json, a JSON document is printed for each update.
        """,
        examples=("top", "top --cluster", "top --node web1 --interval=1", "top --cluster --once"),
    ),
)
