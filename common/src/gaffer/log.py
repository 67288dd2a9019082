"""Logging of the daemons: one handler, on stderr or in a file, each line with its time."""

import logging
import logging.handlers
import os
import sys
from io import TextIOWrapper

from gaffer.errors import BadRequest, GafferError
from gaffer.rules import did_you_mean
from gaffer.trusted_files import UntrustedFile, open_log

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

# Tornado's lines about failed connections, one an attempt: those who use the connections say it once, and clearly.
_REPEATED = ("SSL Error on", "error on read")

_installed: logging.Handler | None = None


def parse_level(name: str) -> int:
    """The number of a log level named in any case; raises BadRequest for an unknown one."""
    try:
        return LEVELS[name.strip().lower()]
    except KeyError:
        raise BadRequest(
            f"unknown log level {name!r}",
            hint=did_you_mean(name.lower(), list(LEVELS)) or f"use one of {', '.join(LEVELS)}",
        ) from None


def setup_logging(level: str = "info", error_log: str | None = None) -> None:
    """Log everything of `level` and above to the file `error_log`, or to stderr.

    A second call replaces the handler of the first. The file may be moved away by a log rotator: it is opened anew.
    Neither a link nor a file of another user is written to: it logs to stderr then, and says why.
    Raises BadRequest for an unknown level and GafferError when the file can't be opened.
    """
    global _installed
    number = parse_level(level)
    handler: logging.Handler
    fault: UntrustedFile | None = None
    if error_log is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        try:
            handler = _FileHandler(error_log, encoding="utf-8")
        except UntrustedFile as error:
            # Others who can put something there must not keep the daemon from starting.
            handler, fault = logging.StreamHandler(sys.stderr), error
        except OSError as error:
            raise GafferError(
                f"can't write the log file {error_log}: {error.strerror}",
                reason="bad_log_file",
                hint="give --error-log a file in a directory that exists and that this user may write to",
            ) from None
    handler.setFormatter(logging.Formatter(_FORMAT))
    root = logging.getLogger()
    if _installed is not None:
        root.removeHandler(_installed)
        _installed.close()
    root.addHandler(handler)
    root.setLevel(number)
    tornado = logging.getLogger("tornado.general")
    tornado.setLevel(number if number <= logging.DEBUG else logging.WARNING)  # below: a line for all that is no HTTP
    tornado.addFilter(_is_news)
    _installed = handler
    if fault is not None:
        root.error("logging to stderr: %s; %s", fault.message, fault.hint)


class _FileHandler(logging.handlers.WatchedFileHandler):
    """Opens the file as gaffer.trusted_files does, anew once it was moved away. While it can't be: stderr."""

    def _open(self) -> TextIOWrapper:
        return open(open_log(self.baseFilename, 0o644), "a", encoding=self.encoding)

    def reopenIfNeeded(self) -> None:
        try:
            super().reopenIfNeeded()
        except (OSError, UntrustedFile):
            self.stream = open(os.dup(2), "a", encoding=self.encoding)  # noqa: SIM115 - closed before the next line
            self.dev, self.ino = -1, -1  # so that the next line tries again


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_REPEATED)
