"""The error hierarchy. Every error has a code and an HTTP status, and can be converted to an error body."""

from collections.abc import Iterable
from typing import Any, NamedTuple

QUOTED = 100
"""The maximum number of characters of a value that an error quotes."""


def quoted(value: Any) -> str:
    """Return the repr of `value` for an error message, with the middle of a long one left out."""
    try:
        text = repr(value)
    except ValueError:  # an integer with more digits than Python converts
        return f"a {type(value).__name__} with a number that is too large"
    return text if len(text) <= QUOTED else f"{text[: QUOTED // 2]}...{text[-QUOTED // 2 :]}"


class GafferError(Exception):
    """Base class of all errors that Gaffer raises on purpose.

    `reason` is a stable code for programs, `errno` the HTTP status, `message` a human-readable message, `path` the
    location in the input (`$.jobs[0].cmd`) and `hint` what to do about it.
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
        """Return the body of an error response: `error`, `errno`, `message`, `path`, `hint`."""
        return {
            "error": self.reason,
            "errno": self.errno,
            "message": self.message,
            "path": self.path,
            "hint": self.hint,
        }

    def to_json(self) -> bytes:
        """Return `to_dict()` as JSON."""
        import msgspec  # the commands, which import this module, should not wait for it

        return msgspec.json.encode(self.to_dict())


class BadRequest(GafferError):
    """Invalid input; nothing was changed."""

    errno = 400
    reason = "bad_request"


class ConfigError(BadRequest, ValueError):
    """One or more invalid settings; `problems` lists all that were found, and the message describes the first."""

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
    """A value that violates its rule."""

    def __init__(self, message: str, hint: str | None = None, path: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.path = path


class BadValue(BadRequest, ValueError):
    """An invalid argument, such as a signal (`bad_signal`) or a count (`bad_operation`)."""

    reason = "bad_value"


class Problem(NamedTuple):
    """One mistake in a configuration: its location (`$.cmd`), what is wrong, and how to mend it."""

    path: str
    message: str
    hint: str | None = None


class ProcessError(GafferError):
    """A failed operation on a job or a process, such as `ProcessError(404, "stream_not_found")`."""

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
    """An attempt to read or write a stream that the job does not redirect."""


class ProcessNotFound(ProcessError):
    """An unknown session, job or process."""

    errno = 404
    reason = "not_found"

    def __init__(self, message: str = "", *, hint: str | None = None) -> None:
        super().__init__(None, None, message, hint=hint)


class ProcessConflict(ProcessError, KeyError):
    """A job that already exists in the session."""

    errno = 409
    reason = "process_conflict"

    def __init__(self, message: str = "", *, hint: str | None = None) -> None:
        super().__init__(None, None, message, hint=hint)

    __str__ = Exception.__str__


class PortConflict(ProcessError):
    """A job whose processes would get a fixed port of another job."""

    errno = 409
    reason = "port_conflict"


class JobDisabled(ProcessError):
    """A job that is disabled, so that nothing of it can be started; `state` describes that."""

    errno = 409
    reason = "job_disabled"

    def __init__(self, name: object, state: object) -> None:
        super().__init__(message=f"the job {name} is {state}", hint=f"enable it first: `gaffer enable {name}`")


class NotStored(GafferError):
    """A change was not made because it could not be stored."""

    errno = 507
    reason = "not_stored"


class GenerationNotFound(ProcessError):
    """An earlier definition of a job that is not kept."""

    errno = 409
    reason = "no_such_generation"


class ManagerStopping(ProcessError):
    """A command for a manager that is stopping and accepts no more commands."""

    errno = 503
    reason = "stopping"

    def __init__(
        self, message: str = "the node is stopping and accepts no more changes", *, hint: str | None = None
    ) -> None:
        super().__init__(None, None, message, hint=hint)


class NodeUpgrading(ManagerStopping):
    """A command for a manager that hands its processes over to its successor."""

    reason = "upgrading"

    def __init__(self) -> None:
        super().__init__("another gafferd takes over the node", hint="try again in a second")


class NodeDraining(ProcessError):
    """A command for a node that is out of service and starts no processes."""

    errno = 503
    reason = "draining"

    def __init__(self) -> None:
        super().__init__(
            None, None, "the node is drained: it starts no processes", hint="put it back into service: `DELETE /drain`"
        )


class StartFailed(GafferError):
    """A program that could not be started; `reason` says why (`program_not_found`, `not_executable`, `bad_cwd`...)."""

    errno = 400
    reason = "start_failed"


class TopicError(GafferError):
    """A subscription to an unknown topic."""

    errno = 400
    reason = "bad_topic"


class CommandError(GafferError):
    """A malformed command on a websocket."""

    errno = 400
    reason = "bad_command"


class CommandNotFound(CommandError):
    """An unknown command on a websocket."""

    errno = 404
    reason = "command_not_found"


class AlreadyRead(GafferError):
    """A second reader of a stream that allows only one."""

    errno = 403
    reason = "already_read"


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """Return a hint with the known word nearest to `word`, or None."""
    import difflib  # late: only mistakes need it

    if len(word) > QUOTED:
        return None
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else None
