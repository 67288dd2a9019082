"""HTTP routes for API keys.

Callers with the scope `define` can list, create and revoke keys that grant no more than their own.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, cast

from msgspec import Meta

from gaffer.api.node import NodeHandler
from gaffer.http.access import Forbidden, Grant, Scope
from gaffer.http.operations import operation
from gaffer.http.routes import Route
from gaffer.login import routes as login_routes
from gaffer.login.routes import allowance
from gaffer.schemas.common import Done
from gaffer.schemas.keys import KeyInfo, KeyList, KeyRequest, NewKey
from gafferd.access.keys import FILE_KEY, KeyNotFound, KeyOfFile, KeyStore, TooManyKeys


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
        return {"id": identifier, **allowance(grant), "created": created}

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


ROUTES = [
    Route("/keys", KeysHandler, {"GET": Scope.DEFINE, "POST": Scope.DEFINE}),
    Route("/keys/{id}", KeyHandler, {"GET": Scope.DEFINE, "DELETE": Scope.DEFINE}),
    *login_routes.ROUTES,
]
