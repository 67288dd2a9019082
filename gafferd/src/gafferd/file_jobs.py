"""Keeps the jobs and webhooks of a node as the configuration file says."""

import logging
from collections.abc import Mapping
from pathlib import Path

from gaffer import Manager
from gaffer.config import ProcessConfig
from gaffer.names import JobName, parse_job_name
from gaffer.webhooks import WebHooks
from gafferd.config import Config, load_config
from gafferd.reload import Change, plan

logger = logging.getLogger(__name__)


class FileJobs:
    """The jobs of the configuration file, loaded into a manager and kept as the file says; its webhooks too."""

    def __init__(self, manager: Manager, webhooks: WebHooks, path: Path | None, config: Config | None) -> None:
        self._manager = manager
        self._webhooks = webhooks
        self._path = path
        self._config = config

    def load(self) -> None:
        """Load and start all jobs in their order."""
        for name, config in self._config.jobs.items() if self._config else ():
            self._manager.load(config, name.session)

    def reload(self) -> list[Change]:
        """Read the file again and apply what changed. Raises ConfigError for a broken file, and changes nothing."""
        if self._path is None or self._config is None:
            return []
        before, after = self._config, load_config(self._path)
        if (before.settings, before.endpoints) != (after.settings, after.endpoints):
            logger.warning("the settings of the daemon itself have changed: they apply when it is started again")
        self._config = after
        self._webhooks.replace_hooks(after.webhooks)
        changes = plan(before.jobs, after.jobs, set(map(parse_job_name, self._manager.jobs())))
        for change in changes:
            self._apply(change, after.jobs)
        return changes

    def _apply(self, change: Change, jobs: Mapping[JobName, ProcessConfig]) -> None:
        name, action = change
        if action == "remove":
            self._manager.unload(name)
            return
        config = jobs[name]
        if action == "add":
            self._manager.load(config, name.session)
        elif action == "scale":
            self._manager.scale(name, f"={config.numprocesses}")
        else:
            self._manager.update(config, name.session)
