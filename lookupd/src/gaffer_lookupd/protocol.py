"""The lookup protocol as lookupd speaks it: one message of a peer in, one reply out."""

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


class Answer(Struct, frozen=True):
    """A reply to send, the sessions to close after that, and what the log should say about the peer.

    `identified` tells that the peer has just identified itself.
    """

    text: bytes
    close: list[int] = []
    complaint: str | None = None
    identified: bool = False


def answer(registry: Registry, session: int, text: str | bytes, now: float) -> Answer:
    """Take in one message of the session's peer at the time `now`, whatever it is."""
    registry.heard(session, now)
    try:
        request = decode_request(text)
    except MessageError as error:
        return Answer(encode(error.to_reply()), complaint=f"{_name(registry, session)} sent {error.message}")
    try:
        return _accept(registry, session, request, now)
    except Refused as error:
        what = f"{_kind(request)} of {_name(registry, session, request)}"
        refusal = Refusal(error.errno, error.reason, request.msgid)
        return Answer(encode(refusal), complaint=f"{what} was refused: {error.reason}")


def _accept(registry: Registry, session: int, request: Request, now: float) -> Answer:
    match request:
        case Identify():
            return _identify(registry, session, request, now)
        case Ping():
            return _ping(registry, session, request)
        case Leave():
            registry.leave(session, now, request.seq)
            return Answer(encode(Ok(True, request.msgid)), [session])
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
    return Answer(encode(Ok(True, request.msgid, node.resync)))


def _by_canonical_name(jobs: dict[str, list[Process]]) -> dict[str, list[Process]]:
    """The processes of each job, where the node may have written names in any form."""
    found: dict[str, list[Process]] = {}
    for name, processes in jobs.items():
        found.setdefault(canonical_job_name(name), []).extend(processes)
    return found


def _identify(registry: Registry, session: int, request: Identify, now: float) -> Answer:
    outcome = registry.identify(session, request, now)
    complaint = None
    if outcome.conflicts:
        others = " and ".join(f"{other['id']} at {other['origin']}" for other in outcome.conflicts)
        complaint = (
            f"two connected nodes have the name {request.name!r}: {request.id} at {request.origin} and {others}; "
            "give each host a name of its own"
        )
    if request.id is None:
        return Answer(encode(Ok(True, request.msgid)), outcome.close, complaint, identified=True)
    lease, window = registry.lease, registry.reconnect_window
    registry.identified(session).told_window = window
    welcome = Welcome(True, request.msgid, lease.ttl, lease.interval, registry.epoch, window)
    return Answer(encode(welcome), outcome.close, complaint, identified=True)


def _ping(registry: Registry, session: int, request: Ping) -> Answer:
    node = registry.node_of(session)
    if node is None or node.identity.id is None:
        return Answer(encode(Ok(True, request.msgid)))
    registry.tables.check_seq(node, request.seq)
    window, told = registry.reconnect_window, node.told_window
    node.told_window = window
    return Answer(encode(Ok(True, request.msgid, node.resync, window if window != told else None)))


def _name(registry: Registry, session: int, request: Request | None = None) -> str:
    """How the log names a peer."""
    node = registry.node_of(session)
    if node is not None:
        return f"node {node.identity.name!r}"
    if isinstance(request, Identify):
        return f"node {request.name!r} at {request.origin!r}"
    return "a node without a name yet"


def _kind(request: Request) -> str:
    return str(request.__struct_config__.tag)
