"""`GafferSocket`: topics and commands of a node, over one websocket (R-83, section 9 of the API)."""

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
    """A command that was sent: `scale("shop.web", "+1")`; its answer comes later."""

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
        """Whether there is an answer, or there will be none."""
        return self._answer.done()

    @property
    def error(self) -> GafferClientError | None:
        """Why it failed; None when it did not, or when there is no answer yet."""
        error = self._answer.exception() if self.done else None
        return error if isinstance(error, GafferClientError) else None

    def result(self, timeout: float | None = None) -> dict[str, Any]:
        """Wait for the answer and give it; raises the StatusError of a command that failed.

        Raises Unreachable when the connection was lost, so that nobody knows, TimeoutError when no answer comes within
        `timeout` seconds. Not for listeners, which the answer would wait for.
        """
        return self._answer.result(timeout)

    def add_done_callback(self, callback: Callable[["GafferCommand"], object]) -> None:
        """Call `callback(command)` when there is an answer, in the thread of the socket; at once when there is one."""
        self._answer.add_done_callback(lambda _: callback(self))


class Channel(Bindable):
    """One topic that a socket is subscribed to. `ended`: the process has ended or the job is gone, no more comes."""

    def __init__(self, topic: str, unsubscribe: Callable[[str], None]) -> None:
        super().__init__()
        self.topic = topic
        self.ended = False
        self._unsubscribe = unsubscribe

    def close(self) -> None:
        """Undo one `subscribe`."""
        self._unsubscribe(self.topic)

    def _handle(self, event: str, message: Mapping[str, Any]) -> None:
        """An event came in this topic."""
        if event == END:
            self.ended = True
        self._listeners.deliver(event, message)


class GafferSocket(EventSocket):
    """Follows topics of a node and gives it commands; `Server.socket` makes one.

    Topics are `EVENTS[:pattern]`, `JOB:<name>`, `PROCESS:<pid or name>`, `STATS:<pid or name>` and
    `STREAM:<pid>[.<label>]`; commands are those of the API. What is bound to the socket itself hears the events of all
    topics, and `gaffer:error`. When the connection is lost, all that waits fails, and the socket is of no more use.
    """

    path = "/channel/websocket"

    def __init__(self, transport: Transport, *, ping_interval: float = PING_INTERVAL) -> None:
        super().__init__(transport, ping_interval=ping_interval)
        self._identities = count(1)
        self._lock = threading.Lock()
        self._order = threading.Lock()  # topics are asked for in the order in which answers are awaited
        self._commands: dict[str, GafferCommand] = {}
        self._channels: dict[str, Channel] = {}
        self._counts: dict[str, int] = {}
        self._asked: dict[str, deque[Future[None]]] = {}  # SUB and UNSUB are answered in their order

    def authenticate(self, key: str) -> None:
        """Present a key, as the first message, where the transport has none; a wrong one ends the connection.

        Raises UntrustedServer when the server may not see it.
        """
        self._opened().check_server()
        self._send(f"AUTH:{key}")

    # Topics

    def subscribe(self, topic: str, listener: Listener | None = None) -> Channel:
        """Follow a topic, with a listener for all its events from the first on; more than once gives the same channel.

        Raises NotFound for a process that is not there, BadRequest for what is no topic, Unreachable and TimeoutError
        when no answer comes.
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
        """Undo one `subscribe`; nothing happens for a topic that is not followed, or that has ended."""
        if self._leave(topic):
            try:
                self._ask("UNSUB", topic)
            except StatusError as error:
                if error.reason != _NOT_SUBSCRIBED:  # it has just ended
                    raise

    def __getitem__(self, topic: str) -> Channel:
        """The channel of a topic that is followed; raises KeyError."""
        return self._channels[topic]

    # Commands

    def send_command(self, name: str, *args: Any, **kwargs: Any) -> GafferCommand:
        """Send a command and return at once; raises Unreachable when there is no connection.

        Raises UntrustedServer when it holds an environment that the server may not see.
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
        """Send a command and wait for its result, as long as the transport waits; raises what `result` raises."""
        self._must_not_be_a_listener()
        return self.send_command(name, *args, **kwargs).result(self._transport.timeout)

    # How it works

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
        """Count one subscription less; whether there was one."""
        with self._lock:
            if topic not in self._counts:
                return False
            self._counts[topic] -= 1
            if not self._counts[topic]:
                del self._counts[topic], self._channels[topic]
            return True

    def _handle(self, event: str, message: Mapping[str, Any]) -> None:
        """A message came; raises KeyError or TypeError when it can't be."""
        data = message["data"]
        match event:
            case "gaffer:event":
                self._take_event(data["event"], data)
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

    def _take_event(self, event: str, data: Mapping[str, Any]) -> None:
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
        """Tell who waits that there will be no answer."""
        lost = Unreachable(f"{self.url} closed the connection before responding", url=self.url)
        with self._lock:
            waiting: list[Future[Any]] = [answer for asked in self._asked.values() for answer in asked]
            waiting += [command._answer for command in self._commands.values()]
            self._asked.clear()
            self._commands.clear()
        for answer in waiting:
            answer.set_exception(self.error or lost)
