"""Rules that check and normalise the settings of a job, one for each kind of value."""

import dataclasses
import re
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from msgspec import Struct

from gaffer.errors import QUOTED, BadRequest, ConfigError, InvalidValue, Problem, did_you_mean, quoted
from gaffer.jobs.names import MAX_PROCESS_ENDPOINTS, parse_job_name
from gaffer.jobs.words import MAX_WORD, SplitError, parse_words, split_words
from gaffer.runtime.signals import parse_signal_value
from gaffer.runtime.values import BOOLEANS

# Arguments: the value as given, and whether it is from a text format (INI, environment), where all are strings.
Rule = Callable[[Any, bool], Any]


_MAX_NUMBER = 2**63 - 1
_MAX_SECONDS = 10**9  # 31 years; timers of the loop overflow far beyond that


def _expected(what: str, value: Any) -> InvalidValue:
    return InvalidValue(f"expected {what}, got {quoted(value)}")


def _argument(value: str, path: str = "") -> str:
    """Return `value` if it can be an argument or a variable of a process."""
    if "\0" in value:
        raise InvalidValue("NUL bytes are not allowed", path=path)
    try:
        length = len(value.encode(sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()))
    except UnicodeEncodeError:
        raise InvalidValue("lone surrogates are not allowed", path=path) from None
    if length > MAX_WORD:
        raise InvalidValue(f"{length} bytes exceed the maximum of {MAX_WORD} for one argument", path=path)
    return value


def text(value: Any, lax: bool) -> str:
    """A non-empty text."""
    if not isinstance(value, str) or not value.strip():
        raise _expected("a non-empty text", value)
    return _argument(value)


def optional_text(value: Any, lax: bool) -> str | None:
    """A text; empty means unset."""
    return None if value in (None, "") else text(value, lax)


def job_name(value: Any, lax: bool) -> str:
    """A name, or `session.name`."""
    if not isinstance(value, str):
        raise _expected("a name", value)
    try:
        parse_job_name(value)
    except BadRequest as error:
        raise InvalidValue(error.message, error.hint) from None
    return value


def boolean(value: Any, lax: bool) -> bool:
    """True or false."""
    if isinstance(value, bool):
        return value
    if lax and isinstance(value, str) and value.strip().lower() in BOOLEANS:
        return BOOLEANS[value.strip().lower()]
    raise _expected("true or false", value)


def _number(value: Any, lax: bool, kind: Callable[[str], float], what: str, highest: float = _MAX_NUMBER) -> float:
    if lax and isinstance(value, str):
        try:
            value = kind(value.strip())
        except ValueError:
            raise _expected(what, value) from None
    # math.isfinite fails for huge ints; comparisons with NaN are false.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= highest:
        raise _expected(what, value)
    return value


def count(value: Any, lax: bool) -> int:
    """A whole number from 0 to 10000."""
    number = _number(value, lax, int, "a whole number of 0 or more")
    if number != int(number):
        raise _expected("a whole number of 0 or more", value)
    if number > 10_000:
        raise InvalidValue(f"{number} exceeds the maximum of 10000 processes for a job")
    return int(number)


def optional_whole(value: Any, lax: bool) -> int | None:
    """A whole number of 0 or more; empty means unset."""
    if value is None or value == "":
        return None
    number = _number(value, lax, int, "a whole number of 0 or more")
    if number != int(number):
        raise _expected("a whole number of 0 or more", value)
    return int(number)


_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)\s*(ms|s|m|h|d)", re.ASCII)
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(value: Any, lax: bool) -> float:
    """A number of seconds from 0 to 10^9, or a text such as "500ms", "30s", "5m", "24h" or "7d"."""
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is not None:
        value, lax = float(match[1]) * _DURATION_UNITS[match[2]], False
    what = "a number of seconds, 0 or more, at most 10^9, or a duration such as 30s, 5m or 24h"
    return float(_number(value, lax, float, what, _MAX_SECONDS))


def positive_seconds(value: Any, lax: bool) -> float:
    """A number of seconds, more than 0 and at most 10^9, or a text such as "500ms", "30s" or "5m"."""
    number = seconds(value, lax)
    if not number:
        raise _expected("a number of seconds, more than 0", value)
    return number


_SIZE = re.compile(r"([0-9]{1,15})\s*(?:([kmg])(?:ib|b)?|b)?", re.ASCII | re.IGNORECASE)
_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


def size(value: Any, lax: bool) -> int:
    """A number of bytes: 10485760, or a text such as "10M" or "64 KiB"."""
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            raise InvalidValue(
                f"expected a number of bytes, got {quoted(value)}", "use a number such as 10485760, 10M or 64K"
            )
        return int(match[1]) * _UNITS[(match[2] or "").lower()]
    number = _number(value, lax, int, "a number of bytes, 0 or more")
    if number != int(number):
        raise _expected("a whole number of bytes", value)
    return int(number)


def backups(value: Any, lax: bool) -> int:
    """A whole number from 0 to 100."""
    number = _number(value, lax, int, "a whole number of 0 or more")
    if number != int(number) or number > 100:
        raise _expected("a whole number from 0 to 100", value)
    return int(number)


def restarts(value: Any, lax: bool) -> int:
    """A whole number from 0 to 10^6."""
    number = _number(value, lax, int, "a whole number of 0 or more", 10**6)
    if number != int(number):
        raise _expected("a whole number from 0 to 10^6", value)
    return int(number)


def at_least_one(value: Any, lax: bool) -> int:
    """A whole number from 1 to 10000."""
    number = _number(value, lax, int, "a whole number from 1 to 10000", 10_000)
    if number != int(number) or number < 1:
        raise _expected("a whole number from 1 to 10000", value)
    return int(number)


class OneOf(Struct, frozen=True):
    """One of some words; the first stands for an empty value."""

    words: tuple[str, ...]

    def __call__(self, value: Any, lax: bool) -> str:
        if value == "":
            return self.words[0]
        if value not in self.words:
            *others, last = self.words
            hint = did_you_mean(value, self.words) if isinstance(value, str) else None
            raise InvalidValue(f"expected {', '.join(others)} or {last}, got {quoted(value)}", hint)
        return str(value)


class _JobKind(OneOf, frozen=True):
    """`service`, whose processes are kept running, or `once`, whose processes run to completion."""


class _Overlap(OneOf, frozen=True):
    """`skip`, `queue` or `replace`."""


class _Missed(OneOf, frozen=True):
    """`skip` or `once`."""


class _LogFormat(OneOf, frozen=True):
    """`raw`, the output unchanged, `timestamps` before each line, or `json`, an object for each line."""


job_kind = _JobKind(("service", "once"))
overlap_policy = _Overlap(("skip", "queue", "replace"))
missed_policy = _Missed(("skip", "once"))
log_format = _LogFormat(("raw", "timestamps", "json"))
_restart_words = OneOf(("always", "on-failure", "never"))


def restart_policy(value: Any, lax: bool) -> str | None:
    """`always`, `on-failure` or `never`; unset: `never` for a job that runs once or by a schedule, else `always`."""
    return None if value is None or value == "" else _restart_words(value, lax)


_orphan_words = OneOf(("adopt", "end"))


def orphan_policy(value: Any, lax: bool) -> str | None:
    """`adopt` or `end`; unset: as the setting `orphans` of gafferd."""
    return None if value is None or value == "" else _orphan_words(value, lax)


ON_CONNECTION = "on-connection"


def start_mode(value: Any, lax: bool) -> bool | str:
    """True, false, or `on-connection`."""
    if isinstance(value, str) and value.strip() == ON_CONNECTION:
        return ON_CONNECTION
    try:
        return boolean(value, lax)
    except InvalidValue:
        raise _expected(f"true, false or {ON_CONNECTION}", value) from None


def exit_codes(value: Any, lax: bool) -> tuple[int, ...]:
    """Whole numbers from 0 to 255, separated by commas."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = [value]
    codes = []
    for index, item in enumerate(split_list(value, "a list of exit codes")):
        try:
            number = _number(item, isinstance(item, str), int, "an exit code from 0 to 255", 255)
            if number != int(number):
                raise _expected("an exit code from 0 to 255", item)
        except InvalidValue as wrong:
            raise InvalidValue(wrong.message, path=f"[{index}]") from None
        codes.append(int(number))
    return tuple(dict.fromkeys(codes))


def signal_name(value: Any, lax: bool) -> str:
    """A signal by name or number, such as TERM, INT or QUIT."""
    try:
        number = parse_signal_value(value)
    except ValueError as error:
        raise InvalidValue(str(error), "use a name such as TERM or its number") from None
    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:
        return str(number)  # of a real-time signal without a name


def optional_signal(value: Any, lax: bool) -> str | None:
    """A signal by name or number, such as HUP; empty means none."""
    return None if value is None or value == "" else signal_name(value, lax)


def umask(value: Any, lax: bool) -> str | None:
    """An octal number of up to 4 digits, as a text such as "027"."""
    if value is None or value == "":
        return None
    text = value.strip().removeprefix("0o") if isinstance(value, str) else ""
    if not re.fullmatch(r"0?[0-7]{1,3}", text, re.ASCII):
        raise InvalidValue(f"expected an octal number as a text, got {quoted(value)}", 'use a text such as "027"')
    return text


def niceness(value: Any, lax: bool) -> int | None:
    """A whole number from -20 (most favourable) to 19, nice(2)."""
    if value is None or value == "":
        return None
    text = str(value).strip() if isinstance(value, int) or (lax and isinstance(value, str)) else ""
    if isinstance(value, bool) or not re.fullmatch(r"[+-]?[0-9]{1,3}", text, re.ASCII) or not -20 <= int(text) <= 19:
        raise _expected("a whole number from -20 to 19", value)
    return int(text)


def paths(value: Any, lax: bool) -> tuple[str, ...]:
    """Paths, separated by commas; relative ones are below `cwd`."""
    return _texts(value, "a list of paths")


def globs(value: Any, lax: bool) -> tuple[str, ...]:
    """Patterns of paths, separated by commas: `*`, `?` and `[...]` within a name, `**` for any directories."""
    return _texts(value, "a list of patterns")


def _texts(value: Any, what: str) -> tuple[str, ...]:
    items = split_list(value, what)
    for index, item in enumerate(items):
        if not isinstance(item, str) or not item.strip():
            raise InvalidValue(f"expected a non-empty text, got {quoted(item)}", path=f"[{index}]")
        _argument(item, f"[{index}]")
    return tuple(items)


_ACTION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_+-]{0,63}", re.ASCII)


def actions(value: Any, lax: bool) -> Mapping[str, str]:
    """Command lines by name; in files each is a key `action.NAME`."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise _expected("an object of names and command lines", value)
    for name, line in value.items():
        path = f".{str(name)[:QUOTED]}"
        if not isinstance(name, str) or not _ACTION.fullmatch(name):
            raise InvalidValue(f"invalid action name {quoted(name)}", "use up to 64 letters, digits and _ + -", path)
        if not isinstance(line, str):
            raise InvalidValue(f"expected a command line, got {quoted(line)}", path=path)
        try:
            parse_words(text(line, lax))
        except InvalidValue as wrong:
            raise InvalidValue(wrong.message, wrong.hint, path) from None
        except SplitError as error:
            raise InvalidValue(f"can't be split into words: {error}", error.hint, path) from None
    return dict(value)


def optional_command(value: Any, lax: bool) -> str | None:
    """A command line; words and variables as in `cmd`."""
    if value is None or value == "":
        return None
    line = command(value, lax)
    _split(line)
    return line


_NO_ID = 2**32 - 1  # as a uid or gid it means "unchanged", setuid(2)
_ID_DIGITS = 10


def user_or_group(value: Any, lax: bool) -> int | str | None:
    """A user or group by name or number; it is looked up only when a process starts (TPL-05)."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        if not (value.isascii() and value.isdecimal()):
            return _argument(value)
        value = int(value) if len(value) <= _ID_DIGITS else value
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _NO_ID:
        return value
    raise _expected(f"a name or a number below {_NO_ID}", value)


def words(value: Any, lax: bool) -> tuple[str, ...]:
    """Arguments: a list, or a string split as a shell would (TPL-03)."""
    if value is None:
        return ()
    if isinstance(value, str):
        return _split(_argument(value))
    if isinstance(value, list | tuple):
        for index, word in enumerate(value):
            if not isinstance(word, str | int | float) or isinstance(word, bool):
                raise InvalidValue(f"expected a text, got {quoted(word)}", path=f"[{index}]")
        return tuple(_argument(_as_text(word, f"[{index}]"), f"[{index}]") for index, word in enumerate(value))
    raise _expected("a list of texts or one text", value)


def command(value: Any, lax: bool) -> str:
    """A program, or a command line that a shell could split."""
    return text(value, lax)


def _split(line: str) -> tuple[str, ...]:
    try:
        return tuple(split_words(line))
    except SplitError as error:
        raise InvalidValue(f"can't be split into words: {error}", error.hint) from None


def variables(value: Any, lax: bool) -> Mapping[str, str]:
    """An object of names and texts."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise _expected("an object of names and texts", value)
    result = {}
    for key, item in value.items():
        if not isinstance(key, str) or not key or "=" in key or "\0" in key:
            raise InvalidValue(f"invalid variable name {quoted(key)}")
        path = f".{_argument(key)[:QUOTED]}"
        if isinstance(item, bool) or not isinstance(item, str | int | float):
            hint = (
                "replace null, which hides the value from keys without `define`, by the value" if item is None else None
            )
            raise InvalidValue(f"expected a text, got {quoted(item)}", hint, path)
        result[key] = _argument(_as_text(item, path), path)
    return result


def _as_text(value: str | int | float, path: str) -> str:
    if isinstance(value, int) and abs(value) > _MAX_NUMBER:
        raise InvalidValue("the number is too large", "quote it", path)
    return str(value)


_LABEL = re.compile(r"[^\s/.,:]{1,64}")


def split_list(value: Any, what: str) -> list[Any]:
    """Return the items of a list or a comma-separated text; `what` describes the expected value."""
    if value is None:
        return []
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, list | tuple):
        return list(value)
    raise _expected(what, value)


def stream_labels(value: Any, lax: bool) -> tuple[str, ...]:
    """Labels of streams: up to 64 characters without blanks and without `/ . , :`."""
    labels = split_list(value, "a list of labels")
    for index, label in enumerate(labels):
        if not isinstance(label, str) or not _LABEL.fullmatch(label):
            raise InvalidValue(
                f"invalid stream label {quoted(label)}",
                "use up to 64 characters without blanks and without / . , :",
                f"[{index}]",
            )
    return tuple(labels)


def outputs(value: Any, lax: bool) -> tuple[str, ...]:
    """At most 2 labels: stdout and stderr; the same label twice merges them."""
    labels = stream_labels(value, lax)
    if len(labels) > 2:
        raise InvalidValue(f"expected at most 2 labels, got {len(labels)}", "the first is stdout, the second stderr")
    if "stdin" in labels or "ttin" in labels:
        raise InvalidValue("'stdin' and 'ttin' are reserved for the input")
    return labels


def extra_streams(value: Any, lax: bool) -> tuple[str, ...]:
    """Different labels, one for each stream."""
    labels = stream_labels(value, lax)
    if len(set(labels)) != len(labels):
        raise InvalidValue("duplicate label")
    if "stdin" in labels or "ttin" in labels:
        raise InvalidValue("'stdin' and 'ttin' are reserved for the input")
    return labels


def channels(value: Any, lax: bool) -> tuple[Any, ...]:
    """Open handles: descriptors, or objects with a `fileno` method."""
    handles = tuple(value) if isinstance(value, list | tuple) else (value,)
    for index, handle in enumerate(handles):
        number = isinstance(handle, int) and not isinstance(handle, bool) and handle >= 0
        if not number and not callable(getattr(handle, "fileno", None)):
            raise InvalidValue(
                f"expected a descriptor or an object with fileno(), got {quoted(handle)}", path=f"[{index}]"
            )
    return handles


@dataclass(frozen=True)
class FlappingInfo:
    """When to pause and when to give up a job that keeps crashing.

    `attempts` exits within `window` seconds pause the job; it is restarted after `retry_in` seconds, at most
    `max_retry` times. Raises ConfigError for invalid values.
    """

    attempts: int = 2
    window: float = 1.0
    retry_in: float = 7.0
    max_retry: int = 5

    def __post_init__(self) -> None:
        problems = []
        for name, lowest in (("attempts", 1), ("window", 0), ("retry_in", 0), ("max_retry", 0)):
            value = getattr(self, name)
            whole = name in ("attempts", "max_retry")
            good = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
            if not good or not lowest <= value <= _MAX_SECONDS:
                kind = "a whole number" if whole else "a number"
                problems.append(
                    Problem(f"$.{name}", f"expected {kind} of {lowest} or more, at most 10^9, got {quoted(value)}")
                )
        if problems:
            raise ConfigError(problems)

    def to_dict(self) -> dict[str, float]:
        """Return the four values by name."""
        return dataclasses.asdict(self)


_FLAPPING_KEYS = tuple(f.name for f in dataclasses.fields(FlappingInfo))


def flapping_policy(value: Any, lax: bool) -> FlappingInfo | None:
    """`attempts, window, retry_in, max_retry`: an object with these keys, or up to 4 numbers in this order."""
    if value is None or isinstance(value, FlappingInfo):
        return value
    if isinstance(value, str):
        if not value.strip():
            return None
        value = [part for part in re.split(r"[,\s]+", value.strip()) if part]
    if isinstance(value, list | tuple):
        if len(value) > 4:
            raise InvalidValue(
                f"expected up to 4 numbers, got {len(value)}",
                "use attempts, window, retry_in, max_retry, such as 2, 1., 7., 5",
            )
        value = dict(zip(_FLAPPING_KEYS, value, strict=False))
    if not isinstance(value, Mapping):
        raise _expected("an object with attempts, window, retry_in, max_retry", value)
    settings = {}
    for key, item in value.items():
        if item is None:
            continue
        if key not in _FLAPPING_KEYS:
            raise InvalidValue(f"unknown key {quoted(key)}", did_you_mean(str(key), _FLAPPING_KEYS), f".{key}")
        if isinstance(item, str):
            try:
                number = float(item)
            except ValueError:
                raise InvalidValue(f"expected a number, got {quoted(item)}", path=f".{key}") from None
            item = int(number) if key in ("attempts", "max_retry") and number.is_integer() else number
        settings[key] = item
    try:
        return FlappingInfo(**settings)
    except ConfigError as error:
        problem = error.problems[0]
        raise InvalidValue(problem.message, problem.hint, problem.path.removeprefix("$")) from None


_PORT = re.compile(r"([0-9]{1,5})(\+?)", re.ASCII)


def port_plan(value: Any, lax: bool) -> str | None:
    """`8000` (one instance), `8000+` (slot k gets 8000+k-1) or `auto` (any free port, kept by the slot)."""
    if value is None or value == "":
        return None
    number = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 65535
    text = str(value).strip() if number or isinstance(value, str) else ""
    if text == "auto":
        return text
    match = _PORT.fullmatch(text)
    if not match or not 1 <= int(match[1]) <= 65535:
        raise InvalidValue(
            f"expected a port, got {quoted(value)}", "use 8000 (one instance), 8000+ (consecutive ports) or auto"
        )
    return text


def port_number(text: str) -> int | None:
    """Return the port in `text`, or None if it is not one."""
    match = _PORT.fullmatch(text)
    return int(text) if match and not match[2] and 1 <= int(text) <= 65535 else None


_ENDPOINT = re.compile(r"([A-Za-z][A-Za-z0-9_-]{0,31}):(\$PORT|\$\{PORT\}|[0-9]{1,5})", re.ASCII)


def endpoint_list(value: Any, lax: bool) -> tuple[str, ...] | None:
    """`NAME:PORT` items, where PORT is a number or `$PORT`; `none` spells an empty list in an INI file."""
    if value is None or value == "":
        return None
    if value == "none" and lax:
        return ()
    items = split_list(value, "a list of NAME:PORT")
    if len(items) > MAX_PROCESS_ENDPOINTS:
        raise InvalidValue(f"too many endpoints: {len(items)}", f"use at most {MAX_PROCESS_ENDPOINTS}")
    for index, item in enumerate(items):
        match = _ENDPOINT.fullmatch(item) if isinstance(item, str) else None
        if not match or (match[2].isdecimal() and not 1 <= int(match[2]) <= 65535):
            raise InvalidValue(
                f"expected NAME:PORT, got {quoted(item)}", "use an item such as http:$PORT or admin:9000", f"[{index}]"
            )
    return tuple(items)
