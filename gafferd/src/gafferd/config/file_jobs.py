"""Applies the jobs and webhooks of the configuration file to a node."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from gaffer import Manager
from gaffer.errors import GafferError
from gaffer.jobs.names import JobName, parse_job_name
from gaffer.process import ProcessConfig
from gaffer.webhooks import WebHooks
from gafferd.config.file import Config, load_config
from gafferd.config.reload import Change, plan, starts

logger = logging.getLogger(__name__)


class Failure(NamedTuple):
    """A change that could not be applied; the next reload retries it."""

    change: Change
    error: GafferError


class Reload(NamedTuple):
    """The result of a reload."""

    applied: list[Change]
    failed: list[Failure]


class FileJobs:
    """The jobs and webhooks of the configuration file, applied to a manager at start and reload."""

    def __init__(self, manager: Manager, webhooks: WebHooks, path: Path | None, config: Config | None) -> None:
        self._manager = manager
        self._webhooks = webhooks
        self._path = path
        self._config = config  # the settings and endpoints of the running daemon
        self._applied: dict[JobName, ProcessConfig] = dict(config.jobs) if config is not None else {}

    @property
    def definitions(self) -> Mapping[JobName, ProcessConfig]:
        """The definitions of its jobs as last applied, in start order."""
        return self._applied

    def load(self) -> None:
        """Load all jobs in start order."""
        for name, config in self._applied.items():
            self._manager.load(config, name.session)

    def reload(self) -> Reload:
        """Read the file again and apply each change; a failed change does not prevent the others.

        Raises ConfigError, and changes nothing, if the file is invalid.
        """
        if self._path is None or self._config is None:
            return Reload([], [])
        file = load_config(self._path)
        if (self._config.settings, self._config.endpoints) != (file.settings, file.endpoints):
            logger.warning("settings of the daemon have changed: restart gafferd to apply them")
        self._webhooks.replace_hooks(file.webhooks)
        before = self._applied
        changes = plan(before, file.jobs, set(map(parse_job_name, self._manager.jobs())))
        pending = {change.job for change in changes}
        self._applied = {name: config for name, config in file.jobs.items() if name not in pending}
        self._applied |= {name: config for name, config in before.items() if name in pending}
        result = Reload([], [])
        for change in changes:
            try:
                self._apply(change, before, file.jobs)
            except GafferError as error:
                result.failed.append(Failure(change, error))
            else:
                result.applied.append(change)
        return result

    def _apply(
        self, change: Change, before: Mapping[JobName, ProcessConfig], after: Mapping[JobName, ProcessConfig]
    ) -> None:
        name, action = change
        if action == "remove":
            self._manager.unload(name)
            del self._applied[name]
            return
        config = after[name]
        if action == "add":
            self._manager.load(config, name.session)
        elif action == "scale":
            self._manager.scale(name, f"={config.numprocesses}")
        else:
            self._manager.update(config, name.session, start=starts(before.get(name), config))
        self._applied[name] = config
