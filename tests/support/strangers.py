"""Processes of another user, for tests that run as root."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

STRANGER = 12321  # a uid and gid that no account has
OVERFLOW = 65534  # what unmapped users look like

# The interpreter may lie where another user can't read: the user changes once everything is imported.
_BECOME = """
import base64, hashlib, os, socket, struct, sys
uid = int(sys.argv.pop(1))
os.setgroups([])
os.setgid(uid)
os.setuid(uid)
"""


@contextmanager
def stranger(code: str, *args: object, uid: int = STRANGER) -> Iterator[subprocess.Popen[str]]:
    """A Python process of another user that runs `code` with base64, hashlib, os, socket, struct and sys imported.

    Its stdin and stdout are pipes; at the end its stdin is closed, and it must exit by itself then, with status 0.
    """
    with subprocess.Popen(
        [sys.executable, "-I", "-c", _BECOME + code, str(uid), *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
    assert process.returncode == 0
