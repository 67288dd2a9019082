"""`exits`, `definitions` and `exec`: how processes ended, earlier definitions, and actions of a job."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gaffer.runtime.options import Option
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import Exit
from gaffer_client.cli.jobnames import chosen_job, suggesting
from gaffer_client.cli.output import (
    OutputWriter,
    ending,
    moment,
    print_error,
    print_json,
    printable,
    signal_name,
    size,
    table,
    table_rows,
    warn,
)
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.table import Command
from gaffer_client.jobs import ActionResult, Job

if TYPE_CHECKING:
    from gaffer.schemas.responses import Definition
    from gaffer.schemas.views import ExitInfo

_MAX_VALUE = 60  # characters of a setting that are shown
_KEPT = 256 * 1024  # bytes of the output of an action in JSON, as many as in the response of the node
_TIMED_OUT = 124  # the exit status of timeout(1)
_MISSING = object()
_EXIT_HEADINGS = ("PID", "SLOT", "EXIT", "REASON", "UPTIME", "MEMORY")


def exits(context: Context, args: Arguments) -> int:
    with context.server() as server:
        job = chosen_job(context, args, server, args.required("<job>"))
        with suggesting(job):
            found = job.exits()
    if context.json:
        print_json({"exits": found})
        return Exit.OK
    if not found:
        print(f"No process of {job.name} has ended.")
        return Exit.OK
    show_exits(args, [((), each) for each in found])
    return Exit.OK


def show_exits(args: Arguments, found: "Sequence[tuple[Sequence[str], ExitInfo]]", origin: Sequence[str] = ()) -> None:
    """Print exits as a table, each with columns that say where it happened, whose headings are `origin`."""
    header = ("WHEN", *origin, *_EXIT_HEADINGS)
    lines = table_rows(header, [_exit_row(where, each) for where, each in found])
    print("".join(f"{line}\n" for line in lines[: len(lines) - len(found)]), end="")  # none if plain
    for line, (_, each) in zip(lines[len(lines) - len(found) :], found, strict=True):
        print(line)
        if args.flag("--verbose"):
            for output in (each["output"] or "").splitlines():
                print(printable(f"    {output}"))


def _exit_row(where: Sequence[str], each: "ExitInfo") -> tuple[object, ...]:
    at, usage = each.get("at"), each.get("rusage")
    return (
        "-" if at is None else moment(at),
        *where,
        each.get("pid", "-"),
        each.get("slot") or "once",
        _status(each),
        each["reason"],
        f"{each['uptime']:.1f} s",
        "-" if usage is None or usage["max_rss"] is None else size(usage["max_rss"]),
    )


def _status(each: "ExitInfo") -> object:
    """Return the exit code or the name of the signal; `unknown`, or `not started`."""
    if each["term_signal"]:
        return signal_name(each["term_signal"])
    if each["exit_code"] is not None:
        return each["exit_code"]
    return "unknown" if each["reason"] == "unknown" else "not started"


def definitions(context: Context, args: Arguments) -> int:
    with context.server() as server:
        job = chosen_job(context, args, server, args.required("<job>"))
        with suggesting(job):
            kept = job.definitions()
    if context.json:
        print_json({"definitions": kept})
    else:
        print(table(("GENERATION", "CHANGES"), _definition_rows(kept)))
    return Exit.OK


def _definition_rows(kept: "list[Definition]") -> Iterator[tuple[object, str]]:
    for index, each in enumerate(kept):
        number = f"{each['generation']} (current)" if index == 0 else str(each["generation"])
        if index + 1 == len(kept):
            yield number, "first definition" if each["generation"] == 1 else "oldest definition kept"
            continue
        for change in list(_changes(kept[index + 1]["config"], each["config"])) or ["no changes"]:
            yield number, change
            number = ""


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Yield what differs between two definitions; of variables only the names, since values may be secret."""
    for key in [*after, *(key for key in before if key not in after)]:
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        if isinstance(old or {}, Mapping) and isinstance(new or {}, Mapping):
            old, new = old or {}, new or {}
            names = {name for name in (*old, *new) if old.get(name, _MISSING) != new.get(name, _MISSING)}
            yield f"{key}: {', '.join(_changed_name(name, old, new) for name in sorted(names))}"
        else:
            yield f"{key}: {_value(old)} -> {_value(new)}"


def _changed_name(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    return f"{name} {'changed' if name in old and name in new else 'added' if name in new else 'removed'}"


def _value(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_VALUE else text[: _MAX_VALUE - 3] + "..."


def exec_(context: Context, args: Arguments) -> int:
    action = args.text("<action>")
    with context.server() as server:
        job = chosen_job(context, args, server, args.required("<job>"))
        with suggesting(job):
            if action is None:
                return _list_actions(context, job)
            return _run_action(context, job, action, args.text("--timeout"), raw=args.flag("--raw"))


def _list_actions(context: Context, job: Job) -> int:
    actions = job.actions()
    if context.json:
        print_json({"actions": actions})
    elif actions:
        print(table(("ACTION", "COMMAND"), sorted(actions.items())))
    else:
        print(f"{job.name} has no actions.")
    return Exit.OK


class ActionOutput:
    """The output of an action as a JSON document has it: the last 256 KiB."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._received = 0

    def add(self, data: bytes) -> None:
        """Keep a piece of output, and give up the oldest one if there is too much."""
        self._received += len(data)
        self._kept += data
        del self._kept[:-_KEPT]

    def document(self, end: ActionResult) -> dict[str, Any]:
        """Return the end of the action, with its output."""
        document = end._asdict()
        omitted = self._received + document.pop("lost") - len(self._kept)
        return {**document, "output": self._kept.decode(errors="replace"), "omitted": omitted}


def failure_of(action: str, end: ActionResult) -> str | None:
    """Return why an action has failed, or None if it has not."""
    if end.outcome == "succeeded":
        return None
    if end.outcome == "timed_out":
        return f"action {action} timed out after {end.uptime:.1f} s"
    if end.outcome == "cancelled":
        return f"action {action} was cancelled: the job was unloaded, or the node was stopped or upgraded"
    return f"action {action} ended with {ending(end.exit_code, end.term_signal)}"


def _run_action(context: Context, job: Job, action: str, timeout: str | None, *, raw: bool) -> int:
    writer, output = OutputWriter(raw=raw), ActionOutput()
    end = job.run_action(action, output.add if context.json else writer.write, timeout=timeout)
    if context.json:
        print_json(output.document(end))
    elif end.lost:
        warn(f"{end.lost} bytes of output were lost: they were read too slowly")
    if end.outcome in ("timed_out", "cancelled"):
        print_error(context.program.name, str(failure_of(action, end)))
    if end.outcome == "timed_out":
        return _TIMED_OUT
    if end.term_signal:
        return 128 + end.term_signal
    return Exit.FAILED if end.exit_code is None else end.exit_code


def commands(job_help: str, verbose: str) -> tuple[Command, ...]:
    """Return the commands for a program; `job_help` says which jobs <job> can be, `verbose` names that option."""
    uses = ("--procfile", "--directory")
    return (
        Command(
            "exits",
            "Show how the last processes of a job ended",
            exits,
            "node",
            "<job>",
            effect="read",
            on_several="fleet_records:exits",
            options=(Option(verbose, "also show the last lines of their output"),),
            details=f"""
                {job_help} Lists the last 20 exits and failed starts, newest first. EXIT is the exit code, the signal,
                `unknown`, or `not started`; MEMORY is the most that the process used at a time. Those of several nodes
                are merged.
            """,
            examples=("exits shop.web", "exits shop.web --verbose"),
            uses=uses,
        ),
        Command(
            "definitions",
            "List the last definitions of a job and their differences",
            definitions,
            "node",
            "<job>",
            effect="read",
            details=f"""
                {job_help} Lists up to 10 definitions, newest first, each with what it changed; use `rollback` to
                return to one. Use --json for all settings.
            """,
            examples=("definitions shop.web", "definitions shop.web --json"),
            uses=uses,
        ),
        Command(
            "exec",
            "Run an action of a job, or list its actions",
            exec_,
            "node",
            "<job> [<action>]",
            effect="write",
            on_several="fleet_actions:exec_",
            options=(
                Option("--timeout=TIME", "stop the action after TIME, such as 90, 5m or 2h (default: 24h)"),
                Option("--raw", "let the output control the terminal, for colours and the like"),
            ),
            details=f"""
                {job_help} An action is a command in the description of the job, `action.NAME = COMMAND`. The node runs
                it as the user, in the directory and with the variables of the job, which need not be running.

                Prints the output of the action; on a terminal, characters that could control it are replaced, unless
                --raw is given. The exit status is that of the action, 128 + N if signal N ended it,
                and 124 if it timed out. Interrupting this command does not stop the action.

                On several nodes, the action runs on all of them at a time, each line has the name of its node, and the
                exit status is 5 if it fails on some of them.
            """,
            examples=("exec shop.web", "exec shop.web migrate", "exec shop.web migrate --timeout=5m"),
            uses=uses,
        ),
    )
