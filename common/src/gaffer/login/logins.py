"""Logins of web pages: each has a cookie and a token instead of its key. In memory, with an injected clock.

Browsers send a cookie to every port of its host, so other servers on the host can see it. The cookie therefore grants
only reading; everything else also requires the token, which only the page has.
"""

import hashlib
import hmac
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from msgspec import Struct

from gaffer.http.access import Grant, Scope
from gaffer.http.revocation import Revocation

IDLE_TIMEOUT = 12 * 3600.0  # seconds since the last request, while the page has no open feed or websocket
MAX_PER_KEY = 64

logger = logging.getLogger(__name__)


class NewLogin(NamedTuple):
    """A new login: the value of the cookie, and its token."""

    cookie: str
    token: str


class _Login(Struct, eq=False, weakref=True):
    """A login: `grant` is for cookie and token, `reading` for the cookie alone; both end with the key's grant."""

    key: Grant
    grant: Grant
    reading: Grant
    revocation: Revocation
    last_used: float
    revoked: Callable[[], None]


class Logins:
    """The cookies and tokens of pages, each 256 random bits, stored as hashes.

    A login ends when it is closed, when its key is revoked, after IDLE_TIMEOUT, and when its key has MAX_PER_KEY newer
    logins. Everything the page has open is then closed. `displaced` counts the logins ended by newer ones.
    """

    def __init__(self, cookie: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.cookie = cookie
        self.displaced = 0
        self._clock = clock
        self._logins: OrderedDict[bytes, _Login] = OrderedDict()  # in the order of their last use

    def __len__(self) -> int:
        return len(self._logins)

    def open(self, key: Grant) -> NewLogin:
        """Create a cookie and a token that together grant what the key grants."""
        self._end_idle()
        same = [digest for digest, login in self._logins.items() if login.key is key]
        if len(same) >= MAX_PER_KEY:
            self.displaced += 1
            logger.warning("one key has %d logins: logging out the one idle for longest", len(same))
            self._end(same[0])
        new = NewLogin(secrets.token_urlsafe(32), secrets.token_urlsafe(32))
        digest, token, revocation = _hash(new.cookie), _hash(new.token), Revocation()
        grant = replace(key, revocation=revocation)
        reading = replace(
            grant,
            scopes=grant.scopes & {Scope.READ},
            elevate=lambda given: grant if hmac.compare_digest(_hash(given), token) else None,
        )
        login = _Login(key, grant, reading, revocation, self._clock(), revoked=partial(self._end, digest))
        self._logins[digest] = login
        key.hold(login)
        return new

    def resume(self, value: str) -> Grant | None:
        """Return the grant of the cookie alone, which its token can elevate, or None if it is unknown or has ended.

        Counts as a use of the cookie.
        """
        digest = _hash(value)
        login = self._logins.get(digest)
        if login is None:
            return None
        if self._is_idle(login):
            self._end(digest)
            return None
        self._use(digest, login)
        return login.reading

    def close(self, value: str) -> None:
        """Log out; unknown cookies are ignored."""
        self._end(_hash(value))

    def _end_idle(self) -> None:
        """End idle logins. Those with open connections count as used now, so that each is checked only once."""
        for digest, login in list(self._logins.items()):
            if self._clock() - login.last_used <= IDLE_TIMEOUT:
                return
            if self._is_idle(login):
                self._end(digest)
            else:
                self._use(digest, login)

    def _is_idle(self, login: _Login) -> bool:
        return self._clock() - login.last_used > IDLE_TIMEOUT and not login.revocation.held

    def _use(self, digest: bytes, login: _Login) -> None:
        login.last_used = self._clock()
        self._logins.move_to_end(digest)

    def _end(self, digest: bytes) -> None:
        login = self._logins.pop(digest, None)
        if login is not None:
            login.key.release(login)
            login.revocation.revoke()


def _hash(value: str) -> bytes:
    return hashlib.sha256(value.encode("utf-8", "replace")).digest()
