"""The lookupd server: a registry, its endpoints, and its access policy."""

import hashlib
import logging
import os
import resource
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast, get_args
from urllib.parse import urlsplit

from gaffer.http.access import ALL_SCOPES, Grant, Scope, make_policy
from gaffer.http.authority import is_loopback
from gaffer.http.limits import Limits
from gaffer.http.server import HttpEndpoint, Listeners, own_host_names
from gaffer.login.logins import Logins
from gaffer.runtime.descriptors import raise_descriptors
from gaffer.runtime.keyfile import MIN_BITS, is_weak
from gaffer.schemas.lookup import NodeEvent, NodeMessage
from gaffer_lookupd.application import LookupApplication
from gaffer_lookupd.changes import Change, ChangeLog
from gaffer_lookupd.channel import CHANNEL
from gaffer_lookupd.config import Settings
from gaffer_lookupd.connections import Connections
from gaffer_lookupd.handlers import make_routes
from gaffer_lookupd.readers import Readers
from gaffer_lookupd.registry import Registry

logger = logging.getLogger(__name__)

_OWN_DESCRIPTORS = 64  # for endpoints, log, loop and temporary files
_UNLIMITED = 1_000_000
# Low enough that connected nodes are served while all others reconnect.
_ACCEPTS_PER_SECOND = 1000

# The share of connections for readers of long-running responses and unidentified peers; the rest is for nodes.
_READERS_SHARE = 1 / 4

_CLUSTER_KEY = Grant(ALL_SCOPES)
_READER_KEY = Grant(frozenset((Scope.READ,)))


class LookupServer:
    """A server of a new, empty registry, on the `passed` sockets if there are any, instead of its own.

    Raises GafferError for an invalid allowed host or origin.
    """

    def __init__(self, settings: Settings, passed: Sequence[socket.socket] = ()) -> None:
        self._settings = settings
        self._changes = changes = _LoggedChanges(warming=settings.lease.warmup > 0)
        self._registry = registry = Registry(
            settings.lease, epoch=secrets.token_hex(8), changes=changes, now=time.monotonic()
        )
        limits = _limits()
        readers = Readers(max(1, int((limits.max_connections or 0) * _READERS_SHARE)))
        self._connections = Connections(registry, changes, readers)
        logins = Logins(_cookie(settings.bind))
        policy = make_policy(
            own_uid=os.getuid(),
            own_names=own_host_names(),
            trust_local=not settings.require_key,
            allowed_hosts=settings.allowed_host,
            allowed_origins=settings.allowed_origin,
            anonymous=() if settings.require_key else (Scope.READ,),
            verify=self._verify,
        )
        application = LookupApplication(
            make_routes(ui=settings.ui),
            replace(policy, cookie=logins.cookie, resume=logins.resume),
            self._connections,
            changes,
            readers=readers,
            logins=logins,
            verify_node=None if settings.cluster_key is None else self._is_cluster_key,
        )
        endpoint = HttpEndpoint(settings.bind, settings.backlog, settings.tls, passed)
        self._application = application
        self._listeners = Listeners(application, [endpoint], limits=limits)

    @property
    def addresses(self) -> list[str]:
        """The URLs it serves, once started."""
        return self._listeners.addresses

    @property
    def status(self) -> str:
        """The number of its nodes, and of those that are not heard, such as `12 nodes, 1 suspect`."""
        statuses = [node.status for node in self._registry.nodes]
        silent = statuses.count("suspect")
        return f"{len(statuses)} node{'' if len(statuses) == 1 else 's'}{f', {silent} suspect' if silent else ''}"

    def start(self, changed: Callable[[], None]) -> None:
        """Start listening, on the running loop; `changed` is called when `status` may have changed.

        Raises GafferError if an address or a certificate can't be used.
        """
        self._changes.node_changed = changed
        self._listeners.start()
        self._connections.start()
        if self._settings.cluster_key is None and any(_is_reachable(url) for url in self.addresses):
            logger.warning(
                "anyone who can reach %s can announce jobs here: set --cluster-key-file on this lookupd and its nodes",
                ", ".join(self.addresses),
            )
        if self._settings.cluster_key is not None and is_weak(self._settings.cluster_key):
            logger.warning("the cluster key has fewer than %d random bits", MIN_BITS)

    async def stop(self) -> None:
        """Stop listening and close all connections."""
        self._listeners.stop()
        # Followers first, so that they don't see the nodes disconnect.
        self._changes.close()
        CHANNEL.close(self._application)
        self._connections.stop()
        await self._listeners.close_connections()

    def _verify(self, key: str) -> Grant | None:
        if self._is_cluster_key(key):
            return _CLUSTER_KEY
        return _READER_KEY if _is_same(key, self._settings.reader_key) else None

    def _is_cluster_key(self, key: str) -> bool:
        return _is_same(key, self._settings.cluster_key)


def _cookie(addresses: Sequence[str]) -> str:
    """Return the name of the cookie of pages. All ports of a host share cookies, so each lookupd needs its own name."""
    return f"gaffer-lookupd-{hashlib.sha256(' '.join(addresses).encode()).hexdigest()[:16]}"


def _is_same(key: str, expected: str | None) -> bool:
    return expected is not None and secrets.compare_digest(key.encode(), expected.encode())


def _limits() -> Limits:
    """Return limits that leave connections, of which each node holds one, all descriptors but lookupd's own."""
    raise_descriptors()
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = soft == resource.RLIM_INFINITY
    connections = _UNLIMITED if unlimited else max(soft - _OWN_DESCRIPTORS, soft // 2)
    return Limits(max_connections=connections, accepts_per_second=_ACCEPTS_PER_SECOND, max_strangers=None)


def _is_reachable(url: str) -> bool:
    """Return whether other hosts may reach the URL."""
    return not url.startswith("unix:") and not is_loopback(urlsplit(url).hostname or "")


def _ignore() -> None:
    """Do nothing."""


_NODE_EVENTS = frozenset(get_args(NodeEvent))


class _LoggedChanges(ChangeLog):
    """A change log that also logs nodes that connect, become suspect or are removed."""

    def __init__(self, *, warming: bool) -> None:
        super().__init__(warming=warming)
        self.node_changed: Callable[[], None] = _ignore
        self._logged: dict[tuple[str | None, str | None, str | None], str] = {}

    def publish(self, change: Change) -> None:
        super().publish(change)
        if change.message["event"] in _NODE_EVENTS:
            self.node_changed()
            node = cast(NodeMessage, change.message)
            if node["name"] is not None:
                self._log(node)

    def _log(self, node: NodeMessage) -> None:
        key = node["id"], node["name"], node["origin"]
        if node["event"] == "remove_node":
            outcome = f"removed ({node['reason']})"
            self._logged.pop(key, None)
        else:
            outcome = "connected" if node["event"] == "identify" else f"is {node['status']}"
            if self._logged.get(key) == outcome:
                return
            self._logged[key] = outcome
        logger.info("node %r at %r %s", node["name"], node["origin"], outcome)
