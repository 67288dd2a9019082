"""A running node: a manager and its applications, assembled from the settings."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from ssl import SSLContext
from typing import Any
from urllib.parse import urlsplit

from gaffer import Manager
from gaffer.console_output import ConsoleOutput, wants_color
from gaffer.errors import ConfigError, GafferError, Problem
from gaffer.http.access import Policy, make_policy
from gaffer.http.limits import Limits
from gaffer.http.server import own_host_names
from gaffer.http_handler import HttpEndpoint, HttpHandler
from gaffer.jobs.names import is_host
from gaffer.jobs.recorder import forget_failures
from gaffer.login.logins import Logins
from gaffer.loop import new_loop, spare_memory
from gaffer.loop import run as run_loop
from gaffer.processes.cgroups import own_cgroup
from gaffer.processes.survivors import Survivor
from gaffer.runtime import startup
from gaffer.runtime.activation import PassedSocket
from gaffer.runtime.daemonize import ProcessTitle
from gaffer.runtime.descriptors import raise_descriptors
from gaffer.runtime.keyfile import MIN_BITS, is_weak, read_key_file
from gaffer.runtime.service_manager import ServiceManager
from gaffer.runtime.sockets import address_of, hostname
from gaffer.sig_handler import SigHandler
from gaffer.webhooks import WebHooks
from gafferd import listening, routes
from gafferd.access.keys import KeyStore
from gafferd.announce.announcer import Announcer
from gafferd.config.effective import Effective
from gafferd.config.file_jobs import FileJobs
from gafferd.config.on_disk import FileOnDisk
from gafferd.config.settings import Settings
from gafferd.drift import Drift
from gafferd.exit_log import ExitLog
from gafferd.history.recorder import History
from gafferd.keeping.kept import KeptProcesses
from gafferd.keeping.link import HANDOVER, KeeperLink
from gafferd.keeping.sockets import KeptSockets
from gafferd.keeping.starting import take_priority
from gafferd.plugins.folder import PluginFolder, plugin_folders
from gafferd.plugins.foreign import contained, run_contained
from gafferd.plugins.host import Plugins
from gafferd.reloader import Reloader
from gafferd.service import Service
from gafferd.sites.files import Sites
from gafferd.sites.layout import settle_sites
from gafferd.state.directory import StateDir
from gafferd.state.durable import DurableJobs
from gafferd.state.identity import Identity
from gafferd.state.lock import StateLock
from gafferd.upgrader import Upgrader
from gafferd.usage.recorder import UsageRecorder
from gafferd.watching import Watching

logger = logging.getLogger(__name__)

# Events shown by -v: each once, under its short name.
_SHOWN_EVENTS = [
    *ConsoleOutput.DEFAULT_ACTIONS,
    "create",
    "update",
    "delete",
    "restart",
    "start_failed",
    "flap",
    "kill",
    "disabled",
    "enabled",
]


@dataclass(frozen=True, kw_only=True)
class Server:
    """A node that is configured but not started.

    `host` is the announced host of the node and its jobs; `verbosity` 1 shows events on the console, 2 also output.
    """

    effective: Effective
    endpoints: Sequence[HttpEndpoint]
    host: str
    policy: Policy
    keys: KeyStore
    cluster_key: str | None
    lookup_tls: SSLContext | None
    plugin_folder: PluginFolder
    verbosity: int = 0

    @property
    def settings(self) -> Settings:
        """The settings of the daemon."""
        return self.effective.settings

    @property
    def limits(self) -> Limits:
        """The limits of the HTTP server."""
        settings = self.settings
        return Limits(
            max_body=settings.max_body,
            max_header=settings.max_header,
            header_timeout=settings.header_timeout,
            body_timeout=settings.body_timeout,
            idle_timeout=settings.idle_timeout,
            max_connections=settings.max_connections,
        )

    def serve(
        self, lock: StateLock, title: ProcessTitle, ready: Callable[[], None], keeper: KeeperLink | None = None
    ) -> int:
        """Run until stopped by a signal or the end of an essential job, whose exit code is returned.

        `lock` is that of the state directory; `ready` is called once the node listens.

        Processes left by an earlier gafferd on the state directory are ended first. Raises GafferError if the node
        can't start.
        """
        raise_descriptors()
        state = StateDir.open(lock.directory, lock)
        kept = KeptProcesses(keeper, state, state.when_stored) if keeper is not None else None
        try:
            survivors = kept.survivors() if kept is not None else []
            records = [each.record for each in survivors]
            os_pids, cookies = [each.os_pid for each in records], {each.cookie for each in records}
            waiting = keeper.beat if keeper is not None else lambda: None
            state.end_leftovers(os_pids, cookies, self.settings.orphans, waiting)
            if keeper is not None:
                take_priority(keeper.pid)
            state.add_lost_exits(only_detached=keeper is not None and keeper.follows_gafferd)
            survivors += [Survivor(each) for each in (*state.detached, *state.orphans)]
            return self._run(state, title, ready, keeper, kept, survivors)
        finally:
            state.close()
            if keeper is not None and kept is not None:
                if not keeper.handing_over or kept.settled():  # otherwise exits that are not stored would be lost
                    kept.close()
                keeper.close()

    def _run(
        self,
        state: StateDir,
        title: ProcessTitle,
        ready: Callable[[], None],
        keeper: KeeperLink | None,
        kept: KeptProcesses | None,
        survivors: Sequence[Survivor],
    ) -> int:
        goes_on = keeper is not None and keeper.follows_gafferd
        loop = new_loop(self.settings.loop)
        spare_memory(loop)
        manager = Manager(
            loop,
            subreaper=True,
            cgroup=own_cgroup(),
            capture_all=True,
            recorder=kept or state,
            survivors=survivors,
            past=state.past if goes_on else {name: forget_failures(each) for name, each in state.past.items()},
            socket_keeper=KeptSockets(keeper) if keeper is not None else None,
            endpoint_host=self.host,
            log_dir=state.path / "logs",
            # Pids start over at each start; the incarnation keeps the marks of two starts distinct.
            node_id=state.node.mark,
        )
        name = self.settings.node_name or hostname()
        announcer = Announcer(
            self.settings.lookupd_address,
            name=name,
            origin=lambda: listening.origin(self.settings, self.host, http.addresses),
            identity=Identity(state.node.secret, state.node.incarnation, state.advance),
            labels=self.settings.labels,
            cluster_key=self.cluster_key,
            ssl=self.lookup_tls,
            held=True,
        )
        # Cookies are shared by all ports of a host, so each node needs its own cookie name.
        logins = Logins(f"gaffer-{state.node.id}")
        services = ServiceManager.take(os.environ)
        service = Service(name, services, title, keeper)
        history = History(state.path / "history.jsonl", announcer.report)
        config, path = self.effective.file, self.effective.path
        webhooks = WebHooks(
            config.webhooks,
            self.settings.webhook_secret_file,
            state.path / "webhooks" if self.settings.webhook_queue == "disk" else None,
        )
        plugins = Plugins(self.plugin_folder, config.sections)
        jobs = FileJobs(manager, config.jobs)
        durable = DurableJobs(manager, state.jobs, lambda: jobs.definitions)
        if kept is not None and self.settings.keep_jobs:
            kept.settled = lambda: durable.settled
        file = FileOnDisk(path, config) if path is not None else None
        reloader = Reloader(self.effective, file, jobs, webhooks, plugins, service, history)
        upgrader = Upgrader(keeper, history)
        usage = UsageRecorder(self.settings.usage_interval) if self.settings.usage_history else None
        http = HttpHandler(
            [*self.endpoints, *self._own_socket(f"unix:{state.socket_path}")],
            access=replace(self.policy, cookie=logins.cookie, resume=logins.resume),
            routes=routes.ROUTES if self.settings.ui else routes.WITHOUT_UI,
            changer=durable if self.settings.keep_jobs else None,
            limits=self.limits,
            keys=self.keys,
            logins=logins,
            plugins=plugins,
            reloader=reloader,
            upgrader=upgrader,
            sites=Sites(self.plugin_folder, os.geteuid(), plugins.packages),
            lookupds=announcer.status,
            webhooks=webhooks.status,
            keeper=lambda: keeper.state if keeper is not None else None,
            lost_history=lambda: history.lost,
            node_name=name,
            history=history,
            usage=usage,
            socket_gid=next(iter(self.settings.socket_group or ()), None),
            socket_store=keeper,
        )
        settle_sites(self.plugin_folder, os.geteuid())
        stderr = sys.stderr  # plugins may replace it
        startup.hold_signals()
        try:
            watching = [Watching()] if self.settings.watch else []
            storing = [durable] if self.settings.keep_jobs else []
            following = [reloader, upgrader, Drift(jobs, file), *([usage] if usage is not None else [])]
            apps = [service, ExitLog(), history, *self._console(), webhooks, *storing, *following, http, announcer]
            manager.start([*([keeper] if keeper is not None else []), *apps, *watching, plugins])
            startup.spare_collector()  # no Popen object exists yet, see Reaper
            if self.settings.keep_jobs:
                durable.restore()
            else:
                jobs.load()
            manager.adopt()
            if survivors:
                logger.info("%d of %d processes of an earlier gafferd are watched again", *_adopted(manager, survivors))
            signals = _Signals(reloader, upgrader, keeper)
            signals.start(loop, manager)
            # After the jobs, so that none of theirs takes the name of one.
            self._await_plugins(manager, plugins, leave=bool(survivors))
            for job in manager.end_unclaimed() if manager.active else ():
                logger.warning("ending the processes of %s, a job that no longer exists", job)
            if manager.active:
                manager.close_unused_sockets()
                for address in http.addresses:
                    print(f"listening on {address}", file=stderr)
                self._warn_when_private()
                stderr.flush()  # `ready` may close it
                ready()
                if keeper is not None:
                    keeper.ready()
                service.ready()
                loop.call_soon(announcer.open)  # clients are sent here only now
            run_contained(manager)
            return HANDOVER if signals.handing_over else manager.exit_code
        finally:
            loop.close()
            services.close()

    def _own_socket(self, uri: str) -> list[HttpEndpoint]:
        """Return the endpoint of the socket in the state directory, unless the service manager opened it."""
        passed = {address_of(sock) for endpoint in self.endpoints for sock in endpoint.sockets}
        return [] if uri in passed else [HttpEndpoint([uri], self.settings.backlog)]

    def _await_plugins(self, manager: Manager, plugins: Plugins, *, leave: bool) -> None:
        """Wait until the plugins have started, or a signal stops the node.

        Raises GafferError if a mandatory one doesn't work; with `leave`, the processes go on then.
        """
        ready = manager.loop.create_task(plugins.ready(self.settings.mandatory))
        ready.add_done_callback(lambda _: manager.loop.stop())
        while manager.started and not ready.done():
            contained(partial(run_loop, manager.loop))
        if manager.active and (missing := ready.result()):
            if leave:
                manager.hand_over()
            else:
                manager.stop()
            run_contained(manager)
            raise GafferError(
                f"the plugin {missing[0]!r}, which is mandatory, is missing or failed",
                hint="see the log; install or mend it, or remove it from mandatory in [gaffer]",
            )

    def _console(self) -> list[ConsoleOutput]:
        if not self.verbosity or self.settings.daemon:
            return []
        return [ConsoleOutput(wants_color(sys.stdout), output_streams=self.verbosity > 1, actions=_SHOWN_EVENTS)]

    def _warn_when_private(self) -> None:
        lookupds = [urlsplit(url).hostname or "" for url in self.settings.lookupd_address]
        if listening.is_private(self.host) and not all(map(listening.is_private, lookupds)):
            logger.warning(
                "this node is announced as %s, which is reachable only from this host: set --broadcast-address",
                self.host,
            )


def make_server(
    effective: Effective,
    home: Path,
    state_path: Path,
    verbosity: int = 0,
    passed: Sequence[PassedSocket] = (),
) -> Server:
    """Return the configured node; `home` is the home directory of the daemon's user.

    The `passed` sockets take the place of the addresses to listen on.

    Raises ConfigError (or another 400) if the settings are invalid or unsafe.
    """
    settings = effective.settings
    file_key = read_key_file(settings.api_key_file) if settings.api_key_file else None
    keys = KeyStore(state_path / "keys.json", file_key)
    chosen = listening.choose_endpoints(settings, effective.file.endpoints, passed)
    endpoints = [endpoint for endpoint, _ in chosen]
    weak_key = file_key is not None and is_weak(file_key)
    dangers = listening.find_dangers(endpoints, has_keys=bool(keys), insecure=settings.insecure, weak_key=weak_key)
    problems = list(dangers)
    if problems:
        raise ConfigError(problems)
    if weak_key:
        logger.warning("the key of --api-key-file has fewer than %d random bits", MIN_BITS)
    host = listening.announced_host(settings, endpoints)
    if settings.lookupd_address and not is_host(host):
        message = f"this node would be announced as {host!r}, which is not a host name or an IP address without scope"
        raise ConfigError([Problem("--broadcast-address", message, "add --broadcast-address http://HOST:PORT")])
    policy = make_policy(
        own_uid=os.geteuid(),
        own_names=[*own_host_names(), *([host] if settings.broadcast_address else [])],
        trust_local=settings.trust_local and not settings.require_key,
        local_uids=settings.local_users,
        socket_gids=settings.socket_group,
        allowed_hosts=settings.allowed_host,
        allowed_origins=settings.allowed_origin,
        verify=keys.verify,
    )
    return Server(
        effective=effective,
        endpoints=[
            HttpEndpoint(
                list(endpoint.bind),
                endpoint.backlog or settings.backlog,
                listening.server_tls(endpoint, settings.client_ca),
                sockets,
            )
            for endpoint, sockets in chosen
        ],
        host=host,
        policy=policy,
        keys=keys,
        cluster_key=read_key_file(settings.cluster_key_file) if settings.cluster_key_file else None,
        lookup_tls=listening.client_tls(settings),
        plugin_folder=PluginFolder(plugin_folders(settings.plugin_dir, home), settings.plugins),
        verbosity=verbosity,
    )


def _adopted(manager: Manager, survivors: Sequence[Survivor]) -> tuple[int, int]:
    """Return how many survivors jobs have adopted, and how many there were."""
    return sum(each.record.pid in manager.running for each in survivors), len(survivors)


class _Signals(SigHandler):
    """Signal handlers: QUIT, TERM and INT stop the node, a second TERM or INT kills its processes, HUP reloads,
    USR1 reopens log files, USR2 hands over to the program on disk.

    Not an application: the handlers stay installed to the end, so that a late signal does not change the exit status.
    """

    REOPEN_SIGNAL = startup.REOPEN_SIGNAL

    def __init__(self, reloader: Reloader, upgrader: Upgrader, keeper: KeeperLink | None) -> None:
        super().__init__()
        self._reloader = reloader
        self._upgrader = upgrader
        self._keeper = keeper
        self._asked = False  # to stop

    def start(self, loop: asyncio.AbstractEventLoop, manager: Manager) -> None:  # type: ignore[override]
        super().start(loop, manager)
        self._catch(signal.SIGUSR2, self.handle_upgrade)

    @property
    def handing_over(self) -> bool:
        """Whether another gafferd continues."""
        return self._keeper is not None and self._keeper.handing_over

    def handle_upgrade(self, handle: object, *args: Any) -> None:
        """Make way for the program on disk."""
        assert self.manager is not None
        if self.manager.active:
            self._upgrader.request()

    def handle_quit(self, handle: object, *args: Any) -> None:
        assert self.manager is not None
        if self.handing_over:  # too late for an orderly stop: the keeper ends the processes
            assert self._keeper is not None
            self._keeper.handing_over = False
            self._keeper.quiesce()
        hurried = args in ((signal.SIGINT,), (signal.SIGTERM,))
        self.manager.stop(now=hurried and self._asked)
        self._asked = self._asked or hurried

    def handle_reopen(self, handle: object, signum: int) -> None:
        assert self.manager is not None
        if self.manager.log_store is not None:
            self.manager.log_store.reopen()
        super().handle_reopen(handle, signum)

    def handle_reload(self, handle: object, *args: Any) -> None:
        self._reloader.request()
