"""Exit statuses and the exceptions that end a command."""

from enum import IntEnum


class Exit(IntEnum):
    """The exit statuses of `gaffer` and `gafferctl`."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_FOUND = 4
    PARTIAL = 5
    INTERRUPTED = 130
    BROKEN_PIPE = 141


class CommandFailed(Exception):
    """A command failed: `message` states the problem, `hint` the remedy, `status` is the exit status."""

    def __init__(self, message: str, *, hint: str | None = None, status: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.status = status


class UsageError(CommandFailed):
    """The command line, an environment variable or the configuration file is invalid."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint, status=Exit.USAGE)
