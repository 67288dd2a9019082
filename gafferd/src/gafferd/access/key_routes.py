"""Over HTTP: making and revoking API keys, and the login of web pages (`/keys`, `/auth/session`).

Who may `define` may see, make and revoke keys, but only such that allow no more than his own grant does.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, cast

from msgspec import Meta

from gaffer.api.node import NodeHandler
from gaffer.http.access import AuthRequired, Facts, Forbidden, Grant, Scope, TokenRequired
from gaffer.http.operations import operation
from gaffer.http.routes import DEFERRED, Route
from gaffer.http.server import peer_of
from gaffer.schemas.common import Done
from gaffer.schemas.keys import Allowance, Caller, KeyInfo, KeyList, KeyRequest, Login, LoginRequest, NewKey
from gafferd.access.keys import FILE_KEY, KeyNotFound, KeyOfFile, KeyStore, TooManyKeys
from gafferd.access.logins import IDLE_TIMEOUT, Logins


class BaseKeyHandler(NodeHandler):
    """A handler that has the keys of the node at hand."""

    parameters: ClassVar[Mapping[str, Any]] = {
        "id": Annotated[str, Meta(pattern="^[^/]+$", description="The id of a key.")]
    }

    @property
    def keys(self) -> KeyStore:
        """The keys of the node."""
        return cast(KeyStore, self.settings["keys"])

    def describe(self, identifier: str) -> KeyInfo:
        """What to tell of a key; raises KeyNotFound, and Forbidden for one that allows more than the caller may."""
        grant = self.keys.grant_of(identifier)
        self.require_cover(grant)
        created = next((record.created for record in self.keys.records if record.id == identifier), None)
        return {"id": identifier, **_told(grant), "created": created}

    def require_cover(self, grant: Grant) -> None:
        """Raise Forbidden unless the caller may do all that the grant allows."""
        if not self.grant.covers(grant):
            raise Forbidden(
                "the key allows more than you may do yourself",
                hint="`GET /auth/session` tells what you may do; use a key that may do all that",
            )


class KeysHandler(BaseKeyHandler):
    """The API keys of the node."""

    @operation(KeyList)
    def get(self) -> None:
        """The keys that allow no more than the caller may do; the keys themselves are told only once, when made."""
        named = [*([FILE_KEY] if self.keys.has_file_key else []), *(record.id for record in self.keys.records)]
        visible = (name for name in named if self.grant.covers(self.keys.grant_of(name)))
        self.reply({"keys": [self.describe(name) for name in visible]})

    @operation(NewKey, status=201, body=KeyRequest, errors=(TooManyKeys,))
    def post(self) -> None:
        """Make a key. It may not allow more than the caller may do: 403 else."""
        asked = self.body_as(KeyRequest)
        sessions = frozenset(asked.sessions) if asked.sessions is not None else None
        self.require_cover(Grant(frozenset(asked.scopes), sessions))
        self.reply(self.keys.create(asked.scopes, asked.sessions)._asdict(), 201)


class KeyHandler(BaseKeyHandler):
    """One API key."""

    @operation(KeyInfo, errors=(KeyNotFound,))
    def get(self) -> None:
        """What the key allows."""
        self.reply(self.describe(self.params["id"]))

    @operation(Done, errors=(KeyNotFound, KeyOfFile))
    def delete(self) -> None:
        """Revoke the key: from now on it is unknown, and what its holders have open is closed."""
        self.describe(self.params["id"])
        self.grant.release(self)  # so that who revokes the own key is still answered
        self.keys.revoke(self.params["id"])
        self.done()


class AuthSessionHandler(BaseKeyHandler):
    """The login of a web page: in place of a key a cookie, HttpOnly and SameSite=Strict, and a token.

    The cookie alone is for reading. Orders need the token in the header `X-Gaffer-Token`, websockets and SockJS in the
    first message, `AUTH:TOKEN`.
    """

    max_body = 64 * 1024  # anybody may send one

    @property
    def logins(self) -> Logins:
        """The pages that are logged in."""
        return cast(Logins, self.settings["logins"])

    @operation(Caller)
    def get(self) -> None:
        """What the caller may do."""
        if not self.grant.scopes and self.login is None:
            raise AuthRequired("nobody is logged in here", hint="POST a key to /auth/session")
        login = self.login
        by_cookie = login is not None and login.revocation is self.grant.revocation
        self.reply({**_told(self.grant), "cookie": by_cookie, "idle_timeout": IDLE_TIMEOUT})

    @operation(Login, body=LoginRequest)
    def post(self) -> None:
        """Log in with the key in a header (`Authorization: Bearer KEY`, `X-Api-Key`) or the body.

        Sets the cookie, and answers its `token`, for the page to keep in its sessionStorage.
        """
        key = self.facts.key or self.body_as(LoginRequest).key
        grant = self.keys.verify(key)
        if grant is None:
            raise AuthRequired("this node doesn't know that key", hint="`gaffer key:create` makes one")
        self._log_out()
        new = self.logins.open(grant)
        self.set_cookie(self.logins.cookie, new.cookie, **self._attributes)
        self.reply({**_told(grant), "cookie": True, "idle_timeout": IDLE_TIMEOUT, "token": new.token})

    @operation(Done)
    def delete(self) -> None:
        """Log out, with cookie and token; what the page has open is closed. Nothing to log out of is no error."""
        if self.login is not None and self.grant is self.login:
            raise TokenRequired
        self._log_out()
        self.clear_cookie(self.logins.cookie, **self._attributes)
        self.done()

    @property
    def facts(self) -> Facts:
        """What the policy knows of the request."""
        request = self.request
        return Facts.from_headers(request.method or "", request.protocol, request.headers, peer_of(request))

    @property
    def login(self) -> Grant | None:
        """The grant of the cookie alone; None without one."""
        value = self.facts.cookie(self.logins.cookie)
        return self.logins.resume(value) if value is not None else None

    def _log_out(self) -> None:
        self.grant.release(self)  # so that this request is still answered
        value = self.facts.cookie(self.logins.cookie)
        if value is not None:
            self.logins.close(value)

    @property
    def _attributes(self) -> dict[str, Any]:
        secure = self.request.protocol == "https"
        return {"path": "/", "httponly": True, "samesite": "Strict", "secure": secure}


def _told(grant: Grant) -> Allowance:
    sessions = sorted(grant.sessions) if grant.sessions is not None else None
    return {"scopes": sorted(grant.scopes), "sessions": sessions}


ROUTES = [
    Route("/keys", KeysHandler, {"GET": Scope.DEFINE, "POST": Scope.DEFINE}),
    Route("/keys/{id}", KeyHandler, {"GET": Scope.DEFINE, "DELETE": Scope.DEFINE}),
    Route("/auth/session", AuthSessionHandler, {"GET": DEFERRED, "POST": DEFERRED, "DELETE": DEFERRED}),
]
