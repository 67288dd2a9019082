"""The SockJS sessions of one application, and their assignment to requests."""

from collections.abc import Callable, Hashable
from typing import NamedTuple

from tornado.ioloop import IOLoop

from gaffer.errors import GafferError
from gaffer.http.access import Forbidden, Grant
from gaffer.http.base import NotFound
from gaffer.http.quota import Quota
from gaffer.http.sockjs.connection import Service
from gaffer.http.sockjs.library import SockJSConnection, SockJSRouter
from gaffer.http.sockjs.sessions import FramedSession, OwnedSession, RawSession


class TooManySessions(GafferError):
    """The maximum number of sessions is reached."""

    errno = 503
    reason = "too_many_sessions"


class Settings(NamedTuple):
    """The limits of sessions, as described at SockJS."""

    heartbeat: float
    disconnect_delay: float
    response_limit: int
    buffer_limit: int
    max_sessions: int
    max_strangers: int


class _Endpoint(SockJSConnection):  # type: ignore[misc]
    """The adapter that forwards events of the library's connection to the service."""

    def on_open(self, request: object) -> None:
        self.session.server.service.opened(self.session.connection)


class Router(SockJSRouter):  # type: ignore[misc]
    """The sessions of one application."""

    def __init__(self, service: Service, limits: Settings, is_known: Callable[[Grant], bool]) -> None:
        """Create the sessions; `is_known` returns whether a grant is that of an authenticated caller."""
        settings = {
            "response_limit": limits.response_limit,
            "jsessionid": False,
            "verify_ip": False,  # a session is bound to a grant and a caller instead
        }
        super().__init__(_Endpoint, user_settings=settings, io_loop=IOLoop.current())
        # The library has started two timers that are not needed: statistics are not read, and sessions have their own.
        self._sessions_cleanup.stop()
        self.stats._callback.stop()
        self.service = service
        self.limits = limits
        self.is_known = is_known
        self.strangers: Quota[FramedSession] = Quota(limits.max_strangers)
        self.sessions: dict[str, FramedSession] = {}
        self.live: set[OwnedSession] = set()
        self.closing = False

    def admit(self, session_id: str, grant: Grant, caller: Hashable) -> FramedSession | None:
        """Return the session with that id, None if it has to be created; raises Forbidden or TooManySessions.

        Session ids appear in URLs, so they prove nothing: requests must come from the caller that opened the session.
        """
        found = self.sessions.get(session_id)
        if found is not None and not found.belongs_to(grant, caller):
            raise Forbidden("the session belongs to another caller", hint="use a new session id")
        if found is None:
            self._make_room(grant)
        return found

    def _make_room(self, grant: Grant) -> None:
        full = len(self.sessions) >= self.limits.max_sessions
        if not full and (self.is_known(grant) or not self.strangers.is_full):
            return
        victim = self.strangers.victim
        if victim is None:
            raise TooManySessions(f"{len(self.sessions)} sessions are open", hint="try again later")
        victim.expire()

    def find(self, session_id: str, grant: Grant, caller: Hashable) -> FramedSession:
        """Return the open session with that id; raises NotFound or Forbidden."""
        found = self.sessions.get(session_id)
        if found is None or found.is_closed:
            raise NotFound("the session does not exist or has ended", hint="open a new one")
        self.admit(session_id, grant, caller)
        return found

    def get_session(self, session_id: str) -> FramedSession | None:
        return self.sessions.get(session_id)

    def create_session(self, session_id: str, register: bool = True) -> FramedSession:
        session = FramedSession(_Endpoint, self, session_id, None)
        if register:
            session.registered = True
            self.sessions[session_id] = session
        return session

    def create_raw_session(self) -> RawSession:
        """Return a new session for the raw websocket."""
        return RawSession(_Endpoint, self)

    def ended(self, session: OwnedSession) -> None:
        """Record that a session was closed."""
        self.live.discard(session)

    def close(self) -> None:
        """Close every session and accept no new ones; sessions without a listening client are removed."""
        self.closing = True
        for session in list(self.live):
            session.close()
        for waiting in list(self.sessions.values()):
            if waiting.handler is None:
                waiting.expire()
