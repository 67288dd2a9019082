"""The scopes of the API, in their own module so that the command line need not import the policy."""

from enum import StrEnum


class Scope(StrEnum):
    """The permissions in a grant. No scope includes another."""

    READ = "read"
    CONTROL = "control"  # start, stop, scale, signal, stdin
    DEFINE = "define"  # new commands

    __hash__ = str.__hash__  # that of Enum is slow, and every request uses it


ALL_SCOPES = frozenset(Scope)
