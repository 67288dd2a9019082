"""Runs the tests of probes on both loops."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

from gaffer.loop import new_loop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {kind: partial(new_loop, kind) for kind in ("uvloop", "asyncio")}
