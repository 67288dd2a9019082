"""Requests and responses about API keys and logins of a node."""

from typing import TypedDict

import msgspec

from gaffer.http.scopes import Scope


class KeyRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A key to make: what it allows, in which sessions; null for all."""

    scopes: list[Scope]
    sessions: list[str] | None = None


class Allowance(TypedDict):
    """What a key allows, and in which sessions; null for all."""

    scopes: list[Scope]
    sessions: list[str] | None


class KeyInfo(Allowance):
    """A key of the node. The id of the key of --api-key-file is `file`.

    `created` in seconds since the epoch; null for that one.
    """

    id: str
    created: int | None


class KeyList(TypedDict):
    """The keys of the node, oldest first."""

    keys: list[KeyInfo]


class NewKey(TypedDict):
    """A key just made; its text is shown this once."""

    id: str
    key: str


class LoginRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A key, when it is not in a header."""

    key: str


class Caller(Allowance):
    """What the caller may do, in which sessions (null for all), and whether a cookie says so.

    `idle_timeout` in seconds: a cookie that is not used for so long ends.
    """

    cookie: bool
    idle_timeout: float


class Login(Caller):
    """A Caller that has just logged in. Orders need the `token` as `X-Gaffer-Token`, with the cookie."""

    token: str
