"""`disable` and `enable`: keeping jobs from running for a while."""

import re

from gaffer.errors import InvalidValue
from gaffer.runtime.options import Option
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import UsageError
from gaffer_client.cli.jobnames import for_each_job
from gaffer_client.cli.output import print_json_line, printable
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.table import Command
from gaffer_client.errors import StatusError
from gaffer_client.jobs import Job
from gaffer_client.naming import job_state


def disable(context: Context, args: Arguments) -> int:
    reason, seconds = terms(args)
    duration = args.text("--for")

    def act(job: Job) -> None:
        job.disable(reason, seconds)
        _done(context, f"Disabled {job.name}{f' for {duration}' if duration else ''}")

    return for_each_job(context, args, args.words("<job>"), act)


def terms(args: Arguments) -> tuple[str, float | None]:
    """Return why and for how many seconds to disable a job; raise UsageError."""
    reason = _reason(args.text("--reason"))
    duration = args.text("--for")
    return reason, None if duration is None else _seconds(duration)


def enable(context: Context, args: Arguments) -> int:
    def act(job: Job) -> None:
        job.enable()
        _done(context, f"Enabled {job.name}{'' if context.json else _unless_active(job)}")

    return for_each_job(context, args, args.words("<job>"), act)


def _done(context: Context, text: str) -> None:
    if context.json:
        print_json_line({"ok": True})
    else:
        print(printable(text))


def _unless_active(job: Job) -> str:
    """Return the state of a job that does not run although it is enabled; empty if it does."""
    try:
        info = job.info()
    except StatusError:  # the key lacks the scope `read`, or the job was removed
        return ""
    return "" if info["active"] else f", which is {job_state(info['state'], info['reason'])}"


def _reason(text: str | None) -> str:
    from gaffer.schemas.bodies import REASON  # imports msgspec

    if text is None:
        raise UsageError("no reason given", hint="use --reason to explain it; the state of the job shows it")
    if not re.fullmatch(REASON, text):
        raise UsageError(f"--reason: {text!r} is not a reason", hint="give a line of 1 to 1000 characters")
    return text


def _seconds(text: str) -> float:
    from gaffer.jobs import rules  # slow

    try:
        return rules.positive_seconds(text, True)
    except InvalidValue as wrong:
        raise UsageError(
            f"--for: {wrong.message}", hint=wrong.hint or "use a duration such as 90, 30s, 2h or 1d"
        ) from None


def commands(job_help: str) -> tuple[Command, ...]:
    """Return the commands for a program; `job_help` says which jobs <job> can be."""
    uses = ("--procfile", "--directory")
    return (
        Command(
            "disable",
            "Stop jobs and keep them from running",
            disable,
            "node",
            "<job>...",
            effect="destructive",
            on_several="fleet:disable",
            options=(
                Option("--reason=TEXT", "why, as shown wherever the state of the job is; required"),
                Option("--for=DURATION", "for how long: 90, 30s, 2h, 1d (default: until they are enabled)"),
            ),
            details=f"""
                {job_help} A disabled job has no processes and can't be started or restarted, but can be scaled and
                changed. Runs of its schedule are skipped. It stays disabled when the configuration file is reloaded,
                and when gafferd or the host restarts. Disable it again to change the time or the reason.

                The command returns at once; the processes are stopped gracefully.
            """,
            examples=(
                "disable shop.web --reason='disk is replaced'",
                "disable shop.web shop.worker --for=2h --reason='migration of the database'",
            ),
            uses=uses,
        ),
        Command(
            "enable",
            "Let disabled jobs run again",
            enable,
            "node",
            "<job>...",
            effect="write",
            on_several="fleet:enable",
            details=f"""
                {job_help} A job that was started when it was disabled, or that has been started since, runs again with
                its number of processes; one that was stopped stays stopped.
            """,
            examples=("enable shop.web", "enable shop.web shop.worker"),
            uses=uses,
        ),
    )
