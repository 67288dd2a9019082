"""Throttled warnings about peers: repeated ones are logged once per period, and the number of others is limited."""

import logging
import math

PERIOD = 60.0  # seconds before the same warning is logged again
MAX_DIFFERENT = 30  # different warnings per period, since peers can vary what they send
MAX_LENGTH = 500  # characters of a warning

logger = logging.getLogger(__name__)


class ThrottledWarnings:
    """A log of warnings that omits those already logged in the last PERIOD; `left_out` counts those over the limit."""

    def __init__(self) -> None:
        self.left_out = 0
        self._logged: dict[str, float] = {}  # in the order of their times
        self._last_summary = -math.inf

    def warn(self, text: str, now: float) -> None:
        """Log `text` unless it, or MAX_DIFFERENT other warnings, were logged less than PERIOD before `now`."""
        text = text if len(text) <= MAX_LENGTH else f"{text[:MAX_LENGTH]}..."
        while self._logged and now - next(iter(self._logged.values())) >= PERIOD:
            del self._logged[next(iter(self._logged))]
        if text in self._logged:
            return
        if len(self._logged) < MAX_DIFFERENT:
            self._logged[text] = now
            logger.warning("%s", text)
            return
        self.left_out += 1
        if now - self._last_summary >= PERIOD:
            self._last_summary = now
            logger.warning(
                "more than %d different warnings about peers in %g s: not logging more, %d omitted so far",
                MAX_DIFFERENT,
                PERIOD,
                self.left_out,
            )
