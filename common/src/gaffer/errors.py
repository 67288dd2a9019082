"""The error tree. Every error carries a code and an HTTP status and turns itself into the error body."""

from typing import Any

import msgspec

QUOTED = 100
"""Characters of a value that an error quotes."""


def quoted(value: Any) -> str:
    """A value as errors quote it: its repr, without the middle of a long one."""
    try:
        text = repr(value)
    except ValueError:  # it holds an integer with more digits than Python converts
        return f"a {type(value).__name__} with a number that is too large"
    return text if len(text) <= QUOTED else f"{text[: QUOTED // 2]}...{text[-QUOTED // 2 :]}"


class GafferError(Exception):
    """Base of all errors Gaffer raises on purpose.

    `reason` is a stable code for programs, `errno` the HTTP status, `message` a human-readable sentence, `path` the
    place in the input (`$.jobs[0].cmd`) and `hint` what to do next.
    """

    errno: int = 500
    reason: str = "internal_error"

    def __init__(
        self,
        message: str = "",
        *,
        reason: str | None = None,
        errno: int | None = None,
        path: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.reason = reason or type(self).reason
        self.errno = errno or type(self).errno
        self.message = message or self.reason.replace("_", " ")
        self.path = path
        self.hint = hint
        super().__init__(self.message)

    def to_dict(self) -> dict[str, Any]:
        """The body of an error answer: `error`, `errno`, `message`, `path`, `hint`."""
        return {
            "error": self.reason,
            "errno": self.errno,
            "message": self.message,
            "path": self.path,
            "hint": self.hint,
        }

    def to_json(self) -> bytes:
        """`to_dict()` as JSON."""
        return msgspec.json.encode(self.to_dict())


class BadRequest(GafferError):
    """The input is wrong and nothing was changed."""

    errno = 400
    reason = "bad_request"


class ConfigError(BadRequest, ValueError):
    """One or more settings are wrong; `problems` holds every mistake that was found, the first one is shown."""

    def __init__(self, problems: "list[Problem]") -> None:
        self.problems = problems
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(first.message + more, path=first.path, hint=first.hint)

    def to_dict(self) -> dict[str, Any]:
        body = super().to_dict()
        if len(self.problems) > 1:
            body["problems"] = [{"path": p.path, "message": p.message, "hint": p.hint} for p in self.problems]
        return body


class InvalidValue(Exception):
    """A value does not fit its rule."""

    def __init__(self, message: str, hint: str | None = None, path: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.path = path


class BadValue(BadRequest, ValueError):
    """An argument makes no sense: a signal (`bad_signal`), a count (`bad_operation`)."""

    reason = "bad_value"


class Problem(msgspec.Struct, frozen=True):
    """One mistake in a configuration: where it is (`$.cmd`), what is wrong, what to do."""

    path: str
    message: str
    hint: str | None = None


class ProcessError(GafferError):
    """An operation on a job or a process failed: `ProcessError(404, "stream_not_found")`."""

    def __init__(
        self,
        errno: int | None = None,
        reason: str | None = None,
        message: str = "",
        *,
        path: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, reason=reason, errno=errno, path=path, hint=hint)


class NotRedirected(ProcessError, OSError):  # type: ignore[misc]  # `errno` is the HTTP status here too
    """A stream that the job's settings don't redirect was to be read or written."""


class ProcessNotFound(ProcessError):
    """No such session, job or process."""

    errno = 404
    reason = "not_found"

    def __init__(self, message: str = "", *, hint: str | None = None) -> None:
        super().__init__(None, None, message, hint=hint)


class ProcessConflict(ProcessError, KeyError):
    """The session already has a job of that name."""

    errno = 409
    reason = "process_conflict"

    def __init__(self, message: str = "", *, hint: str | None = None) -> None:
        super().__init__(None, None, message, hint=hint)

    __str__ = Exception.__str__


class ManagerStopping(ProcessError):
    """The manager is stopping and accepts no more commands."""

    errno = 503
    reason = "stopping"

    def __init__(self, message: str = "the node is stopping and accepts no more changes") -> None:
        super().__init__(None, None, message)


class NodeDraining(ProcessError):
    """The node is out of service and starts no processes."""

    errno = 503
    reason = "draining"

    def __init__(self) -> None:
        super().__init__(
            None, None, "the node is drained: it starts no processes", hint="`DELETE /drain` puts it back into service"
        )


class StartFailed(GafferError):
    """A program could not be started; `reason` is the code (`program_not_found`, `not_executable`, `bad_cwd`...)."""

    errno = 400
    reason = "start_failed"


class TopicError(GafferError):
    """A subscription names a topic that does not exist."""

    errno = 400
    reason = "bad_topic"


class CommandError(GafferError):
    """A command sent over a websocket is malformed."""

    errno = 400
    reason = "bad_command"


class CommandNotFound(CommandError):
    """A command sent over a websocket does not exist."""

    errno = 404
    reason = "command_not_found"


class AlreadyRead(GafferError):
    """A stream that can be read once is being read already."""

    errno = 403
    reason = "already_read"


def did_you_mean(word: str, known: tuple[str, ...] | list[str]) -> str | None:
    """A hint that names the known word nearest to `word`, or None."""
    import difflib  # late: only mistakes need it

    if len(word) > QUOTED:
        return None
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]!r}?" if close else None
