"""The access policy, case by case: who is let in, and the exact error for who isn't."""

import gc
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaffer.errors import GafferError
from gaffer.http.access import (
    ALL_SCOPES,
    Facts,
    Forbidden,
    Grant,
    Peer,
    PeerKind,
    Policy,
    Scope,
    UnsupportedMediaType,
    authenticate,
    check_content_type,
    identify,
    make_policy,
)
from gaffer.http.authority import is_loopback, network_of, split_authority
from gaffer.http.revocation import Revocation

OWN, FRIEND, STRANGER, GROUP = 1000, 1001, 1002, 50

READ = frozenset({Scope.READ})
KEYS = {"all": Grant(ALL_SCOPES), "reader": Grant(READ, frozenset({"blog"}))}

REMOTE = Peer(PeerKind.REMOTE)
LOCAL = Peer(PeerKind.LOOPBACK, OWN)


def policy(**settings: Any) -> Policy:
    defaults: dict[str, Any] = {
        "own_uid": OWN,
        "own_names": ["Node1.example.org", "node1"],
        "allowed_hosts": ["jobs.example.org"],
        "allowed_origins": ["https://dash.example.org"],
        "local_uids": {FRIEND: READ},
        "socket_gids": {GROUP: [Scope.CONTROL]},
        "verify": KEYS.get,
    }
    return make_policy(**{**defaults, **settings})


def facts(
    peer: Peer = LOCAL,
    method: str = "GET",
    scheme: str = "http",
    *,
    host: str | None = "127.0.0.1:5000",
    more: Mapping[str, str] = MappingProxyType({}),
    **headers: str,
) -> Facts:
    given = {name.replace("_", "-"): value for name, value in (*headers.items(), *more.items())}
    if host is not None:
        given["Host"] = host
    return Facts.from_headers(method, scheme, given, peer)


def outcome(policy: Policy, facts: Facts) -> Grant | tuple[int, str]:
    try:
        return authenticate(policy, facts)
    except GafferError as error:
        return error.errno, error.reason if error.hint else "an error without a hint"


AUTH_REQUIRED = (401, "auth_required")
FORBIDDEN_HOST = (403, "forbidden_host")
FORBIDDEN_ORIGIN = (403, "forbidden_origin")


@pytest.mark.parametrize(
    ("peer", "scopes"),
    [
        (Peer(PeerKind.LOOPBACK, OWN), ALL_SCOPES),
        (Peer(PeerKind.LOOPBACK, 0), ALL_SCOPES),
        (Peer(PeerKind.LOOPBACK, FRIEND), READ),
        (Peer(PeerKind.LOOPBACK, STRANGER), None),
        (Peer(PeerKind.LOOPBACK, None), None),
        (Peer(PeerKind.LOOPBACK, STRANGER, frozenset({STRANGER})), None),
        (Peer(PeerKind.UNIX, OWN), ALL_SCOPES),
        (Peer(PeerKind.UNIX, FRIEND), READ),
        (Peer(PeerKind.UNIX, STRANGER), None),
        (Peer(PeerKind.UNIX, STRANGER, frozenset({GROUP})), frozenset({Scope.CONTROL})),
        (Peer(PeerKind.UNIX, FRIEND, frozenset({GROUP, 7})), frozenset({Scope.READ, Scope.CONTROL})),
        (Peer(PeerKind.LOOPBACK, FRIEND, frozenset({GROUP})), frozenset({Scope.READ})),
        (Peer(PeerKind.REMOTE), None),
        (Peer(PeerKind.REMOTE, OWN), None),
    ],
)
def test_local_trust_by_user(peer: Peer, scopes: frozenset[Scope] | None) -> None:
    assert outcome(policy(), facts(peer)) == (Grant(scopes) if scopes else AUTH_REQUIRED)


@pytest.mark.parametrize("peer", [LOCAL, Peer(PeerKind.UNIX, 0)])
def test_local_trust_can_be_turned_off(peer: Peer) -> None:
    assert outcome(policy(trust_local=False), facts(peer)) == AUTH_REQUIRED


@pytest.mark.parametrize(
    "header", ["Forwarded", "X-Forwarded-For", "x-forwarded-host", "X-FORWARDED-PROTO", "Via", "X-Real-IP"]
)
def test_a_request_from_a_proxy_is_not_local(header: str) -> None:
    through_proxy = {header.replace("-", "_"): "10.0.0.9"}
    assert outcome(policy(), facts(more=through_proxy)) == AUTH_REQUIRED
    assert outcome(policy(), facts(X_Api_Key="all", more=through_proxy)) == KEYS["all"]


@pytest.mark.parametrize("peer", [LOCAL, REMOTE, Peer(PeerKind.LOOPBACK, STRANGER), Peer(PeerKind.UNIX, OWN)])
@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer reader"},
        {"authorization": "bearer  reader "},
        {"X_Api_Key": "reader"},
    ],
)
def test_a_key_decides_alone(peer: Peer, headers: dict[str, str]) -> None:
    assert outcome(policy(), facts(peer, more=headers)) == KEYS["reader"]


@pytest.mark.parametrize("peer", [LOCAL, REMOTE])
@pytest.mark.parametrize("headers", [{"Authorization": "Bearer nope"}, {"X_Api_Key": "nope"}, {"X_Api_Key": ""}])
def test_an_unknown_key_is_refused_even_from_a_trusted_user(peer: Peer, headers: dict[str, str]) -> None:
    assert outcome(policy(), facts(peer, more=headers)) == AUTH_REQUIRED


COOKIES = {"value": Grant(READ, frozenset({"blog"}))}


@pytest.mark.parametrize("peer", [LOCAL, REMOTE])
@pytest.mark.parametrize("cookie", ["c=value", "a=1; c=value; b=2", " c = value ;c=other"])
@pytest.mark.parametrize("host", ["127.0.0.1", "any.name.example.com"])
def test_a_cookie_stands_for_a_key(peer: Peer, cookie: str, host: str) -> None:
    knows = replace(policy(), cookie="c", resume=COOKIES.get)
    assert outcome(knows, facts(peer, Cookie=cookie, host=host)) == COOKIES["value"]
    assert outcome(knows, facts(peer, Cookie=cookie, host=host, X_Api_Key="all")) == KEYS["all"]


@pytest.mark.parametrize("cookie", ["", "c", "c=", "c=old", "d=value", "xc=value", "c=other; c=value"])
def test_a_cookie_that_has_ended_is_no_cookie(cookie: str) -> None:
    knows = replace(policy(), cookie="c", resume=COOKIES.get)
    assert outcome(knows, facts(Cookie=cookie)) == Grant(ALL_SCOPES)
    assert outcome(knows, facts(REMOTE, Cookie=cookie)) == AUTH_REQUIRED
    assert outcome(policy(), facts(REMOTE, Cookie="c=value")) == AUTH_REQUIRED


@pytest.mark.parametrize(
    ("method", "headers", "passes"),
    [
        ("GET", {}, True),
        ("HEAD", {}, True),
        ("POST", {}, False),
        ("DELETE", {}, False),
        ("GET", {"Upgrade": "websocket"}, False),
        ("POST", {"Origin": "http://127.0.0.1:5000"}, True),
        ("POST", {"Sec_Fetch_Site": "same-origin"}, True),
        ("GET", {"Upgrade": "websocket", "Origin": "http://127.0.0.1:5000"}, True),
        ("POST", {"Origin": "http://127.0.0.1:5001"}, False),
        ("POST", {"Sec_Fetch_Site": "same-site"}, False),
    ],
)
def test_a_cookie_gives_orders_only_for_a_page_of_the_node(method: str, headers: dict[str, str], passes: bool) -> None:
    knows = replace(policy(), cookie="c", resume=COOKIES.get)
    expected = COOKIES["value"] if passes else FORBIDDEN_ORIGIN
    assert outcome(knows, facts(REMOTE, method, Cookie="c=value", more=headers)) == expected


def test_who_is_not_known_yet_has_no_grant() -> None:
    assert identify(policy(), facts(REMOTE)) is None
    assert identify(policy(), facts()) == Grant(ALL_SCOPES)
    for wrong in (facts(REMOTE, X_Api_Key="nope"), facts(REMOTE, host="evil.example.com")):
        with pytest.raises(GafferError):
            identify(policy(), wrong)


@pytest.mark.parametrize(
    ("one", "other", "covers"),
    [
        (Grant(ALL_SCOPES), Grant(ALL_SCOPES), True),
        (Grant(ALL_SCOPES), Grant(READ, frozenset({"blog"})), True),
        (Grant(READ), Grant(ALL_SCOPES), False),
        (Grant(ALL_SCOPES, frozenset({"blog"})), Grant(READ), False),
        (Grant(ALL_SCOPES, frozenset({"blog"})), Grant(READ, frozenset({"blog", "shop"})), False),
        (Grant(READ, frozenset({"blog", "shop"})), Grant(READ, frozenset({"shop"})), True),
    ],
)
def test_what_one_grant_covers_of_another(one: Grant, other: Grant, covers: bool) -> None:
    assert one.covers(other) is covers


class Holder:
    told = 0

    def revoked(self) -> None:
        self.told += 1


def test_holders_of_a_grant_hear_once_that_it_is_taken_back() -> None:
    revocation = Revocation()
    grant, stays, leaves, late = Grant(READ, None, revocation), Holder(), Holder(), Holder()
    for holder in (stays, leaves):
        grant.hold(holder)
    grant.release(leaves)
    assert revocation.held
    revocation.revoke()
    revocation.revoke()
    grant.hold(late)
    assert (stays.told, leaves.told, late.told) == (1, 0, 1)
    assert not revocation.held


def test_holders_are_not_kept_alive() -> None:
    revocation = Revocation()
    Grant(READ, None, revocation).hold(Holder())
    gc.collect()
    assert not revocation.held


def test_other_authorization_is_no_key() -> None:
    assert outcome(policy(), facts(Authorization="Basic cm9vdDpyb290")) == Grant(ALL_SCOPES)
    assert outcome(policy(), facts(REMOTE, Authorization="Basic cm9vdDpyb290")) == AUTH_REQUIRED


@pytest.mark.parametrize(
    ("host", "good"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1:5000", True),
        ("10.1.2.3:80", True),
        ("[::1]", True),
        ("[fe80::1]:5000", True),
        ("localhost", True),
        ("LocalHost:5000", True),
        ("localhost.:5000", True),
        ("node1:5000", True),
        ("node1.EXAMPLE.org", True),
        ("jobs.example.org:8080", True),
        ("evil.example.com", False),
        ("evil.localhost.example.com", False),
        ("127.0.0.1.evil.com", False),
        ("node1.example.org.evil.com", False),
        ("2130706433", False),
        ("0.0.0.0", False),
        ("0.0.0.0.:5000", False),
        ("[::]:5000", False),
        ("[0:0::0]", False),
        ("[::ffff:0.0.0.0]", False),
        ("0x7f.1", False),
        ("user@localhost", False),
        ("localhost/evil.com", False),
        ("localhost:5000:6000", False),
        ("localhost:", False),
        ("[evil.com]", False),
        ("127.0.0.1,evil.com", False),
        ("", False),
        (None, False),
    ],
)
def test_hosts(host: str | None, good: bool) -> None:
    assert outcome(policy(), facts(host=host)) == (Grant(ALL_SCOPES) if good else FORBIDDEN_HOST)
    assert outcome(policy(), facts(REMOTE, host=host)) == (AUTH_REQUIRED if good else FORBIDDEN_HOST)
    assert outcome(policy(), facts(REMOTE, host=host, X_Api_Key="all")) == KEYS["all"]


@pytest.mark.parametrize(
    ("host", "scheme", "headers", "good"),
    [
        ("localhost:5000", "http", {"Origin": "http://localhost:5000"}, True),
        ("localhost", "http", {"Origin": "http://localhost"}, True),
        ("localhost:80", "http", {"Origin": "http://localhost"}, True),
        ("localhost", "https", {"Origin": "https://localhost:443"}, True),
        ("[::1]:5000", "http", {"Origin": "http://[::1]:5000"}, True),
        ("localhost:5000", "http", {"Origin": "http://localhost:5000", "Sec_Fetch_Site": "same-origin"}, True),
        ("localhost:5000", "http", {"Origin": "http://localhost:5000", "Sec_Fetch_Site": "cross-site"}, False),
        ("localhost:5000", "http", {"Origin": "https://localhost:5000"}, False),
        ("localhost:5000", "http", {"Origin": "http://localhost:5001"}, False),
        ("localhost:5000", "http", {"Origin": "http://127.0.0.1:5000"}, False),
        ("localhost:5000", "http", {"Origin": "http://evil.example.com"}, False),
        ("localhost:5000", "http", {"Origin": "null"}, False),
        ("localhost:5000", "http", {"Origin": ""}, False),
        ("localhost:5000", "http", {"Origin": "http://localhost:5000, http://evil.example.com"}, False),
        ("localhost:5000", "http", {"Origin": "https://dash.example.org"}, True),
        ("localhost:5000", "http", {"Origin": "https://DASH.example.org", "Sec_Fetch_Site": "cross-site"}, True),
        ("localhost:5000", "http", {"Origin": "http://dash.example.org"}, False),
        ("localhost:5000", "http", {"Origin": "https://dash.example.org:8443"}, False),
        ("localhost:5000", "http", {"Origin": "https://dash.example.org.evil.com"}, False),
        ("localhost:5000", "http", {"Sec_Fetch_Site": "same-origin", "Sec_Fetch_Mode": "cors"}, True),
        ("localhost:5000", "http", {"Sec_Fetch_Site": "none", "Sec_Fetch_Mode": "navigate"}, True),
        ("localhost:5000", "http", {"Sec_Fetch_Site": "same-site"}, False),
        ("localhost:5000", "http", {"Sec_Fetch_Site": "cross-site"}, False),
        ("localhost:5000", "http", {"Sec_Fetch_Site": "anything"}, False),
        ("localhost:5000", "http", {"Sec_Fetch_Site": ""}, False),
        # What Node.js' fetch and EventSource send; a browser would send Sec-Fetch-Site too.
        ("localhost:5000", "http", {"Sec_Fetch_Mode": "cors"}, True),
        ("localhost:5000", "http", {"Sec_Fetch_Mode": "no-cors", "Sec_Fetch_Dest": "image"}, True),
        # Websocket clients that send the URL they connect to.
        ("localhost:5000", "http", {"Origin": "ws://localhost:5000"}, True),
        ("localhost", "http", {"Origin": "WS://localhost:80"}, True),
        ("localhost", "https", {"Origin": "wss://localhost"}, True),
        ("localhost:5000", "http", {"Origin": "wss://dash.example.org"}, True),
        ("localhost:5000", "http", {"Origin": "wss://localhost:5000"}, False),
        ("localhost:5000", "http", {"Origin": "ws://localhost:5001"}, False),
        ("localhost:5000", "http", {"Origin": "ws://evil.example.com:5000"}, False),
        ("localhost:5000", "http", {"Origin": "ws://localhost:5000", "Sec_Fetch_Site": "cross-site"}, False),
        ("localhost:5000", "http", {"Origin": "ftp://localhost:5000"}, False),
    ],
)
def test_origins(host: str, scheme: str, headers: dict[str, str], good: bool) -> None:
    assert outcome(policy(), facts(scheme=scheme, host=host, more=headers)) == (
        Grant(ALL_SCOPES) if good else FORBIDDEN_ORIGIN
    )
    # A page can't buy its way in with a key: a stolen or a guessed one would do the same.
    assert outcome(policy(), facts(REMOTE, scheme=scheme, host=host, X_Api_Key="all", more=headers)) == (
        KEYS["all"] if good else FORBIDDEN_ORIGIN
    )


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize(
    ("content_type", "good"),
    [
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        ("application/merge-patch+json", True),
        ("application/octet-stream", True),
        ("text/plain", False),
        ("application/x-www-form-urlencoded", False),
        ("multipart/form-data; boundary=application/json", False),
        ("text/plain; application/json", False),
        (None, False),
    ],
)
def test_what_a_page_sends_must_be_json_or_bytes(method: str, content_type: str | None, good: bool) -> None:
    headers = {"Origin": "http://localhost", "Content_Length": "2"}
    if content_type is not None:
        headers["Content_Type"] = content_type
    assert _accepts(facts(method=method, host="localhost", more=headers)) is good
    del headers["Content_Length"]
    assert _accepts(facts(method=method, host="localhost", Transfer_Encoding="chunked", more=headers)) is good


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", None])
def test_any_content_type_is_fine_from_no_page_for_reading_and_without_a_body(content_type: str | None) -> None:
    headers = {"Content_Type": content_type} if content_type else {}
    assert _accepts(facts(method="POST", Content_Length="2", more=headers))
    assert _accepts(facts(method="POST", Content_Length="2", Sec_Fetch_Mode="cors", more=headers))
    assert _accepts(facts(method="POST", Content_Length="2", Sec_Fetch_Site="none", more=headers))
    assert _accepts(facts(method="GET", Origin="http://localhost", Content_Length="2", more=headers))
    assert _accepts(facts(method="POST", Origin="http://localhost", Content_Length="0", more=headers))


@pytest.mark.parametrize("peer", [REMOTE, LOCAL, Peer(PeerKind.LOOPBACK, STRANGER)])
def test_anonymous_scopes_need_nothing_and_bring_no_more(peer: Peer) -> None:
    readable = policy(anonymous=READ, trust_local=False)
    assert outcome(readable, facts(peer)) == Grant(READ)
    assert outcome(readable, facts(peer, X_Api_Key="nope")) == Grant(READ)
    assert outcome(readable, facts(peer, X_Api_Key="all")) == KEYS["all"]
    assert outcome(readable, facts(peer, host="evil.example.com")) == FORBIDDEN_HOST
    assert outcome(readable, facts(peer, host="evil.example.com", X_Api_Key="nope")) == FORBIDDEN_HOST
    assert outcome(readable, facts(peer, Origin="http://evil.example.com")) == FORBIDDEN_ORIGIN


@pytest.mark.parametrize("scope", Scope)
@pytest.mark.parametrize("granted", [frozenset[Scope](), *(frozenset({scope}) for scope in Scope), ALL_SCOPES])
def test_scopes_do_not_include_each_other(granted: frozenset[Scope], scope: Scope) -> None:
    if scope in granted:
        Grant(granted).require(scope)
    else:
        with pytest.raises(GafferError) as error:
            Grant(granted).require(scope)
        assert (error.value.errno, error.value.reason) == (403, "forbidden")


def test_sessions_of_a_grant() -> None:
    Grant(READ).require_session("anything")
    limited = Grant(READ, frozenset({"blog"}))
    limited.require_session("blog")
    assert not limited.sees("shop")
    with pytest.raises(GafferError) as error:
        limited.require_session("shop")
    assert (error.value.errno, error.value.reason) == (403, "forbidden")


@pytest.mark.parametrize("origin", ["dash.example.org", "https://", "https://a/b", "https://a:b", "*", "null"])
def test_a_policy_refuses_what_is_no_origin(origin: str) -> None:
    with pytest.raises(GafferError, match="invalid web origin"):
        policy(allowed_origins=[origin])


@pytest.mark.parametrize("host", ["http://node1", "node1:5000", "a b", "node1/x"])
def test_a_policy_refuses_what_is_no_host(host: str) -> None:
    with pytest.raises(GafferError, match="invalid host name"):
        policy(allowed_hosts=[host])


def test_a_policy_takes_addresses_as_hosts() -> None:
    policy(allowed_hosts=["::1", "10.0.0.1"], allowed_origins=["http://[::1]:8000/"])


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("127.255.255.254", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:10.0.0.1", False),
        ("10.0.0.1", False),
        ("0.0.0.0", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("localhost", False),
        ("", False),
    ],
)
def test_loopback(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected


@given(st.text())
def test_splitting_an_authority_never_fails(text: str) -> None:
    parts = split_authority(text)
    assert parts is None or (parts[0] and not set(parts[0]) & set("/@?# "))


@given(
    peer=st.builds(
        Peer,
        st.sampled_from(PeerKind),
        st.none() | st.sampled_from([OWN, 0, FRIEND, STRANGER]),
        st.frozensets(st.sampled_from([GROUP, 7])),
    ),
    headers=st.dictionaries(
        st.sampled_from(["Origin", "Sec_Fetch_Site", "Forwarded", "Via", "Content_Type"]), st.text(max_size=20)
    ),
    host=st.none() | st.text(max_size=20) | st.just("localhost"),
    method=st.sampled_from(["GET", "POST", "DELETE"]),
)
def test_without_a_key_only_trusted_users_get_anything(
    peer: Peer, headers: dict[str, str], host: str | None, method: str
) -> None:
    result = outcome(policy(), facts(peer, method, host=host, more=headers))
    if isinstance(result, Grant):
        assert peer.kind is not PeerKind.REMOTE
        assert peer.uid in (OWN, 0, FRIEND) or (peer.kind is PeerKind.UNIX and GROUP in peer.gids)
        assert not {"Forwarded", "Via"} & set(headers)


def _accepts(facts: Facts) -> bool:
    try:
        check_content_type(facts)
    except UnsupportedMediaType as error:
        return error.errno != 415
    return True


@pytest.mark.parametrize(
    ("address", "network"),
    [("2001:db8::1", "2001:db8::/64"), ("fe80::1%eth0", "fe80::/64"), ("192.0.2.7", "192.0.2.7"), ("", "")],
)
def test_addresses_of_one_ipv6_network_count_as_one(address: str, network: str) -> None:
    assert network_of(address) == network


def test_a_key_covers_only_what_it_holds_itself() -> None:
    shop = Grant(scopes=frozenset({Scope.READ}), sessions=frozenset({"shop"}))
    everywhere = Grant(scopes=frozenset({Scope.READ}))
    assert everywhere.covers(shop)
    assert not shop.covers(everywhere)
    assert not shop.covers(Grant(scopes=frozenset({Scope.CONTROL}), sessions=frozenset({"shop"})))
    with pytest.raises(Forbidden, match="not valid for the session 'blog'"):
        shop.require_session("blog")


@pytest.mark.parametrize(
    ("head", "shown"),
    [
        (b"GET / HTTP/1.1\r\nAuthorization: Bearer right\r\n", True),
        (b"GET / HTTP/1.1\r\nAuthorization: Bearer wrong\r\n", False),
        (b"GET / HTTP/1.1\r\nCookie: other=1; login=right\r\n", True),
        (b"GET / HTTP/1.1\r\nCookie: login=wrong\r\n", False),
        (b"GET / HTTP/1.1\r\n\r\n", False),
    ],
)
def test_the_beginning_of_a_request_shows_a_key_or_a_login(head: bytes, shown: bool) -> None:
    def verify(key: str) -> Grant | None:
        return Grant(ALL_SCOPES) if key == "right" else None

    policy = replace(make_policy(own_uid=0, own_names=()), verify=verify, cookie="login", resume=verify)
    assert policy.shows_key(head) is shown


def test_values_of_the_environment_are_shown_only_to_a_grant_that_defines() -> None:
    description = {"name": "web", "env": {"TOKEN": "secret"}}
    assert Grant(frozenset({Scope.READ, Scope.DEFINE})).shown(description) == description
    assert Grant(frozenset({Scope.READ})).shown(description) == {"name": "web", "env": {"TOKEN": None}}


def test_a_cookie_alone_is_told_which_token_is_missing() -> None:
    with pytest.raises(GafferError, match="the cookie alone permits only reading"):
        Grant(frozenset({Scope.READ}), elevate=lambda token: None).require(Scope.CONTROL)
