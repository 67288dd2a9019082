"""Processes of another user, for tests that run as root."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

NOBODY = 65534

# The interpreter may lie where another user can't read: the user changes once everything is imported.
_BECOME_NOBODY = f"""
import base64, hashlib, os, socket, struct, sys
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
"""


@contextmanager
def stranger(code: str, *args: object) -> Iterator[subprocess.Popen[str]]:
    """A Python process of the user nobody that runs `code` with base64, hashlib, os, socket, struct and sys
    imported.

    Its stdin and stdout are pipes; at the end its stdin is closed, and it must exit by itself then, with status 0.
    """
    with subprocess.Popen(
        [sys.executable, "-I", "-c", _BECOME_NOBODY + code, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
    assert process.returncode == 0
