"""Files and directories that other users can write to."""

import os
import stat
from pathlib import Path

import pytest

from support.needs import needs_shared_group, shared_group


def let_everybody_write(path: Path) -> None:
    path.chmod(path.stat().st_mode | stat.S_IWOTH)


def let_a_group_write(path: Path) -> None:
    """Let a group write that is not our user's own: for tests with the mark needs_shared_group."""
    group = shared_group()
    assert group is not None
    os.chown(path, -1, group)
    path.chmod(path.stat().st_mode | stat.S_IWGRP)


# How to let others write, and the complaint about it.
OTHERS_WRITE = [
    pytest.param(let_everybody_write, "everyone can write to it", id="everybody"),
    pytest.param(let_a_group_write, "its group can write to it", id="group", marks=needs_shared_group),
]
