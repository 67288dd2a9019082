"""Listening sockets that outlive the processes they are passed to, so that no connection is refused between them."""

import asyncio
import contextlib
import errno
import ipaddress
import itertools
import logging
import math
import os
import pwd
import select
import socket
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple, Protocol

from msgspec import Struct

from gaffer.errors import BadRequest, InvalidValue, StartFailed
from gaffer.jobs.listening import SocketSpec, parse_socket
from gaffer.jobs.names import JobName, parse_job_name
from gaffer.processes.connections import seconds_since_use
from gaffer.runtime.accounts import check_gid, check_uid
from gaffer.runtime.sockets import bind_tcp_socket, bind_unix_socket
from gaffer.runtime.throttled import ThrottledWarnings
from gaffer.runtime.trusted_files import UntrustedFile

BACKLOG = 4096
"""The number of connections that may wait on a socket; the kernel limits it to net.core.somaxconn."""

_UNIX_MODE = 0o660
_MIN_INTERVAL, _MAX_INTERVAL = 0.05, 5.0  # seconds between two checks for connections
_PRIVILEGED = 1024  # the first port that any user may bind by default

logger = logging.getLogger(__name__)

Callback = Callable[[], object]


class SocketKeeper(Protocol):
    """Keeps listening sockets open while a manager is replaced by another one, so that connections wait.

    The names of sockets are any text. Calls never fail.
    """

    def take(self) -> list[tuple[str, int]]:
        """Return the names and descriptors of the sockets of an earlier manager, once; the caller owns them."""

    def claim(self, name: str) -> int | None:
        """Return the descriptor of one socket of an earlier manager, before `take`; None if there is none."""

    def keep(self, name: str, descriptor: int) -> None:
        """Keep a duplicate of the descriptor."""

    def drop(self, name: str) -> None:
        """Close the duplicate of this name."""


class JobSockets:
    """The listening sockets of the jobs of a manager. Use it on the loop only, except `is_open` and `addresses`.

    The sockets are blocking, as those of systemd, until a program changes that. All processes that have a socket share
    this flag, so nothing here ever changes it. With a `keeper`, the sockets of an earlier manager are inherited: a job
    that opens the same sockets continues with them.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, keeper: SocketKeeper | None = None) -> None:
        self._loop = loop
        self._keeper = keeper
        self._warnings = ThrottledWarnings()
        self._opened: dict[JobName, list[_Opened]] = {}
        self._kept: dict[JobName, list[_Opened]] = {}  # for processes of earlier definitions
        self._inherited: dict[JobName, list[_Opened]] = {}
        self._settled = False  # what is inherited belongs to jobs that have not opened their sockets yet
        self._watches: dict[JobName, _Watch] = {}
        if keeper is not None:
            self._inherit(keeper)

    def open(
        self,
        job: JobName,
        specs: Sequence[str],
        *,
        uid: int | str | None = None,
        gid: int | str | None = None,
        in_use: Collection[str] = (),
    ) -> list[tuple[str, int]]:
        """Open the sockets of a job; return the name and descriptor of each, in the order of `specs`.

        Sockets that are already open stay open, and those no longer in `specs` are closed, except for tcp sockets
        `in_use` by processes of an earlier definition: while these listen, nobody can open such a socket again. A unix
        socket has mode 0660, belongs to `uid` and `gid` if we are root, and is opened again if its file is gone. Raises
        StartFailed with the reason `socket_failed` or `unknown_user`, and opens none of the missing sockets then.
        """
        wanted = [parse_socket(text) for text in specs]
        owner = _find_owner(uid, gid) if any(spec.path for spec in wanted) else _Owner()
        before = self._opened.get(job, [])
        spare = [*before, *self._kept.pop(job, ()), *self._inherited.pop(job, ())]
        opened = {index: found for index, spec in enumerate(wanted) if (found := _take(spare, spec, owner))}
        self._kept[job] = spare
        self.release(job, in_use)
        missing = [index for index in range(len(wanted)) if index not in opened]
        try:
            for index in missing:
                self._set(job, [*opened.values()])
                opened[index] = self._take_over(wanted[index], owner) or self._bind(
                    wanted[index], owner, f"$.socket[{index}]"
                )
                self._keep(job, opened[index])
        except StartFailed:
            for index in missing:
                if index in opened:
                    self._close(opened.pop(index))
            raise
        finally:
            after = [opened[index] for index in sorted(opened)]
            self._set(job, after)
            if after != before and job in self._watches:
                self._watches[job].attach([each.socket for each in after])
        return [(each.spec.name, each.socket.fileno()) for each in after]

    def release(self, job: JobName, in_use: Collection[str]) -> None:
        """Close the sockets of earlier definitions of a job, except for tcp sockets `in_use`."""
        specs = [parse_socket(text) for text in in_use]
        kept = []
        for each in self._kept.pop(job, ()):
            if not each.spec.path and any(each.fits(spec, each.owner) for spec in specs):
                kept.append(each)
            else:
                self._close(each)
        if kept:
            self._kept[job] = kept

    def is_open(self, job: JobName) -> bool:
        """Return whether any socket of the job is open."""
        return job in self._opened

    def addresses(self, job: JobName) -> list[dict[str, str | int]]:
        """Return where the job listens: `name`, and `address` and `port` or `path`, of each open socket."""
        return [each.describe() for each in self._opened.get(job, ())]

    def close(self, job: JobName) -> None:
        """Close the sockets of a job without processes, and remove its unix sockets."""
        self.stop_awaiting(job)
        self.release(job, ())
        for each in (*self._opened.pop(job, ()), *self._inherited.pop(job, ())):
            self._close(each)

    def close_all(self) -> None:
        """Close the sockets of all jobs; detached processes may still have them open."""
        for job in tuple(self._watches):
            self.stop_awaiting(job)
        for jobs in (self._opened, self._kept):
            for each in itertools.chain.from_iterable(jobs.values()):
                self._close(each, for_all=False)
            jobs.clear()
        for each in itertools.chain.from_iterable(self._inherited.values()):
            each.socket.close()  # this manager has not begun to use them
        self._inherited.clear()

    def close_unused(self, jobs: Collection[JobName]) -> None:
        """Close the inherited sockets of all jobs but `jobs`, which will open theirs."""
        self._settled = True
        for job in self._inherited.keys() - set(jobs):
            self.close(job)

    def awaits_opening(self, job: JobName) -> bool:
        """Return whether sockets of the job are still inherited after `close_unused`."""
        return self._settled and job in self._inherited

    def leave(self) -> None:
        """Close all sockets here, and leave them to their processes and whoever has duplicates of them."""
        for job in tuple(self._watches):
            self.stop_awaiting(job)
        for jobs in (self._opened, self._kept, self._inherited):
            for each in itertools.chain.from_iterable(jobs.values()):
                each.socket.close()
            jobs.clear()

    def await_connection(self, job: JobName, callback: Callback) -> None:
        """Call `callback` once, when a client waits to be accepted at a socket of the job; that may be now.

        Sockets that are opened later count as well. Replaces what was awaited before.
        """
        self._watch(job, _ConnectionWatch(self._loop, self._ending(job, callback)))

    def await_idle(self, job: JobName, timeout: float, callback: Callback) -> None:
        """Call `callback` once, when no client has been connected to a socket of the job for `timeout` seconds.

        Connections are looked for every quarter of the timeout, at least every 5 s, and the callback may be that late.
        See `seconds_since_use` for what is seen of shorter ones. Sockets that are opened later count as well. Replaces
        what was awaited before.
        """
        self._watch(job, _IdleWatch(self._loop, timeout, self._ending(job, callback), self._warnings))

    def stop_awaiting(self, job: JobName) -> None:
        """Forget the callback of the job, if there is one."""
        if watch := self._watches.pop(job, None):
            watch.close()

    def _set(self, job: JobName, opened: "list[_Opened]") -> None:
        if opened:
            self._opened[job] = opened
        else:
            self._opened.pop(job, None)

    def _watch(self, job: JobName, watch: "_Watch") -> None:
        self.stop_awaiting(job)
        self._watches[job] = watch
        watch.attach([each.socket for each in self._opened.get(job, ())])

    def _ending(self, job: JobName, callback: Callback) -> Callback:
        def end() -> None:
            self.stop_awaiting(job)
            callback()

        return end

    def _inherit(self, keeper: SocketKeeper) -> None:
        for name, descriptor in keeper.take():
            found = _restore(name, descriptor)
            if found is None:
                keeper.drop(name)
                os.close(descriptor)
            else:
                self._inherited.setdefault(found[0], []).append(found[1])

    def _keep(self, job: JobName, opened: "_Opened") -> None:
        if self._keeper is not None:
            if opened.kept_as:
                self._keeper.drop(opened.kept_as)
            opened.kept_as = f"{job}:{opened.label}"
            self._keeper.keep(opened.kept_as, opened.socket.fileno())

    def _close(self, opened: "_Opened", *, for_all: bool = True) -> None:
        """Close a socket; `for_all`: also for processes that may still have it."""
        if self._keeper is not None and opened.kept_as:
            self._keeper.drop(opened.kept_as)
            if for_all:
                # The keeper may be slow; until it has closed its duplicate, the address would remain in use.
                with contextlib.suppress(OSError):
                    opened.socket.shutdown(socket.SHUT_RDWR)
        opened.close()

    def _take_over(self, spec: SocketSpec, owner: "_Owner") -> "_Opened | None":
        """Return the inherited socket of another job that `spec` describes, and close those that are in the way."""
        for job, inherited in tuple(self._inherited.items()):
            for each in inherited:
                if not each.overlaps(spec):
                    continue
                inherited.remove(each)
                if not inherited:
                    del self._inherited[job]
                if each.fits(spec, owner):
                    each.spec = spec
                    return each
                self._close(each)
                return self._take_over(spec, owner)
        return None

    def _bind(self, spec: SocketSpec, owner: "_Owner", path: str) -> "_Opened":
        try:
            if spec.path:
                sock = bind_unix_socket(spec.path, BACKLOG, mode=_UNIX_MODE, uid=owner.uid, gid=owner.gid)
                opened = _Opened(spec, sock, owner=owner, file=_identify(spec.path))
            else:
                sock = _bind_tcp(spec)
                opened = _Opened(spec, sock, sock.getsockname())
        except (OSError, UntrustedFile) as error:
            why, hint = self._explain(error, spec)
            message = f"can't open the socket {spec}: {why}"
            raise StartFailed(message, reason="socket_failed", path=path, hint=hint) from None
        opened.socket.setblocking(True)
        return opened

    def _explain(self, error: OSError | UntrustedFile, spec: SocketSpec) -> tuple[str, str | None]:
        """Return why `spec` can't be bound, and what to do about it."""
        if isinstance(error, UntrustedFile):
            return error.message, error.hint
        folder, reason = os.path.dirname(spec.path), error.strerror or str(error)
        match error.errno:
            case errno.EADDRINUSE if holder := self._find_holder(spec):
                return f"the job {holder} has it open", f"use another address, or unload {holder}"
            case errno.EADDRINUSE if not spec.path:
                return "another program listens on it", "use another port, or stop that program (see `ss -ltnp`)"
            case errno.EADDRINUSE:
                return "another program listens on it", "use another path, or stop that program (see `ss -lxp`)"
            case errno.EEXIST:
                return reason, "use another path, or remove what is there"
            case errno.ENOENT | errno.ENOTDIR if spec.path:
                return f"there is no directory {folder}", "create it"
            case errno.EACCES | errno.EPERM if spec.path:
                return reason, f"let the user of the manager write to {folder}"
            case errno.EACCES | errno.EPERM if spec.port < _PRIVILEGED:
                hint = f"use a port from {_PRIVILEGED} on, or give the manager the capability CAP_NET_BIND_SERVICE"
                return reason, hint
            case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT | socket.EAI_NONAME if not spec.path:
                return "this host has no such address", "use an address that `ip address` lists, or *"
            case _:
                return reason, None

    def _find_holder(self, spec: SocketSpec) -> JobName | None:
        known = (*self._opened.items(), *self._kept.items())
        return next((job for job, opened in known if any(each.overlaps(spec) for each in opened)), None)


class _Owner(NamedTuple):
    """The user and group that own a unix socket; None: ours."""

    uid: int | None = None
    gid: int | None = None


class _File(NamedTuple):
    """The identity of a file."""

    device: int
    inode: int


class _Opened(Struct, eq=False):
    """An open socket; `address` is that of a tcp socket, `file` identifies the file of a unix one."""

    spec: SocketSpec
    socket: socket.socket
    address: tuple[Any, ...] = ()
    owner: _Owner = _Owner()
    file: _File | None = None
    kept_as: str = ""  # its name in the keeper

    @property
    def label(self) -> str:
        """A text that tells the socket from the others of its job, and from which `_restore` makes it again."""
        if self.file is None:
            return f"{self.spec.name if self.spec.port == 0 else ''}={self.spec}|{self.address[1]:x}"
        numbers = (*self.file, *self.owner)
        return "|".join((f"={self.spec}", *("" if number is None else f"{number:x}" for number in numbers)))

    def fits(self, spec: SocketSpec, owner: _Owner) -> bool:
        """Return whether this is the socket that `spec` describes; the name matters if the system chose its port."""
        if spec.path:
            return self.spec.path == spec.path and self.owner == owner and self.file == _identify(spec.path)
        same = (self.spec.path, self.spec.host, self.spec.port) == ("", spec.host, spec.port)
        return same and (spec.port > 0 or self.spec.name == spec.name)

    def overlaps(self, spec: SocketSpec) -> bool:
        """Return whether this socket and one for `spec` exclude each other."""
        if spec.path or self.spec.path:
            return self.file is not None and self.file == _identify(spec.path)
        hosts = {self.spec.host, spec.host}
        shared = len(hosts) == 1 or any(not host or ipaddress.ip_address(host).is_unspecified for host in hosts)
        return shared and self.address[1] == spec.port

    def describe(self) -> dict[str, str | int]:
        """Return the name and the address."""
        if self.spec.path:
            return {"name": self.spec.name, "path": self.spec.path}
        address, port = self.address[:2]
        return {"name": self.spec.name, "address": address, "port": port}

    def close(self) -> None:
        """Close the socket, and remove its file unless it has been replaced."""
        if self.file is not None and self.file == _identify(self.spec.path):
            try:
                os.unlink(self.spec.path)
            except OSError as error:
                logger.warning("can't remove the socket %s: %s", self.spec.path, error.strerror)
        self.socket.close()


def _restore(name: str, descriptor: int) -> tuple[JobName, _Opened] | None:
    """Return the job and the socket that an earlier manager kept under `name`; None if it can't be used any more.

    The descriptor belongs to the socket then.
    """
    try:
        job, spec, numbers = _parse_kept(name)
        sock = socket.socket(fileno=descriptor)
    except (BadRequest, InvalidValue, OSError, ValueError):
        return None
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.detach()
        return None
    if not spec.path:
        return job, _Opened(spec, sock, sock.getsockname(), kept_as=name)
    device, inode, uid, gid = numbers
    return job, _Opened(spec, sock, owner=_Owner(uid, gid), file=_File(device, inode), kept_as=name)


def _parse_kept(name: str) -> tuple[JobName, SocketSpec, list[Any]]:
    """Return the job, and what its label contains; raises BadRequest, InvalidValue and ValueError."""
    job, _, label = name.partition(":")
    unix = label.startswith("=unix:")
    text, *numbers = label.rsplit("|", 4 if unix else 1)
    if len(numbers) != (4 if unix else 1):
        raise ValueError(f"incomplete: {label}")
    return (
        parse_job_name(job),
        parse_socket(text.removeprefix("=")),
        [int(number, 16) if number else None for number in numbers],
    )


def _take(spare: list[_Opened], spec: SocketSpec, owner: _Owner) -> _Opened | None:
    """Move the socket for `spec` out of `spare` and give it the name in `spec`; None if it isn't there."""
    for position, opened in enumerate(spare):
        if opened.fits(spec, owner):
            opened.spec = spec
            return spare.pop(position)
    return None


def _identify(path: str) -> _File | None:
    """Return the identity of the file at `path`; None if there is none."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return _File(status.st_dev, status.st_ino)


def _find_owner(uid: int | str | None, gid: int | str | None) -> _Owner:
    if os.geteuid() != 0:
        return _Owner()  # only root can give files away
    try:
        user = None if uid is None else check_uid(uid)
        group = None if gid is None else check_gid(gid)
    except ValueError as error:
        raise StartFailed(str(error), reason="unknown_user", path="$.uid") from None
    if user is not None and group is None:
        group = pwd.getpwuid(user).pw_gid
    return _Owner(user, group)


def _bind_tcp(spec: SocketSpec) -> socket.socket:
    if spec.host:
        # A number: nothing is looked up.
        found = socket.getaddrinfo(spec.host, spec.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        family, _, _, _, address = found[0]
        return bind_tcp_socket(family, address, BACKLOG)
    try:
        return bind_tcp_socket(socket.AF_INET6, ("::", spec.port), BACKLOG, dual_stack=True)
    except OSError as error:
        if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise
    return bind_tcp_socket(socket.AF_INET, ("0.0.0.0", spec.port), BACKLOG)


class _Watch(Protocol):
    def attach(self, sockets: Sequence[socket.socket]) -> None:
        """Watch these sockets, and no others."""

    def close(self) -> None:
        """End the watch."""


class _ConnectionWatch:
    """Calls `callback` when a client waits at one of the sockets, once a socket until `renew`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callback) -> None:
        self._loop = loop
        self._callback = callback
        self._sockets: Sequence[socket.socket] = ()
        self._epoll: select.epoll | None = None

    def attach(self, sockets: Sequence[socket.socket]) -> None:
        self.close()
        self._sockets = sockets
        # The loop must not watch the sockets themselves: libuv makes them non-blocking, for the programs too.
        self._epoll = select.epoll()
        for each in sockets:
            self._epoll.register(each, select.EPOLLIN | select.EPOLLONESHOT)
        self._loop.add_reader(self._epoll.fileno(), self._report)

    def renew(self) -> None:
        assert self._epoll is not None
        for each in self._sockets:
            self._epoll.modify(each, select.EPOLLIN | select.EPOLLONESHOT)

    def close(self) -> None:
        if self._epoll is not None:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None

    def _report(self) -> None:
        # Empty if a process was faster.
        if self._epoll is not None and self._epoll.poll(0):
            self._callback()


class _IdleWatch:
    """Calls `callback` when no client has been connected to the sockets for `timeout` seconds.

    Short connections can be missed by the checks in between. The watch for arrivals sees many of those, at the cost of
    one turn of the loop between two checks.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, timeout: float, callback: Callback, warnings: ThrottledWarnings
    ) -> None:
        self._loop = loop
        self._timeout = timeout
        self._interval = min(max(timeout / 4, _MIN_INTERVAL), _MAX_INTERVAL)
        self._callback = callback
        self._warnings = warnings
        self._sockets: Sequence[socket.socket] = ()
        self._last_use = loop.time()
        self._is_used = False  # by a connection that may be open still
        self._arrivals = _ConnectionWatch(loop, self._record_arrival)
        self._timer: asyncio.TimerHandle | None = None

    def attach(self, sockets: Sequence[socket.socket]) -> None:
        self.close()
        self._sockets = sockets
        self._arrivals.attach(sockets)
        self._schedule()

    def close(self) -> None:
        self._arrivals.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _record_arrival(self) -> None:
        self._is_used = True

    def _schedule(self) -> None:
        remaining = self._last_use + self._timeout - self._loop.time()
        self._timer = self._loop.call_later(min(self._interval, max(remaining, 0.001)), self._check)

    def _check(self) -> None:
        now = self._loop.time()
        was_used, since = self._is_used, self._seconds_since_use(now)
        self._is_used = since == 0
        self._last_use = now if was_used or self._is_used else max(self._last_use, now - since)
        if now - self._last_use >= self._timeout:
            self._callback()
            return
        self._arrivals.renew()
        self._schedule()

    def _seconds_since_use(self, now: float) -> float:
        shortest = math.inf
        try:
            for each in self._sockets:
                shortest = min(shortest, seconds_since_use(each, self._interval))
                if shortest <= self._interval:
                    break
        except OSError as error:
            self._warnings.warn(f"can't look for the connections of jobs, which are never idle then: {error}", now)
            return 0.0
        return shortest
