"""Base of both daemons' HTTP servers: authorization of every request, JSON input and output, one error body."""

import logging
import re
import sys
import time
from asyncio import Future
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, ClassVar, TypeVar, cast
from urllib.parse import quote

import msgspec
from tornado.httputil import HTTPMessageDelegate, HTTPServerRequest
from tornado.web import Application as TornadoApplication
from tornado.web import HTTPError, RequestHandler, stream_request_body
from tornado.websocket import WebSocketHandler

from gaffer.errors import GafferError
from gaffer.http.access import (
    TOKEN_HEADER,
    Facts,
    Grant,
    Peer,
    Policy,
    Scope,
    authenticate,
    check_content_type,
    check_origin,
    identify,
)
from gaffer.http.connections import ServedApplication, answered, is_known, mark_caller, stream_of
from gaffer.http.jsonbody import convert, decode_object
from gaffer.http.limits import DEFAULT_LIMITS, FRAMING, STRANGER_BODY, Limits, TooLarge
from gaffer.http.routes import DEFERRED, PUBLIC, Match, Open, Route, RouteTable
from gaffer.http.server import peer_of
from gaffer.http.stream import WireStream

T = TypeVar("T")

logger = logging.getLogger(__name__)

MAX_DISCARDED = 64 * 1024 * 1024  # bytes that are read and dropped so that a client still sending gets its answer

_MAX_REFUSED = 8 * 1024 * 1024  # bytes that are read from an authenticated caller whose request was refused

_LENGTH = re.compile(r"[0-9]{1,18}", re.ASCII)

_CORS_METHODS = "POST, GET, PUT, DELETE, OPTIONS"
_CORS_REQUEST_HEADERS = (
    "X-Requested-With, X-HTTP-Method-Override, Content-Type, Accept, Authorization, X-Api-Key, Last-Event-ID, "
    f"{TOKEN_HEADER}"
)
_CORS_MAX_AGE = "86400"

_BODILESS = ("GET", "HEAD", "OPTIONS")

_NOBODY = Grant(frozenset())
_GRANT = "gaffer_grant"  # attribute of a request

_POLICY_VIOLATION = 1008  # close code of a websocket, RFC 6455 section 7.4.1


class NotFound(GafferError):
    """The resource does not exist."""

    errno = 404
    reason = "not_found"


class Moved(GafferError):
    """The requested directory path lacks its final slash; Location gives the correct path."""

    errno = 301
    reason = "moved"

    def __init__(self, name: str, query: str) -> None:
        # Relative, so that it also works behind a proxy.
        self.location = f"{quote(name, safe='')}/" + (f"?{query}" if query else "")
        super().__init__("directory paths end with a slash", hint=f"go to {self.location}")


class MethodNotAllowed(GafferError):
    """The resource does not support the method. `allowed` lists the methods it supports."""

    errno = 405
    reason = "method_not_allowed"

    def __init__(self, method: str, path: str, allowed: Sequence[str]) -> None:
        self.allowed = allowed
        super().__init__(f"{path} does not support {method}", hint=f"use {' or '.join(allowed)}")


class Routed(RequestHandler):
    """A handler in a route table, created only for authorized requests.

    The connection is closed when the caller's key is revoked or the login ends. Use `adopt` to replace the grant later.
    `began` is the time at which the head of the request was read, in monotonic seconds.
    """

    application: "Application"
    parameters: ClassVar[Mapping[str, Any]] = {}
    """msgspec types of the path parameters, by name; parameters without a type accept any text."""
    answers_all: ClassVar[bool] = False
    """Whether the handler itself answers OPTIONS and unsupported methods, as its protocol requires."""
    carries_messages: ClassVar[bool] = False
    """Whether requests only carry messages, whose commands are audited one by one."""
    writes_input: ClassVar[bool] = False
    """Whether requests that change something write to a process, so that the audit summarizes them."""
    is_audited = False

    def initialize(self, params: dict[str, str], grant: Grant) -> None:
        self.began = time.monotonic()
        self.params = params
        self.grant = grant
        grant.hold(self)

    def adopt(self, grant: Grant) -> None:
        """Replace the grant of the request."""
        self.grant.release(self)
        self.grant = grant
        grant.hold(self)
        setattr(self.request, _GRANT, grant)
        mark_caller(self.stream, self.is_known)

    @property
    def is_known(self) -> bool:
        """Whether the caller is authenticated."""
        return self.application.policy.is_known(self.grant)

    @property
    def stream(self) -> WireStream | None:
        """The stream of the connection; None once it is closed."""
        if isinstance(self, WebSocketHandler) and self.ws_connection is not None:
            return cast(WireStream | None, self.ws_connection.stream)
        return stream_of(self.request)

    def revoked(self) -> None:
        """Close the connection because the grant was revoked."""
        self.grant = _NOBODY
        stream = self.stream
        if isinstance(self, WebSocketHandler) and self.ws_connection is not None:
            connection: Any = self.ws_connection
            self.close(_POLICY_VIOLATION, "access was revoked")
            connection.client_terminated = True  # messages already received are not handled
        if stream is not None:
            stream.close()

    def on_finish(self) -> None:
        if self.get_status() != 101:  # a websocket lives on after its handshake
            self.grant.release(self)

    def on_connection_close(self) -> None:
        self.audit(abandoned=True)
        self.grant.release(self)
        super().on_connection_close()

    def audit(self, *, abandoned: bool = False) -> None:
        """Have the request audited once: when its response begins, or is `abandoned` by the client before."""
        if not self.is_audited:
            self.is_audited = True
            self.application.audit(self, abandoned=abandoned)


@stream_request_body
class Handler(Routed):
    """A Routed that accepts any body, answers JSON, and turns every failure into the error body.

    A body of up to `max_discarded` bytes is read to its end before an error is sent: closing the connection while the
    client is still sending would lose the response.
    """

    def initialize(self, params: dict[str, str], grant: Grant) -> None:
        super().initialize(params, grant)
        self.document: dict[str, Any] = {}  # the JSON object in the request body, once decoded
        self.error: GafferError | None = None  # the error that is sent
        self.noted: dict[str, Any] = {}  # details for the audit that only the handler knows
        self._body = bytearray()
        self._received = 0

    @property
    def max_body(self) -> int:
        """Maximum size of a request body, in bytes."""
        return self.application.limits.max_body

    @property
    def max_discarded(self) -> int:
        """Maximum number of bytes to read of a rejected body; less for unauthenticated callers."""
        return MAX_DISCARDED if self.is_known else STRANGER_BODY

    @property
    def body(self) -> bytes:
        """The request body, empty for methods without one; raises TooLarge."""
        if self._received > self.max_body:
            raise TooLarge(self.max_body)
        return bytes(self._body)

    @property
    def refusal(self) -> GafferError:
        """The error for a body that is not read to its end."""
        return TooLarge(self.max_body)

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for 100 Continue before it sends the body."""
        return self.request.headers.get("Expect", "").lower() == "100-continue"

    def json_body(self) -> dict[str, Any]:
        """Return the JSON object in the request body; raises BadRequest or TooLarge."""
        self.document = decode_object(self.body)
        return self.document

    def body_as(self, kind: type[T]) -> T:
        """Return the JSON object in the request body as a `kind`, usually a msgspec.Struct; raises as `json_body`."""
        return convert(self.json_body(), kind)

    def query_as(self, kind: type[T]) -> T:
        """Return the query parameters as a `kind`, a msgspec.Struct; raises BadRequest with the path of an invalid one.

        An empty parameter is the same as none. Of several with one name, the last counts.
        """
        given = {name: self.get_query_argument(name, "") for name in self.request.query_arguments}
        return convert({name: value for name, value in given.items() if value}, kind, strict=False)

    def reply(self, value: Any, status: int = 200) -> None:
        """Send `value` as JSON."""
        self.set_status(status)
        self.finish(msgspec.json.encode(value))

    def reply_text(self, text: str) -> None:
        """Send plain text."""
        self.set_header("Content-Type", "text/plain; charset=UTF-8")
        self.finish(text)

    def head(self, *args: str, **kwargs: str) -> Any:
        """Answer as GET; Tornado omits the body."""
        return self.get(*args, **kwargs)

    # Hooks of Tornado

    def flush(self, include_footers: bool = False) -> "Future[None]":
        if not self._headers_written:
            self.audit()  # at once: the rest of the response may take as long as the client listens
        return super().flush(include_footers)

    def set_default_headers(self) -> None:
        self.set_header("Content-Type", "application/json")
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Content-Security-Policy", FRAMING)
        self.clear_header("Server")
        for name, value in cors_headers(self.application.policy, self.request).items():
            self.set_header(name, value)

    def prepare(self) -> None:
        assert self.request.connection is not None
        # Limits are enforced here: Tornado rejects a large body without an error body.
        cast(Any, self.request.connection).set_max_body_size(sys.maxsize)
        if _content_length(self.request) > (self.max_body if self.expects_continue else self.max_discarded):
            raise self.refusal

    def data_received(self, chunk: bytes) -> None:
        self._received += len(chunk)
        if self._received > self.max_body or self.request.method in _BODILESS:
            self._body.clear()
            if self._received > self.max_discarded and not self._finished:
                error = self.refusal
                self.send_error(exc_info=(type(error), error, None))
        else:
            self._body += chunk

    def compute_etag(self) -> None:
        return None

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        if not isinstance(value, GafferError | HTTPError):
            logger.error(
                "%s %s failed",
                self.request.method,
                self.request.path,
                exc_info=(typ, value, tb),  # type: ignore[arg-type]
            )

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        exc_info = kwargs.get("exc_info")
        error = self.error = self.error_of(exc_info[1] if exc_info else None, status_code)
        super().send_error(error.errno, error=error, **kwargs)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error: GafferError = kwargs["error"]
        if isinstance(error, MethodNotAllowed):
            self.set_header("Allow", ", ".join(error.allowed))
        if isinstance(error, Moved):
            self.set_header("Location", error.location)
        if error.errno == 401:
            self.set_header("WWW-Authenticate", 'Bearer realm="gaffer"')
        self.finish(error.to_json())

    def error_of(self, failure: BaseException | None, status: int) -> GafferError:
        """Return the error to send for an exception that ended a request."""
        if isinstance(failure, GafferError):
            return failure
        if isinstance(failure, MemoryError):
            return GafferError("out of memory", reason="out_of_memory", errno=503, hint="try again later")
        if status == 500:
            return GafferError("internal error; see the log of the server")
        message = failure.get_message() if isinstance(failure, HTTPError) else None
        name = HTTPStatus(status).phrase
        return GafferError(message or name, reason=name.lower().replace(" ", "_"), errno=status)


class ErrorHandler(Handler):
    """The handler of unauthorized requests: sends the error and discards the body."""

    max_body = 0

    def initialize(self, error: GafferError) -> None:  # type: ignore[override]
        super().initialize({}, _NOBODY)
        self._error = error

    @property
    def max_discarded(self) -> int:
        return _MAX_REFUSED if is_known(self.stream) else STRANGER_BODY

    @property
    def refusal(self) -> GafferError:
        return self._error

    def prepare(self) -> None:
        super().prepare()
        if self.expects_continue:
            raise self._error

    def error_of(self, failure: BaseException | None, status: int) -> GafferError:
        return self._error if isinstance(failure, HTTPError) else super().error_of(failure, status)

    def _fail(self) -> None:
        raise self._error

    get = head = post = put = delete = patch = options = _fail  # type: ignore[assignment]


class OptionsHandler(Handler):
    """The handler of OPTIONS on any path: 204, with CORS headers for allowed origins."""

    def initialize(self, route: Route | None) -> None:  # type: ignore[override]
        super().initialize({}, _NOBODY)
        self._route = route

    def options(self) -> None:
        self.set_status(204)
        if self._route is not None:
            self.set_header("Allow", ", ".join(self._route.allowed))
        self.finish()


class Application(TornadoApplication, ServedApplication):
    """An application that authorizes requests and dispatches them by one route table.

    `extra` are Tornado rules for paths outside the table. They are authorized in the same way: GET, HEAD and OPTIONS
    need the scope `read`, other methods `control`.
    """

    def __init__(
        self,
        routes: Iterable[Route],
        policy: Policy,
        extra: Sequence[Any] = (),
        limits: Limits = DEFAULT_LIMITS,
        **settings: Any,
    ) -> None:
        settings.setdefault("log_function", log_request)
        super().__init__(list(extra), **settings)
        self.routes = RouteTable(routes)
        self.policy = policy
        self.limits = limits

    def trusts(self, peer: Peer) -> bool:
        return bool(self.policy.scopes_of(peer))

    def shows_key(self, head: bytes) -> bool:
        return self.policy.shows_key(head)

    def authorize(self, match: Match, method: str, grant: Grant) -> None:
        """Raise Forbidden unless the grant includes the scope of the route."""
        scope = match.route.scope(method)
        if not isinstance(scope, Open):
            grant.require(scope)

    def audit(self, handler: RequestHandler, *, abandoned: bool) -> None:
        """Called once for each request to a resource, see Routed.audit; override it to record what changes."""

    def log_request(self, handler: RequestHandler) -> None:
        super().log_request(handler)
        if not isinstance(handler, Routed):
            self.audit(handler, abandoned=False)
        if handler.get_status() != 101:
            answered(handler.request)

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        try:
            return self._find_handler(request)
        except GafferError as error:
            return self.get_handler_delegate(request, ErrorHandler, {"error": error})

    def _find_handler(self, request: HTTPServerRequest) -> HTTPMessageDelegate:
        method = request.method or ""
        match = self.routes.match(request.path)
        scope = match.route.scope(method) if match is not None and match.route.answers(method) else None
        if match is not None and scope is PUBLIC:
            self._recognize(request)
            return self.deliver(request, match, _NOBODY)
        facts = Facts.from_headers(method, request.protocol, request.headers, peer_of(request))
        if method == "OPTIONS":
            check_origin(self.policy, facts)
            if match is not None and match.route.handler.answers_all:
                return self.deliver(request, match, _NOBODY)
            return self.get_handler_delegate(request, OptionsHandler, {"route": match.route if match else None})
        grant = self._identify(request, facts, is_needed=scope is not DEFERRED)
        if match is None:
            return self._find_extra(request, facts, grant)
        if not match.route.answers(method):
            if match.route.handler.answers_all:
                return self.deliver(request, match, grant)
            raise MethodNotAllowed(method, request.path, match.route.allowed)
        self.authorize(match, method, grant)
        check_content_type(facts, accepts_text=match.route.accepts_text)
        return self.deliver(request, match, grant)

    def _recognize(self, request: HTTPServerRequest) -> None:
        """Mark a caller as authenticated if it presents a key that is not needed, as monitoring may do."""
        stream = stream_of(request)
        if is_known(stream):
            return
        key = Facts.from_headers("GET", request.protocol, request.headers, peer_of(request)).key
        grant = self.policy.verify(key) if key is not None else None
        mark_caller(stream, grant is not None and self.policy.is_known(grant))

    def _identify(self, request: HTTPServerRequest, facts: Facts, *, is_needed: bool) -> Grant:
        """Return the grant of the caller; unless `is_needed`, one without scopes for an unauthenticated caller."""
        grant = _NOBODY
        try:
            grant = authenticate(self.policy, facts) if is_needed else identify(self.policy, facts) or _NOBODY
        finally:
            setattr(request, _GRANT, grant)
            mark_caller(stream_of(request), self.policy.is_known(grant))
        return grant

    def deliver(self, request: HTTPServerRequest, match: Match, grant: Grant) -> HTTPMessageDelegate:
        """Return the delegate for an authorized request."""
        return self.get_handler_delegate(request, match.route.handler, {"params": match.params, "grant": grant})

    def _find_extra(self, request: HTTPServerRequest, facts: Facts, grant: Grant) -> HTTPMessageDelegate:
        delegate = self.default_router.find_handler(request)
        if delegate is None:
            raise NotFound(f"there is no resource {request.path}")
        grant.require(Scope.READ if facts.is_safe else Scope.CONTROL)
        check_content_type(facts)
        return delegate


def grant_of(request: HTTPServerRequest) -> Grant:
    """Return the grant of a request, without scopes if its caller is unknown or was not asked for a key."""
    grant: Grant = getattr(request, _GRANT, _NOBODY)
    return grant


def _content_length(request: HTTPServerRequest) -> int:
    """Return the announced length of the body; 0 if it is missing or not a number, which Tornado rejects."""
    text = request.headers.get("Content-Length", "")
    if _LENGTH.fullmatch(text):
        return int(text)
    return sys.maxsize if text.isascii() and text.isdigit() else 0


def cors_headers(policy: Policy, request: HTTPServerRequest) -> dict[str, str]:
    """Return the headers that let a page of an allowed origin read the response; none for other origins."""
    origin = request.headers.get("Origin")
    if origin is None or not policy.allows_origin(origin):
        return {}
    headers = {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Expose-Headers": "X-Gaffer-Offset, X-Gaffer-Gap, X-Gaffer-Accepted",
        "Vary": "Origin",
    }
    if request.method == "OPTIONS":
        headers["Access-Control-Allow-Methods"] = _CORS_METHODS
        headers["Access-Control-Allow-Headers"] = _CORS_REQUEST_HEADERS
        headers["Access-Control-Max-Age"] = _CORS_MAX_AGE
    return headers


def log_request(handler: RequestHandler) -> None:
    """Write a line of the access log at level debug; server failures have been logged as errors already."""
    request = handler.request
    logger.debug(
        "%d %s %s (%.1f ms)", handler.get_status(), request.method, request.path, 1000 * request.request_time()
    )
