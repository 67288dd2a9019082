"""The entry points `gaffer` and `gafferctl`: run a command and turn errors into a message and an exit status."""

import errno
import os
import sys
from collections.abc import Sequence

from gaffer.errors import ConfigError, GafferError
from gaffer.runtime.version import __version__
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import CommandFailed, Exit
from gaffer_client.cli.output import STYLE, print_error
from gaffer_client.cli.parse import ASK, Invocation, parse
from gaffer_client.cli.programs import GAFFER, GAFFERCTL
from gaffer_client.cli.several import answer_timeout, chooses_several_nodes
from gaffer_client.cli.table import Program, Target
from gaffer_client.errors import (
    Forbidden,
    GafferClientError,
    InvalidURL,
    MalformedAnswer,
    NotFound,
    TimedOut,
    Unauthorized,
    Unreachable,
)

_UNREACHABLE_HINTS: dict[Target, str] = {
    "node": "check that gafferd is running, or use {option} or GAFFER_ENDPOINT to choose another node",
    "lookup": "check that gaffer_lookupd is running, or use -L or GAFFER_LOOKUPD to choose others",
    "none": "",
}
# Such errors are of descriptors, and have no name of a file.
_FAILED_WRITES = (errno.EBADF, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC)
_KEY_HINT = "use --api-key-file or GAFFER_API_KEY_FILE to specify your key file"


def gaffer() -> int:
    """Run `gaffer` and return its exit status."""
    return run(GAFFER, sys.argv[1:])


def gafferctl() -> int:
    """Run `gafferctl` and return its exit status."""
    return run(GAFFERCTL, sys.argv[1:])


def run(program: Program, argv: Sequence[str]) -> int:
    """Run a program with these arguments and return its exit status."""
    target: Target = "none"
    STYLE.plain = False
    try:
        if argv and argv[0] == ASK:
            from gaffer_client.cli.completion import answer

            return answer(program, argv[1:], os.environ)
        invocation = parse(program, argv)
        if invocation.command is not None:
            several = chooses_several_nodes(invocation.arguments)  # each reports its own failures
            target = "lookup" if several else invocation.command.target
        STYLE.plain = invocation.arguments.flag("--plain")
        status = _dispatch(program, invocation)
        sys.stdout.flush()
        return status
    except CommandFailed as error:
        print_error(program.name, error.message, error.hint)
        return error.status
    except GafferClientError as error:
        _report(program, error, target)
        return _status(error)
    except ConfigError as error:
        for problem in error.problems:
            print_error(program.name, f"{problem.path}: {problem.message}", problem.hint)
        return Exit.USAGE
    except GafferError as error:  # an invalid name
        print_error(program.name, error.message, error.hint)
        return Exit.USAGE
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        _discard_unwritable()
        return Exit.BROKEN_PIPE
    except UnicodeEncodeError as error:
        print_error(program.name, f"{error.object!r} is not UTF-8 text", "use names and values in UTF-8")
        return Exit.USAGE
    except OSError as error:
        _discard_unwritable()
        where = error.filename or ("can't write" if error.errno in _FAILED_WRITES else None)
        what = error.strerror or str(error)
        print_error(program.name, f"{where}: {what}" if where else what)
        return Exit.FAILED


def _discard_unwritable() -> None:
    """Discard output that can't be written: at exit, Python would fail to flush it and exit with status 120."""
    try:
        sys.stdout.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _dispatch(program: Program, invocation: Invocation) -> int:
    if invocation.arguments.flag("--version"):
        print(f"{program.name} {__version__}")
        return Exit.OK
    if invocation.command is None or invocation.help:
        return _show_help(program, invocation)
    command, arguments = invocation.command, invocation.arguments
    context = Context(program, arguments, os.environ, timeout=answer_timeout(arguments, command.options))
    if chooses_several_nodes(arguments):
        return command.run_on_several(context, arguments)
    return command.show_plan(context, arguments) if command.is_dry(arguments) else command.run(context, arguments)


def _show_help(program: Program, invocation: Invocation) -> int:
    from gaffer_client.cli.help import command_help, program_help

    if invocation.command is not None:
        print(command_help(program, invocation.command))
        return Exit.OK
    print(program_help(program), file=sys.stdout if invocation.help else sys.stderr)
    return Exit.OK if invocation.help else Exit.USAGE


def _report(program: Program, error: GafferClientError, target: Target) -> None:
    from gaffer_client.cli.diagnosis import hint_at

    hint = error.hint
    if isinstance(error, Unreachable | NotFound | MalformedAnswer) and not isinstance(error, TimedOut):
        hint = hint_at(error.url, target) or hint
    if hint is None and isinstance(error, Unreachable):
        hint = _UNREACHABLE_HINTS[target].format(option=program.endpoint_option)
    elif hint is None and isinstance(error, Unauthorized | Forbidden):
        hint = _KEY_HINT
    for place, message, advice in error.problems or [(error.path, error.message, hint)]:
        print_error(program.name, f"{place}: {message}" if place else message, advice)


def _status(error: GafferClientError) -> Exit:
    match error:
        case Unreachable():
            return Exit.UNREACHABLE
        case NotFound():
            return Exit.NOT_FOUND
        case InvalidURL():
            return Exit.USAGE
        case _:
            return Exit.FAILED
