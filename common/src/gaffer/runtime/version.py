"""The version of Gaffer."""

# `make version V=...` writes it, here and wherever the packages repeat it; it is always three numbers.
__version__ = "0.6.0"

version_info = tuple(map(int, __version__.split(".")))  # noqa: RUF048
