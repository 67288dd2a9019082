"""Content types of files by their names, the same on every host."""

import mimetypes
from functools import cache

_NEWER_TYPES = {
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
    ".md": "text/markdown",
}
_TEXTS = ("application/json", "application/javascript", "image/svg+xml")


def media_type(name: str) -> str:
    """Return the content type of a file by its name, with UTF-8 for text."""
    found, encoding = _types().guess_type(name)
    if encoding is not None:
        return "application/gzip" if encoding == "gzip" else "application/octet-stream"
    if found is None:
        return "application/octet-stream"
    return f"{found}; charset=UTF-8" if found.startswith("text/") or found in _TEXTS else found


@cache
def _types() -> mimetypes.MimeTypes:
    """Return Python's own types and newer ones; reading the system's takes milliseconds."""
    types = mimetypes.MimeTypes()
    for suffix, kind in _NEWER_TYPES.items():
        types.add_type(kind, suffix)
    return types
