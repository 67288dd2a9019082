"""Requests and responses about API keys of a node, and about logins."""

from typing import TypedDict

import msgspec

from gaffer.http.scopes import Scope


class KeyRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A request for a new key: its scopes and sessions (null: all sessions)."""

    scopes: list[Scope]
    sessions: list[str] | None = None


class Allowance(TypedDict):
    """The scopes and sessions of a key (null: all sessions)."""

    scopes: list[Scope]
    sessions: list[str] | None


class KeyInfo(Allowance):
    """A key of the node. The key of --api-key-file has the id `file`.

    `created` is in seconds since the epoch, null for the key of --api-key-file.
    """

    id: str
    created: int | None


class KeyList(TypedDict):
    """The keys of the node, oldest first."""

    keys: list[KeyInfo]


class NewKey(TypedDict):
    """A new key; its text is never shown again."""

    id: str
    key: str


class LoginRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A login with a key that is not in a header."""

    key: str


class Caller(Allowance):
    """The scopes and sessions of the caller (null: all sessions), and whether a cookie grants them.

    `idle_timeout` is in seconds: an unused cookie expires after this time.
    """

    cookie: bool
    idle_timeout: float


class Login(Caller):
    """A caller that has just logged in. Commands require the cookie, and `token` as the header `X-Gaffer-Token`."""

    token: str
