"""The resources of SockJS without a session: the greeting, /info, the iframe page and the client script."""

import hashlib
import re
import secrets
import time
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypedDict

from msgspec import Meta
from tornado.httputil import format_timestamp

from gaffer.http.base import Handler, NotFound, cors_headers
from gaffer.http.connections import caller_of, source_of
from gaffer.http.limits import STRANGER_BODY
from gaffer.http.operations import TEXT, operation
from gaffer.http.server import peer_of
from gaffer.http.sockjs.library import IFRAME_TEXT

if TYPE_CHECKING:
    from gaffer.http.sockjs import SockJS
    from gaffer.http.sockjs.router import Router

HTML = "text/html"
JAVASCRIPT = "application/javascript"

YEAR = 31536000  # seconds
DAY = 86400

_CLIENT = Path(__file__).with_name("client") / "sockjs.min.js"
_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-Ip")

_IFRAME_NAME = re.compile(r"iframe[0-9-.a-z_]*\.html", re.ASCII)


class SockJSInfo(TypedDict):
    """The capabilities of the server."""

    websocket: Literal[True]
    origins: Annotated[list[str], Meta(description='Always ["*:*"]; clients ignore it.')]
    cookie_needed: Literal[False]
    entropy: Annotated[int, Meta(ge=0, lt=2**32, description="A random number for the client.")]


class SockJSHandler(Handler):
    """A Handler below the prefix of a SockJS. It answers OPTIONS and unsupported methods as SockJS requires."""

    parameters: ClassVar[Mapping[str, Any]] = {
        "server": Annotated[str, Meta(pattern="^[^/]+$", description="Any text; a proxy may route by it.")],
        "session": Annotated[str, Meta(pattern="^[^/.]+$", description="A random name chosen by the client.")],
    }
    answers_all = True
    carries_messages = True
    methods: ClassVar[tuple[str, ...]] = ("GET",)
    sockjs: ClassVar["SockJS"]

    @property
    def max_body(self) -> int:
        """Maximum size of a request body, in bytes; less for unauthenticated callers, as there may be many."""
        return 1024 * 1024 if self.is_known else STRANGER_BODY

    @property
    def caller(self) -> Hashable:
        """The identity of the caller: the user on this host or the address, and the headers added by proxies."""
        headers = self.request.headers
        added = tuple(headers.get(name) for name in _FORWARDED)
        return caller_of(peer_of(self.request), str(self.request.remote_ip)), added

    @property
    def source(self) -> Hashable:
        """The source that the sessions of the caller count for."""
        return source_of(peer_of(self.request), str(self.request.remote_ip))

    @property
    def router(self) -> "Router":
        """The sessions of the application."""
        return self.sockjs.router(self.application)

    def options(self) -> None:
        """Answer a preflight with the allowed methods and headers."""
        allowed = f"OPTIONS, {', '.join(self.methods)}"
        self.set_status(204)
        self.enable_cache(YEAR)
        self.set_header("Allow", allowed)
        if cors_headers(self.application.policy, self.request):
            self.set_header("Access-Control-Allow-Methods", allowed)
            self.set_header("Access-Control-Max-Age", str(YEAR))
        self.finish()

    def set_default_headers(self) -> None:
        super().set_default_headers()
        wanted = self.request.headers.get("Access-Control-Request-Headers")
        if wanted and cors_headers(self.application.policy, self.request):
            self.set_header("Access-Control-Allow-Headers", wanted)

    def enable_cache(self, seconds: int, *, revalidate: bool = False) -> None:
        """Let browsers and proxies cache the response, with `revalidate` only if they revalidate it on each use."""
        self.set_header("Cache-Control", f"public, max-age={seconds}{', no-cache' if revalidate else ''}")
        self.set_header("Expires", format_timestamp(time.time() + seconds))

    def disable_cache(self) -> None:
        """Forbid caching, as some browsers cache POST, and compression by proxies, which would delay messages."""
        self.set_header("Cache-Control", "no-store, no-cache, no-transform, must-revalidate, max-age=0")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        if status_code == 405:
            self.set_header("Allow", ", ".join(self.methods))
            self.clear_header("Content-Type")
            self.finish()
        else:
            super().write_error(status_code, **kwargs)


class Greeting(SockJSHandler):
    """The greeting of SockJS."""

    @operation(str, media=TEXT)
    def get(self) -> None:
        """Return the text `Welcome to SockJS!`."""
        self.reply_text("Welcome to SockJS!\n")


class Info(SockJSHandler):
    """Capabilities of the SockJS server, which clients request first."""

    @operation(SockJSInfo)
    def get(self) -> None:
        """Return `{"websocket", "origins", "cookie_needed", "entropy"}`."""
        self.disable_cache()
        self.set_header("Content-Type", "application/json; charset=UTF-8")
        self.reply({"websocket": True, "origins": ["*:*"], "cookie_needed": False, "entropy": secrets.randbelow(2**32)})


class _Constant(SockJSHandler):
    """A document that changes only with a release or the configuration."""

    def reply_constant(self, data: bytes, media_type: str) -> None:
        """Send the document, or 304 if the client has it."""
        self.set_header("Content-Type", f"{media_type}; charset=UTF-8")
        self.set_header("Etag", f'"{hashlib.sha256(data).hexdigest()[:32]}"')
        if self.check_etag_header():
            self.set_status(304)
            self.finish()
        else:
            self.finish(data)


class Iframe(_Constant):
    """The page that the SockJS client embeds in a page of another origin to connect to this server."""

    @operation(str, media=HTML, errors=(304,))
    def get(self) -> None:
        """Return the HTML page; its name is `iframe*.html`.

        The page sends requests on behalf of the page that embeds it. Browsers are therefore told to embed it only in
        pages of allowed origins, and to revalidate it each time, because allowed origins change.
        """
        if _IFRAME_NAME.fullmatch(self.params["server"]) is None:
            raise NotFound(f"there is no resource {self.request.path}")
        ancestors = " ".join(["'self'", *sorted(self.application.policy.origins)])
        self.set_header("Content-Security-Policy", f"frame-ancestors {ancestors}")
        self.enable_cache(YEAR, revalidate=True)
        self.reply_constant((IFRAME_TEXT % f"{self.sockjs.prefix}/sockjs.min.js").encode(), HTML)


class ClientScript(_Constant):
    """The script of sockjs-client 1.6.1, for the iframe page and others; its license (MIT) is in the package."""

    @operation(str, media=JAVASCRIPT, errors=(304,))
    def get(self) -> None:
        """Return the script."""
        self.enable_cache(DAY)
        self.reply_constant(_CLIENT.read_bytes(), JAVASCRIPT)
