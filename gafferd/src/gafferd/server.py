"""A running node: the manager, its applications, and the jobs of the configuration file."""

import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gaffer import Manager
from gaffer.config import ProcessConfig
from gaffer.errors import ConfigError, GafferError
from gaffer.http.access import Policy, is_loopback, make_policy
from gaffer.http.server import own_host_names
from gaffer.http_handler import HttpEndpoint, HttpHandler
from gaffer.keyfile import read_key_file
from gaffer.loop import new_loop
from gaffer.names import JobName, parse_job_name
from gaffer.sig_handler import SigHandler
from gaffer.util import hostname, parse_ssl_options

from gafferd import listening
from gafferd.announcer import Announcer
from gafferd.config import Config, EndpointConfig, load_config, show_problem
from gafferd.keys import KeyStore
from gafferd.reload import Change, plan
from gafferd.settings import Settings
from gafferd.state import StateDir

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Server:
    """Everything that was decided before the node starts."""

    settings: Settings
    state_path: Path
    endpoints: Sequence[EndpointConfig]
    policy: Policy
    cluster_key: str | None
    config_path: Path | None
    config: Config | None

    def serve(self, ready: Callable[[], None]) -> None:
        """Run until a signal ends it; call `ready` once it listens.

        Ends what an earlier gafferd on the state directory left first. Raises GafferError when it can't start.
        """
        state = StateDir.open(self.state_path)
        try:
            state.end_leftovers()
            self._run(state, ready)
        finally:
            state.close()

    def _run(self, state: StateDir, ready: Callable[[], None]) -> None:
        loop = new_loop(self.settings.loop)
        host = listening.announced_host(self.settings, self.endpoints)
        manager = Manager(
            loop,
            subreaper=True,
            capture_all=True,
            recorder=state,
            endpoint_host=host,
            node_id=state.node.id,
        )
        announcer = self._announcer(state, host, lambda: http.addresses)
        http = self._http(state, announcer)
        jobs = FileJobs(manager, self.config_path, self.config)
        try:
            manager.start([_Signals(jobs), http, announcer])
            jobs.load()
            for address in http.addresses:
                print(f"listening on {address}", file=sys.stderr, flush=True)
            ready()
            manager.run()
        finally:
            loop.close()

    def _http(self, state: StateDir, announcer: Announcer) -> HttpHandler:
        settings = self.settings
        endpoints = [
            HttpEndpoint(
                list(endpoint.bind),
                endpoint.backlog or settings.backlog,
                listening.tls_options(endpoint, settings.client_ca),
            )
            for endpoint in self.endpoints
        ]
        endpoints.append(HttpEndpoint([f"unix:{state.socket_path}"], settings.backlog))
        group = next(iter(settings.socket_group or ()), None)
        return HttpHandler(endpoints, access=self.policy, lookupds=announcer.status, socket_gid=group)

    def _announcer(self, state: StateDir, host: str, addresses: Callable[[], Sequence[str]]) -> Announcer:
        settings = self.settings
        if _is_local(host) and not all(_is_local(urlsplit(url).hostname or "") for url in settings.lookupd_address):
            logger.warning(
                "this node is announced as %s, which only this host can reach: give --broadcast-address", host
            )
        tls = {
            "ca_certs": settings.cacert,
            "client_cert": settings.client_certfile,
            "client_key": settings.client_keyfile,
        }
        secure = any(url.startswith("https:") for url in settings.lookupd_address)
        return Announcer(
            settings.lookupd_address,
            name=settings.node_name or hostname(),
            origin=lambda: listening.origin(settings, host, addresses()),
            node_id=state.node.id,
            incarnation=state.node.incarnation,
            labels=settings.labels,
            cluster_key=self.cluster_key,
            ssl=parse_ssl_options(tls) if secure else None,
        )


def make_server(settings: Settings, state_path: Path, config_path: Path | None, config: Config | None) -> Server:
    """Decide what the node will be. Raises ConfigError (or another 400) for what can't or must not be."""
    keys = KeyStore(
        state_path / "keys.json",
        read_key_file(settings.api_key_file) if settings.api_key_file else None,
    )
    endpoints = listening.choose_endpoints(settings, config.endpoints if config else ())
    problems = list(listening.find_dangers(endpoints, has_keys=bool(keys), insecure=settings.insecure))
    if problems:
        raise ConfigError(problems)
    broadcast = urlsplit(settings.broadcast_address).hostname if settings.broadcast_address else None
    policy = make_policy(
        own_uid=os.geteuid(),
        own_names=[*own_host_names(), *([broadcast] if broadcast else [])],
        trust_local=settings.trust_local and not settings.require_key,
        local_uids=settings.local_users,
        socket_gids=settings.socket_group,
        allowed_hosts=settings.allowed_host,
        allowed_origins=settings.allowed_origin,
        verify=keys.verify,
    )
    return Server(
        settings=settings,
        state_path=state_path,
        endpoints=endpoints,
        policy=policy,
        cluster_key=read_key_file(settings.cluster_key_file) if settings.cluster_key_file else None,
        config_path=config_path,
        config=config,
    )


class FileJobs:
    """The jobs of the configuration file, loaded into a manager and kept as the file says."""

    def __init__(self, manager: Manager, path: Path | None, config: Config | None) -> None:
        self._manager = manager
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


class _Signals(SigHandler):
    """QUIT, TERM and INT stop the node, a second INT hurries; HUP reads the configuration again."""

    def __init__(self, jobs: FileJobs) -> None:
        super().__init__()
        self._jobs = jobs
        self._interrupted = False

    def handle_quit(self, handle: object, *args: Any) -> None:
        assert self.manager is not None
        interrupt = args == (signal.SIGINT,)
        self.manager.stop(now=interrupt and self._interrupted)
        self._interrupted = self._interrupted or interrupt

    def handle_reload(self, handle: object, *args: Any) -> None:
        try:
            changes = self._jobs.reload()
        except ConfigError as error:
            problems = "\n".join(map(show_problem, error.problems))
            logger.error("the configuration is broken, the old one stays:\n%s", problems)
        except GafferError as error:
            logger.error("the configuration was not applied: %s", error.message)
        else:
            logger.info("reloaded: %s", ", ".join(f"{c.action} {c.job}" for c in changes) or "nothing changed")


def _is_local(host: str) -> bool:
    return host == "localhost" or is_loopback(host)
