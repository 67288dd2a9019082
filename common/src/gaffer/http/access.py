"""Who may do what: the policy for one request. Pure; the facts come from `peer` (the connection) and the headers.

Two steps, each of which raises the error that the client gets:

    grant = authenticate(policy, facts)    # Origin, key, Host, local trust     -> 401, 403 forbidden_*
    grant.require(Scope.CONTROL)           # the scope of the route             -> 403 forbidden

and `check_content_type(facts)` for what a web page sends (415).
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import Any, Self

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
"""With what a page presents the token that belongs to its cookie."""

AUTH = "AUTH:"
"""What a key or a token follows in the first message of a websocket."""

_SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))
_KEY_LINE = re.compile(rb"(?im)^(?:authorization:[ \t]*bearer[ \t]|x-api-key:)[ \t]*([^\s]+)[ \t]*\r?$")
_COOKIE_LINE = re.compile(rb"(?im)^cookie:([^\r\n]*)")
_KEY_HINT = "send a key of this node as `Authorization: Bearer KEY` or `X-Api-Key: KEY`"


class AuthRequired(GafferError):
    """The caller must present a key."""

    errno = 401
    reason = "auth_required"


class Forbidden(GafferError):
    """The caller is known and may not do this, or a web page may not do it for the caller."""

    errno = 403
    reason = "forbidden"


class TokenRequired(Forbidden):
    """A page presents its cookie alone: that is enough to read only."""

    reason = "token_required"

    def __init__(self) -> None:
        super().__init__(
            "the cookie alone is only for reading",
            hint=f"send the token that POST /auth/session returned with it, as {TOKEN_HEADER} or `AUTH:TOKEN`",
        )


class UnsupportedMediaType(GafferError):
    """A web page sent a body that is neither JSON nor octet-stream."""

    errno = 415
    reason = "unsupported_media_type"


@dataclass(frozen=True, slots=True)
class Grant:
    """What a caller may do; `sessions` limits it to these sessions, None means all.

    That of a cookie alone has `elevate`, which returns the whole grant for the token of the cookie, None for another.

    Who keeps it beyond the answer to one request must `hold` it: then he hears when it is taken back. One without
    `revocation` never is.
    """

    scopes: frozenset[Scope]
    sessions: frozenset[str] | None = None
    revocation: Revocation | None = field(default=None, compare=False, repr=False)
    elevate: Callable[[str], "Grant | None"] | None = field(default=None, compare=False, repr=False)

    def sees(self, session: str) -> bool:
        """Whether the session is within the limits."""
        return self.sessions is None or session in self.sessions

    def require(self, scope: Scope) -> None:
        """Raise Forbidden unless the scope is granted."""
        if scope not in self.scopes:
            if self.elevate is not None:
                raise TokenRequired
            granted = ", ".join(sorted(self.scopes)) or "nothing"
            raise Forbidden(
                f"this needs the scope `{scope}`, and you have: {granted}",
                hint="use a key that has the scope",
            )

    def require_session(self, session: str) -> None:
        """Raise Forbidden unless the session is within the limits."""
        if not self.sees(session):
            raise Forbidden(f"this key is not for the session {session!r}", hint="use a key of that session")

    def covers(self, other: "Grant") -> bool:
        """Whether it allows all that the other one allows."""
        if self.sessions is not None and (other.sessions is None or not other.sessions <= self.sessions):
            return False
        return other.scopes <= self.scopes

    @property
    def reveals_env(self) -> bool:
        """Whether the values of `env`, which are often passwords, are shown."""
        return Scope.DEFINE in self.scopes

    def shown(self, description: Mapping[str, Any]) -> dict[str, Any]:
        """The description of a job or process as the caller may see it: with null for each value of `env`, or with all.

        A description with null is refused where jobs are loaded, so it cannot be stored by mistake.
        """
        if self.reveals_env:
            return dict(description)
        return {**description, "env": dict.fromkeys(description["env"])}

    def hold(self, holder: Holder) -> None:
        """Have `holder.revoked()` called once the grant is taken back."""
        if self.revocation is not None:
            self.revocation.hold(holder)

    def release(self, holder: Holder) -> None:
        """Forget the holder."""
        if self.revocation is not None:
            self.revocation.release(holder)


class PeerKind(Enum):
    """Where a connection comes from."""

    UNIX = "unix"
    LOOPBACK = "loopback"
    REMOTE = "remote"


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection: the uid of its owner when that is certain, its groups on a unix socket."""

    kind: PeerKind
    uid: int | None = None
    gids: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the policy wants to know of one request; header values are None when absent."""

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
        """Whether a web page may have caused it.

        Pages can't leave out both headers, nor cause `Sec-Fetch-Site: none`, which browsers send when the user typed
        the address. Sec-Fetch-Mode alone comes from programs that use the Fetch standard, such as Node.js.
        """
        return self.origin is not None or self.fetch_site not in (None, "none")

    def cookie(self, name: str) -> str | None:
        """The value of the first cookie of that name."""
        return _cookie(self.cookies, name) if self.cookies else None


def _cookie(cookies: str, name: str) -> str | None:
    for pair in cookies.split(";"):
        found, _, value = pair.partition("=")
        if found.strip() == name:
            return value.strip()
    return None


@lru_cache(256)  # clients send the same headers again and again
def _was_forwarded(names: tuple[str, ...]) -> bool:
    """Whether a proxy passed the request on."""
    return any(name in ("forwarded", "via", "x-real-ip") or name.startswith("x-forwarded-") for name in names)


def no_keys(key: str) -> Grant | None:
    """The `verify` of a policy without keys."""
    return None


@dataclass(frozen=True)
class Policy:
    """Who is trusted with what.

    local_uids, socket_gids: scopes of local users, and of groups on the unix socket. hosts: names the Host header may
    have besides IP literals and localhost. origins: web origins (`https://host[:port]`) allowed besides the node's own.
    anonymous: scopes that need neither key nor trust. verify: the grant of a key, None for an unknown one. cookie: the
    name of the cookie that stands for a key, where there is one; resume: the grant of its value, as `verify`, which may
    have to be elevated by a token.
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
        """What the peer of a connection may do as a local user."""
        if not self.trust_local or peer.kind is PeerKind.REMOTE or peer.uid is None:
            return frozenset()
        scopes = self.local_uids.get(peer.uid, frozenset())
        for gid in peer.gids if peer.kind is PeerKind.UNIX else ():
            scopes |= self.socket_gids.get(gid, frozenset())
        return scopes

    def shows_key(self, head: bytes) -> bool:
        """Whether the beginning of a request shows a valid key or login. It is not parsed as HTTP: it only hints."""
        found = _KEY_LINE.search(head)
        if found is not None and self.verify(found[1].decode("latin-1")) is not None:
            return True
        cookies = _COOKIE_LINE.search(head)
        value = _cookie(cookies[1].decode("latin-1"), self.cookie) if cookies is not None and self.cookie else None
        return value is not None and self.resume(value) is not None

    def knows(self, grant: Grant) -> bool:
        """Whether it is the grant of a known caller, not only what anybody may do."""
        return not grant.scopes <= self.anonymous

    def allows_origin(self, origin: str) -> bool:
        """Whether pages of that origin may use this server from elsewhere."""
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
    """A policy that trusts the daemon's own user and root with everything.

    Raises GafferError (400 `bad_origin`, `bad_host`) when an allowed origin or host is not written as one.
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
    """The grant of the caller.

    A key decides alone, without one a cookie; without both the caller must be trusted as a local user. Raises
    AuthRequired, or Forbidden with the reason `forbidden_origin` or `forbidden_host`.
    """
    grant = identify(policy, facts)
    if grant is None:
        raise AuthRequired(f"this needs a key: {_why_not_trusted(policy, facts)}", hint=_KEY_HINT)
    return grant


def identify(policy: Policy, facts: Facts) -> Grant | None:
    """As `authenticate`, but None for a caller who presents no key and isn't trusted."""
    check_origin(policy, facts)
    if facts.key is not None:
        grant = policy.verify(facts.key)
        if grant is not None:
            return grant
        if not policy.anonymous:
            raise AuthRequired("this node doesn't know that key", hint=_KEY_HINT)
    grant = _grant_of_cookie(policy, facts)
    if grant is not None:
        return grant
    check_host(policy, facts)
    scopes = policy.anonymous | _local_scopes(policy, facts)
    return Grant(scopes) if scopes else None


def check_origin(policy: Policy, facts: Facts) -> None:
    """Raise Forbidden (`forbidden_origin`) for a request of a web page of another origin that is not allowed."""
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
            hint="allow the page's origin with --allowed-origin",
        )


def check_host(policy: Policy, facts: Facts) -> None:
    """Raise Forbidden (`forbidden_host`) for a Host header that a DNS name of an attacker may have brought here."""
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


def check_content_type(facts: Facts, *, takes_text: bool = False) -> None:
    """Raise UnsupportedMediaType for a body that a web page could send without the server's consent.

    `takes_text` accepts text/plain, for a protocol whose clients send JSON as that.
    """
    if not facts.from_browser or facts.is_safe or not facts.has_body:
        return
    media_type = (facts.content_type or "").partition(";")[0].strip().lower()
    if takes_text and media_type == "text/plain":
        return
    if media_type not in ("application/json", "application/octet-stream") and not media_type.endswith("+json"):
        raise UnsupportedMediaType(
            f"a web page must send application/json or application/octet-stream, not {media_type or 'no type'}",
            hint="set the Content-Type header",
        )


def _is_referred(policy: Policy, facts: Facts) -> bool:
    """Whether a page of an allowed origin caused it, as an iframe, where browsers send no Origin; none can forge it."""
    scheme, _, rest = (facts.referer or "").partition("://")
    return facts.is_safe and policy.allows_origin(f"{scheme}://{rest.partition('/')[0]}")


def _presented_key(headers: Mapping[str, str]) -> str | None:
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    return headers.get("x-api-key")


def _grant_of_cookie(policy: Policy, facts: Facts) -> Grant | None:
    """The grant of a page that logged in; None without cookie and for one that has ended, as if it were not there."""
    value = facts.cookie(policy.cookie) if policy.cookie is not None else None
    grant = policy.resume(value) if value is not None else None
    if grant is None:
        return None
    # Browsers send cookies whoever caused the request, and say who did; what doesn't say can't be checked.
    if not facts.from_browser and (facts.upgrade or not facts.is_safe):
        raise Forbidden(
            "the cookie is for web pages, and this request doesn't say of which page it is",
            reason="forbidden_origin",
            hint="send a key, or the headers Origin and Sec-Fetch-Site as browsers do",
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
