"""`gaffer doctor`: checks whether a node and the lookups can be reached and work, and says what to do."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from gaffer.http.authority import is_loopback
from gaffer.runtime.version import __version__
from gaffer.schemas.lookup import LookupHealth
from gaffer_client.cli.config import LOOKUPD, Context
from gaffer_client.cli.diagnosis import hint_at
from gaffer_client.cli.errors import CommandFailed, Exit
from gaffer_client.cli.findings import Finding
from gaffer_client.cli.host_checks import check_host
from gaffer_client.cli.members import Choice, Target, ask_each
from gaffer_client.cli.output import age, coloured, print_json, printable
from gaffer_client.cli.parse import Arguments
from gaffer_client.errors import Forbidden, GafferClientError, Unauthorized
from gaffer_client.merge import SUSPECT
from gaffer_client.naming import display_name
from gaffer_client.node import Server
from gaffer_client.sockets import open_socket, translated_errors
from gaffer_client.transport import Transport

if TYPE_CHECKING:
    from gaffer_client.documents import HealthInfo
    from gaffer_client.lookup import Lookup

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red", "skip": "cyan"}
_MAX_HEAD = 64 * 1024  # bytes
_CLOCK_WARN, _CLOCK_FAIL = 2.0, 300.0  # seconds; the header Date has whole ones
_TIMEOUT = 5.0  # seconds for an answer
_NO_LOOKUP = "check that gaffer_lookupd is running, and -L or GAFFER_LOOKUPD"


class _Checked(NamedTuple):
    """The findings about a node or a lookup, by its name; empty for those about the client."""

    about: str
    findings: list[Finding]


def doctor(context: Context, args: Arguments) -> int:
    """Check the chosen node, and the lookups."""
    checked = [_Checked("", list(_check_key(context)))]
    context.limit(_TIMEOUT)
    health: HealthInfo | None = None
    try:
        with context.server() as server:
            findings, health = _check_node(server)
            checked.append(_Checked(server.url, findings))
    except (GafferClientError, CommandFailed) as error:
        checked.append(_Checked("node", [Finding("settings", "fail", error.message, error.hint)]))
    checked += _check_lookups(context, announced=health is None or bool(health["lookupds"]))
    return _show(context, checked)


def doctor_of_several(context: Context, args: Arguments) -> int:
    """Check the chosen nodes, and the lookups."""
    checked = [_Checked("", list(_check_key(context)))]
    context.limit(_TIMEOUT)
    with context.lookup() as lookup:
        targets = [Target(member, ()) for member in Choice(context, args, lookup).members()]

        def ask(server: Server, target: Target) -> list[Finding]:
            return _check_node(server)[0]

        found: dict[str, list[Finding]] = {}
        for target, outcome in ask_each(context, lookup, targets, ask, total=4 * context.timeout):
            if isinstance(outcome, GafferClientError | CommandFailed):
                outcome = [Finding("reach", "fail", outcome.message, outcome.hint)]
            found[target.member.key] = outcome
        checked += [_Checked(each.member.name, found[each.member.key]) for each in targets if each.member.key in found]
    checked += _check_lookups(context, announced=True)
    return _show(context, checked)


def _check_key(context: Context) -> Iterator[Finding]:
    """Check the settings and the key file."""
    try:
        source = context.key_source()
    except CommandFailed as error:
        yield Finding("settings", "fail", error.message, error.hint)
        return
    if source is None:
        yield Finding("settings", "ok", "no API key is set")
        return
    place, path = source
    if path is not None and os.stat(path).st_mode & 0o077:
        yield Finding("settings", "fail", f"others can read the API key in {path}", f"chmod go-rwx {path}")
    else:
        yield Finding("settings", "ok", f"API key from {place}")


def _check_node(server: Server) -> "tuple[list[Finding], HealthInfo | None]":
    """Return what is found about a node, and its health if it tells."""
    found: list[Finding] = []
    try:
        clock = _clock(server.transport)
        server.ping()
        found.append(Finding("reach", "ok", f"{server.url} answers"))
        found.append(clock)
    except GafferClientError as error:
        hint = error.hint or hint_at(server.url, "node") or "check that gafferd is running, and its address"
        return [Finding("reach", "fail", error.message, hint)], None
    try:
        server.sessions()
        found.append(Finding("access", "ok", "the node lets this user read"))
        health = server.health()
    except (Unauthorized, Forbidden) as error:
        hint = error.hint or "use --api-key-file or GAFFER_API_KEY_FILE to specify a key that the node knows"
        return [*found, Finding("access", "fail", error.message, hint)], None
    except GafferClientError as error:
        return [*found, Finding("access", "fail", error.message, hint_at(server.url, "node") or error.hint)], None
    found += _check_health(health)
    found += check_host(health.get("pid"), same_host=_is_here(server.transport))
    return found, health


def _check_health(health: "HealthInfo") -> Iterator[Finding]:
    yield _version("gafferd", health["version"], f"up {age(health['uptime'] * 1000)}, {health['processes']} processes")
    if health["status"] == "draining":
        yield Finding("service", "warn", "the node is drained: its jobs do not run", "`gaffer undrain` puts it back")
    if health["state_error"]:
        yield Finding("state", "fail", f"changes are refused: {health['state_error']}", "make its disk writable again")
    else:
        yield Finding("state", "ok", "changes of jobs are stored")
    keeper = health.get("keeper")
    if keeper is None:
        hint = "start gafferd with a keeper (keeper = true), so that processes outlive it"
        yield Finding("keeper", "warn", "without a keeper, processes end when gafferd dies", hint)
    elif keeper["error"]:
        yield Finding("keeper", "fail", f"the keeper does not protect the node: {keeper['error']}", "restart gafferd")
    else:
        yield Finding("keeper", "ok", f"process {keeper['pid']} restarts gafferd")
    for link in health["lookupds"]:
        if link["connected"]:
            yield Finding("announces", "ok", f"connected to {link['address']}")
        else:
            why = link["error"] or "connecting"
            hint = "check that this gaffer_lookupd is running, and the cluster key"
            yield Finding("announces", "fail", f"not connected to {link['address']}: {why}", hint)
    for hook in health["webhooks"]:
        if hook["last_error"]:
            hint = f"{hook['pending']} events wait; check the receiver"
            yield Finding("webhooks", "warn", f"{hook['url']}: {hook['last_error']}", hint)


def _check_lookups(context: Context, *, announced: bool) -> Iterator[_Checked]:
    """Check the lookups, unless none are chosen and the node announces itself to none."""
    if not announced and context.given(LOOKUPD) is None:
        yield _Checked(
            "lookups", [Finding("lookups", "skip", "none are chosen, and the node announces itself to none")]
        )
        return
    with context.lookup() as lookup:
        for url in lookup.urls:
            yield _Checked(url, list(_check_lookup(lookup, url)))
        with suppress(GafferClientError):  # reported above
            yield _Checked("cluster", list(_check_cluster(lookup)))


def _check_lookup(lookup: "Lookup", url: str) -> Iterator[Finding]:
    with lookup.transport(url) as transport:
        try:
            clock = _clock(transport)
            health = transport.get("/health", LookupHealth)
        except GafferClientError as error:
            hint = hint_at(url, "lookup") or error.hint or _NO_LOOKUP
            yield Finding("reach", "fail", error.message, hint)
            return
    yield Finding("reach", "ok", f"{url} answers, {health['nodes']} nodes and {health['jobs']} jobs")
    yield clock
    yield _version("gaffer_lookupd", health["version"], f"up {age(health['uptime'] * 1000)}")
    if health["status"] == "warming":
        yield Finding("map", "warn", "it has just started: nodes may be missing", "wait for half a minute")
    elif health["status"] == "stale":
        yield Finding(
            "map", "warn", "most nodes became silent at once", "check its network; `DELETE /nodes/ID` forgets one"
        )


def _check_cluster(lookup: "Lookup") -> Iterator[Finding]:
    nodes = lookup.nodes()["nodes"]
    silent = [display_name(node) for node in nodes if node.get("status") == SUSPECT]
    doubled = sorted({node["name"] for node in nodes if node.get("conflict")})
    if silent:
        yield Finding("nodes", "warn", f"not heard lately: {', '.join(silent)}", "check those nodes")
    if doubled:
        yield Finding("nodes", "warn", f"several nodes have the name {', '.join(doubled)}", "give each its node_name")
    if not silent and not doubled:
        yield Finding("nodes", "ok", f"{len(nodes)} nodes, all heard lately")


def _version(program: str, version: str, more: str) -> Finding:
    text = f"{program} {version}, {more}"
    if version.split(".")[:2] == __version__.split(".")[:2]:
        return Finding("version", "ok", text)
    return Finding("version", "warn", f"{text}; this is gaffer {__version__}", "use the same version on both sides")


def _clock(transport: Transport) -> Finding:
    """Compare the clock of a server with ours, by the header Date of a response; raise Unreachable."""
    request = f"GET /ping HTTP/1.1\r\nHost: {urlsplit(transport.address.base).netloc}\r\nConnection: close\r\n\r\n"
    head = b""
    with open_socket(transport) as sock:
        sock.deadline = time.monotonic() + transport.timeout
        before = time.time()
        with translated_errors(transport.url, transport.timeout):
            sock.sendall(request.encode())
            while b"\r\n\r\n" not in head and len(head) < _MAX_HEAD and (data := sock.recv(4096)):
                head += data
        now = (before + time.time()) / 2
    for line in head.partition(b"\r\n\r\n")[0].split(b"\r\n"):
        name, _, value = line.decode("latin-1").partition(":")
        if name.lower() == "date":
            with suppress(ValueError):
                return _compared(parsedate_to_datetime(value.strip()).timestamp() + 0.5 - now)
    return Finding("clock", "skip", "the server does not tell its time")


def _compared(difference: float) -> Finding:
    ahead = f"{abs(difference):.0f} s {'ahead of' if difference > 0 else 'behind'} this host"
    if abs(difference) <= _CLOCK_WARN:
        return Finding("clock", "ok", "the same time as on this host")
    hint = "synchronize the clocks (NTP): times in logs, --since and certificates are off"
    return Finding("clock", "warn" if abs(difference) <= _CLOCK_FAIL else "fail", f"its clock is {ahead}", hint)


def _is_here(transport: Transport) -> bool:
    """Return whether the server is reached on this host; it may still run in a container."""
    try:
        with open_socket(transport) as sock:
            return transport.address.socket is not None or is_loopback(sock.getpeername()[0])
    except GafferClientError:
        return False


def _show(context: Context, checked: Sequence[_Checked]) -> int:
    """Print the findings; return 1 if there is a failure."""
    findings = [finding for each in checked for finding in each.findings]
    failed = any(finding.verdict == "fail" for finding in findings)
    if context.json:
        listed = [{"about": each.about or None, **finding._asdict()} for each in checked for finding in each.findings]
        print_json({"ok": not failed, "findings": listed})
        return Exit.FAILED if failed else Exit.OK
    width = max(len(finding.check) for finding in findings)
    for each in checked:
        if each.about:
            print(printable(each.about))
        for finding in each.findings:
            word = coloured(f"{finding.verdict:<4}", _COLOURS[finding.verdict], sys.stdout)
            print(f"  {word}  {finding.check:<{width}}  {printable(finding.message)}")
            if finding.hint and finding.verdict != "ok":
                print(f"        {'':<{width}}  {printable(finding.hint)}")
    return Exit.FAILED if failed else Exit.OK
