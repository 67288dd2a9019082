"""Identity of a node for lookupds: a provable id, and the number of the start."""

import logging
from collections.abc import Callable

from gaffer.schemas.messages import node_id

MAX_INCARNATION = 2**53  # never reached by restarts; keeps lookupds from exhausting the range

logger = logging.getLogger(__name__)


class Identity:
    """The identity of a running node.

    `id` is the hash of `secret`. `incarnation` grows at each start, and at run time if a lookupd has seen a later one;
    `save` then stores it, and may raise OSError.
    """

    def __init__(self, secret: str, incarnation: int, save: Callable[[int], object] = lambda incarnation: None) -> None:
        self.secret = secret
        self.id = node_id(secret)
        self.incarnation = incarnation
        self._save = save

    def outgrow(self, incarnation: int) -> bool:
        """Exceed an incarnation of this node that a lookupd has seen; return False if that is impossible."""
        if incarnation >= MAX_INCARNATION:
            return False
        if incarnation >= self.incarnation:
            logger.warning(
                "a lookupd has seen start %d of this node, but this is start %d (state directory restored?): "
                "continuing from start %d",
                incarnation,
                self.incarnation,
                incarnation + 1,
            )
            self.incarnation = incarnation + 1
            try:
                self._save(self.incarnation)
            except OSError as error:
                logger.error("can't save the incarnation of this node: %s", error.strerror)
        return True
