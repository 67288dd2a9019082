"""The access policy for one request. Pure; the facts come from `peer` (the connection) and the headers.

There are two steps, each of which raises the error that the client receives:

    grant = authenticate(policy, facts)    # Origin, key, Host, local trust     -> 401, 403 forbidden_*
    grant.require(Scope.CONTROL)           # the scope of the route             -> 403 forbidden

and `check_content_type(facts)` for requests sent by web pages (415).
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import Any, Self

from msgspec import Struct

from gaffer.errors import GafferError
from gaffer.http.authority import (
    as_http,
    checked_host,
    checked_origin,
    is_ip,
    is_same_origin,
    is_unspecified,
    split_authority,
)
from gaffer.http.revocation import Holder, Revocation
from gaffer.http.scopes import ALL_SCOPES as ALL_SCOPES
from gaffer.http.scopes import Scope as Scope

TOKEN_HEADER = "X-Gaffer-Token"
"""The header in which a page presents the token that belongs to its cookie."""

AUTH = "AUTH:"
"""The prefix of a key or token in the first message of a websocket."""

_SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))
_KEY_LINE = re.compile(rb"(?im)^(?:authorization:[ \t]*bearer[ \t]|x-api-key:)[ \t]*([^\s]+)[ \t]*\r?$")
_COOKIE_LINE = re.compile(rb"(?im)^cookie:([^\r\n]*)")
_KEY_HINT = "send a key of this node as `Authorization: Bearer KEY` or `X-Api-Key: KEY`"


class AuthRequired(GafferError):
    """The caller must present a key."""

    errno = 401
    reason = "auth_required"


class Forbidden(GafferError):
    """The caller lacks the permission, or a web page may not act for the caller."""

    errno = 403
    reason = "forbidden"


class TokenRequired(Forbidden):
    """A page presented only its cookie, which permits reading but nothing else."""

    reason = "token_required"

    def __init__(self) -> None:
        super().__init__(
            "the cookie alone permits only reading",
            hint=f"send the token that POST /auth/session returned, as {TOKEN_HEADER} or `AUTH:TOKEN`",
        )


class UnsupportedMediaType(GafferError):
    """A web page sent a body that is neither JSON nor octet-stream."""

    errno = 415
    reason = "unsupported_media_type"


@dataclass(frozen=True, slots=True)
class Grant:
    """The permissions of a caller; `sessions` limits them to these sessions, None means all.

    The grant of a cookie without its token has `elevate`, which returns the full grant for that token and None for any
    other.

    Anything that keeps a grant longer than one request must `hold` it, and is then notified when it is revoked. A grant
    without `revocation` is never revoked.

    `caller` names the caller in the audit: `key:ID`, `uid:N`, or None if it is not known.
    """

    scopes: frozenset[Scope]
    sessions: frozenset[str] | None = None
    revocation: Revocation | None = field(default=None, compare=False, repr=False)
    elevate: Callable[[str], "Grant | None"] | None = field(default=None, compare=False, repr=False)
    caller: str | None = field(default=None, compare=False)

    def sees(self, session: str) -> bool:
        """Return whether the grant covers the session."""
        return self.sessions is None or session in self.sessions

    def require(self, scope: Scope) -> None:
        """Raise Forbidden unless the scope is granted."""
        if scope not in self.scopes:
            if self.elevate is not None:
                raise TokenRequired
            granted = ", ".join(sorted(self.scopes)) or "nothing"
            raise Forbidden(
                f"the scope `{scope}` is required; granted: {granted}",
                hint="use a key with this scope",
            )

    def require_session(self, session: str) -> None:
        """Raise Forbidden unless the grant covers the session."""
        if not self.sees(session):
            raise Forbidden(f"this key is not valid for the session {session!r}", hint="use a key for that session")

    def covers(self, other: "Grant") -> bool:
        """Return whether the grant allows everything that `other` allows."""
        if self.sessions is not None and (other.sessions is None or not other.sessions <= self.sessions):
            return False
        return other.scopes <= self.scopes

    @property
    def reveals_env(self) -> bool:
        """Whether the values of `env`, which are often secrets, are shown."""
        return Scope.DEFINE in self.scopes

    def shown(self, description: Mapping[str, Any]) -> dict[str, Any]:
        """Return the description of a job or process, with None for each value of `env` unless they are revealed.

        Jobs with null values in `env` are rejected on load, so a masked description cannot be stored by mistake.
        """
        if self.reveals_env:
            return dict(description)
        return {**description, "env": dict.fromkeys(description["env"])}

    def hold(self, holder: Holder) -> None:
        """Have `holder.revoked()` called when the grant is revoked."""
        if self.revocation is not None:
            self.revocation.hold(holder)

    def release(self, holder: Holder) -> None:
        """Remove the holder."""
        if self.revocation is not None:
            self.revocation.release(holder)


class PeerKind(Enum):
    """The origin of a connection."""

    UNIX = "unix"
    LOOPBACK = "loopback"
    REMOTE = "remote"


class Peer(Struct, frozen=True):
    """The other end of a connection: the uid of its owner if that is certain, and its groups on a unix socket."""

    kind: PeerKind
    uid: int | None = None
    gids: frozenset[int] = frozenset()


class Facts(Struct, frozen=True):
    """The facts about one request that the policy needs; header values are None when absent."""

    method: str
    scheme: str
    peer: Peer
    host: str | None = None
    origin: str | None = None
    referer: str | None = None
    fetch_site: str | None = None
    forwarded: bool = False
    content_type: str | None = None
    has_body: bool = False
    upgrade: bool = False
    key: str | None = None
    cookies: str = ""
    token: str | None = None

    @property
    def is_safe(self) -> bool:
        """Whether the method only reads."""
        return self.method in _SAFE_METHODS

    @classmethod
    def from_headers(cls, method: str, scheme: str, headers: Mapping[str, str], peer: Peer) -> Self:
        """Collect the facts from headers of any letter case."""
        lower = {name.lower(): value for name, value in headers.items()}
        return cls(
            method=method,
            scheme=scheme,
            peer=peer,
            host=lower.get("host"),
            origin=lower.get("origin"),
            referer=lower.get("referer"),
            fetch_site=lower.get("sec-fetch-site"),
            forwarded=_was_forwarded(tuple(lower)),
            content_type=lower.get("content-type"),
            has_body="transfer-encoding" in lower or lower.get("content-length", "0") != "0",
            upgrade="upgrade" in lower,
            key=_presented_key(lower),
            cookies=lower.get("cookie", ""),
            token=lower.get(TOKEN_HEADER.lower()),
        )

    @property
    def from_browser(self) -> bool:
        """Whether a web page may have caused the request.

        Pages can't suppress both headers or send `Sec-Fetch-Site: none`, which browsers send when the user typed
        the address. Sec-Fetch-Mode alone is sent by programs that implement the Fetch standard, such as Node.js.
        """
        return self.origin is not None or self.fetch_site not in (None, "none")

    def cookie(self, name: str) -> str | None:
        """Return the value of the first cookie with that name, or None."""
        return _cookie(self.cookies, name) if self.cookies else None


def _cookie(cookies: str, name: str) -> str | None:
    for pair in cookies.split(";"):
        found, _, value = pair.partition("=")
        if found.strip() == name:
            return value.strip()
    return None


@lru_cache(256)  # clients repeat the same headers
def _was_forwarded(names: tuple[str, ...]) -> bool:
    """Return whether a proxy forwarded the request."""
    return any(name in ("forwarded", "via", "x-real-ip") or name.startswith("x-forwarded-") for name in names)


def no_keys(key: str) -> Grant | None:
    """Return None, as the `verify` of a policy without keys."""
    return None


@dataclass(frozen=True)
class Policy:
    """The callers that are trusted, and their scopes.

    local_uids, socket_gids: scopes of local users, and of groups on the unix socket. hosts: names that the Host header
    may have in addition to IP literals and localhost. origins: web origins (`https://host[:port]`) allowed in addition
    to the node's own. anonymous: scopes granted without a key or trust. verify: returns the grant of a key, None for an
    unknown key. cookie: the name of the cookie that stands for a key, None if there is none. resume: like `verify`, for
    the value of the cookie; the grant may have to be elevated by a token.
    """

    trust_local: bool = True
    local_uids: Mapping[int, frozenset[Scope]] = field(default_factory=dict)
    socket_gids: Mapping[int, frozenset[Scope]] = field(default_factory=dict)
    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    anonymous: frozenset[Scope] = frozenset()
    verify: Callable[[str], Grant | None] = no_keys
    cookie: str | None = None
    resume: Callable[[str], Grant | None] = no_keys

    def scopes_of(self, peer: Peer) -> frozenset[Scope]:
        """Return the scopes that the peer of a connection has as a local user."""
        if not self.trust_local or peer.kind is PeerKind.REMOTE or peer.uid is None:
            return frozenset()
        scopes = self.local_uids.get(peer.uid, frozenset())
        for gid in peer.gids if peer.kind is PeerKind.UNIX else ():
            scopes |= self.socket_gids.get(gid, frozenset())
        return scopes

    def shows_key(self, head: bytes) -> bool:
        """Return whether the start of a request contains a valid key or login.

        This is a heuristic: the bytes are not parsed as HTTP.
        """
        found = _KEY_LINE.search(head)
        if found is not None and self.verify(found[1].decode("latin-1")) is not None:
            return True
        cookies = _COOKIE_LINE.search(head)
        value = _cookie(cookies[1].decode("latin-1"), self.cookie) if cookies is not None and self.cookie else None
        return value is not None and self.resume(value) is not None

    def is_known(self, grant: Grant) -> bool:
        """Return whether the grant has scopes that anonymous callers lack, so that its caller is authenticated."""
        return not grant.scopes <= self.anonymous

    def allows_origin(self, origin: str) -> bool:
        """Return whether pages of another origin, this one, may use the server."""
        return as_http(origin.lower()) in self.origins


def make_policy(
    *,
    own_uid: int,
    own_names: Iterable[str],
    trust_local: bool = True,
    local_uids: Mapping[int, Iterable[Scope]] | None = None,
    socket_gids: Mapping[int, Iterable[Scope]] | None = None,
    allowed_hosts: Iterable[str] = (),
    allowed_origins: Iterable[str] = (),
    anonymous: Iterable[Scope] = (),
    verify: Callable[[str], Grant | None] = no_keys,
) -> Policy:
    """Return a policy that gives the daemon's own user and root all scopes.

    Raises GafferError (400 `bad_origin`, `bad_host`) for an invalid origin or host.
    """
    users = {uid: frozenset(scopes) for uid, scopes in (local_uids or {}).items()}
    return Policy(
        trust_local=trust_local,
        local_uids={**users, own_uid: ALL_SCOPES, 0: ALL_SCOPES},
        socket_gids={gid: frozenset(scopes) for gid, scopes in (socket_gids or {}).items()},
        hosts=frozenset((*(name.lower() for name in own_names if name), *map(checked_host, allowed_hosts))),
        origins=frozenset(checked_origin(origin) for origin in allowed_origins),
        anonymous=frozenset(anonymous),
        verify=verify,
    )


def authenticate(policy: Policy, facts: Facts) -> Grant:
    """Return the grant of the caller.

    A key takes precedence over a cookie; without either, the caller must be a trusted local user. Raises AuthRequired,
    or Forbidden with the reason `forbidden_origin` or `forbidden_host`.
    """
    grant = identify(policy, facts)
    if grant is None:
        raise AuthRequired(f"a key is required: {_why_not_trusted(policy, facts)}", hint=_KEY_HINT)
    return grant


def identify(policy: Policy, facts: Facts) -> Grant | None:
    """Like `authenticate`, but return None for a caller that presents no key and isn't trusted."""
    check_origin(policy, facts)
    if facts.key is not None:
        grant = policy.verify(facts.key)
        if grant is not None:
            return grant
        if not policy.anonymous:
            raise AuthRequired("unknown key", hint=_KEY_HINT)
    grant = _grant_of_cookie(policy, facts)
    if grant is not None:
        return grant
    check_host(policy, facts)
    local = _local_scopes(policy, facts)
    scopes = policy.anonymous | local
    return Grant(scopes, caller=f"uid:{facts.peer.uid}" if local else None) if scopes else None


def check_origin(policy: Policy, facts: Facts) -> None:
    """Raise Forbidden (`forbidden_origin`) for a request from a web page whose origin is not allowed."""
    if not facts.from_browser:
        return
    if facts.origin is not None:
        if policy.allows_origin(facts.origin):
            return
        same = is_same_origin(facts.origin, facts.scheme, facts.host or "") and facts.fetch_site in (
            None,
            "same-origin",
            "none",
        )
    else:
        same = facts.fetch_site == "same-origin" or _is_referred(policy, facts)
    if not same:
        raise Forbidden(
            f"web pages of {facts.origin or 'another site'} may not use this server",
            reason="forbidden_origin",
            hint="allow the origin of the page with --allowed-origin",
        )


def check_host(policy: Policy, facts: Facts) -> None:
    """Raise Forbidden (`forbidden_host`) for a Host header that may be the result of DNS rebinding."""
    parts = split_authority(facts.host or "")
    if (
        parts is not None
        and not is_unspecified(parts[0])
        and (parts[0] == "localhost" or parts[0] in policy.hosts or is_ip(parts[0]))
    ):
        return
    raise Forbidden(
        f"the Host header {facts.host!r} is not a name of this server",
        reason="forbidden_host",
        hint="use an IP address or localhost, allow the name with --allowed-host, or send a key",
    )


def check_content_type(facts: Facts, *, accepts_text: bool = False) -> None:
    """Raise UnsupportedMediaType for a body that a web page could send without a preflight request.

    `accepts_text` accepts text/plain, for a protocol whose clients send JSON with that type.
    """
    if not facts.from_browser or facts.is_safe or not facts.has_body:
        return
    media_type = (facts.content_type or "").partition(";")[0].strip().lower()
    if accepts_text and media_type == "text/plain":
        return
    if media_type not in ("application/json", "application/octet-stream") and not media_type.endswith("+json"):
        raise UnsupportedMediaType(
            f"web pages must send application/json or application/octet-stream, not {media_type or 'an untyped body'}",
            hint="set the Content-Type header",
        )


def _is_referred(policy: Policy, facts: Facts) -> bool:
    """Return whether a page of an allowed origin loads this as an iframe, for which browsers send no Origin."""
    scheme, _, rest = (facts.referer or "").partition("://")
    return facts.is_safe and policy.allows_origin(f"{scheme}://{rest.partition('/')[0]}")


def _presented_key(headers: Mapping[str, str]) -> str | None:
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    return headers.get("x-api-key")


def _grant_of_cookie(policy: Policy, facts: Facts) -> Grant | None:
    """Return the grant of a logged-in page; None without a cookie or for an expired login."""
    value = facts.cookie(policy.cookie) if policy.cookie is not None else None
    grant = policy.resume(value) if value is not None else None
    if grant is None:
        return None
    # Browsers attach cookies whatever page caused the request, and name its origin; without that it can't be checked.
    if not facts.from_browser and (facts.upgrade or not facts.is_safe):
        raise Forbidden(
            "a request with a cookie must name the origin of its web page",
            reason="forbidden_origin",
            hint="send a key, or the headers Origin and Sec-Fetch-Site, as browsers do",
        )
    if grant.elevate is not None and facts.token is not None:
        return grant.elevate(facts.token) or grant
    return grant


def _local_scopes(policy: Policy, facts: Facts) -> frozenset[Scope]:
    return frozenset() if facts.forwarded else policy.scopes_of(facts.peer)


def _why_not_trusted(policy: Policy, facts: Facts) -> str:
    if facts.peer.kind is PeerKind.REMOTE:
        return "the caller is not on this host"
    if not policy.trust_local:
        return "local callers are not trusted here"
    if facts.forwarded:
        return "the request came through a proxy"
    if facts.peer.uid is None:
        return "the user of the calling process is unknown"
    return f"the caller is user {facts.peer.uid}, not the daemon's user, root or an allowed user"
