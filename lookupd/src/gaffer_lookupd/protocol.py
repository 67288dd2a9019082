"""The lookup protocol on the side of lookupd: one reply to each message of a peer."""

from msgspec import Struct

from gaffer.jobs.names import canonical_job_name
from gaffer.schemas.messages import (
    Drain,
    Identify,
    Leave,
    MessageError,
    Ok,
    Ping,
    Process,
    Refusal,
    RegisterJob,
    RegisterProcess,
    Report,
    Request,
    Snapshot,
    UnregisterJob,
    UnregisterProcess,
    UpdateProcess,
    Welcome,
    decode_request,
    encode,
)
from gaffer_lookupd.errors import Refused
from gaffer_lookupd.registry import Registry


class Response(Struct, frozen=True):
    """A reply to send, the sessions to close after that, and a warning to log about the peer.

    `identified`: the peer has just identified itself.
    """

    text: bytes
    close: list[int] = []
    warning: str | None = None
    identified: bool = False


def handle_message(registry: Registry, session: int, text: str | bytes, now: float) -> Response:
    """Handle any message of the session's peer, received at the time `now`."""
    registry.renew_lease(session, now)
    try:
        request = decode_request(text)
    except MessageError as error:
        return Response(encode(error.to_reply()), warning=f"{_name(registry, session)} sent {error.message}")
    try:
        return _accept(registry, session, request, now)
    except Refused as error:
        subject = f"{_kind(request)} of {_name(registry, session, request)}"
        refusal = Refusal(error.errno, error.reason, request.msgid)
        return Response(encode(refusal), warning=f"{subject} was refused: {error.reason}")


def _accept(registry: Registry, session: int, request: Request, now: float) -> Response:
    match request:
        case Identify():
            return _identify(registry, session, request, now)
        case Ping():
            return _ping(registry, session, request)
        case Leave():
            registry.leave(session, now, request.seq)
            return Response(encode(Ok(True, request.msgid)), [session])
        case Report():
            registry.report(session, request, now)
            return Response(encode(Ok(True, request.msgid)))
    node, tables = registry.identified(session), registry.tables
    match request:
        case RegisterJob():
            tables.register_job(node, canonical_job_name(request.job_name), request.seq)
        case UnregisterJob():
            tables.unregister_job(node, canonical_job_name(request.job_name), request.seq)
        case RegisterProcess() | UpdateProcess():
            tables.put_process(node, canonical_job_name(request.job_name), request.process, request.seq)
        case UnregisterProcess():
            tables.drop_process(node, canonical_job_name(request.job_name), request.pid, request.seq)
        case Snapshot():
            tables.replace(node, request.seq, _by_canonical_name(request.jobs), request.draining)
        case Drain():
            tables.drain(node, request.seq)
    return Response(encode(Ok(True, request.msgid, node.resync)))


def _by_canonical_name(jobs: dict[str, list[Process]]) -> dict[str, list[Process]]:
    """Return the processes by canonical job name; the node may use any form of names."""
    found: dict[str, list[Process]] = {}
    for name, processes in jobs.items():
        found.setdefault(canonical_job_name(name), []).extend(processes)
    return found


def _identify(registry: Registry, session: int, request: Identify, now: float) -> Response:
    outcome = registry.identify(session, request, now)
    warning = None
    if outcome.conflicts:
        others = " and ".join(f"{other['id']} at {other['origin']}" for other in outcome.conflicts)
        warning = (
            f"two connected nodes have the name {request.name!r}: {request.id} at {request.origin} and {others}; "
            "give each host a unique name"
        )
    if request.id is None:
        return Response(encode(Ok(True, request.msgid)), outcome.close, warning, identified=True)
    lease, window = registry.lease, registry.reconnect_window
    registry.identified(session).sent_window = window
    welcome = Welcome(True, request.msgid, lease.ttl, lease.interval, registry.epoch, window, reports=True)
    return Response(encode(welcome), outcome.close, warning, identified=True)


def _ping(registry: Registry, session: int, request: Ping) -> Response:
    node = registry.node_of(session)
    if node is None or node.identity.id is None:
        return Response(encode(Ok(True, request.msgid)))
    registry.tables.check_seq(node, request.seq)
    window, sent = registry.reconnect_window, node.sent_window
    node.sent_window = window
    return Response(encode(Ok(True, request.msgid, node.resync, window if window != sent else None)))


def _name(registry: Registry, session: int, request: Request | None = None) -> str:
    """Return the name of a peer for the log."""
    node = registry.node_of(session)
    if node is not None:
        return f"node {node.identity.name!r}"
    if isinstance(request, Identify):
        return f"node {request.name!r} at {request.origin!r}"
    return "an unidentified node"


def _kind(request: Request) -> str:
    return str(request.__struct_config__.tag)
