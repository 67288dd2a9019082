"""Users and groups by name or number."""

import grp
import pwd
from collections.abc import Callable

from gaffer.errors import quoted


def check_uid(val: int | str) -> int:
    """Return the uid of the user `val`, a name or a number (also as a string).

    Raises ValueError for an unknown user and TypeError for any other type.
    """
    return _account_id(val, "user", pwd.getpwuid, lambda name: pwd.getpwnam(name).pw_uid)


def check_gid(val: int | str) -> int:
    """Return the gid of the group `val`, a name or a number (also as a string).

    Raises ValueError for an unknown group and TypeError for any other type.
    """
    return _account_id(val, "group", grp.getgrgid, lambda name: grp.getgrnam(name).gr_gid)


def _account_id(val: int | str, kind: str, by_id: Callable[[int], object], by_name: Callable[[str], int]) -> int:
    if isinstance(val, bool) or not isinstance(val, int | str):
        raise TypeError(f"expected the name or number of a {kind}, got {type(val).__name__}")
    try:
        if isinstance(val, str) and not val.isdecimal():
            return by_name(val)
        number = int(val)
        by_id(number)
    except (KeyError, OverflowError, ValueError):
        raise ValueError(f"unknown {kind} {quoted(val)}") from None
    return number
