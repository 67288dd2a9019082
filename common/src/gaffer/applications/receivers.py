"""A receiver of webhooks: its queue, its attempts and their counts."""

import asyncio
import hashlib
import hmac
import logging
import os
import socket
import ssl
import string
from collections.abc import Callable
from typing import Final, NamedTuple
from urllib.parse import quote

from gaffer.applications.delivery_files import DeliveryFiles
from gaffer.applications.delivery_queue import Delivery, DeliveryQueue, retry_delay, seconds_asked
from gaffer.applications.http_post import Address, Poster, Response, trusting_authorities
from gaffer.errors import BadRequest
from gaffer.runtime.connecting import Resolver
from gaffer.schemas.bodies import WebhookState

log = logging.getLogger("gaffer.webhooks")

TIMEOUT = 10.0  # seconds for an attempt, redirects included
MAX_RETRY_TIME = 3600.0  # seconds after the first attempt, when an event is given up
_WARNING_PERIOD = 60.0  # seconds between warnings about a full queue
_MAX_REDIRECTS: Final = 5
_REDIRECTS: Final = (301, 302, 307, 308)
_RETRIED: Final = (408, 429)


class _Failure(NamedTuple):
    """Why an attempt failed; whether to retry, and the seconds that the server asks to wait."""

    reason: str
    retry: bool = True
    asked: float = 0


class Receiver:
    """A URL and the events to post to it, in order, one request at a time. Use it on the loop.

    `secret` returns the key that signs requests, or None. With `files` the events that wait are kept there; those of an
    earlier program are posted first, after `start`. BadRequest if `url` is not an http or https URL.
    """

    def __init__(self, url: str, secret: Callable[[], str | None], files: DeliveryFiles | None = None) -> None:
        self.address = Address(url)
        if self.address.tls:
            trusting_authorities()  # reads files, so not while events are delivered
        self._secret = secret
        self._queue = DeliveryQueue()
        self._file = files.open(url, str(self.address)) if files is not None else None
        self._resolver = Resolver(self.address.host)
        self._task: asyncio.Task[None] | None = None
        self._ending = asyncio.Event()
        self._delivered = 0
        self._failed = 0
        self._failures = 0  # failed attempts since the last success
        self._refusing = False  # a lost event was logged since the last success
        self._last_error: str | None = None
        self._warned_at: float | None = None
        self._dropped_then = 0  # the events dropped before the last warning
        for delivery in self._file.load() if self._file is not None else ():
            self._forget(*self._queue.append(delivery))

    def state(self) -> WebhookState:
        """Return the state of the receiver, as in /health."""
        return {
            "url": str(self.address),
            "pending": len(self._queue),
            "dropped": self._queue.dropped,
            "delivered": self._delivered,
            "failed": self._failed,
            "unsaved": self._file.unsaved if self._file is not None else 0,
            "last_error": self._last_error,
        }

    def post(self, delivery: Delivery) -> None:
        """Post an event once those before it are done. If the queue is full, the oldest event is dropped."""
        if self._file is not None:
            self._file.add(delivery)
        if dropped := self._queue.append(delivery):
            self._forget(*dropped)
            self._warn_of_dropped()
        self.start()

    def start(self) -> None:
        """Start posting what waits, if anything does."""
        if self._task is None and len(self._queue):
            self._ending = asyncio.Event()
            self._task = asyncio.get_running_loop().create_task(self._deliver())

    async def finish(self, timeout: float, *, keep: bool) -> None:
        """Try to post what is queued, until an attempt fails or `timeout` seconds are over.

        The rest stays in the file if there is one and `keep` is set, else it is dropped.
        """
        self._ending.set()
        if self._task is not None:
            try:
                await asyncio.wait_for(asyncio.shield(self._task), timeout)
            except TimeoutError:
                self._task.cancel()
                await asyncio.wait([self._task])
        if self._file is not None and keep:
            if len(self._queue):
                log.info("webhook %s: %d events wait on disk for the next start", self.address, len(self._queue))
            return
        if self._file is not None:
            self._file.delete()
        if lost := self._queue.drop_all():
            log.warning("webhook %s: dropped %d events that could not be posted before the end", self.address, lost)

    async def _deliver(self) -> None:
        poster = Poster(self.address, self._resolver)
        try:
            while len(self._queue):
                delivery = self._queue.take()
                failure = await self._attempt(poster, delivery)
                if failure is None:
                    self._succeed(delivery)
                    continue
                delay = self._fail(delivery, failure)
                if delay is None:
                    continue
                poster.close()
                if self._ending.is_set():
                    return
                await self._wait(delay)
        finally:
            self._queue.put_back()
            poster.close()
            self._task = None

    async def _wait(self, delay: float) -> None:
        try:
            async with asyncio.timeout(delay):
                await self._ending.wait()
        except TimeoutError:
            pass

    async def _attempt(self, poster: Poster, delivery: Delivery) -> _Failure | None:
        if delivery.tried_at is None:
            delivery.tried_at = asyncio.get_running_loop().time()
        headers = {
            "Content-Type": "application/json",
            "X-Gaffer-Event": quote(delivery.event, safe=string.punctuation),
            "X-Gaffer-Delivery": delivery.id,
        }
        if secret := self._secret():
            signature = hmac.digest(secret.encode(), delivery.body, hashlib.sha256).hex()
            headers["X-Gaffer-Signature"] = f"sha256={signature}"
        try:
            async with asyncio.timeout(TIMEOUT) as deadline:
                return _judge(await self._post(poster, delivery.body, headers))
        except OSError as error:
            if deadline.expired():
                return _Failure(f"no response within {TIMEOUT:g} s")
            return _Failure(_reason(error))
        except BadRequest as error:
            return _Failure(error.message, retry=False)
        except ValueError as error:
            return _Failure(str(error))

    async def _post(self, poster: Poster, body: bytes, headers: dict[str, str]) -> Response:
        response = await poster.post(body, headers)
        address = self.address
        for _ in range(_MAX_REDIRECTS):
            if response.status not in _REDIRECTS or response.location is None:
                break
            address = address.redirected(response.location)
            other = Poster(address, self._resolver)  # on the same host
            try:
                response = await other.post(body, headers)
            finally:
                other.close()
        return response

    def _forget(self, *deliveries: Delivery) -> None:
        if self._file is not None:
            for delivery in deliveries:
                self._file.remove(delivery)

    def _succeed(self, delivery: Delivery) -> None:
        self._queue.finish()
        self._forget(delivery)
        self._delivered += 1
        if self._failures or self._refusing:
            log.info("webhook %s works again", self.address)
        self._failures = 0
        self._refusing = False
        self._last_error = None

    def _fail(self, delivery: Delivery, failure: _Failure) -> float | None:
        """Return the delay before the next attempt, or None if the event is given up."""
        self._last_error = failure.reason
        now = asyncio.get_running_loop().time()
        if failure.retry:
            self._failures += 1
            if self._failures == 1:
                log.warning("webhook %s failed, will retry: %s", self.address, failure.reason)
        if failure.retry and now - (delivery.tried_at or now) < MAX_RETRY_TIME:
            self._queue.put_back()
            return retry_delay(self._failures, failure.asked)
        self._queue.finish()
        self._forget(delivery)
        self._failed += 1
        if not self._refusing:
            self._refusing = True
            log.warning("webhook %s lost the event %s: %s", self.address, delivery.event, failure.reason)
        return None

    def _warn_of_dropped(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._warned_at is None or now - self._warned_at >= _WARNING_PERIOD:
            self._warned_at = now
            count = self._queue.dropped - self._dropped_then
            self._dropped_then = self._queue.dropped
            log.warning("webhook %s is too slow, its queue is full: dropped %d old events", self.address, count)


def _reason(error: OSError) -> str:
    # asyncio replaces the text of the system by the address; numbers of TLS and of name lookups are others.
    if isinstance(error, ssl.SSLError | socket.gaierror) or not error.errno:
        return error.strerror or str(error) or "the connection was closed"
    return os.strerror(error.errno)


def _judge(response: Response) -> _Failure | None:
    status = response.status
    if 200 <= status < 300:
        return None
    retry = status >= 500 or status in _RETRIED
    return _Failure(f"it responds with status {status}", retry, seconds_asked(response.retry_after) if retry else 0)
