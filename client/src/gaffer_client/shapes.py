"""The types to validate responses: those of gaffer.schemas, relaxed for servers of other versions.

Such servers may omit `Later` fields, use unknown enumeration values, exceed limits and have other job settings. Unknown
fields are always allowed and kept.
"""

import threading
import types
from contextlib import suppress
from enum import StrEnum
from functools import cache, reduce
from operator import or_
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    TypedDict,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from msgspec import Struct, ValidationError, convert

from gaffer.schemas.common import LATER

_new_typed_dict: Any = TypedDict
_not_required: Any = NotRequired


_building = threading.Lock()
_built: dict[Any, Any] = {}


def validate(document: object, shape: Any) -> None:
    """Raise msgspec.ValidationError if a document is not valid as `shape`, relaxed; thread-safe."""
    relaxed = _built.get(shape)
    if relaxed is None:
        # At the first use of a type, msgspec builds its own description of it; two threads that do so at once crash.
        with _building, suppress(ValidationError):
            relaxed = tolerant(shape)
            convert(None, relaxed)
        _built[shape] = relaxed
    convert(document, relaxed)


def tolerant(shape: Any) -> Any:
    """Return the relaxed type that matches responses of servers of any version."""
    return _loosen(shape, ())


@cache
def _loosen(shape: Any, within: tuple[Any, ...]) -> Any:
    origin, arguments = get_origin(shape), get_args(shape)
    if shape in within:
        return dict[str, Any]  # a recursive type is checked one level deep
    if is_typeddict(shape):
        hints = get_type_hints(shape, include_extras=True)
        fields = {name: _loosen_field(hint, (*within, shape)) for name, hint in hints.items()}
        return _new_typed_dict(shape.__name__, fields)
    if origin is Annotated:
        return _loosen(arguments[0], within)
    if origin is Literal:
        return reduce(or_, (type(value) for value in arguments))
    if isinstance(shape, type) and issubclass(shape, StrEnum):
        return str
    if isinstance(shape, type) and issubclass(shape, Struct):
        return dict[str, Any]
    if origin in (Union, types.UnionType):
        return reduce(or_, (_loosen(each, within) for each in arguments))
    if origin in (list, dict):
        return origin[tuple(_loosen(each, within) for each in arguments)]
    return shape


def _loosen_field(hint: Any, within: tuple[Any, ...]) -> Any:
    origin = get_origin(hint)
    later = origin is NotRequired or (origin is Annotated and LATER in hint.__metadata__)
    kind = _loosen(get_args(hint)[0] if origin is NotRequired else hint, within)
    return _not_required[kind] if later else kind
