"""The commands that the settings of a job name: `before_start`, `after_exit`, `action.NAME`, and probes `exec:CMD`."""

import asyncio
import logging
from collections.abc import Mapping
from functools import partial

from gaffer.errors import BadValue, ProcessError, StartFailed, did_you_mean
from gaffer.jobs.config import JobConfig
from gaffer.jobs.names import JobName
from gaffer.jobs.states import describe_exit
from gaffer.process import Process
from gaffer.supervision.commands import Command, CommandResult, Commands, Outcome, Purpose, TooManyCommands

log = logging.getLogger("gaffer.supervision.commands")

MAX_ACTION_TIMEOUT = 24 * 3600.0
"""Maximum seconds that an action may take."""

_LEAST_AFTER_EXIT = 1.0  # seconds; a graceful_timeout of 0 is about processes
_LINE = 200  # maximum characters of output in the result of a probe


async def before_start(
    commands: Commands,
    config: JobConfig,
    job: JobName,
    *,
    slot: int = 0,
    port: int | None = None,
    env: Mapping[str, str] | None = None,
) -> None:
    """Run the `before_start` of a job, if any, for at most `start_timeout` seconds.

    First waits for the end of an earlier one for the same slot. Raises StartFailed (reason `before_start`) unless it
    exits with 0. If cancelled, stops it, and raises CancelledError once nothing of it is left.
    """
    if config.before_start is None:
        return
    purpose = Purpose.BEFORE_START
    for earlier in commands.find(purpose, job, slot):
        await asyncio.wait([earlier.ended])
    try:
        command = commands.start(
            purpose, config, job, config.before_start, slot=slot, port=port, env=env, timeout=config.start_timeout
        )
    except (StartFailed, TooManyCommands) as error:
        raise StartFailed(error.message, reason=purpose, path=f"$.{purpose}", hint=error.hint) from None
    result = await command.wait()
    if result.outcome is not Outcome.SUCCEEDED:
        raise StartFailed(f"{purpose} {result}", reason=purpose, path=f"$.{purpose}")


def after_exit(
    commands: Commands,
    config: JobConfig,
    job: JobName,
    *,
    pid: int,
    exit_code: int | None,
    term_signal: int | None,
    reason: str,
    slot: int = 0,
    port: int | None = None,
    env: Mapping[str, str] | None = None,
) -> None:
    """Start the `after_exit` of a job, if any, and return at once. Unless cancelled, a failure is logged.

    `pid` (Gaffer's), `exit_code`, `term_signal` and `reason` are those of the process that has exited, and become
    variables of the command. It has `graceful_timeout` seconds, but at least 1.
    """
    if config.after_exit is None:
        return
    variables = {
        **(env or {}),
        "GAFFER_PID": str(pid),
        "GAFFER_EXIT_CODE": "" if exit_code is None else str(exit_code),
        "GAFFER_TERM_SIGNAL": str(term_signal) if term_signal else "",
        "GAFFER_REASON": reason,
    }
    try:
        command = commands.start(
            Purpose.AFTER_EXIT,
            config,
            job,
            config.after_exit,
            slot=slot,
            port=port,
            env=variables,
            timeout=max(config.graceful_timeout, _LEAST_AFTER_EXIT),
        )
    except (StartFailed, TooManyCommands) as error:
        log.warning("%s: %s", job, error.message, extra={"job": job})
        return
    command.ended.add_done_callback(partial(_log_failure, command))


def _log_failure(command: Command, ended: "asyncio.Future[CommandResult]") -> None:
    result = ended.result()
    if result.outcome not in (Outcome.SUCCEEDED, Outcome.CANCELLED):
        log.warning("%s: %s %s", command.job, command.name, result, extra={"job": command.job})


async def probe(commands: Commands, process: Process, command: str, timeout: float) -> str:
    """Run `command` for a running process; return "" if it exits with 0 within `timeout` seconds, else what is wrong.

    When the time is up, or if cancelled, it is killed.
    """
    try:
        running = commands.start(
            Purpose.PROBE,
            process.config,
            process.job,
            command,
            slot=process.slot,
            port=process.port,
            timeout=timeout,
            grace=0,
        )
    except (StartFailed, TooManyCommands) as error:
        return error.message
    result = await running.wait()
    if result.outcome is Outcome.SUCCEEDED:
        return ""
    if result.outcome is Outcome.TIMED_OUT:
        return f"no answer within {timeout:g} s"
    end = describe_exit(result.exit_code, result.term_signal)
    return f"{end}: {result.output.splitlines()[-1][:_LINE]}" if result.output else end


def start_action(
    commands: Commands, config: JobConfig, job: JobName, action: str, timeout: float = MAX_ACTION_TIMEOUT
) -> Command:
    """Start the command `action.ACTION` of a job, and stop it after `timeout` seconds, at most 24 hours.

    Raises ProcessError (404 `action_not_found`), BadValue, TooManyCommands (429), and StartFailed.
    """
    if not 0 < timeout <= MAX_ACTION_TIMEOUT:
        raise BadValue(f"timeout: expected more than 0 s, at most 24 h, got {timeout:g} s", path="$.timeout")
    if action not in config.action:
        known = sorted(config.action)
        listed = f"available actions: {', '.join(known)}" if known else "add action.NAME = COMMAND to the job"
        raise ProcessError(
            404, "action_not_found", f"{job} has no action {action!r}", hint=did_you_mean(action, known) or listed
        )
    return commands.start(Purpose.ACTION, config, job, config.action[action], name=f"action.{action}", timeout=timeout)
