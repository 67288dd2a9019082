"""Where connections wait while strangers hold all that they may: who is served first, and who has to leave."""

import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from gaffer.http.access import ALL_SCOPES, Grant, Peer, PeerKind, make_policy
from gaffer.http.waiting_room import Arrival, WaitingRoom
from support.poll import eventually_async

KEY = b"GET /jobs HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: good\r\n\r\n"


class Room:
    """A waiting room, the ends of its connections by name, and the names in the order they were served."""

    def __init__(self, stack: ExitStack) -> None:
        policy = make_policy(own_uid=0, own_names=[], verify={"good": Grant(ALL_SCOPES)}.get)
        self.has_room = False
        self.served: list[str] = []
        self.ends: dict[str, socket.socket] = {}
        self.room = WaitingRoom(3, policy.shows_key, self._serve, lambda: self.has_room)
        self._stack = stack
        self._names: dict[socket.socket, str] = {}

    def enter(self, name: str, source: str = "a") -> None:
        near, far = map(self._stack.enter_context, socket.socketpair())
        self.ends[name], self._names[near] = far, name
        far.settimeout(5)
        self.room.add(Arrival(near, (name, 1), Peer(PeerKind.REMOTE)), source)

    def _serve(self, arrival: Arrival) -> None:
        self.served.append(self._names[arrival.connection])


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    with ExitStack() as stack:
        room = Room(stack)
        yield room
        room.room.close()


async def test_a_key_is_served_before_others(room: Room) -> None:
    for name in ("silent", "stranger", "owner"):
        room.enter(name)
    room.ends["stranger"].send(KEY.replace(b"good", b"bad"))
    room.ends["owner"].send(KEY)
    await eventually_async(lambda: len(room.served) == 3)
    assert room.served == ["owner", "silent", "stranger"]


async def test_all_are_served_at_once_when_there_is_room(room: Room) -> None:
    for name in ("1", "2", "3"):
        room.enter(name)
    room.has_room = True
    await eventually_async(lambda: room.served)
    assert room.served == ["1", "2", "3"]


async def test_the_source_that_holds_most_has_to_leave(room: Room) -> None:
    for name, source in (("a1", "a"), ("b1", "b"), ("b2", "b"), ("c1", "c")):
        room.enter(name, source)
    assert (len(room.room), room.room.refused) == (3, 1)
    assert room.ends["b1"].recv(1) == b""
    await eventually_async(lambda: len(room.served) == 3)
    assert room.served == ["a1", "b2", "c1"]


async def test_the_source_that_holds_least_is_served_first(room: Room) -> None:
    for name, source in (("a1", "a"), ("a2", "a"), ("b1", "b")):
        room.enter(name, source)
    await eventually_async(lambda: len(room.served) == 3)
    assert room.served == ["b1", "a1", "a2"]


async def test_who_leaves_is_forgotten(room: Room) -> None:
    room.enter("gone")
    room.enter("stays")
    room.ends["gone"].close()
    await eventually_async(lambda: room.served)
    assert room.served == ["stays"]


@pytest.mark.parametrize(
    ("head", "shows"),
    [
        (KEY, True),
        (KEY.replace(b"X-Api-Key:", b"x-api-key:  "), True),
        (b"GET / HTTP/1.1\r\nAuthorization: Bearer good\r\n\r\n", True),
        (b"GET / HTTP/1.1\nauthorization:bearer good\n\n", True),
        (b"GET / HTTP/1.1\r\nCookie: a=b; c=value\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nCookie: a=b; c=old\r\n\r\n", False),
        (b"GET /?X-Api-Key:good HTTP/1.1\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nX-Api-Key: go", False),
        (b"GET / HTTP/1.1\r\nX-Api-Key: \xff\xfe\r\n\r\n", False),
        (b"\x16\x03\x01", False),
        (b"", False),
    ],
)
def test_what_shows_a_key(head: bytes, shows: bool) -> None:
    policy = make_policy(own_uid=0, own_names=[], verify={"good": Grant(ALL_SCOPES)}.get)
    policy = replace(policy, cookie="c", resume={"value": Grant(ALL_SCOPES)}.get)
    assert policy.shows_key(head) is shows
