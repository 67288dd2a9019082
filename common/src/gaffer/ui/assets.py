"""The files of the dashboard, read once and kept in memory with a compressed copy of each."""

import gzip
import hashlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from gaffer.http.media_types import media_type

INDEX = "index.html"


class Asset(NamedTuple):
    """A file: its content, also compressed with gzip unless that saves nothing. `version` is a hash of the content."""

    media: str
    plain: bytes
    compressed: bytes | None
    version: str


def read_assets(folder: Path) -> dict[str, Asset]:
    """Return the files below the folder by their path in it, with slashes; hidden ones are left out. Raises OSError."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):
            found[name.as_posix()] = _read(path)
    return found


def _read(path: Path) -> Asset:
    plain = path.read_bytes()
    compressed = gzip.compress(plain, mtime=0)
    version = hashlib.sha256(plain).hexdigest()[:32]
    return Asset(media_type(path.name), plain, compressed if len(compressed) < len(plain) else None, version)


class Assets:
    """The files below a folder, which are read when they are first needed. For all threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._reading = threading.Lock()
        self.known: Mapping[str, Asset] | None = None
        """The files by path, None while they have not been read."""

    def read(self) -> Mapping[str, Asset]:
        """Return the files by path. Raises OSError if they can't be read; the next call tries again."""
        with self._reading:
            if self.known is None:
                self.known = read_assets(self._folder)
            return self.known


def accepts_gzip(header: str | None) -> bool:
    """Return whether an Accept-Encoding header allows gzip (RFC 9110, section 12.5.3)."""
    weights: dict[str, bool] = {}
    for item in (header or "").lower().split(","):
        coding, *parameters = (part.strip() for part in item.split(";"))
        quality = next((each.partition("=")[2] for each in parameters if each.partition("=")[0].strip() == "q"), "1")
        weights[coding] = quality.strip().strip("0.") != ""
    return weights.get("gzip", weights.get("x-gzip", weights.get("*", False)))
