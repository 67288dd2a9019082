"""`gaffer send`, `recv` and `attach`: the input and output of a process on a node."""

from gaffer.runtime.options import Option
from gaffer_client.cli.config import Context
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.table import Command


def send(context: Context, args: Arguments) -> int:
    from gaffer_client.cli import piping

    return piping.send(context, args)


def recv(context: Context, args: Arguments) -> int:
    from gaffer_client.cli import piping  # imports websockets

    return piping.recv(context, args)


def attach(context: Context, args: Arguments) -> int:
    from gaffer_client.cli import piping

    return piping.attach(context, args)


_PROCESS_HELP = """<process> is the pid that Gaffer gave it, NAME.SLOT as `ps` shows it, or its job if it has only one
            process; PID.STREAM names one of its streams."""
_USES = ("--procfile", "--directory")
_STREAM = Option("-s STREAM, --stream=STREAM", "the stream (default: standard input, the first output)")
_RAW = Option("--raw", "let the output control the terminal, for colours and the like")
_TAIL = Option("-n N, --tail=N", "begin with the last N lines, or Nb bytes (default: only new output)")

COMMANDS = (
    Command(
        "send",
        "Write to the input of a process",
        send,
        "node",
        "<process> <data>",
        effect="write",
        on_several="fleet_actions:send",
        options=(_STREAM, Option("--no-newline", "do not end <data> with a newline")),
        details=f"""
            {_PROCESS_HELP} <data> is a line of text; - sends standard input up to its end, or on a terminal up to a
            line with a single dot. The job must have `redirect_input`. Each byte is written once, also if gafferd is
            killed or upgraded meanwhile. On several nodes, each process of that name gets the line.
        """,
        examples=("send web.1 reload", "send 12 -", "send 12.control stop"),
        uses=_USES,
    ),
    Command(
        "recv",
        "Follow the output of a process",
        recv,
        "node",
        "<process> [<stream>]",
        effect="read",
        instead="`gaffer logs --follow` shows the output of several",
        options=(_TAIL, _RAW),
        details=f"""
            {_PROCESS_HELP} The stream has to be redirected (`redirect_output`). Prints the output until the process
            ends. On a terminal, characters that could control it are replaced, unless --raw is given. `gaffer logs`
            shows what the log files hold, also of earlier processes. A lost connection is reopened for a minute, and no
            output is lost or repeated.
        """,
        examples=("recv web.1", "recv 12 err --tail=20", "recv 12.out --raw"),
        uses=_USES,
    ),
    Command(
        "attach",
        "Connect this terminal to the input and output of a process",
        attach,
        "node",
        "<process>",
        effect="write",
        options=(_STREAM, _TAIL, _RAW),
        details=f"""
            {_PROCESS_HELP} Lines that are typed are sent to its input, and its output is shown, until it ends. Ctrl-C
            detaches and leaves it running; the end of input (Ctrl-D) ends sending only. On a terminal, characters that
            could control it are replaced, unless --raw is given. A lost connection is reopened for a minute, and
            nothing is lost or repeated in either direction.
        """,
        examples=("attach console.1", "attach 12 --tail=20 --raw"),
        uses=_USES,
    ),
)
