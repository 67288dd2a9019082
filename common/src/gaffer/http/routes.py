"""The route table: the one list that requests are routed by and that descriptions of the API are generated from.

A pattern is a path of literal segments and parameters: `{name}` matches any segment, `{name:digits}` one of ASCII
digits. Literals take precedence over digits, and digits over any segment. There is no backtracking, so `/processes/12`
never means a job called "12". At the end of a pattern `{name:rest}` matches all remaining segments, at least one, if
nothing else matches the first of them: the path of a file, which may be empty or end with a slash.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from itertools import product
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from gaffer.errors import BadRequest
from gaffer.http.access import Scope

if TYPE_CHECKING:
    from gaffer.http.base import Routed

_PARAMETER = re.compile(r"\{([a-z_]+)(?::(digits|rest))?\}")
_DIGITS = re.compile(r"[0-9]+", re.ASCII)


class Open(Enum):
    """The values that take the place of a scope for methods that require none."""

    PUBLIC = "public"  # for all callers, regardless of the policy
    DEFERRED = (
        "deferred"  # Origin and Host are checked; the handler itself authenticates the caller and requires scopes
    )


PUBLIC = Open.PUBLIC
DEFERRED = Open.DEFERRED


class Route(NamedTuple):
    """One resource: `methods` maps each HTTP method to the scope it requires, or to PUBLIC or DEFERRED.

    GET includes HEAD. A handler may require further scopes depending on the body, which its docstring then documents.
    The handler of a DEFERRED method receives the caller's grant, without scopes if the caller is not authenticated yet.
    `accepts_text` lets web pages send text/plain, as SockJS clients do.
    """

    pattern: str
    handler: "type[Routed]"
    methods: Mapping[str, Scope | Open]
    accepts_text: bool = False

    @property
    def allowed(self) -> list[str]:
        """The methods for an Allow header."""
        return sorted({*self.methods, "OPTIONS"} | ({"HEAD"} if "GET" in self.methods else set()))

    def answers(self, method: str) -> bool:
        """Return whether the route supports the HTTP method."""
        return method in self.methods or (method == "HEAD" and "GET" in self.methods)

    def scope(self, method: str) -> Scope | Open:
        """Return the scope that the method requires; KeyError if the route does not support it."""
        return self.methods["GET" if method == "HEAD" and "HEAD" not in self.methods else method]


class Match(NamedTuple):
    """A route and the values of its parameters, percent-decoded."""

    route: Route
    params: dict[str, str]


class _Node:
    __slots__ = ("any", "digits", "is_rest", "literals", "rest", "route")

    def __init__(self, *, is_rest: bool = False) -> None:
        self.literals: dict[str, _Node] = {}
        self.digits: tuple[str, _Node] | None = None
        self.any: tuple[str, _Node] | None = None
        self.rest: tuple[str, _Node] | None = None
        self.route: Route | None = None
        self.is_rest = is_rest  # nothing follows it


def example_paths(pattern: str) -> Iterator[str]:
    """Yield paths that match the pattern, with a number or a word for each parameter."""
    kinds = [match[2] for match in _PARAMETER.finditer(pattern)]
    for values in product(*(("1",) if kind == "digits" else ("1", "x") for kind in kinds)):
        yield _filled(pattern, values)


def _filled(pattern: str, values: Iterable[str]) -> str:
    remaining = iter(values)
    return _PARAMETER.sub(lambda _: next(remaining), pattern)


class RouteTable:
    """The routes of an API, found by walking a path segment by segment through dictionaries."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._root = _Node()
        self._routes: list[Route] = []
        for route in routes:
            self._add(route)

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes)

    def match(self, path: str) -> Match | None:
        """Return the route and parameters of a raw request path, None if there is no route.

        `rest` does not match segments with an encoded slash, which would become two. Raises BadRequest for a
        percent-encoded segment that is not UTF-8.
        """
        node, params = self._root, {}
        segments = _segments(path)
        for position, segment in enumerate(segments):
            value = _decoded(segment)
            child = node.literals.get(value)
            if child is not None:
                node = child
                continue
            taken = node.digits if node.digits is not None and _DIGITS.fullmatch(value) else node.any
            if taken is not None and value:
                name, node = taken
                params[name] = value
                continue
            if node.rest is None:
                return None
            name, node = node.rest
            rest = [_decoded(each) for each in segments[position:]]
            if any("/" in each for each in rest):
                return None
            params[name] = "/".join(rest)
            break
        return Match(node.route, params) if node.route is not None else None

    def _add(self, route: Route) -> None:
        node = self._root
        for segment in _segments(route.pattern):
            if node.is_rest:
                raise ValueError(f"{route.pattern}: nothing may follow a :rest parameter")
            node = _child(node, segment)
        if node.route is not None:
            raise ValueError(f"duplicate route {route.pattern}")
        node.route = route
        self._routes.append(route)


def _segments(path: str) -> list[str]:
    path = path.removeprefix("/")
    return path.split("/") if path else []


def _decoded(segment: str) -> str:
    try:
        return unquote(segment, errors="strict") if "%" in segment else segment
    except UnicodeDecodeError:
        raise BadRequest(f"the path segment {segment!r} is not percent-encoded UTF-8") from None


def _child(node: _Node, segment: str) -> _Node:
    parameter = _PARAMETER.fullmatch(segment)
    if parameter is None:
        return node.literals.setdefault(segment, _Node())
    name, kind = parameter[1], parameter[2] or "any"
    taken: tuple[str, _Node] | None = getattr(node, kind)
    if taken is None:
        taken = (name, _Node(is_rest=kind == "rest"))
        setattr(node, kind, taken)
    elif taken[0] != name:
        raise ValueError(f"{segment} is named {{{taken[0]}}} in another route")
    return taken[1]
