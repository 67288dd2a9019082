"""A server of the Model Context Protocol on standard input and output: JSON-RPC 2.0, one message a line.

https://modelcontextprotocol.io/specification/2025-11-25. It offers tools only. A call runs in a thread of its own, so
that pings and cancellations are answered meanwhile.
"""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO, Any, NamedTuple

from gaffer.runtime.version import __version__

VERSIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
"""The versions of the protocol, newest first."""

MAX_CALLS = 8  # at a time
_MAX_LINE = 1024 * 1024  # bytes of a message

_PARSE_ERROR, _INVALID_REQUEST, _NO_METHOD, _INVALID_PARAMS, _BUSY = -32700, -32600, -32601, -32602, -32000

Document = Mapping[str, Any]


class Result(NamedTuple):
    """What a tool printed, and whether it failed."""

    text: str
    failed: bool


class Tool(NamedTuple):
    """A tool: its description for `tools/list`, and `call(arguments, cancelled)`, which raises InvalidArguments."""

    description: Document
    call: Callable[[Document, threading.Event], Result]

    @property
    def name(self) -> str:
        """The name by which it is called."""
        return str(self.description["name"])


class InvalidArguments(ValueError):
    """The arguments of a call do not fit the tool."""


class _Refused(Exception):
    """A request is answered with a JSON-RPC error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class ToolServer:
    """Serves tools to one client; `instructions` tell it what they are for, `hidden` why other tools are missing."""

    def __init__(self, tools: Sequence[Tool], instructions: str, hidden: Mapping[str, str]) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._instructions = instructions
        self._hidden = hidden
        self._calls: dict[object, threading.Event] = {}
        self._lock = threading.Lock()
        self._out: IO[bytes]

    def serve(self, source: IO[bytes], sink: IO[bytes]) -> None:
        """Answer messages until the end of `source`; running calls are cancelled then."""
        self._out = sink
        threads: list[threading.Thread] = []
        try:
            self._receive_all(source, threads)
        finally:
            with self._lock:
                for cancelled in self._calls.values():
                    cancelled.set()
            for thread in threads:
                thread.join()

    def _receive_all(self, source: IO[bytes], threads: list[threading.Thread]) -> None:
        while line := source.readline(_MAX_LINE + 1):
            if len(line) > _MAX_LINE:
                self._refuse(None, _Refused(_PARSE_ERROR, f"a message has more than {_MAX_LINE} bytes"))
                while line and not line.endswith(b"\n"):
                    line = source.readline(_MAX_LINE)
            elif line.strip():
                threads[:] = [thread for thread in threads if thread.is_alive()]
                if (thread := self._receive(line)) is not None:
                    threads.append(thread)

    def _receive(self, line: bytes) -> threading.Thread | None:
        """Process a message; return the thread of a call."""
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            self._refuse(None, _Refused(_PARSE_ERROR, "the message is not valid JSON"))
            return None
        identifier = message.get("id") if isinstance(message, dict) else None
        try:
            if (
                not isinstance(message, dict)
                or message.get("jsonrpc") != "2.0"
                or not isinstance(identifier, str | int | None)
            ):
                raise _Refused(_INVALID_REQUEST, "the message is not a JSON-RPC 2.0 request")
            method, params = message.get("method"), message.get("params", {})
            if method is None:
                return None  # a response; nothing was asked
            if not isinstance(method, str) or not isinstance(params, dict):
                raise _Refused(_INVALID_REQUEST, "method and params must be a string and an object")
            if "id" not in message:
                self._notice(method, params)
                return None
            if method == "tools/call":
                return self._start_call(identifier, params)
            self._send({"id": identifier, "result": self._answer(method, params)})
        except _Refused as refused:
            self._refuse(identifier, refused)
        return None

    def _answer(self, method: str, params: Document) -> Document:
        match method:
            case "initialize":
                asked = params.get("protocolVersion")
                return {
                    "protocolVersion": asked if asked in VERSIONS else VERSIONS[0],
                    "capabilities": {"tools": {"listChanged": False}},
                    "serverInfo": {"name": "gaffer", "title": "Gaffer", "version": __version__},
                    "instructions": self._instructions,
                }
            case "ping":
                return {}
            case "tools/list":
                return {"tools": [tool.description for tool in self._tools.values()]}
            case _:
                raise _Refused(_NO_METHOD, f"unknown method {method}")

    def _notice(self, method: str, params: Document) -> None:
        if method == "notifications/cancelled":
            with self._lock:
                identifier = params.get("requestId")
                cancelled = self._calls.get(identifier) if isinstance(identifier, str | int) else None
            if cancelled is not None:
                cancelled.set()

    def _start_call(self, identifier: object, params: Document) -> threading.Thread:
        name, arguments = params.get("name"), params.get("arguments") or {}
        tool = self._tools.get(name) if isinstance(name, str) else None
        if tool is None:
            raise _Refused(_INVALID_PARAMS, self._hidden.get(str(name)) or f"unknown tool {name}")
        if not isinstance(arguments, dict):
            raise _Refused(_INVALID_PARAMS, "arguments must be an object")
        cancelled = threading.Event()
        with self._lock:
            if identifier in self._calls:
                raise _Refused(_INVALID_REQUEST, "a request with this id is running")
            if len(self._calls) >= MAX_CALLS:
                raise _Refused(_BUSY, f"{MAX_CALLS} calls are running: try again later")
            self._calls[identifier] = cancelled
        thread = threading.Thread(target=self._call, args=(identifier, tool, arguments, cancelled), name=tool.name)
        thread.start()
        return thread

    def _call(self, identifier: object, tool: Tool, arguments: Document, cancelled: threading.Event) -> None:
        answer: Document
        try:
            result = tool.call(arguments, cancelled)
            answer = {"content": [{"type": "text", "text": result.text}], "isError": result.failed}
        except InvalidArguments as error:  # the model can mend it
            answer = {"content": [{"type": "text", "text": f"invalid arguments: {error}"}], "isError": True}
        finally:
            with self._lock:
                self._calls.pop(identifier)
        if not cancelled.is_set():  # a cancelled request gets no answer
            self._send({"id": identifier, "result": answer})

    def _refuse(self, identifier: object, refused: _Refused) -> None:
        self._send({"id": identifier, "error": {"code": refused.code, "message": str(refused)}})

    def _send(self, message: Document) -> None:
        line = json.dumps({"jsonrpc": "2.0", **message}, separators=(",", ":")).encode() + b"\n"
        with self._lock, suppress(BrokenPipeError):  # a client that reads no more closes standard input as well
            self._out.write(line)
            self._out.flush()
