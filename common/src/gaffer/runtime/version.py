"""The version of Gaffer."""

# Three numbers, set by `make version V=...` here and in all places that repeat it.
__version__ = "0.6.0"

version_info = tuple(map(int, __version__.split(".")))  # noqa: RUF048
