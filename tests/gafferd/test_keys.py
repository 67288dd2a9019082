"""The key store: what it keeps, what it lets in, what it refuses to read."""

import json
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from gaffer.errors import BadRequest
from gaffer.http.access import ALL_SCOPES, Grant, Scope
from gaffer.runtime.keyfile import KeyFileError, is_weak, new_key, read_key_file
from gafferd.access.keys import KeyNotFound, KeyStore, KeyStoreError
from support.writable import OTHERS_WRITE

KEYS = '{"keys": [{"id": "%s", "hash": "%s", "scopes": ["read"], "sessions": null, "created": %d}]}'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_a_new_store_has_no_key(path: Path) -> None:
    store = KeyStore(path)
    assert not store
    assert store.records == []
    assert store.verify("anything") is None
    assert not path.exists()


def test_a_created_key_is_granted_its_scopes_and_sessions(path: Path) -> None:
    store = KeyStore(path)
    new = store.create([Scope.READ, Scope.CONTROL, Scope.READ], ["blog", "shop"])
    assert store.verify(new.key) == Grant(frozenset({Scope.READ, Scope.CONTROL}), frozenset({"blog", "shop"}))
    assert store.verify(store.create([Scope.DEFINE]).key) == Grant(frozenset({Scope.DEFINE}))
    assert store.records[0].id == new.id
    for wrong in (new.key[:-1], new.key.upper(), "", " " + new.key, "\u2603", new.id):
        assert store.verify(wrong) is None


def test_keys_outlive_the_store(path: Path) -> None:
    new = KeyStore(path).create(Scope, ["blog"])
    assert KeyStore(path).verify(new.key) == Grant(ALL_SCOPES, frozenset({"blog"}))


def test_the_file_is_private_and_holds_no_key(path: Path) -> None:
    new = KeyStore(path).create([Scope.READ])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert new.key not in path.read_text()
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["keys.json", "keys.json.copy"]


def test_a_revoked_key_is_let_in_no_more(path: Path) -> None:
    store = KeyStore(path)
    kept, revoked = store.create([Scope.READ]), store.create([Scope.READ])
    store.revoke(revoked.id)
    for again in (store, KeyStore(path)):
        assert again.verify(revoked.key) is None
        assert again.verify(kept.key) is not None
    with pytest.raises(KeyNotFound):
        store.revoke(revoked.id)


def test_the_key_of_a_file_has_all_scopes_and_is_not_kept(path: Path) -> None:
    key = new_key()
    store = KeyStore(path, file_key=key)
    assert store
    assert store.verify(key) == Grant(ALL_SCOPES)
    assert store.records == []
    store.create([Scope.READ])
    assert KeyStore(path).verify(key) is None


@pytest.mark.parametrize(
    ("scopes", "sessions", "where"),
    [([], None, "$.scopes"), ([Scope.READ], [], "$.sessions"), ([Scope.READ], ["a b"], "$.sessions[0]")],
)
def test_useless_keys_are_refused(path: Path, scopes: list[Scope], sessions: list[str] | None, where: str) -> None:
    store = KeyStore(path)
    with pytest.raises(BadRequest) as error:
        store.create(scopes, sessions)
    assert error.value.path == where
    assert not store


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"keys": [{"id": "a"}]}',
        '{"keys": [{"id": "a", "hash": "b", "scopes": ["admin"], "sessions": null, "created": 1}]}',
        '{"keys": [], "extra": 1}',
        '{"format": 1, "keys": []}',
        KEYS % ("00", "a" * 63, 1),
        KEYS % ("..", "a" * 64, 1),
        KEYS % ("00", "a" * 64, -1),
        KEYS % ("00", "a" * 64, 10**30),
        json.dumps({"keys": 2 * json.loads(KEYS % ("00", "a" * 64, 1))["keys"]}),
        b"\xff",
    ],
)
def test_a_damaged_file_is_refused_and_left_alone(path: Path, content: str | bytes) -> None:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(0o600)
    with pytest.raises(KeyStoreError, match="damaged") as error:
        KeyStore(path)
    assert error.value.hint
    assert path.stat().st_size == len(content)


@pytest.mark.parametrize(("let_others_write", "why"), OTHERS_WRITE)
def test_a_file_that_others_may_write_is_refused(
    path: Path, let_others_write: Callable[[Path], None], why: str
) -> None:
    KeyStore(path).create([Scope.READ])
    let_others_write(path)
    with pytest.raises(KeyStoreError, match=why):
        KeyStore(path)


@pytest.mark.expects_errors("readable by other users")
def test_a_file_that_others_may_read_is_warned_about(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    KeyStore(path).create([Scope.READ])
    path.chmod(0o640)
    with caplog.at_level(logging.WARNING):
        assert KeyStore(path)
    assert f"chmod 600 {path}" in caplog.text


def test_a_failed_write_changes_nothing(path: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    store = KeyStore(home / "keys.json")
    new = store.create([Scope.READ])
    (home / "keys.json").unlink()
    (home / "keys.json").mkdir()  # what a file can't replace, for root neither
    with pytest.raises(KeyStoreError, match="can't write"):
        store.create([Scope.READ])
    assert [record.id for record in store.records] == [new.id]
    assert {entry.name for entry in home.iterdir()} == {"keys.json", "keys.json.copy"}


def test_the_record_is_plain_json(path: Path) -> None:
    new = KeyStore(path).create([Scope.READ, Scope.CONTROL], ["blog"])
    [record] = json.loads(path.read_text())["keys"]
    assert record["id"] == new.id
    assert (record["scopes"], record["sessions"]) == (["control", "read"], ["blog"])


def test_keys_are_random_and_long() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(len(key) > 40 and key.isascii() and key.isprintable() and " " not in key for key in keys)


@pytest.mark.parametrize("content", ["secret", "secret\n", "  secret \r\n"])
def test_a_key_file_gives_its_word(tmp_path: Path, content: str) -> None:
    file = tmp_path / "key"
    file.write_text(content)
    file.chmod(0o600)
    assert read_key_file(file) == "secret"


@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"a\nb", b"k\xc3\xa9y", b"a\x00b", b"x" * 5000])
def test_a_key_file_must_hold_one_printable_word(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(KeyFileError, match="exactly one key"):
        read_key_file(file)


def test_a_missing_key_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="No such file") as error:
        read_key_file(tmp_path / "nope")
    assert "key:new" in (error.value.hint or "")


def test_a_new_key_is_suggested_only_if_the_file_is_missing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(KeyFileError, match="Not a directory") as error:
        read_key_file(tmp_path / "file" / "key")
    assert error.value.hint is None


@pytest.mark.expects_errors("readable by other users")
def test_an_open_key_file_is_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "key"
    file.write_text("secret")
    file.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        assert read_key_file(os.fspath(file)) == "secret"
    assert "chmod 600" in caplog.text


@pytest.mark.parametrize(
    ("key", "weak"),
    [
        pytest.param(new_key(), False, id="random"),
        ("0123456789abcdef" * 2, False),
        ("0123456789abcde" * 2, True),
        ("1234567890" * 3, True),
        ("a" * 43, False),
        ("gk_operatorsecret", True),
        ("correct-horse-battery-staple", False),
    ],
)
def test_a_key_with_fewer_than_128_bits_is_weak(key: str, weak: bool) -> None:
    assert is_weak(key) is weak


@pytest.mark.parametrize("key", ["x", "abc", "gk_", "1234", "aaaa"])
def test_a_key_that_anybody_guesses_is_refused(tmp_path: Path, key: str) -> None:
    file = tmp_path / "key"
    file.write_text(key)
    file.chmod(0o600)
    with pytest.raises(KeyFileError, match="too short") as error:
        read_key_file(file)
    assert "gaffer key:new" in (error.value.hint or "")


@pytest.mark.parametrize(("let_others_write", "why"), OTHERS_WRITE)
def test_a_key_file_that_others_may_change_is_refused(
    tmp_path: Path, let_others_write: Callable[[Path], None], why: str
) -> None:
    file = tmp_path / "inner" / "key"
    file.parent.mkdir()
    file.write_text(new_key())
    file.chmod(0o600)
    let_others_write(file)
    with pytest.raises(KeyFileError, match=f"is not trusted: {why}") as error:
        read_key_file(file)
    assert "chmod go-w" in (error.value.hint or "")


def test_any_change_of_the_file_is_noticed_and_the_copy_is_good(path: Path) -> None:
    kept = KeyStore(path).create([Scope.READ])
    good = path.read_bytes()
    for bad in (good[:-1], good.replace(b'"read"', b'"define"'), b"", good.replace(kept.id.encode(), b"00")):
        path.write_bytes(bad)
        with pytest.raises(KeyStoreError, match="damaged") as error:
            KeyStore(path)
        assert f"{path}.copy" in (error.value.hint or "")
    path.write_bytes(Path(f"{path}.copy").read_bytes())
    assert KeyStore(path).verify(kept.key) is not None
    path.write_bytes(good.replace(b'"format":1', b'"format":2'))
    with pytest.raises(KeyStoreError, match="later version of gafferd"):
        KeyStore(path)


def test_a_file_edited_by_hand_is_read_without_its_checksum(path: Path) -> None:
    store = KeyStore(path)
    kept, dropped = store.create([Scope.READ]), store.create([Scope.READ])
    keys = json.loads(path.read_text())["keys"]
    path.write_text(json.dumps({"keys": [key for key in keys if key["id"] == kept.id]}, indent=4))
    store = KeyStore(path)
    assert store.verify(kept.key) is not None
    assert store.verify(dropped.key) is None
