"""Content types of files by their names, the same on every host."""

import mimetypes

_TYPES = mimetypes.MimeTypes()  # Python's own types
_NEWER_TYPES = {
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
    ".md": "text/markdown",
}
for _suffix, _type in _NEWER_TYPES.items():
    _TYPES.add_type(_type, _suffix)
_TEXTS = ("application/json", "application/javascript", "image/svg+xml")


def media_type(name: str) -> str:
    """Return the content type of a file by its name, with UTF-8 for text."""
    found, encoding = _TYPES.guess_type(name)
    if encoding is not None:
        return "application/gzip" if encoding == "gzip" else "application/octet-stream"
    if found is None:
        return "application/octet-stream"
    return f"{found}; charset=UTF-8" if found.startswith("text/") or found in _TEXTS else found
