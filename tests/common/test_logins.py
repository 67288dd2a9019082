"""Logins of web pages: how long a cookie is good, with the time given in."""

import pytest

from gaffer.http.access import ALL_SCOPES, Grant, Scope
from gaffer.http.revocation import Revocation
from gaffer.login.logins import IDLE_TIMEOUT, MAX_PER_KEY, Logins

pytestmark = pytest.mark.pure


class Time:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Page:
    """Something a page has open."""

    closed = False

    def revoked(self) -> None:
        self.closed = True


def key(*scopes: Scope) -> Grant:
    return Grant(frozenset(scopes or ALL_SCOPES), frozenset({"blog"}), Revocation())


def test_a_cookie_allows_what_its_key_allows() -> None:
    logins = Logins("c")
    reader, owner = key(Scope.READ), key()
    (first, token), (second, other) = logins.open(reader), logins.open(owner)
    alone, again = logins.resume(second), logins.resume(first)
    assert alone == Grant(frozenset({Scope.READ}), owner.sessions)
    assert alone is not None
    assert alone.elevate is not None
    assert alone.elevate(other) == owner
    for wrong in ("", token, second, other + "x", "\ud800"):
        assert alone.elevate(wrong) is None
    assert again is not None
    assert again.elevate is not None
    assert again == again.elevate(token) == reader
    for unknown in ("", first[:-1], first + "x", "\u2603", "\ud800"):
        assert logins.resume(unknown) is None
        logins.close(unknown)
    assert len(logins) == 2


def test_values_are_random_and_long() -> None:
    logins = Logins("c")
    values = {value for _ in range(50) for value in logins.open(key())}
    assert len(values) == 100
    assert all(len(value) >= 43 for value in values)


def test_closing_ends_what_the_page_has_open_and_nothing_else() -> None:
    logins, owner = Logins("c"), key()
    pages = {}
    for name in ("mine", "other"):
        value = logins.open(owner).cookie
        pages[name] = (value, Page())
        grant = logins.resume(value)
        assert grant is not None
        grant.hold(pages[name][1])
    logins.close(pages["mine"][0])
    assert logins.resume(pages["mine"][0]) is None
    assert pages["mine"][1].closed
    assert logins.resume(pages["other"][0]) is not None
    assert not pages["other"][1].closed


def test_revoking_the_key_ends_its_logins() -> None:
    logins, revoked, kept = Logins("c"), key(), key()
    gone, stays, page = logins.open(revoked).cookie, logins.open(kept).cookie, Page()
    grant = logins.resume(gone)
    assert grant is not None
    grant.hold(page)
    assert revoked.revocation is not None
    revoked.revocation.revoke()
    assert page.closed
    assert logins.resume(gone) is None
    assert logins.resume(stays) is not None
    assert len(logins) == 1


def test_a_login_ends_when_idle_and_use_prolongs_it() -> None:
    time = Time()
    logins = Logins("c", time)
    used, idle = logins.open(key()).cookie, logins.open(key()).cookie
    time.now += IDLE_TIMEOUT
    assert logins.resume(used) is not None
    time.now += 1
    assert logins.resume(idle) is None
    assert logins.resume(used) is not None
    time.now += IDLE_TIMEOUT + 1
    logins.open(key())
    assert len(logins) == 1, "the idle ones are forgotten when a new one comes"


def test_a_page_with_something_open_is_not_idle() -> None:
    time = Time()
    logins = Logins("c", time)
    value, page = logins.open(key()).cookie, Page()
    grant = logins.resume(value)
    assert grant is not None
    grant.hold(page)
    time.now += 10 * IDLE_TIMEOUT
    logins.open(key())
    assert logins.resume(value) is grant
    grant.release(page)
    time.now += IDLE_TIMEOUT + 1
    assert logins.resume(value) is None
    assert not page.closed


@pytest.mark.expects_errors("idle for longest")
def test_a_key_has_so_many_logins_and_no_more() -> None:
    logins, many, other = Logins("c"), key(), key()
    others = logins.open(other).cookie
    values = [logins.open(many).cookie for _ in range(MAX_PER_KEY)]
    assert logins.resume(values[0]) is not None  # now the second is idle for longest
    newest = logins.open(many).cookie
    assert logins.displaced == 1
    assert logins.resume(values[1]) is None
    assert all(logins.resume(value) is not None for value in (values[0], values[2], newest, others))
