"""The API keys of a node: `keys.json` in the state directory stores only their hashes."""

import hashlib
import hmac
import logging
import os
import secrets
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec

from gaffer.errors import BadRequest, GafferError
from gaffer.http.access import ALL_SCOPES, Grant, Scope
from gaffer.http.revocation import Revocation
from gaffer.jobs.names import check_name
from gaffer.runtime.keyfile import new_key, warn_when_readable_by_others
from gaffer.runtime.trusted_files import UntrustedFile
from gafferd.state import documents

MAX_KEYS = 256
MAX_SESSIONS = 256  # per key

FILE_KEY = "file"  # the id of the key of --api-key-file

logger = logging.getLogger(__name__)


class KeyStoreError(GafferError):
    """keys.json can't be read or written."""

    reason = "key_store"


class KeyNotFound(GafferError):
    """The node has no such key."""

    errno = 404
    reason = "not_found"


class TooManyKeys(GafferError):
    """The node already has the maximum number of keys."""

    errno = 409
    reason = "too_many_keys"


class KeyOfFile(GafferError):
    """The key of --api-key-file can't be revoked over HTTP: it would return at the next start."""

    errno = 409
    reason = "key_of_file"


class KeyRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A stored key: its scopes and sessions, and the SHA-256 of its text in hex.

    A plain hash is enough, because the text has 256 random bits. `sessions` is null for all sessions; `created` is in
    seconds since the epoch.
    """

    id: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{2,64}$")]
    hash: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    scopes: list[Scope]
    sessions: list[str] | None
    created: Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class IssuedKey(NamedTuple):
    """A new key; its text is not stored."""

    id: str
    key: str


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keys: list[KeyRecord]

    def __post_init__(self) -> None:
        if len({record.id for record in self.keys}) < len(self.keys):
            raise ValueError("two keys have the same id")


class KeyStore:
    """The keys in a `keys.json`, and `file_key`, the content of `--api-key-file`, which has all scopes.

    Each key has one grant, which ends when the key is revoked. The number of keys is limited to MAX_KEYS, because each
    request with a key is compared with all of them. Raises KeyStoreError if the file can't be read or was not written
    by a KeyStore; a missing file means no keys.
    """

    def __init__(self, path: str | os.PathLike[str], file_key: str | None = None) -> None:
        self._path = Path(path)
        self._file = documents.Document(self._path, _File)
        self._file_hash = _hash(file_key) if file_key is not None else None
        self._file_grant = Grant(ALL_SCOPES, caller=f"key:{FILE_KEY}")
        self._records = {record.id: record for record in self._load()}
        self._grants = {record.id: _grant_of(record) for record in self._records.values()}

    def __bool__(self) -> bool:
        """Return whether there are any keys."""
        return bool(self._records) or self._file_hash is not None

    @property
    def records(self) -> list[KeyRecord]:
        """The stored keys, oldest first."""
        return list(self._records.values())

    @property
    def has_file_key(self) -> bool:
        """Whether there is a key of --api-key-file."""
        return self._file_hash is not None

    def grant_of(self, identifier: str) -> Grant:
        """Return the grant of the key with this id, including FILE_KEY; raise KeyNotFound."""
        if identifier == FILE_KEY and self.has_file_key:
            return self._file_grant
        if identifier not in self._grants:
            raise KeyNotFound(f"no such key: {identifier!r}", hint="run `gaffer key:list` to list the keys")
        return self._grants[identifier]

    def create(self, scopes: Iterable[Scope], sessions: Iterable[str] | None = None) -> IssuedKey:
        """Create and store a key.

        Raises BadRequest without a scope and for an invalid list of sessions (empty, too long, or with an invalid
        name), and TooManyKeys.
        """
        if len(self._records) >= MAX_KEYS:
            raise TooManyKeys(f"this node already has {MAX_KEYS} keys", hint="revoke unused keys")
        key, identifier = new_key(), secrets.token_hex(8)
        record = KeyRecord(
            id=identifier,
            hash=_hash(key),
            scopes=sorted(set(scopes)),
            sessions=_checked(sessions) if sessions is not None else None,
            created=int(time.time()),
        )
        if not record.scopes:
            raise BadRequest("a key needs at least one scope", path="$.scopes", hint="use read, control or define")
        self._save({**self._records, identifier: record})
        self._grants[identifier] = _grant_of(record)
        logger.info("created key %s with scopes %s", identifier, ", ".join(record.scopes))
        return IssuedKey(identifier, key)

    def revoke(self, identifier: str) -> None:
        """Remove a key and end its grant; raise KeyNotFound or KeyOfFile."""
        if identifier == FILE_KEY and self.has_file_key:
            raise KeyOfFile(
                "the key of --api-key-file can't be revoked over HTTP",
                hint="change the file or remove the setting, and restart gafferd",
            )
        grant = self.grant_of(identifier)
        self._save({name: record for name, record in self._records.items() if name != identifier})
        del self._grants[identifier]
        logger.info("revoked key %s", identifier)
        if grant.revocation is not None:
            grant.revocation.revoke()

    def verify(self, key: str) -> Grant | None:
        """Return the grant of a key, or None if it is unknown. The time taken does not depend on the key."""
        digest = _hash(key)
        grant = None
        for record in self._records.values():
            if hmac.compare_digest(record.hash, digest):
                grant = self._grants[record.id]
        if self._file_hash is not None and hmac.compare_digest(self._file_hash, digest):
            grant = self._file_grant
        return grant

    def _load(self) -> list[KeyRecord]:
        try:
            found = self._file.load()
            mode = self._path.stat().st_mode
        except FileNotFoundError:
            return []
        except (documents.NewerFile, UntrustedFile) as error:
            raise KeyStoreError(error.message, hint=error.hint) from None
        except documents.DamagedFile as error:
            # The copy is not used automatically: it may contain a key that was removed from the file by hand.
            raise KeyStoreError(
                error.message,
                hint=f"restore it, from {self._file.copy} if that is intact, or move it away and create new keys",
            ) from None
        except OSError as error:
            raise KeyStoreError(f"can't read {self._path}: {error.strerror}") from None
        warn_when_readable_by_others(self._path, mode)
        return found.keys

    def _save(self, records: dict[str, KeyRecord]) -> None:
        """Replace the file, then the records in memory; a failure changes neither."""
        try:
            self._file.save(_File(list(records.values())), sync=True, pretty=True)
        except OSError as error:
            raise KeyStoreError(
                f"can't write {self._path}: {error.strerror}",
                errno=507,  # Insufficient Storage, RFC 4918
                hint="free space on the disk of the state directory and try again",
            ) from None
        self._records = records


def _grant_of(record: KeyRecord) -> Grant:
    sessions = frozenset(record.sessions) if record.sessions is not None else None
    return Grant(frozenset(record.scopes), sessions, Revocation(), caller=f"key:{record.id}")


def _checked(sessions: Iterable[str]) -> list[str]:
    """Return the sessions, sorted and without duplicates."""
    names = set()
    for position, session in enumerate(sessions):
        try:
            names.add(check_name(session, "session"))
        except BadRequest as error:
            raise BadRequest(
                error.message, reason=error.reason, path=f"$.sessions[{position}]", hint=error.hint
            ) from None
    if not names:
        raise BadRequest("the list of sessions is empty", path="$.sessions", hint="omit it for all sessions")
    if len(names) > MAX_SESSIONS:
        raise BadRequest(
            f"a key can be limited to at most {MAX_SESSIONS} sessions", path="$.sessions", hint="create several keys"
        )
    return sorted(names)


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
