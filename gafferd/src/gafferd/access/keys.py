"""The API keys of a node: `keys.json` in the state directory keeps their hashes, never the keys."""

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
MAX_SESSIONS = 256  # that one key may be limited to

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
    """The node keeps as many keys as it may."""

    errno = 409
    reason = "too_many_keys"


class KeyOfFile(GafferError):
    """The key of --api-key-file can't be revoked over HTTP: it would be back at the next start."""

    errno = 409
    reason = "key_of_file"


class KeyRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One key as it is kept: what it allows, and the SHA-256 of its text in hex.

    A plain hash is enough: the text has 256 random bits, nobody can try them all. `sessions` is null for all sessions;
    `created` in seconds since the epoch.
    """

    id: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{2,64}$")]
    hash: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    scopes: list[Scope]
    sessions: list[str] | None
    created: Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class IssuedKey(NamedTuple):
    """A key just made; its text is shown this once."""

    id: str
    key: str


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keys: list[KeyRecord]

    def __post_init__(self) -> None:
        if len({record.id for record in self.keys}) < len(self.keys):
            raise ValueError("two keys have the same id")


class KeyStore:
    """The keys in a `keys.json`, and `file_key`, the content of `--api-key-file`, which has all scopes.

    A key has one grant, which is taken back when the key is revoked. There are at most MAX_KEYS, because each request
    with a key is compared with all of them. Raises KeyStoreError when the file can't be read or isn't one that a
    KeyStore wrote; a missing file has no keys.
    """

    def __init__(self, path: str | os.PathLike[str], file_key: str | None = None) -> None:
        self._path = Path(path)
        self._file = documents.Document(self._path, _File)
        self._file_hash = _hash(file_key) if file_key is not None else None
        self._file_grant = Grant(ALL_SCOPES)
        self._records = {record.id: record for record in self._load()}
        self._grants = {record.id: _grant_of(record) for record in self._records.values()}

    def __bool__(self) -> bool:
        """Whether there is any key."""
        return bool(self._records) or self._file_hash is not None

    @property
    def records(self) -> list[KeyRecord]:
        """The kept keys, oldest first."""
        return list(self._records.values())

    @property
    def has_file_key(self) -> bool:
        """Whether there is a key of --api-key-file."""
        return self._file_hash is not None

    def grant_of(self, identifier: str) -> Grant:
        """What the key with that id allows, the one of FILE_KEY included; raises KeyNotFound."""
        if identifier == FILE_KEY and self.has_file_key:
            return self._file_grant
        if identifier not in self._grants:
            raise KeyNotFound(f"there is no key {identifier!r}", hint="`gaffer key:list` shows the keys")
        return self._grants[identifier]

    def create(self, scopes: Iterable[Scope], sessions: Iterable[str] | None = None) -> IssuedKey:
        """Make a key and keep it.

        Raises BadRequest without a scope, for an empty or too long list of sessions and for a bad name in it, and
        TooManyKeys.
        """
        if len(self._records) >= MAX_KEYS:
            raise TooManyKeys(f"this node has {MAX_KEYS} keys already", hint="revoke those that nobody uses")
        key, identifier = new_key(), secrets.token_hex(8)
        record = KeyRecord(
            id=identifier,
            hash=_hash(key),
            scopes=sorted(set(scopes)),
            sessions=_checked(sessions) if sessions is not None else None,
            created=int(time.time()),
        )
        if not record.scopes:
            raise BadRequest("a key needs a scope", path="$.scopes", hint="use read, control or define")
        self._save({**self._records, identifier: record})
        self._grants[identifier] = _grant_of(record)
        logger.info("made the key %s for %s", identifier, ", ".join(record.scopes))
        return IssuedKey(identifier, key)

    def revoke(self, identifier: str) -> None:
        """Forget a key and take its grant back; raises KeyNotFound, or KeyOfFile."""
        if identifier == FILE_KEY and self.has_file_key:
            raise KeyOfFile(
                "the key of --api-key-file can't be revoked over HTTP",
                hint="change the file, or take the setting away, and start gafferd again",
            )
        grant = self.grant_of(identifier)
        self._save({name: record for name, record in self._records.items() if name != identifier})
        del self._grants[identifier]
        logger.info("revoked the key %s", identifier)
        if grant.revocation is not None:
            grant.revocation.revoke()

    def verify(self, key: str) -> Grant | None:
        """What the key allows; None for an unknown one. Takes as long for any key."""
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
            # The copy is not taken without asking: it may hold a key that was taken out of the file by hand.
            raise KeyStoreError(
                error.message,
                hint=f"restore it, from {self._file.copy} if that is good, or move it away and make new keys",
            ) from None
        except OSError as error:
            raise KeyStoreError(f"can't read {self._path}: {error.strerror}") from None
        warn_when_readable_by_others(self._path, mode)
        return found.keys

    def _save(self, records: dict[str, KeyRecord]) -> None:
        """Replace the file, then what is in memory: a failure changes neither."""
        try:
            self._file.save(_File(list(records.values())), sync=True, pretty=True)
        except OSError as error:
            raise KeyStoreError(
                f"can't write {self._path}: {error.strerror}",
                errno=507,  # Insufficient Storage, RFC 4918
                hint="make room on the disk of the state directory, and try again",
            ) from None
        self._records = records


def _grant_of(record: KeyRecord) -> Grant:
    sessions = frozenset(record.sessions) if record.sessions is not None else None
    return Grant(frozenset(record.scopes), sessions, Revocation())


def _checked(sessions: Iterable[str]) -> list[str]:
    """The sessions in order, each once."""
    names = set()
    for position, session in enumerate(sessions):
        try:
            names.add(check_name(session, "session"))
        except BadRequest as error:
            raise BadRequest(
                error.message, reason=error.reason, path=f"$.sessions[{position}]", hint=error.hint
            ) from None
    if not names:
        raise BadRequest("a key for no session can do nothing", path="$.sessions", hint="leave it out for all")
    if len(names) > MAX_SESSIONS:
        raise BadRequest(f"a key is for {MAX_SESSIONS} sessions at most", path="$.sessions", hint="make several keys")
    return sorted(names)


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
