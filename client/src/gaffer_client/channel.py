"""`GafferSocket`: topics and commands of a node over one websocket."""

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from itertools import count
from typing import Any

import msgspec

from gaffer_client.connection import PING_INTERVAL, Connection
from gaffer_client.errors import GafferClientError, StatusError, Unreachable, status_error
from gaffer_client.event_socket import EventSocket
from gaffer_client.listeners import Bindable, Listener
from gaffer_client.transport import Transport, holds_environment

END = "end"  # the last event of a topic

_NOT_SUBSCRIBED = "not_subscribed"


class GafferCommand:
    """A command that was sent, such as `scale("shop.web", "+1")`, and its future result."""

    def __init__(self, identity: str, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self.identity = identity
        self.name = name
        self.args = args
        self.kwargs = kwargs
        self._answer: Future[dict[str, Any]] = Future()

    def __repr__(self) -> str:
        given = [*map(repr, self.args), *(f"{name}={value!r}" for name, value in self.kwargs.items())]
        return f"GafferCommand({self.name}({', '.join(given)}))"

    @property
    def done(self) -> bool:
        """Whether the command has a result or has failed."""
        return self._answer.done()

    @property
    def error(self) -> GafferClientError | None:
        """The error of a failed command; None if it succeeded or is pending."""
        error = self._answer.exception() if self.done else None
        return error if isinstance(error, GafferClientError) else None

    def result(self, timeout: float | None = None) -> dict[str, Any]:
        """Wait for the result and return it; raise the StatusError of a failed command.

        Raises Unreachable if the connection was lost and the outcome is unknown, and TimeoutError after `timeout`
        seconds. Do not call it in a listener: the response is processed only after the listener returns.
        """
        return self._answer.result(timeout)

    def add_done_callback(self, callback: Callable[["GafferCommand"], object]) -> None:
        """Call `callback(command)` once the command is done, in the thread of the socket; at once if it is done."""
        self._answer.add_done_callback(lambda _: callback(self))


class Channel(Bindable):
    """A subscribed topic; `ended` is true once the process has ended or the job is gone."""

    def __init__(self, topic: str, unsubscribe: Callable[[str], None]) -> None:
        super().__init__()
        self.topic = topic
        self.ended = False
        self._unsubscribe = unsubscribe

    def close(self) -> None:
        """Undo one `subscribe`."""
        self._unsubscribe(self.topic)

    def _handle(self, event: str, message: Mapping[str, Any]) -> None:
        """Handle an event of this topic."""
        if event == END:
            self.ended = True
        self._listeners.deliver(event, message)


class GafferSocket(EventSocket):
    """Subscribes to topics of a node and sends commands; created by `Server.socket`.

    Topics are `EVENTS[:pattern]`, `JOB:<name>`, `PROCESS:<pid or name>`, `STATS:<pid or name>` and
    `STREAM:<pid>[.<label>]`; commands are those of the API. Listeners bound to the socket itself get the events of all
    topics, and `gaffer:error`. If the connection is lost, pending calls fail and the socket can't be used again.
    """

    path = "/channel/websocket"

    def __init__(self, transport: Transport, *, ping_interval: float = PING_INTERVAL) -> None:
        super().__init__(transport, ping_interval=ping_interval)
        self._identities = count(1)
        self._lock = threading.Lock()
        self._order = threading.Lock()  # requests are sent in the order in which responses are awaited
        self._commands: dict[str, GafferCommand] = {}
        self._channels: dict[str, Channel] = {}
        self._counts: dict[str, int] = {}
        self._asked: dict[str, deque[Future[None]]] = {}  # SUB and UNSUB are answered in order

    def authenticate(self, key: str) -> None:
        """Send a key as the first message, if the transport has none; an invalid key closes the connection.

        Raises UntrustedServer if the key may not be sent to the server.
        """
        self._opened().check_server()
        self._send(f"AUTH:{key}")

    # Topics

    def subscribe(self, topic: str, listener: Listener | None = None) -> Channel:
        """Subscribe to a topic, optionally with a listener for all its events; repeated calls return the same channel.

        Raises NotFound for an unknown process, BadRequest for an invalid topic, and Unreachable or TimeoutError without
        a response.
        """
        with self._lock:
            channel = self._channels.get(topic)
            if channel is None:
                channel = self._channels[topic] = Channel(topic, self.unsubscribe)
            if listener is not None:
                channel.bind_all(listener)
            self._counts[topic] = self._counts.get(topic, 0) + 1
        try:
            self._ask("SUB", topic)
        except BaseException:
            self._leave(topic)
            raise
        return channel

    def unsubscribe(self, topic: str) -> None:
        """Undo one `subscribe`; topics that are not subscribed or have ended are ignored."""
        if self._leave(topic):
            try:
                self._ask("UNSUB", topic)
            except StatusError as error:
                if error.reason != _NOT_SUBSCRIBED:  # it has just ended
                    raise

    def __getitem__(self, topic: str) -> Channel:
        """Return the channel of a subscribed topic; raise KeyError."""
        return self._channels[topic]

    # Commands

    def send_command(self, name: str, *args: Any, **kwargs: Any) -> GafferCommand:
        """Send a command and return immediately; raise Unreachable if not connected.

        Raises UntrustedServer if it contains an environment that may not be sent to the server.
        """
        if any(map(holds_environment, (kwargs, *args, *kwargs.values()))):
            self._opened().check_server()
        command = GafferCommand(str(next(self._identities)), name, args, kwargs)
        with self._lock:
            self._commands[command.identity] = command
        try:
            self._send_event("CMD", identity=command.identity, name=name, args=args, kwargs=kwargs)
        except BaseException:
            self._commands.pop(command.identity, None)
            raise
        return command

    def execute(self, name: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Send a command and wait for its result, up to the timeout of the transport; raise as `result` does."""
        self._must_not_be_a_listener()
        return self.send_command(name, *args, **kwargs).result(self._transport.timeout)

    # Implementation

    def _must_not_be_a_listener(self) -> None:
        if self._thread is threading.current_thread():
            raise RuntimeError("a listener can't wait for a response: use send_command")

    def _opened(self) -> Connection:
        if self._connection is None:
            raise Unreachable(f"{self.url} is not connected", url=self.url, hint="call start() first")
        return self._connection

    def _send(self, text: str) -> None:
        self._opened().send(text)

    def _send_event(self, event: str, **data: Any) -> None:
        self._send(msgspec.json.encode({"event": event, "data": data}).decode())

    def _ask(self, event: str, topic: str) -> None:
        self._must_not_be_a_listener()
        answer: Future[None] = Future()
        with self._order:
            with self._lock:
                self._asked.setdefault(topic, deque()).append(answer)
            self._send_event(event, topic=topic)
        answer.result(self._transport.timeout)

    def _leave(self, topic: str) -> bool:
        """Remove one subscription; return whether there was one."""
        with self._lock:
            if topic not in self._counts:
                return False
            self._counts[topic] -= 1
            if not self._counts[topic]:
                del self._counts[topic], self._channels[topic]
            return True

    def _handle(self, event: str, message: Mapping[str, Any]) -> None:
        """Handle a message; raise KeyError or TypeError if it is invalid."""
        data = message["data"]
        match event:
            case "gaffer:event":
                self._handle_event(data["event"], data)
            case "gaffer:subscription_success":
                self._next_asked(data["topic"]).set_result(None)
            case "gaffer:subscription_error":
                self._next_asked(data["topic"]).set_exception(self._error(data))
            case "gaffer:command_success":
                self._commands.pop(data["id"])._answer.set_result(data["result"])
            case "gaffer:command_error":
                self._commands.pop(data["id"])._answer.set_exception(self._error(data["error"]))
            case "gaffer:error":
                if "errno" in data:
                    self.error = self._error({**data, "message": data["reason"], "reason": data["error"]})
                self._listeners.deliver(event, data)

    def _handle_event(self, event: str, data: Mapping[str, Any]) -> None:
        topic = data["topic"]
        channel = self._channels.get(topic)
        if event == END:
            with self._lock:
                self._channels.pop(topic, None)
                self._counts.pop(topic, None)
        if channel is not None:
            channel._handle(event, data)
        self._listeners.deliver(event, data)

    def _next_asked(self, topic: str) -> Future[None]:
        with self._lock:
            asked = self._asked[topic]
            answer = asked.popleft()
            if not asked:
                del self._asked[topic]
            return answer

    def _error(self, about: Mapping[str, Any]) -> StatusError:
        body = {**about, "error": about["reason"]}
        return status_error(about["errno"], body, self.url)

    def _ended(self) -> None:
        """Fail all pending calls."""
        lost = Unreachable(f"{self.url} closed the connection before responding", url=self.url)
        with self._lock:
            waiting: list[Future[Any]] = [answer for asked in self._asked.values() for answer in asked]
            waiting += [command._answer for command in self._commands.values()]
            self._asked.clear()
            self._commands.clear()
        for answer in waiting:
            answer.set_exception(self.error or lost)
