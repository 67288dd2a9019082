"""JSON request bodies: decoding that reports the position of an error, and conversion to typed values.

The number of values is limited because a megabyte of JSON can hold half a million of them, which would block the event
loop for a tenth of a second.
"""

import re
from typing import Any, TypeVar

import msgspec

from gaffer.errors import QUOTED, BadRequest, GafferError

MAX_VALUES = 50_000
_SLICE = 64 * 1024

T = TypeVar("T")

_AT_PATH = re.compile(r"(.*) - at `(\$.*)`", re.DOTALL)
_LONG_NUMBER = re.compile(rb"[0-9]{19}")  # may be more than 64 bits
_MIN_NUMBER, _MAX_NUMBER = -(2**63), 2**64 - 1
_AT_BYTE = re.compile(r"(.*) \(byte ([0-9]+)\)", re.DOTALL)


class TooManyValues(GafferError):
    """The JSON holds too many values."""

    errno = 413
    reason = "too_large"

    def __init__(self) -> None:
        super().__init__(f"the JSON holds more than {MAX_VALUES} values", hint="split the request into smaller ones")


def check_size(text: bytes | str) -> None:
    """Raise TooManyValues if the JSON may hold more than MAX_VALUES values; commas within strings count as well."""
    marks = 0
    for start in range(0, len(text) if len(text) > MAX_VALUES else 0, _SLICE):
        part = text[start : start + _SLICE]
        if isinstance(part, bytes):
            marks += part.count(b",") + part.count(b"[") + part.count(b"{")
        else:
            marks += part.count(",") + part.count("[") + part.count("{")
        if marks > MAX_VALUES:
            raise TooManyValues


def decode_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in `body`.

    Raises BadRequest (`invalid_json` with the position, or `bad_request`) and TooManyValues.
    """
    if not body.strip():
        raise BadRequest("the body is empty", hint="send a JSON object")
    check_size(body)
    try:
        value = msgspec.json.decode(body)
    except UnicodeDecodeError:
        raise BadRequest("the body is not UTF-8", reason="invalid_json") from None
    except RecursionError:
        raise BadRequest("the body is nested too deeply", reason="invalid_json") from None
    except msgspec.DecodeError as error:
        raise BadRequest(f"the body is not valid JSON: {_describe(body, str(error))}", reason="invalid_json") from None
    if not isinstance(value, dict):
        raise BadRequest("the body must be a JSON object", path="$")
    check_numbers(body, value)
    return value


def check_numbers(text: bytes, value: Any) -> None:
    """Raise BadRequest with the path of an integer over 64 bits in `value`, the decoded JSON `text`.

    Such integers overflow floats, timers, system calls and messages.
    """
    if _LONG_NUMBER.search(text) is not None:
        _check_numbers(value, "$")


def _check_numbers(value: Any, path: str) -> None:
    if isinstance(value, int) and not _MIN_NUMBER <= value <= _MAX_NUMBER:
        raise BadRequest("the number is too large", path=path, hint="use at most 64 bits")
    if isinstance(value, dict):
        for key, item in value.items():
            _check_numbers(item, f"{path}.{key[:QUOTED]}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_numbers(item, f"{path}[{index}]")


def convert(value: Any, kind: type[T], *, strict: bool = True) -> T:
    """Convert `value`, decoded from JSON, to a `kind`; raises BadRequest with the path of the first error.

    Unless `strict`, texts stand for numbers, as in a query. Null for an optional field of a Struct is the same as
    leaving the field out.
    """
    if isinstance(value, dict) and isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        optional = {field.encode_name for field in msgspec.structs.fields(kind) if not field.required}
        value = {key: item for key, item in value.items() if item is not None or key not in optional}
    try:
        return msgspec.convert(value, kind, strict=strict)
    except msgspec.ValidationError as error:
        match = _AT_PATH.fullmatch(str(error))
        message, path = match.groups() if match else (str(error), "$")
        raise BadRequest(_uncapitalized(message), path=path) from None


def _describe(body: bytes, problem: str) -> str:
    """Return the decoder's message with line and column added to its byte offset."""
    match = _AT_BYTE.fullmatch(problem)
    if match is None:
        return _uncapitalized(problem)
    message, position = match[1].removeprefix("JSON is malformed: "), int(match[2])
    line_start = body.rfind(b"\n", 0, position) + 1
    line = body.count(b"\n", 0, position) + 1
    return f"{message} at byte {position} (line {line}, column {position - line_start + 1})"


def _uncapitalized(message: str) -> str:
    return message[:1].lower() + message[1:]
