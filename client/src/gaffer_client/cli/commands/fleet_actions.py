"""`commit`, `send` and `exec` on several nodes."""

import sys
import threading
from collections.abc import Callable

from gaffer.jobs.names import parse_pid
from gaffer_client.cli.commands import history, jobs
from gaffer_client.cli.commands.fleet import Done, Order, Show, carry_out, gather, named_jobs
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import Exit, UsageError
from gaffer_client.cli.members import Target
from gaffer_client.cli.output import Palette, printable, table, warn
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.processes import process_of, split_slot
from gaffer_client.cli.several import chooses_several_nodes
from gaffer_client.cli.table import Command
from gaffer_client.fleet import Member
from gaffer_client.jobs import Job
from gaffer_client.node import Server

_MAX_LINE = 64 * 1024  # bytes of an unfinished line; longer ones are divided


def commit(context: Context, args: Arguments, command: Command) -> int:
    """Run one more process of a job on each node."""
    timeout, env = jobs.commitment(args)

    def act(job: Job, member: Member, show: Show) -> Done:
        pid = job.commit(timeout, env)
        return Done(f"process {pid} runs once", {"pid": pid})

    return carry_out(context, args, command, Order("commit", named_jobs(args), act))


def send(context: Context, args: Arguments, command: Command) -> int:
    """Write a line to the input of a process on each node."""
    word, data = args.required("<process>"), args.required("<data>")
    text = data if args.flag("--no-newline") else f"{data}\n"
    if not chooses_several_nodes(args):
        name, slot = word, None
    elif parse_pid(word.partition(".")[0]) is not None:
        raise UsageError(f"{word} is a process of one node", hint="name a process of each node: JOB, or JOB.SLOT")
    elif data == "-":
        raise UsageError("standard input goes to one process only", hint="use -g NODE to choose one node")
    else:
        name, slot = split_slot(word)

    def act(job: Job, member: Member, show: Show) -> Done:
        from gaffer_client.cli import piping  # imports websockets

        process = process_of(context, job, slot)
        piping.write(process, args.text("--stream"), [text.encode()])
        return Done(f"sent to process {process.pid}", {"pid": process.pid})

    return carry_out(context, args, command, Order("send", [name], act))


def exec_(context: Context, args: Arguments, command: Command) -> int:
    """Run an action of a job on each node, with its output line by line; or list the actions."""
    action, timeout = args.text("<action>"), args.text("--timeout")
    if action is None:
        return _list_actions(context, args)
    palette, lock = Palette(sys.stdout), threading.Lock()

    def act(job: Job, member: Member, show: Show) -> Done:
        output = history.ActionOutput()
        lines = _Lines(lambda line: print_line(member.name, line))

        def write(data: bytes) -> None:
            output.add(data)
            if not context.json:
                lines.feed(data)

        end = job.run_action(action, write, timeout=timeout)
        lines.end()
        if end.lost and not context.json:
            warn(f"{member.name}: {end.lost} bytes of output were lost: they were read too slowly")
        failure = history.failure_of(action, end)
        return Done(f"{action} done in {end.uptime:.1f} s", output.document(end), failure)

    def print_line(node: str, line: bytes) -> None:
        text = line.removesuffix(b"\r").decode(errors="replace")
        with lock:
            print(palette.paint(node, printable(f"{node} | ")) + printable(text), flush=True)

    return carry_out(context, args, command, Order(f"exec {action}", named_jobs(args), act))


def _list_actions(context: Context, args: Arguments) -> int:
    def ask(server: Server, target: Target) -> dict[str, dict[str, str]]:
        return {name: Job(server, name).actions() for name in target.jobs}

    status, found = gather(context, args, named_jobs(args), "actions", ask)
    rows = [
        (target.member.name, job, name, line)
        for target, actions in found
        for job, each in actions.items()
        for name, line in each.items()
    ]
    if rows:
        print(table(("NODE", "JOB", "ACTION", "COMMAND"), sorted(rows)))
    elif status == Exit.OK and not context.json:
        print("No actions.")
    return status


class _Lines:
    """Divides output into lines."""

    def __init__(self, show: Callable[[bytes], object]) -> None:
        self._show = show
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Show the lines that `data` ends."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._show(line)
        if len(self._rest) > _MAX_LINE:
            self.end()

    def end(self) -> None:
        """Show what is left as a line."""
        if self._rest:
            self._show(self._rest)
        self._rest = b""
