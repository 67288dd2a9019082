"""HTTP routes for API keys and for the login of web pages (`/keys`, `/auth/session`).

Callers with the scope `define` can list, create and revoke keys that grant no more than their own.
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
    """Base class of handlers that use the keys of the node."""

    parameters: ClassVar[Mapping[str, Any]] = {
        "id": Annotated[str, Meta(pattern="^[^/]+$", description="The id of a key.")]
    }

    @property
    def keys(self) -> KeyStore:
        """The keys of the node."""
        return cast(KeyStore, self.settings["keys"])

    def describe(self, identifier: str) -> KeyInfo:
        """Return the description of a key; raise KeyNotFound, or Forbidden if it grants more than the caller has."""
        grant = self.keys.grant_of(identifier)
        self.require_cover(grant)
        created = next((record.created for record in self.keys.records if record.id == identifier), None)
        return {"id": identifier, **_allowance(grant), "created": created}

    def require_cover(self, grant: Grant) -> None:
        """Raise Forbidden unless the caller has everything in the grant."""
        if not self.grant.covers(grant):
            raise Forbidden(
                "the key grants more than your own key or login",
                hint="use a key with these scopes and sessions; `GET /auth/session` shows yours",
            )


class KeysHandler(BaseKeyHandler):
    """The API keys of the node."""

    @operation(KeyList)
    def get(self) -> None:
        """List the keys that grant no more than the caller has. Their text is shown only once, on creation."""
        named = [*([FILE_KEY] if self.keys.has_file_key else []), *(record.id for record in self.keys.records)]
        visible = (name for name in named if self.grant.covers(self.keys.grant_of(name)))
        self.reply({"keys": [self.describe(name) for name in visible]})

    @operation(NewKey, status=201, body=KeyRequest, errors=(TooManyKeys,))
    def post(self) -> None:
        """Create a key. Returns 403 if it would grant more than the caller has."""
        asked = self.body_as(KeyRequest)
        sessions = frozenset(asked.sessions) if asked.sessions is not None else None
        self.require_cover(Grant(frozenset(asked.scopes), sessions))
        created = self.keys.create(asked.scopes, asked.sessions)
        self.noted["id"] = created.id
        self.reply(created._asdict(), 201)


class KeyHandler(BaseKeyHandler):
    """One API key."""

    @operation(KeyInfo, errors=(KeyNotFound,))
    def get(self) -> None:
        """Return the scopes and sessions of the key."""
        self.reply(self.describe(self.params["id"]))

    @operation(Done, errors=(KeyNotFound, KeyOfFile))
    def delete(self) -> None:
        """Revoke the key and close everything opened with it."""
        self.describe(self.params["id"])
        self.grant.release(self)  # so that a caller revoking its own key still gets the response
        self.keys.revoke(self.params["id"])
        self.done()


class AuthSessionHandler(BaseKeyHandler):
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
        self.reply({**_allowance(self.grant), "cookie": by_cookie, "idle_timeout": IDLE_TIMEOUT})

    @operation(Login, body=LoginRequest)
    def post(self) -> None:
        """Log in with the key in a header (`Authorization: Bearer KEY`, `X-Api-Key`) or the body.

        Sets the cookie and returns its `token`, which the page should keep in its sessionStorage.
        """
        key = self.facts.key or self.body_as(LoginRequest).key
        grant = self.keys.verify(key)
        if grant is None:
            raise AuthRequired("unknown key", hint="create a key with `gaffer key:create`")
        self._log_out()
        self.adopt(grant)
        new = self.logins.open(grant)
        self.set_cookie(self.logins.cookie, new.cookie, **self._attributes)
        self.reply({**_allowance(grant), "cookie": True, "idle_timeout": IDLE_TIMEOUT, "token": new.token})

    @operation(Done)
    def delete(self) -> None:
        """Log out, with cookie and token, and close everything the page has open. Not an error if not logged in."""
        if self.login is not None and self.grant is self.login:
            raise TokenRequired
        self._log_out()
        self.clear_cookie(self.logins.cookie, **self._attributes)
        self.done()

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


def _allowance(grant: Grant) -> Allowance:
    sessions = sorted(grant.sessions) if grant.sessions is not None else None
    return {"scopes": sorted(grant.scopes), "sessions": sessions}


ROUTES = [
    Route("/keys", KeysHandler, {"GET": Scope.DEFINE, "POST": Scope.DEFINE}),
    Route("/keys/{id}", KeyHandler, {"GET": Scope.DEFINE, "DELETE": Scope.DEFINE}),
    Route("/auth/session", AuthSessionHandler, {"GET": DEFERRED, "POST": DEFERRED, "DELETE": DEFERRED}),
]
