"""Reloads the configuration file of a running node, on SIGHUP and on POST /reload."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import Literal, TypeVar

from gaffer import Manager
from gaffer.applications.http_post import Address
from gaffer.errors import GafferError, ManagerStopping, Problem
from gaffer.http.batches import Batches
from gaffer.runtime.keyfile import read_key_file
from gaffer.schemas.history import Outcome
from gaffer.schemas.reload import FileProblem, ReloadResult, ReloadState, WebhookChange
from gaffer.webhooks import Hook, WebHooks
from gafferd.config.effective import Effective
from gafferd.config.file import Config, InvalidConfig, show_problem
from gafferd.config.file_jobs import Failure, FileJobs
from gafferd.config.on_disk import FileOnDisk
from gafferd.config.reload import Change, outdated_settings
from gafferd.history.recorder import History
from gafferd.plugins.host import Plugins
from gafferd.service import Service
from gafferd.threads import call_in_thread

logger = logging.getLogger(__name__)

READ_TIMEOUT = 30.0  # seconds
_MAX_MESSAGE = 500  # characters of an error in the history
_MAX_NOTED = 100  # jobs of a reload in the history

T = TypeVar("T")


class NoConfigFile(GafferError):
    """A reload of a node that was started without a configuration file."""

    errno = 409
    reason = "no_config_file"

    def __init__(self) -> None:
        super().__init__(
            "gafferd runs without a configuration file", hint="restart it with -c FILE, or load jobs over the API"
        )


class ReadTimeout(GafferError):
    """A configuration file, or a file that it names, that can't be read in time."""

    errno = 503
    reason = "read_timeout"

    def __init__(self) -> None:
        super().__init__(
            f"the configuration could not be read within {READ_TIMEOUT:g} s", hint="check the disk that has its files"
        )


class Reloader:
    """An application that reloads the configuration of its node, one reload at a time.

    `effective` is the configuration at the start, `file` the file, None if there is none. Files are read in a thread.
    `state` has the outcome of the last reload.
    """

    def __init__(
        self,
        effective: Effective,
        file: FileOnDisk | None,
        jobs: FileJobs,
        webhooks: WebHooks,
        plugins: Plugins,
        service: Service,
        history: History,
    ) -> None:
        self._effective = effective
        self._file = file
        self._jobs = jobs
        self._webhooks = webhooks
        self._plugins = plugins
        self._service = service
        self._history = history
        self._batches = Batches()
        self._lock = asyncio.Lock()
        self._reading: asyncio.Future[object] | None = None
        self._requested: asyncio.Task[None] | None = None  # until it begins
        self._begun: asyncio.Task[None] | None = None  # keeps the task alive
        self._stopping: ManagerStopping | None = None
        self._manager: Manager | None = None
        self.state: ReloadState = {
            "path": str(file.path) if file is not None else None,
            "applied_at": time.time() if file is not None else None,
            "error": None,
            "problems": [],
            "failed": [],
            "restart_required": [],
        }

    def start(self, loop: asyncio.AbstractEventLoop, manager: Manager) -> None:
        """Reloads come by `request` and `reload`."""
        self._manager = manager

    def quiesce(self) -> None:
        """Refuse further reloads, and end one that still reads the file."""
        assert self._manager is not None
        self._stopping = self._manager.refusal
        if self._reading is not None and not self._reading.done():
            self._reading.set_exception(self._stopping)

    def request(self) -> None:
        """Reload in a moment, for a signal; one reload serves all requests before it begins. Call it on the loop."""
        if self._requested is None:
            self._requested = asyncio.get_running_loop().create_task(self._reload_by_signal())

    async def _reload_by_signal(self) -> None:
        async with self._lock:
            self._begun, self._requested = self._requested, None
            try:
                result = await self._reload()
            except GafferError as error:  # logged
                self._history.note("reload", caller="signal", outcome="failed", message=error.message[:_MAX_MESSAGE])
            else:
                outcome: Outcome = "failed" if result["failed"] else "ok"
                self._history.note("reload", caller="signal", outcome=outcome, **noted(result))

    async def reload(self, *, dry_run: bool = False) -> ReloadResult:
        """Read the file again and apply the differences from what was applied before; with `dry_run`, only list them.

        Raises InvalidConfig if the file is invalid, KeyFileError for an invalid `webhook_secret_file`, NoConfigFile,
        ReadTimeout and ManagerStopping; nothing is changed then.
        """
        async with self._lock:
            return await (self._preview() if dry_run else self._reload())

    async def _preview(self) -> ReloadResult:
        config = await self._read()
        hooks = self._hook_changes(config)
        return self._result(config, self._jobs.plan(config.jobs), hooks, dry_run=True)

    async def _reload(self) -> ReloadResult:
        self._service.reloading()
        try:
            if self._file is None:
                self._plugins.reload({})  # their directories may have changed
            config = await self._read()
            hooks = self._hook_changes(config)
            await self._in_thread(lambda: self._webhooks.replace_hooks(config.webhooks))
            self._plugins.reload(config.sections)
            changes = self._jobs.plan(config.jobs)
            result = self._result(config, changes, hooks, dry_run=False)
            failures = await self._batches.run(lambda: self._jobs.apply(config.jobs, changes))
        except GafferError as error:
            problems = error.problems if isinstance(error, InvalidConfig) else ()
            self.state |= {"error": error.message, "problems": _problems(problems)}
            _log_error(error)
            raise
        finally:
            if not self._stopping:
                self._service.ready()
        failed = {failure.change for failure in failures}
        result["changes"] = [
            shown for change, shown in zip(changes, result["changes"], strict=True) if change not in failed
        ]
        result["failed"] = [failure.to_dict() for failure in failures]
        self.state |= {
            "applied_at": time.time(),
            "error": None,
            "problems": [],
            "failed": result["failed"],
            "restart_required": result["restart_required"],
        }
        _log(result, config, failures)
        return result

    async def _read(self) -> Config:
        file = self._file
        if file is None:
            raise NoConfigFile

        def read() -> Config:
            config = file.read()
            if secret := config.settings.get("webhook_secret_file"):
                read_key_file(secret)
            return config

        return await self._in_thread(read)

    async def _in_thread(self, function: Callable[[], T]) -> T:
        if self._stopping is not None:
            raise self._stopping
        if self._reading is not None and not self._reading.done():
            raise ReadTimeout  # an earlier one still hangs
        reading = call_in_thread(function)
        self._reading = reading  # type: ignore[assignment]  # futures are invariant
        try:
            return await asyncio.wait_for(asyncio.shield(reading), READ_TIMEOUT)
        except TimeoutError:
            reading.add_done_callback(lambda late: late.exception())  # which nobody waits for
            raise ReadTimeout from None

    def _result(
        self, config: Config, changes: list[Change], hooks: list[WebhookChange], *, dry_run: bool
    ) -> ReloadResult:
        effective = self._effective
        return {
            "dry_run": dry_run,
            "changes": [self._jobs.describe(change, config.jobs) for change in changes],
            "failed": [],
            "webhooks": hooks,
            "restart_required": list(outdated_settings(effective.settings, effective.given, effective.file, config)),
            "warnings": [{"path": each.path, "message": each.message, "hint": each.hint} for each in config.warnings],
        }

    def _hook_changes(self, config: Config) -> list[WebhookChange]:
        before, after = self._webhooks.hooks, config.webhooks

        def changes(action: Literal["add", "remove"], hooks: Iterable[Hook]) -> list[WebhookChange]:
            return [{"event": event, "url": str(Address(url)), "action": action} for event, url in hooks]

        removed = [hook for hook in before if hook not in after]
        added = [hook for hook in dict.fromkeys(after) if hook not in before]
        return [*changes("remove", removed), *changes("add", added)]


def _problems(problems: Iterable[Problem]) -> list[FileProblem]:
    return [{"path": each.path, "message": each.message, "hint": each.hint} for each in problems]


def _log_error(error: GafferError) -> None:
    if isinstance(error, InvalidConfig):
        for warning in error.warnings:
            logger.warning("%s", show_problem(warning))
        problems = "\n".join(map(show_problem, error.problems))
        logger.error("the configuration is invalid, keeping the current one:\n%s", problems)
    elif isinstance(error, NoConfigFile):
        logger.warning("nothing to reload: %s", error.message)
    else:
        logger.error("the configuration was not applied: %s", error.message)


def _log(result: ReloadResult, config: Config, failures: list[Failure]) -> None:
    for warning in config.warnings:
        logger.warning("%s", show_problem(warning))
    for change, error in failures:
        logger.error(
            "reload: %s of %s failed and will be retried at the next reload: %s%s",
            change.action,
            change.job,
            error.message,
            f" ({error.hint})" if error.hint else "",
        )
    if result["restart_required"]:
        names = ", ".join(result["restart_required"])
        logger.warning("settings of the daemon have changed: restart gafferd to apply them: %s", names)
    done = [f"{each['action']} {each['job']}" for each in result["changes"]]
    done += [f"{each['action']} webhook {each['event']} of {each['url']}" for each in result["webhooks"]]
    logger.info("reloaded: %s", ", ".join(done) or "nothing changed")


def noted(result: ReloadResult) -> dict[str, list[str]]:
    """Return the details of a reload for the history: the jobs that changed or failed to, none for a dry run."""
    if result["dry_run"]:
        return {}
    return {
        "jobs": [each["job"] for each in result["changes"]][:_MAX_NOTED],
        "failed": [each["job"] for each in result["failed"]][:_MAX_NOTED],
    }
