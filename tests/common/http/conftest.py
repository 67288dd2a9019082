from collections.abc import AsyncIterator

import pytest

from support.http_node import HttpNode, running_node


@pytest.fixture
async def node() -> AsyncIterator[HttpNode]:
    async with running_node() as node:
        yield node
