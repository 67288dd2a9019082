"""Who a node is to lookupds: an id that only it can prove, and the number of its start."""

import logging
from collections.abc import Callable

from gaffer.schemas.messages import node_id

MAX_INCARNATION = 2**53  # no node starts that often; a lookupd must not push it to where it can't grow

logger = logging.getLogger(__name__)


class Identity:
    """The identity of a running node.

    `secret` is what `id` is the hash of. `incarnation` grows at each start, and while the node runs when a lookupd has
    heard of a later one; `save` stores it then, and may raise OSError.
    """

    def __init__(self, secret: str, incarnation: int, save: Callable[[int], object] = lambda incarnation: None) -> None:
        self.secret = secret
        self.id = node_id(secret)
        self.incarnation = incarnation
        self._save = save

    def outgrow(self, incarnation: int) -> bool:
        """Go past an incarnation of this node that a lookupd has heard of; return False when that is impossible."""
        if incarnation >= MAX_INCARNATION:
            return False
        if incarnation >= self.incarnation:
            logger.warning(
                "a lookupd has heard of start %d of this node, and this is start %d (a restored state directory?): "
                "counting on from there",
                incarnation,
                self.incarnation,
            )
            self.incarnation = incarnation + 1
            try:
                self._save(self.incarnation)
            except OSError as error:
                logger.error("can't store the incarnation of this node: %s", error.strerror)
        return True
