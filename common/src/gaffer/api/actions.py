"""Actions of a job: commands that run on request, with the user, folder and environment of the job."""

import asyncio
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from tornado.iostream import StreamClosedError

from gaffer.api.feed_handler import FeedHandler
from gaffer.api.node import NodeHandler
from gaffer.api.streams import FORMATS
from gaffer.errors import BadRequest, InvalidValue, StartFailed
from gaffer.http.access import Scope
from gaffer.http.feed_formats import HEARTBEAT_EVENT, encode_event, to_json
from gaffer.http.feeds import EVENTSOURCE, FeedQuery, Heartbeat
from gaffer.http.operations import EVENTS, JSON, operation
from gaffer.http.routes import Route
from gaffer.jobs import rules
from gaffer.schemas import bodies
from gaffer.streams.rings import DEFAULT_LIMIT
from gaffer.supervision.commands import Command, CommandResult, TooManyCommands

_OUTPUT, _EXIT = "output", "exit"  # names of events


class ActionsHandler(NodeHandler):
    """The actions of a job."""

    @operation(bodies.ActionList)
    def get(self) -> None:
        """Return `{"actions": {NAME: COMMAND}}`."""
        self.reply({"actions": self.manager.get(self.job).action})


class ActionQuery(msgspec.Struct):
    """How to run an action."""

    timeout: Annotated[
        str, Meta(description="Stop it after this time, such as `90` (seconds), `5m` or `2h`; at most 24 hours.")
    ] = "24h"
    stream: Annotated[
        Literal["true", "false"],
        Meta(description="`false`: one JSON document at its end. So does `Accept: application/json`."),
    ] = "true"
    encoding: Annotated[
        Literal["text", "base64"], Meta(description="Encoding of streamed output; base64 preserves every byte.")
    ] = "text"
    heartbeat: Heartbeat = "true"


class ActionHandler(FeedHandler):
    """An action of a job."""

    @operation(
        bodies.ActionResult,
        query=ActionQuery,
        media=(JSON, EVENTS),
        errors=(TooManyCommands, StartFailed),
        document=True,
    )
    async def post(self) -> None:
        """Run the action and stream its output as server-sent events.

        Each event `output` has a piece of stdout and stderr, see `GET /streams/{pid}/{label}`; a client that reads too
        slowly loses output, which an event `gap` reports. The last event is `exit`, with the JSON object `outcome`,
        `exit_code`, `term_signal`, `uptime`; without it the response is incomplete. With `stream=false` or
        `Accept: application/json` the response is one JSON document with these fields, `output` and `omitted`.

        The job need not be running. At most 16 actions of a job run at a time. An action continues when the client
        disconnects; it ends at the `timeout`, and when the job is unloaded or the node stops.
        """
        query = FeedQuery.of(self, (EVENTSOURCE,), past=False)
        form = FORMATS[self._choice("encoding", tuple(FORMATS))](_OUTPUT)
        streams = self._choice("stream", ("true", "false")) == "true" and not self._accepts_json_only
        command = self.manager.start_action(self.job, self.params["action"], self._timeout)
        if not streams:
            self.reply({**_exit(await self._wait(command, None)), **_output(command)})
            return
        await self.follow(query, command.ring, 0, form)
        # The command may have closed its output long before its end.
        result = await self._wait(command, query.heartbeat)
        self.write(encode_event(_EXIT, to_json(_exit(result)).decode()))

    async def _wait(self, command: Command, heartbeat: float | None) -> CommandResult:
        """Wait for the end of the command, with heartbeats while the client is connected."""
        while not command.ended.done():
            await asyncio.wait([command.ended], timeout=heartbeat)
            if not command.ended.done():
                try:
                    self.write(HEARTBEAT_EVENT)
                    await self.flush()
                except StreamClosedError:
                    heartbeat = None
        return command.ended.result()

    def _choice(self, name: str, values: tuple[str, ...]) -> str:
        """Return a query parameter, by default the first of `values`; raises BadRequest."""
        value = self.get_query_argument(name, values[0])
        if value not in values:
            raise BadRequest(f"invalid value {name}={value!r}", reason="bad_value", hint=f"use {' or '.join(values)}")
        return value

    @property
    def _timeout(self) -> float:
        value = self.get_query_argument("timeout", ActionQuery().timeout)
        try:
            return rules.seconds(value, True)
        except InvalidValue as wrong:
            raise BadRequest(f"invalid value timeout={value!r}", reason="bad_value", hint=wrong.hint) from None

    @property
    def _accepts_json_only(self) -> bool:
        accepted = self.request.headers.get("Accept", "")
        return JSON in accepted and EVENTS not in accepted


def _exit(result: CommandResult) -> dict[str, Any]:
    return {
        "outcome": result.outcome,
        "exit_code": result.exit_code,
        "term_signal": result.term_signal,
        "uptime": result.uptime,
    }


def _output(command: Command) -> dict[str, Any]:
    ring = command.ring
    start = ring.offset_of_tail(DEFAULT_LIMIT)
    return {"output": ring.read(start, DEFAULT_LIMIT).data.decode(errors="replace"), "omitted": start}


ROUTES = [
    Route("/jobs/{sid}/{job}/actions", ActionsHandler, {"GET": Scope.READ}),
    Route("/jobs/{sid}/{job}/actions/{action}", ActionHandler, {"POST": Scope.CONTROL}),
]
