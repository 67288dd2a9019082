"""Web pages that logged in: each has a cookie and a token in place of its key. In memory; the time is given in.

Browsers send a cookie to every port of its host, so other servers there see it. It is enough to read; the token, which
a page keeps to itself, is needed for all else.
"""

import hashlib
import hmac
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from gaffer.http.access import Grant, Scope
from gaffer.http.revocation import Revocation

IDLE_TIMEOUT = 12 * 3600.0  # seconds since the last request, while no feed and no websocket of the page is open
MAX_PER_KEY = 64

logger = logging.getLogger(__name__)


class NewLogin(NamedTuple):
    """What a page gets: the value of a cookie, and the token that belongs to it."""

    cookie: str
    token: str


@dataclass(eq=False)
class _Login:
    """One cookie. Its grants, the second for the cookie alone, end with that of its key, or before."""

    key: Grant
    grant: Grant
    reading: Grant
    revocation: Revocation
    last_used: float
    revoked: Callable[[], None]


class Logins:
    """The cookies and tokens given to pages, each 256 random bits of which a hash is kept.

    A login ends when it is closed, when its key is revoked, after IDLE_TIMEOUT, and when its key has MAX_PER_KEY newer
    ones. All that the page has open is closed then. `displaced` counts those that newer ones ended.
    """

    def __init__(self, cookie: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.cookie = cookie
        self.displaced = 0
        self._clock = clock
        self._logins: OrderedDict[bytes, _Login] = OrderedDict()  # in the order of their last use

    def __len__(self) -> int:
        return len(self._logins)

    def open(self, key: Grant) -> NewLogin:
        """A new cookie and a token, which together allow what the key allows."""
        self._end_idle()
        same = [digest for digest, login in self._logins.items() if login.key is key]
        if len(same) >= MAX_PER_KEY:
            self.displaced += 1
            logger.warning("one key has logged in on %d pages: the one idle for longest is logged out", len(same))
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
        """What the cookie alone allows, to be elevated by its token; None for one that is unknown or has ended.

        It counts as use of the cookie.
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
        """Log out; an unknown cookie is no error."""
        self._end(_hash(value))

    def _end_idle(self) -> None:
        """End what is idle. Those with something open are used now, so each is looked at once."""
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
