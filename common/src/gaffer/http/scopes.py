"""The scopes of the API. A module of their own, because the command line names them and needs no more of the policy."""

from enum import StrEnum


class Scope(StrEnum):
    """What a grant allows. Scopes don't include each other."""

    READ = "read"
    CONTROL = "control"  # start, stop, scale, signal, stdin
    DEFINE = "define"  # new commands

    __hash__ = str.__hash__  # that of Enum is slow, and each request asks for it


ALL_SCOPES = frozenset(Scope)
