"""The channel: subscriptions and commands as JSON messages over SockJS.

    {"event": "SUB", "data": {"topic": "STREAM:12"}}
    {"event": "CMD", "data": {"identity": "1", "name": "scale", "args": ["shop.web", "+1"], "kwargs": {}}}

Each message is read after the previous one has been answered, and a response waits until the client has received most
of the earlier data, so that nothing accumulates for a client that does not read.
"""

import asyncio
from functools import partial
from typing import Any, NamedTuple

import msgspec

from gaffer.api.dispatcher import Dispatcher, Result
from gaffer.api.node import NodeApplication
from gaffer.api.subscriptions import Subscription
from gaffer.errors import BadRequest, CommandError, GafferError, TopicError
from gaffer.http.access import AUTH, AuthRequired, Scope
from gaffer.http.jsonbody import TooManyValues, check_numbers, check_size
from gaffer.http.routes import DEFERRED
from gaffer.http.sockjs import Connection, ConnectionClosed, SockJS
from gaffer.http.sockjs.connection import GO_AWAY

MAX_SUBSCRIPTIONS = 256  # topics of one client
AUTH_TIMEOUT = 10.0  # seconds within which an unauthenticated client must present a key

_MAX_KEY = 1024  # characters
_AUTH_REQUIRED = 4401  # close code; 4000 to 4999 are free for applications, RFC 6455 section 7.4.2


class Malformed(GafferError):
    """The message is invalid; `reason` is the code that is sent to the client."""

    errno = 400


class TooManySubscriptions(TopicError):
    """The client has reached the maximum number of subscriptions."""

    errno = 429
    reason = "too_many_subscriptions"


class Subscribe(NamedTuple):
    """SUB or UNSUB."""

    topic: str
    wanted: bool


class CommandCall(NamedTuple):
    """CMD. `identity` is returned with the response."""

    identity: str | int
    name: str
    args: Any
    kwargs: Any


def parse(text: str) -> Subscribe | CommandCall | None:
    """Parse a message; None for NOP. Raises Malformed."""
    try:
        check_size(text)
        message = msgspec.json.decode(text)
        check_numbers(text.encode(), message)
    except (BadRequest, msgspec.DecodeError, UnicodeError, RecursionError, TooManyValues):
        raise Malformed(reason="invalid_json") from None
    event = message.get("event") if isinstance(message, dict) else None
    if not isinstance(event, str):
        raise Malformed(reason="event_missing")
    if event == "NOP":
        return None
    data = message.get("data")
    if not isinstance(data, dict):
        raise Malformed(reason="data_missing")
    if event in ("SUB", "UNSUB"):
        topic = data.get("topic")
        if not isinstance(topic, str):
            raise Malformed(reason="topic_missing")
        return Subscribe(topic, event == "SUB")
    if event != "CMD":
        raise Malformed(reason="unknown_cmd")
    name, identity = data.get("name"), data.get("identity")
    if not isinstance(name, str):
        raise Malformed(reason="cmd_name_missing")
    if not isinstance(identity, str | int):
        raise Malformed(reason="cmd_identity_missing")
    return CommandCall(identity, name, data.get("args", []), data.get("kwargs", {}))


class Channel:
    """The service at /channel, with a Client for each connection."""

    def __init__(self, application: NodeApplication) -> None:
        self._application = application
        self._clients: dict[Connection, Client] = {}

    def opened(self, connection: Connection) -> None:
        """Called when a client has connected."""
        self._clients[connection] = Client(self._application, connection)

    async def received(self, connection: Connection, text: str) -> None:
        """Called for a message from a client."""
        await self._clients[connection].handle(text)

    def closed(self, connection: Connection) -> None:
        """Called when a client has disconnected."""
        self._clients.pop(connection).close()


class Client:
    """One client with its subscriptions by topic, and its authentication.

    A client that the handshake did not authenticate must send `AUTH:<key>` as its first message, within AUTH_TIMEOUT.
    If it fails to, it receives an error without details and is disconnected.
    """

    def __init__(self, application: NodeApplication, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        self.finished: asyncio.Future[None] = loop.create_future()
        self._application = application
        self._connection = connection
        self._subscriptions: dict[str, Subscription] = {}
        self._is_first = True
        self._deadline: asyncio.TimerHandle | None = None
        self._refusing: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        if not connection.grant.scopes:
            self._deadline = loop.call_later(AUTH_TIMEOUT, self._auth_timed_out)
        application.feeds.add(self)

    async def handle(self, text: str) -> None:
        """Handle a message and answer it; raises ConnectionClosed."""
        is_first, self._is_first = self._is_first, False
        if is_first and text.startswith(AUTH):
            await self._authenticate(text.removeprefix(AUTH))
            return
        if not self._connection.grant.scopes:
            await self._refuse()
            return
        try:
            request = parse(text)
            if isinstance(request, CommandCall):
                await self._execute(request)
            elif request is not None:
                await (self._subscribe if request.wanted else self._unsubscribe)(request.topic)
        except Malformed as error:
            await self._send("gaffer:error", {"error": "invalid_msg", "reason": error.reason})

    def end(self) -> None:
        """Let the subscriptions send what is pending, then close the connection."""
        self._ending = asyncio.create_task(self._end())

    async def _end(self) -> None:
        subscriptions = list(self._subscriptions.values())
        for subscription in subscriptions:
            subscription.end()
        for subscription in subscriptions:
            await subscription.wait()
        self._connection.close(*self._application.farewell(GO_AWAY))

    def close(self) -> None:
        """Release all resources of a closed connection."""
        if self._deadline is not None:
            self._deadline.cancel()
        for subscription in self._subscriptions.values():
            subscription.close()
        self._subscriptions.clear()
        self._application.feeds.discard(self)
        self.finished.set_result(None)

    # Keys

    async def _authenticate(self, key: str) -> None:
        """Verify a key, or the token for the cookie that the handshake presented."""
        verify = self._connection.grant.elevate or self._application.policy.verify
        grant = verify(key) if len(key) <= _MAX_KEY else None
        if grant is None:
            await self._refuse()
            return
        if self._deadline is not None:
            self._deadline.cancel()
        self._connection.adopt(grant)

    def _auth_timed_out(self) -> None:
        self._refusing = asyncio.create_task(self._refuse())

    async def _refuse(self) -> None:
        error = AuthRequired("the first message must be AUTH:KEY with a valid key")
        self._application.auditor.channel_refused(self._connection.request, error)
        try:
            about = {"error": "AUTH_REQUIRED", "errno": error.errno, "reason": error.message}
            await self._send("gaffer:error", about)
        except ConnectionClosed:
            return
        self._connection.close(_AUTH_REQUIRED, error.reason)

    # Topics

    async def _subscribe(self, topic: str) -> None:
        subscription = self._subscriptions.get(topic)
        if subscription is not None:
            subscription.count += 1
            await self._send("gaffer:subscription_success", {"topic": topic})
            return
        try:
            self._connection.grant.require(Scope.READ)
            if len(self._subscriptions) >= MAX_SUBSCRIPTIONS:
                raise TooManySubscriptions(
                    f"the limit of {MAX_SUBSCRIPTIONS} topics is reached", hint="UNSUB from topics first"
                )
            subscription = Subscription(
                self._application.manager, topic, self._connection.grant, partial(self._send_event, topic)
            )
        except GafferError as error:
            await self._refuse_topic(topic, error)
            return
        self._subscriptions[topic] = subscription
        await self._send("gaffer:subscription_success", {"topic": topic})
        subscription.start(partial(self._subscriptions.pop, topic))

    async def _unsubscribe(self, topic: str) -> None:
        subscription = self._subscriptions.get(topic)
        if subscription is None:
            error = TopicError(f"there is no subscription to {topic!r}", reason="not_subscribed")
            await self._refuse_topic(topic, error)
            return
        subscription.count -= 1
        if not subscription.count:
            del self._subscriptions[topic]
            subscription.close()
        await self._send("gaffer:subscription_success", {"topic": topic})

    async def _refuse_topic(self, topic: str, error: GafferError) -> None:
        # Clients of version 0.5 look for the topic outside the data.
        await self._send("gaffer:subscription_error", {"topic": topic, **_about(error)}, topic=topic)

    async def _send_event(self, topic: str, event: str, message: dict[str, Any]) -> None:
        head = {"event": event, "topic": topic}
        try:
            await self._send("gaffer:event", {**message, **head})
        except (ValueError, RecursionError):  # published by an application, and not representable in JSON
            await self._send("gaffer:event", {**head, "text": ascii(message)})

    # Commands

    async def _execute(self, call: CommandCall) -> None:
        try:
            result = await self._result(call)
        except GafferError as error:
            await self._send("gaffer:command_error", {"id": call.identity, "error": _about(error)})
        else:
            await self._send("gaffer:command_success", {"id": call.identity, "result": result})

    async def _result(self, call: CommandCall) -> Result:
        if not (isinstance(call.args, list) and isinstance(call.kwargs, dict)):
            raise CommandError("args must be a list and kwargs an object")
        application = self._application
        audit = partial(application.auditor.command, self._connection.request)
        dispatcher = Dispatcher(application.manager, self._connection.grant, application.changer, audit)
        return await dispatcher.run(application.batches, call.name, call.args, call.kwargs)

    async def _send(self, event: str, data: dict[str, Any], **more: str) -> None:
        message = {"event": event, "data": data, **more}
        await self._connection.send(msgspec.json.encode(message, enc_hook=repr).decode())


def _about(error: GafferError) -> dict[str, Any]:
    """Return the fields of an error that are sent to clients."""
    return {
        "errno": error.errno,
        "reason": error.reason,
        "message": error.message,
        "path": error.path,
        "hint": error.hint,
    }


CHANNEL = SockJS("/channel", Channel)

ROUTES = CHANNEL.routes(DEFERRED)
