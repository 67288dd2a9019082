"""The API keys of a node: `keys.json` in the state directory keeps their hashes, never the keys."""

import hashlib
import hmac
import os
import secrets
import stat
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from gaffer.errors import BadRequest, GafferError
from gaffer.http.access import ALL_SCOPES, Grant, Scope
from gaffer.keyfile import new_key, warn_when_readable_by_others
from gaffer.names import check_name
from gafferd.files import replace_file


class KeyStoreError(GafferError):
    """keys.json can't be read or written."""

    reason = "key_store"


class KeyNotFound(GafferError):
    """The node has no such key."""

    errno = 404
    reason = "not_found"


class KeyRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One key as it is kept: what it allows, and the SHA-256 of its text in hex.

    A plain hash is enough: the text has 256 random bits, nobody can try them all. `sessions` is null for all sessions;
    `created` in seconds since the epoch.
    """

    id: str
    hash: str
    scopes: list[Scope]
    sessions: list[str] | None
    created: int

    @property
    def grant(self) -> Grant:
        sessions = frozenset(self.sessions) if self.sessions is not None else None
        return Grant(frozenset(self.scopes), sessions)


class NewKey(msgspec.Struct, frozen=True):
    """A key just made; its text is shown this once."""

    id: str
    key: str


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keys: list[KeyRecord]


class KeyStore:
    """The keys in a `keys.json`, and `file_key`, the content of `--api-key-file`, which has all scopes.

    Raises KeyStoreError when the file can't be read or isn't one that a KeyStore wrote; a missing file has no keys.
    """

    def __init__(self, path: str | os.PathLike[str], file_key: str | None = None) -> None:
        self._path = Path(path)
        self._file_hash = _hash(file_key) if file_key is not None else None
        self._records = {record.id: record for record in self._load()}

    def __bool__(self) -> bool:
        """Whether there is any key."""
        return bool(self._records) or self._file_hash is not None

    @property
    def records(self) -> list[KeyRecord]:
        """The kept keys, oldest first."""
        return list(self._records.values())

    def create(self, scopes: Iterable[Scope], sessions: Iterable[str] | None = None) -> NewKey:
        """Make a key and keep it. Raises BadRequest without a scope, for an empty list of sessions or a bad name."""
        key, identifier = new_key(), secrets.token_hex(8)
        record = KeyRecord(
            id=identifier,
            hash=_hash(key),
            scopes=sorted(set(scopes)),
            sessions=sorted({check_name(session, "session") for session in sessions}) if sessions is not None else None,
            created=int(time.time()),
        )
        if not record.scopes:
            raise BadRequest("a key needs a scope", path="$.scopes", hint="use read, control or define")
        if record.sessions == []:
            raise BadRequest("a key for no session can do nothing", path="$.sessions", hint="leave it out for all")
        self._save({**self._records, identifier: record})
        return NewKey(identifier, key)

    def revoke(self, identifier: str) -> None:
        """Forget a key; raises KeyNotFound."""
        if identifier not in self._records:
            raise KeyNotFound(f"there is no key {identifier!r}", hint="`gaffer key:list` shows the keys")
        self._save({name: record for name, record in self._records.items() if name != identifier})

    def verify(self, key: str) -> Grant | None:
        """What the key allows; None for an unknown one. Takes as long for any key."""
        digest = _hash(key)
        grant = None
        for record in self._records.values():
            if hmac.compare_digest(record.hash, digest):
                grant = record.grant
        if self._file_hash is not None and hmac.compare_digest(self._file_hash, digest):
            grant = Grant(ALL_SCOPES)
        return grant

    def _load(self) -> list[KeyRecord]:
        try:
            with self._path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                content = file.read()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise KeyStoreError(f"can't read {self._path}: {error.strerror}") from None
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise KeyStoreError(f"other users may write to {self._path}", hint=f"check it, then chmod 600 {self._path}")
        warn_when_readable_by_others(self._path, mode)
        try:
            return msgspec.json.decode(content, type=_File).keys
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise KeyStoreError(
                f"{self._path} is damaged: {error}", hint="restore it, or move it away and make new keys"
            ) from None

    def _save(self, records: dict[str, KeyRecord]) -> None:
        """Replace the file, then what is in memory: a failure changes neither."""
        content = msgspec.json.format(msgspec.json.encode(_File(list(records.values()))))
        try:
            replace_file(self._path, content, sync=True)
        except OSError as error:
            raise KeyStoreError(f"can't write {self._path}: {error.strerror}") from None
        self._records = records


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
