"""The route table: one list from which requests are routed, and everything that describes the API is made.

A pattern is a path of literal segments and parameters: `{name}` takes any segment, `{name:digits}` one of ASCII digits.
Literals win over digits, digits over any; a segment that is taken once is not reconsidered, so `/processes/12` never
falls back to a job called "12". At the end of a pattern `{name:rest}` takes the segments that are left, one at least,
where nothing else takes the first of them: the path of a file, which may be empty or end with a slash.
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
    """Stands in place of a scope where a method needs none."""

    PUBLIC = "public"  # for everybody, whatever the policy says
    DEFERRED = (
        "deferred"  # Origin and Host are checked; the handler requires what it needs, once it has asked for a key
    )


PUBLIC = Open.PUBLIC
DEFERRED = Open.DEFERRED


class Route(NamedTuple):
    """One resource: `methods` maps each HTTP method to the scope it needs, or to PUBLIC or DEFERRED.

    HEAD comes with GET. A handler may require more than that once it knows the body; then its docstring says so. The
    handler of a DEFERRED method has the caller's grant, one without scopes for a caller who is not known yet.
    `takes_text` lets web pages send text/plain, as the clients of SockJS do.
    """

    pattern: str
    handler: "type[Routed]"
    methods: Mapping[str, Scope | Open]
    takes_text: bool = False

    @property
    def allowed(self) -> list[str]:
        """The methods as in an Allow header."""
        return sorted({*self.methods, "OPTIONS"} | ({"HEAD"} if "GET" in self.methods else set()))

    def answers(self, method: str) -> bool:
        """Whether it has that HTTP method."""
        return method in self.methods or (method == "HEAD" and "GET" in self.methods)

    def scope(self, method: str) -> Scope | Open:
        """What the method needs; KeyError when the route doesn't answer it."""
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
    """Paths that a route with that pattern matches: with a number or a word for each parameter."""
    kinds = [match[2] for match in _PARAMETER.finditer(pattern)]
    for values in product(*(("1",) if kind == "digits" else ("1", "x") for kind in kinds)):
        yield _filled(pattern, values)


def _filled(pattern: str, values: Iterable[str]) -> str:
    remaining = iter(values)
    return _PARAMETER.sub(lambda _: next(remaining), pattern)


class RouteTable:
    """Finds the route of a path by walking it segment by segment through dictionaries."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._root = _Node()
        self._routes: list[Route] = []
        for route in routes:
            self._add(route)

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes)

    def match(self, path: str) -> Match | None:
        """The route of a raw request path, None when there is none.

        A rest has no segment with an encoded slash: it would read as two. Raises BadRequest when a percent-encoded
        segment is not UTF-8.
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
                raise ValueError(f"{route.pattern} goes on after what takes the rest of a path")
            node = _child(node, segment)
        if node.route is not None:
            raise ValueError(f"two routes for {route.pattern}")
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
        raise ValueError(f"{segment} is called {{{taken[0]}}} in another route")
    return taken[1]
