"""The login of web pages: `/auth/session`."""

from typing import Any, cast

from gaffer.http.access import AuthRequired, Facts, Grant, TokenRequired
from gaffer.http.base import Handler
from gaffer.http.operations import operation
from gaffer.http.routes import DEFERRED, Route
from gaffer.http.server import peer_of
from gaffer.login.logins import IDLE_TIMEOUT, Logins
from gaffer.schemas.common import Done
from gaffer.schemas.keys import Allowance, Caller, Login, LoginRequest


class AuthSessionHandler(Handler):
    """The login of a web page: exchanges a key for a cookie (HttpOnly, SameSite=Strict) and a token.

    The cookie alone grants only reading. Other requests need the token in the header `X-Gaffer-Token`; websockets and
    SockJS need it in the first message, `AUTH:TOKEN`.
    """

    max_body = 64 * 1024  # sent by unauthenticated callers

    @property
    def logins(self) -> Logins:
        """The logins of web pages."""
        return cast(Logins, self.settings["logins"])

    @operation(Caller)
    def get(self) -> None:
        """Return the scopes and sessions of the caller."""
        if not self.grant.scopes and self.login is None:
            raise AuthRequired("not logged in", hint="POST a key to /auth/session")
        login = self.login
        by_cookie = login is not None and login.revocation is self.grant.revocation
        self.reply({**allowance(self.grant), "cookie": by_cookie, "idle_timeout": IDLE_TIMEOUT})

    @operation(Login, body=LoginRequest)
    def post(self) -> None:
        """Log in with the key in a header (`Authorization: Bearer KEY`, `X-Api-Key`) or the body.

        Sets the cookie and returns its `token`, which the page should keep in its sessionStorage.
        """
        key = self.facts.key or self.body_as(LoginRequest).key
        grant = self.application.policy.verify(key)
        if grant is None:
            raise AuthRequired("unknown key", hint="use a key of this server")
        self._log_out()
        self.adopt(grant)
        new = self.logins.open(grant)
        self.set_cookie(self.logins.cookie, new.cookie, **self._attributes)
        self.reply({**allowance(grant), "cookie": True, "idle_timeout": IDLE_TIMEOUT, "token": new.token})

    @operation(Done)
    def delete(self) -> None:
        """Log out, with cookie and token, and close everything the page has open. Not an error if not logged in."""
        if self.login is not None and self.grant is self.login:
            raise TokenRequired
        self._log_out()
        self.clear_cookie(self.logins.cookie, **self._attributes)
        self.reply({"ok": True})

    @property
    def facts(self) -> Facts:
        """The facts about the request that the access policy uses."""
        request = self.request
        return Facts.from_headers(request.method or "", request.protocol, request.headers, peer_of(request))

    @property
    def login(self) -> Grant | None:
        """The grant of the cookie alone, or None without a cookie."""
        value = self.facts.cookie(self.logins.cookie)
        return self.logins.resume(value) if value is not None else None

    def _log_out(self) -> None:
        self.grant.release(self)  # so that this request still gets its response
        value = self.facts.cookie(self.logins.cookie)
        if value is not None:
            self.logins.close(value)

    @property
    def _attributes(self) -> dict[str, Any]:
        secure = self.request.protocol == "https"
        return {"path": "/", "httponly": True, "samesite": "Strict", "secure": secure}


def allowance(grant: Grant) -> Allowance:
    """Return the description of what a grant permits."""
    sessions = sorted(grant.sessions) if grant.sessions is not None else None
    return {"scopes": sorted(grant.scopes), "sessions": sessions}


ROUTES = [Route("/auth/session", AuthSessionHandler, {"GET": DEFERRED, "POST": DEFERRED, "DELETE": DEFERRED})]
