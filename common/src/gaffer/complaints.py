"""Warnings about peers, who repeat their mistakes: each is logged once in a while only."""

import logging

PERIOD = 60.0  # seconds before the same warning is logged again
_LIMIT = 1000

logger = logging.getLogger(__name__)


class Complaints:
    """Remembers what was logged lately."""

    def __init__(self) -> None:
        self._logged: dict[str, float] = {}

    def warn(self, text: str, now: float) -> None:
        """Log the warning, unless the same was logged less than PERIOD before `now`."""
        if now - self._logged.get(text, -PERIOD) < PERIOD:
            return
        if len(self._logged) >= _LIMIT:
            self._logged.clear()
        self._logged[text] = now
        logger.warning("%s", text)
