"""Warnings about peers, which repeat their mistakes: each is logged once in a while only, and few different ones."""

import logging
import math

PERIOD = 60.0  # seconds before the same warning is logged again
MAX_DIFFERENT = 30  # warnings in any such period; peers can vary what they send without end
MAX_LENGTH = 500  # characters of a warning

logger = logging.getLogger(__name__)


class ThrottledWarnings:
    """Remembers what was logged in the last PERIOD. `left_out` counts warnings that nothing was logged of."""

    def __init__(self) -> None:
        self.left_out = 0
        self._logged: dict[str, float] = {}  # in the order of their times
        self._said_more = -math.inf

    def warn(self, text: str, now: float) -> None:
        """Log the warning, unless the same was logged less than PERIOD before `now`, or MAX_DIFFERENT others were."""
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
        if now - self._said_more >= PERIOD:
            self._said_more = now
            logger.warning(
                "more than %d different warnings about peers in %g s: others are left out, %d so far",
                MAX_DIFFERENT,
                PERIOD,
                self.left_out,
            )
