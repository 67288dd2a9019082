"""The lookup protocol as lookupd speaks it: one message of a peer in, one reply out."""

import logging

from gaffer.messages import (
    Drain,
    Identify,
    Leave,
    MessageError,
    Ok,
    Ping,
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
from msgspec import Struct

from gaffer_lookupd.errors import Refused
from gaffer_lookupd.registry import Registry

logger = logging.getLogger(__name__)


class Answer(Struct, frozen=True):
    """A reply to send, and the sessions to close after that."""

    text: bytes
    close: list[int] = []


def answer(registry: Registry, session: int, text: str | bytes, now: float) -> Answer:
    """Take in one message of the session's peer at the time `now`, whatever it is."""
    registry.heard(session, now)
    try:
        request = decode_request(text)
    except MessageError as error:
        logger.info("session %d: %s", session, error.message)
        return Answer(encode(error.to_reply()))
    try:
        return _accept(registry, session, request, now)
    except Refused as error:
        logger.info("session %d: %s refused: %s", session, type(request).__name__, error.reason)
        return Answer(encode(Refusal(error.errno, error.reason, request.msgid)))


def _accept(registry: Registry, session: int, request: Request, now: float) -> Answer:
    match request:
        case Identify():
            return _identify(registry, session, request, now)
        case Ping():
            return _ping(registry, session, request)
        case Leave():
            registry.leave(session, now)
            return Answer(encode(Ok(True, request.msgid)), [session])
    node, tables = registry.identified(session), registry.tables
    match request:
        case RegisterJob():
            tables.register_job(node, request.job_name, request.seq)
        case UnregisterJob():
            tables.unregister_job(node, request.job_name, request.seq)
        case RegisterProcess() | UpdateProcess():
            tables.put_process(node, request.job_name, request.process, request.seq)
        case UnregisterProcess():
            tables.drop_process(node, request.job_name, request.pid, request.seq)
        case Snapshot():
            tables.replace(node, request.seq, request.jobs, request.draining)
        case Drain():
            tables.set_draining(node, True)
    return Answer(encode(Ok(True, request.msgid, node.resync)))


def _identify(registry: Registry, session: int, request: Identify, now: float) -> Answer:
    outcome = registry.identify(session, request, now)
    for other in outcome.conflicts:
        logger.warning(
            "two connected nodes have the name %s: %s at %s and %s at %s; give each host a name of its own",
            request.name,
            request.id,
            request.origin,
            other.id,
            other.origin,
        )
    if request.id is None:
        return Answer(encode(Ok(True, request.msgid)), outcome.close)
    lease = registry.lease
    welcome = Welcome(True, request.msgid, lease.ttl, lease.interval, registry.epoch, registry.reconnect_window)
    return Answer(encode(welcome), outcome.close)


def _ping(registry: Registry, session: int, request: Ping) -> Answer:
    node = registry.node_of(session)
    if node is None:
        return Answer(encode(Ok(True, request.msgid)))
    registry.tables.check_seq(node, request.seq)
    return Answer(encode(Ok(True, request.msgid, node.resync)))
