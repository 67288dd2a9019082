"""Generation of the OpenAPI 3.1 document of an API from its route table and the operations of its handlers.

Routes that differ only in their parameters, such as `/processes/{name}` and `/processes/{pid:digits}`, form one path of
the document, whose parameters and operations are the union of theirs.
"""

import inspect
import re
import sys
from collections.abc import Container, Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import Annotated, Any, NamedTuple, get_args

import msgspec
from msgspec import Meta
from tornado.websocket import WebSocketHandler

from gaffer.errors import BadRequest, ManagerStopping, ProcessNotFound
from gaffer.http.access import TOKEN_HEADER, AuthRequired, Forbidden, UnsupportedMediaType
from gaffer.http.base import MethodNotAllowed, NotFound
from gaffer.http.error_body import ErrorBody
from gaffer.http.limits import TooLarge
from gaffer.http.operations import JSON, TEXT, Operation, operation_of
from gaffer.http.routes import PUBLIC, Route

_PARAMETER = re.compile(r"\{([a-z_0-9]+)(:digits|:rest)?\}")
_ROWS = re.compile(r" \([A-Z]+-\d+[^)]*\)")
_MUTATING = frozenset(("POST", "PUT", "PATCH", "DELETE"))
_GATE_ERRORS = (
    BadRequest,
    AuthRequired,
    Forbidden,
    NotFound,
    ProcessNotFound,
    MethodNotAllowed,
    TooLarge,
    UnsupportedMediaType,
    ManagerStopping,
)
_ANY_TEXT = Annotated[str, Meta(min_length=1)]

_DESCRIPTION = """\
The daemon's own user and root, on the same host, need no key; all other callers must present one. `x-scope` is the
scope that an operation requires: `public` requires none, `deferred` depends on the request."""


class _Case(NamedTuple):
    """A method of a route with its operation."""

    route: Route
    method: str
    operation: Operation

    @property
    def errors(self) -> set[int]:
        """The statuses of possible error responses."""
        statuses = {error if isinstance(error, int) else error.errno for error in self.operation.errors}
        statuses.update(self.operation.text_errors)
        if _PARAMETER.search(self.route.pattern):
            statuses |= {400, 404}
        if self.operation.query or self.operation.body:
            statuses.add(400)
        if self.route.scope(self.method) is not PUBLIC:
            statuses |= {401, 403}
        if self.method in _MUTATING:
            statuses |= {413, 415, 503}
        return statuses


def _accepted(schemes: Iterable[str]) -> list[dict[str, list[str]]]:
    """Return the security requirements: each scheme by itself, the token only together with the cookie."""
    return [{"cookie": [], "token": []} if name == "token" else {name: []} for name in schemes]


def make_document(routes: Iterable[Route], *, title: str, version: str, cookie: str | None = None) -> dict[str, Any]:
    """Return the document for the routes; `cookie` is the name of the cookie that stands for a key, if there is one."""
    paths = [(_path_of(group), group, _cases_of(group)) for group in _by_form(routes)]
    cases = [case for _, _, by_method in paths for found in by_method.values() for case in found]
    schemas = _Schemas(_types_in(cases))
    security: dict[str, Any] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
    }
    if cookie is not None:
        security["cookie"] = {
            "type": "apiKey",
            "in": "cookie",
            "name": cookie,
            "description": "Sufficient for GET and HEAD; other methods also require the token.",
        }
        security["token"] = {"type": "apiKey", "in": "header", "name": TOKEN_HEADER}
    statuses = sorted(
        {(405, False)} | {(status, status in case.operation.text_errors) for case in cases for status in case.errors}
    )
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": _DESCRIPTION},
        "servers": [{"url": "/"}],
        "security": [*_accepted(security), {}],
        "tags": _tags(cases),
        "paths": {
            path: {
                "parameters": _path_parameters(path, group, schemas),
                **{
                    method.lower(): _describe(path, method, found, schemas, whole=len(found) == len(group))
                    for method, found in by_method.items()
                },
            }
            for path, group, by_method in paths
        },
        "components": {
            "schemas": schemas.components,
            "responses": {
                _error_name(status, is_text=is_text): _error(status, cases, schemas, is_text=is_text)
                for status, is_text in statuses
            },
            "securitySchemes": security,
        },
    }


class _Schemas:
    """The schemas of types; `components` holds the ones they refer to."""

    def __init__(self, types: Iterable[Any]) -> None:
        unique = list(dict.fromkeys(types))
        found, components = msgspec.json.schema_components(unique, ref_template="#/components/schemas/{name}")
        self.components: dict[str, Any] = _tidied(components)
        self._of = dict(zip(unique, _tidied(list(found)), strict=True))

    def any_of(self, types: Iterable[Any]) -> dict[str, Any]:
        """Return the schema of the union of the types."""
        found = [self._of[each] for each in dict.fromkeys(types)]
        return found[0] if len(found) == 1 else {"anyOf": found}


def _tidied(schema: Any) -> Any:
    """Return a schema with docstrings cleaned up for readers."""
    if isinstance(schema, list):
        return [_tidied(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    tidied = {key: _tidied(value) for key, value in schema.items()}
    if isinstance(tidied.get("description"), str):
        tidied["description"] = _ROWS.sub("", inspect.cleandoc(tidied["description"]))
    return tidied


def _types_in(cases: Iterable[_Case]) -> Iterator[Any]:
    yield ErrorBody
    yield _ANY_TEXT
    for case in cases:
        yield from case.route.handler.parameters.values()
        yield from _alternatives(case.operation.returns)
        yield from _alternatives(case.operation.body)
        if case.operation.query is not None:
            yield from (field.type for field in msgspec.structs.fields(case.operation.query))


def _alternatives(kind: Any) -> tuple[Any, ...]:
    """Return the types in `returns` or `body`; a None among several only marks the body as optional."""
    kinds = kind if isinstance(kind, tuple) else get_args(kind) if type(None) in get_args(kind) else (kind,)
    return tuple(each for each in kinds if each not in (None, type(None)))


def _by_form(routes: Iterable[Route]) -> list[list[Route]]:
    forms: dict[str, list[Route]] = {}
    for route in routes:
        forms.setdefault(_PARAMETER.sub("{}", route.pattern), []).append(route)
    # The route that matches any segment comes first and names the path.
    return [sorted(group, key=lambda route: ":digits" in route.pattern) for group in forms.values()]


def _path_of(group: Sequence[Route]) -> str:
    return _PARAMETER.sub(r"{\1}", group[0].pattern)


def _cases_of(group: Sequence[Route]) -> dict[str, list[_Case]]:
    found: dict[str, list[_Case]] = {}
    for route in group:
        socket = issubclass(route.handler, WebSocketHandler)
        methods = [*route.methods, *(["HEAD"] if "HEAD" not in route.methods and "GET" in route.methods else [])]
        for method in methods:
            if socket and method == "HEAD":
                continue
            described = operation_of(route.handler, method) or Operation(None, 101 if socket else 200)
            found.setdefault(method, []).append(_Case(route, method, described))
    return found


def _tags(cases: Iterable[_Case]) -> list[dict[str, str]]:
    modules = dict.fromkeys(_family(case) for case in cases)
    return [
        {"name": _tag(name), "description": _first_sentence(sys.modules[name]).partition(":")[0]} for name in modules
    ]


def _family(case: _Case) -> str:
    """Return the module of the handler, or its package: `gaffer.api.jobs`, `gaffer.http.sockjs`, `gafferd.sites`."""
    return ".".join(case.route.handler.__module__.split(".")[:3]).removesuffix(".routes")


def _tag(module: str) -> str:
    return module.rpartition(".")[2]


def _first_sentence(thing: Any) -> str:
    text = " ".join((inspect.getdoc(thing) or "").partition("\n\n")[0].split())
    return text.partition(". ")[0].rstrip(".")


def _path_parameters(path: str, group: Sequence[Route], schemas: _Schemas) -> list[dict[str, Any]]:
    of_routes = [[match[1] for match in _PARAMETER.finditer(route.pattern)] for route in group]
    return [
        {
            "name": match[1],
            "in": "path",
            "required": True,
            "schema": schemas.any_of(
                route.handler.parameters.get(names[position], _ANY_TEXT)
                for route, names in zip(group, of_routes, strict=True)
            ),
        }
        for position, match in enumerate(_PARAMETER.finditer(path))
    ]


def _describe(path: str, method: str, cases: Sequence[_Case], schemas: _Schemas, *, whole: bool) -> dict[str, Any]:
    """Return the operation object of a method; `whole` means that all routes of the path support it."""
    scopes = [str(case.route.scope(method).value) for case in cases]
    described: dict[str, Any] = {
        "operationId": method.lower()
        + re.sub(r"[^A-Za-z0-9]+", "_", path.rstrip("}")).removesuffix("_" if path == "/" else ""),
        "summary": ", or: ".join(dict.fromkeys(_first_sentence(case.route.handler) for case in cases)),
        "description": "\n\n".join(dict.fromkeys(_doc(case) for case in cases)),
        "tags": [_tag(_family(cases[0]))],
        "x-scope": scopes[0],
    }
    if len(set(scopes)) > 1:
        described["x-scopes"] = {case.route.pattern: scope for case, scope in zip(cases, scopes, strict=True)}
    if scopes[0] == PUBLIC.value:
        described["security"] = []
    if parameters := [each for case in cases for each in _query_parameters(case.operation, schemas)]:
        described["parameters"] = parameters
    if bodies := [case.operation for case in cases if case.operation.body is not None]:
        described["requestBody"] = _request_body(bodies, schemas)
    errors = {status for case in cases for status in case.errors} | (set() if whole else {405})
    texts = {status for case in cases for status in case.operation.text_errors}
    described["responses"] = _errors(errors, texts) | _responses(method, cases, schemas)
    return described


def _doc(case: _Case) -> str:
    """Return the docstring of the method, or of the handler if the method is inherited from Tornado."""
    method = getattr(case.route.handler, "get" if case.method == "HEAD" else case.method.lower())
    own = not method.__module__.startswith("tornado.")
    return inspect.getdoc(method if own else case.route.handler) or ""


def _query_parameters(operation: Operation, schemas: _Schemas) -> list[dict[str, Any]]:
    if operation.query is None:
        return []
    described = []
    for field in msgspec.structs.fields(operation.query):
        schema = _without_null(schemas.any_of([field.type]))
        if field.default not in (msgspec.NODEFAULT, msgspec.UNSET, None):
            schema["default"] = field.default
        described.append({"name": field.encode_name, "in": "query", "required": field.required, "schema": schema})
    return described


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema without null, for a parameter that is omitted instead."""
    kept = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    return {**rest, **kept[0]} if len(kept) == 1 else {**rest, "anyOf": kept} if kept else rest


def _request_body(operations: Sequence[Operation], schemas: _Schemas) -> dict[str, Any]:
    return {
        "required": all(type(None) not in get_args(each.body) for each in operations),
        "content": {each.body_media: _content(each.body_media, [each.body], schemas) for each in operations},
    }


def _content(media: str, kinds: Iterable[Any], schemas: _Schemas, *, lines: bool = False) -> dict[str, Any]:
    if media not in (JSON, TEXT):
        return {}  # raw bytes, or an event stream
    types = [each for kind in kinds for each in _alternatives(kind)]
    schema = schemas.any_of(types) if types else {"type": "string"}
    # The schema of one line; a whole feed is not a JSON document.
    return {"x-item-schema" if lines else "schema": schema}


def _responses(method: str, cases: Sequence[_Case], schemas: _Schemas) -> dict[str, Any]:
    """Return the response objects of success."""
    found: dict[str, Any] = {}
    for status in sorted({case.operation.status for case in cases}):
        answers = [case.operation for case in cases if case.operation.status == status]
        response: dict[str, Any] = {"description": HTTPStatus(status).phrase}
        if headers := {name: text for answer in answers for name, text in answer.headers}:
            response["headers"] = {
                name: {"description": text, "schema": {"type": "string"}} for name, text in headers.items()
            }
        media_types = dict.fromkeys(
            media
            for answer in answers
            if answer.returns is not None or answer.media != (JSON,)
            for media in answer.media
        )
        if media_types and method != "HEAD":
            response["content"] = {
                media: _content(
                    media,
                    [answer.returns for answer in answers if media in answer.media],
                    schemas,
                    lines=any(answer.endless and not answer.document for answer in answers),
                )
                for media in media_types
            }
        found[str(status)] = response
    return found


def _errors(statuses: Iterable[int], texts: Container[int]) -> dict[str, Any]:
    return {
        str(status): {"$ref": f"#/components/responses/{_error_name(status, is_text=status in texts)}"}
        for status in sorted(statuses)
    }


def _error_name(status: int, *, is_text: bool) -> str:
    return re.sub(r"[^A-Za-z]", "", HTTPStatus(status).phrase) + ("Text" if is_text else "")


def _error(status: int, cases: Iterable[_Case], schemas: _Schemas, *, is_text: bool) -> dict[str, Any]:
    """Return the response for a status, listing all errors with that status; `is_text` if it may be plain text."""
    kinds = dict.fromkeys((*_GATE_ERRORS, *(kind for case in cases for kind in case.operation.errors)))
    codes = [
        f"`{kind.reason}`: {_first_sentence(kind)}"
        for kind in kinds
        if not isinstance(kind, int) and kind.errno == status
    ]
    response: dict[str, Any] = {"description": "; ".join(codes) or HTTPStatus(status).phrase}
    if status != HTTPStatus.NOT_MODIFIED:
        response["content"] = {JSON: {"schema": schemas.any_of([ErrorBody])}}
        if is_text:
            response["content"][TEXT] = {"schema": {"type": "string"}}
    return response
