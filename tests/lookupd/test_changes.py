"""The log of changes wakes its followers once for many changes, or at once when asked to."""

import asyncio
from typing import Any

from gaffer_lookupd.changes import Change, ChangeLog


def a_change(seq: int) -> Change:
    message: Any = {"event": "add_job"}  # what it says does not matter here
    return Change(seq, message)


async def test_followers_wake_once_for_many_changes_and_at_once_when_asked_to() -> None:
    log, woken = ChangeLog(), list[int]()
    log.watch(lambda: woken.append(1))
    log.publish(a_change(1))
    log.publish(a_change(2))
    assert woken == []
    await asyncio.sleep(0)
    assert woken == [1]
    log.publish(a_change(3))
    log.notify()
    assert woken == [1, 1]
    await asyncio.sleep(0)
    assert woken == [1, 1], "the wake-up that was due did not follow"


async def test_no_change_follows_the_end_of_the_log() -> None:
    log = ChangeLog()
    log.close()
    log.publish(a_change(1))
    assert log.end == 0
