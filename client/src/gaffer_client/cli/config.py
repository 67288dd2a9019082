"""The settings of a run: from flags, else the environment, else the configuration file, else defaults.

A setting is read when a command needs it; one that is wrong does not disturb commands that do without it.
"""

import configparser
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final, TypedDict
from urllib.parse import urlsplit

from gaffer.errors import InvalidValue, did_you_mean
from gaffer.runtime.keyfile import KeyFileError, read_key_file
from gaffer.runtime.options import Option
from gaffer.runtime.settings import Setting, find
from gaffer.runtime.trusted_files import UntrustedFile, read_trusted, trusted_file
from gaffer.runtime.values import boolean, items, text
from gaffer_client.announced import NodePattern, Origin, covered
from gaffer_client.cli.errors import UsageError
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.table import Program
from gaffer_client.errors import MalformedAnswer, Unauthorized, UntrustedServer
from gaffer_client.local import default_url
from gaffer_client.lookup import Lookup
from gaffer_client.node import Server
from gaffer_client.transport import DEFAULT_URL, is_key


def _lookups(text: str) -> tuple[str, ...]:
    urls = items(text)
    if not urls:
        raise InvalidValue("no lookup is given", "give a comma list of URLs")
    return urls


def _patterns(text: str) -> list[NodePattern]:
    try:
        return [NodePattern.parse(word) for word in text.replace(",", " ").split()]
    except ValueError as error:
        raise InvalidValue(str(error), "for example *.example.com, 10.0.0.0/24, web1:5000") from None


def _key_in(path: str) -> str:
    try:
        return read_key_file(os.path.expanduser(path))
    except KeyFileError as error:
        raise InvalidValue(error.message, error.hint) from None


def _key(text: str) -> str | None:
    key = text.strip()
    if key and not is_key(key):
        raise InvalidValue("it holds no key", "a key is one printable ASCII word")
    return key or None


def _file(path: str) -> str:
    return trusted_file(os.path.expanduser(path))


def _of_a_node(key: str) -> tuple[tuple[str, str], ...]:
    """The places of a key that the section of a node has in addition to `[client]`."""
    return (("node", key), ("client", key))


ENDPOINT: Final = Setting(
    help="the node: http://, https:// or unix:/path",
    rule=text,
    shown=DEFAULT_URL,
    flag="-g URL, --endpoint=URL",
    aliases=("--gafferd-http-address",),
    variable="GAFFER_ENDPOINT",
    keys=(("client", "endpoint"),),
)
CONNECT: Final = replace(ENDPOINT, flag="--connect=URL", aliases=("--endpoint",))
LOOKUPD: Final = Setting(
    help="the lookups, a comma list",
    rule=_lookups,
    default=("http://127.0.0.1:5010",),
    flag="-L URLS, --lookupd=URLS",
    repeat=True,
    variable="GAFFER_LOOKUPD",
    keys=(("client", "lookupd"),),
)
_NODES: Final = Setting(
    help="patterns of announced addresses that get the API key",
    rule=_patterns,
    default=(),
    variable="GAFFER_NODES",
    keys=(("client", "nodes"),),
)
_CLUSTER_KEY: Final = Setting(
    help="file with the key for the lookups",
    rule=_key_in,
    variable="GAFFER_CLUSTER_KEY_FILE",
    keys=(("client", "cluster_key_file"),),
)
_API_KEY_FILE: Final = Setting(
    help="file with the API key; GAFFER_API_KEY holds the key itself",
    rule=_key_in,
    flag="--api-key-file=FILE",
    variable="GAFFER_API_KEY_FILE",
    keys=_of_a_node("api_key_file"),
)
_API_KEY: Final = Setting(help="the API key", rule=_key, variable="GAFFER_API_KEY")
_CACERT: Final = Setting(
    help="certificates of the authorities to trust", rule=_file, flag="--cacert=FILE", keys=_of_a_node("cacert")
)
_CERTFILE: Final = Setting(
    help="the client's own certificate", rule=_file, flag="--certfile=FILE", keys=_of_a_node("certfile")
)
_KEYFILE: Final = Setting(
    help="the key of that certificate", rule=_file, flag="--keyfile=FILE", keys=_of_a_node("keyfile")
)
_INSECURE: Final = Setting(
    help="send the API key over plain http, and to servers of other users of this host",
    rule=boolean,
    default=False,
    flag="--insecure",
    variable="GAFFER_INSECURE",
    keys=_of_a_node("insecure"),
)

SETTINGS: Final = (
    ENDPOINT,
    LOOKUPD,
    _NODES,
    _CLUSTER_KEY,
    _API_KEY_FILE,
    _API_KEY,
    _CACERT,
    _CERTFILE,
    _KEYFILE,
    _INSECURE,
)

CONNECTION_OPTIONS = (
    *(declared.option for declared in (_API_KEY_FILE, _CACERT, _CERTFILE, _KEYFILE, _INSECURE)),
    Option("--json", "print the JSON document of the matching route"),
    Option("-h, --help", "show help"),
)


class _TLSFiles(TypedDict):
    cacert: str | None
    certfile: str | None
    keyfile: str | None


class Context:
    """What a command has at hand: the settings, and connections to a node and to the lookups."""

    def __init__(self, program: Program, arguments: Arguments, environ: Mapping[str, str]) -> None:
        self.program = program
        self.arguments = arguments
        self._environ = environ

    @cached_property
    def _file(self) -> "_File":
        return _read_file(self._environ)

    @property
    def json(self) -> bool:
        """Whether JSON documents are wanted in place of text."""
        return self.arguments.flag("--json")

    def _value(self, declared: Setting, url: str | None = None) -> Any:
        """The value of a setting, for the node at `url` if one is given; its default unless it was given."""
        return _checked(declared, self.arguments.values, self._environ, self._file.keys_for(url))

    @property
    def _endpoint_given(self) -> str | None:
        given: str | None = self._value(self.program.endpoint)
        return given

    def server(self, url: str | None = None) -> Server:
        """The node, or the one at `url`, an address that the user gave."""
        given = url or self._endpoint_given
        url = given or default_url(self._environ)
        configured = given or DEFAULT_URL  # the address that a `[node "URL"]` section would have
        key = self._api_key(configured)
        return Server(url, api_key=key, insecure=self._value(_INSECURE, configured), **self._tls(configured))

    @contextmanager
    def announced_server(self, url: str, lookup: Lookup) -> Iterator[Server]:
        """The node at an address that lookups announce; it gets the API key only when the user has listed it.

        Without the key, its Unauthorized says how to list it. Raises MalformedAnswer for what a node
        can't announce, UntrustedServer for an address of this host that a lookup elsewhere announces.
        """
        origin = Origin.parse(url)
        tls = self._tls(url)
        listed = self._is_listed(origin) or (origin.scheme == "https" and tls["cacert"] is not None)
        key = self._api_key(url) if listed else None
        with Server(url, api_key=key, insecure=self._value(_INSECURE, url), **tls) as server:
            server.transport.may_be_here = listed or all(map(_is_local, lookup.urls))
            try:
                yield server
            except Unauthorized as error:
                if not listed:
                    error.hint = f"API keys do not go to addresses that are only announced: {_listing(url)}"
                raise
            except UntrustedServer as error:
                error.hint = error.hint or _listing(url)
                raise

    def _is_listed(self, origin: Origin) -> bool:
        """Whether the user gave the address: by itself, or by a pattern."""
        given = self._endpoint_given, *self._file.nodes
        if any(known and known[1:] == origin[1:] for known in map(_origin, given)):
            return True
        return covered(origin, self._value(_NODES))

    def lookup(self) -> Lookup:
        """The lookups."""
        return Lookup(list(self._value(LOOKUPD)), api_key=self._value(_CLUSTER_KEY), **self._tls(None))

    def _api_key(self, url: str) -> str | None:
        """The key in the file that a flag or a variable names, else the key in a variable, else that of the file."""
        keys = self._file.keys_for(url)
        key: str | None = (
            _checked(_API_KEY_FILE, self.arguments.values, self._environ, {})
            or _checked(_API_KEY, {}, self._environ, {})
            or _checked(_API_KEY_FILE, {}, {}, keys)
        )
        return key

    def _tls(self, url: str | None) -> _TLSFiles:
        files: _TLSFiles = {
            "cacert": self._value(_CACERT, url),
            "certfile": self._value(_CERTFILE, url),
            "keyfile": self._value(_KEYFILE, url),
        }
        if files["keyfile"] and not files["certfile"]:
            raise UsageError("keyfile is given without certfile", hint="both are needed, or one file that holds both")
        return files


def _checked(
    declared: Setting,
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    file: Mapping[tuple[str, str], str],
) -> Any:
    """The value of a setting by its rule, or its default; raises UsageError with the source of a wrong one."""
    given = find(declared, flags, environ, file)
    if given is None:
        return declared.default
    try:
        return declared.rule(given.text)
    except InvalidValue as wrong:
        raise UsageError(f"{given.source}: {wrong.message}", hint=wrong.hint) from None


def _listing(url: str) -> str:
    return (
        f"add `nodes = {urlsplit(url).netloc}` to [client] of ~/.gaffer/gaffer.ini or set GAFFER_NODES, if that is"
        " the address of the node"
    )


def _origin(url: str | None) -> Origin | None:
    try:
        return Origin.parse(url.rstrip("/")) if url else None
    except MalformedAnswer:
        return None


def _is_local(url: str) -> bool:
    """Whether a server at that address runs on this host for sure."""
    origin = _origin(url)
    return origin.is_loopback if origin else url.startswith("unix:")


@dataclass(frozen=True)
class _File:
    """The configuration file: its section `[client]`, and its sections `[node "URL"]` by their URL."""

    client: Mapping[str, str] = field(default_factory=dict)
    nodes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def keys_for(self, url: str | None) -> dict[tuple[str, str], str]:
        """The keys that apply to the node at `url`, or to all, by section."""
        node = self.nodes.get(url.rstrip("/"), {}) if url else {}
        return {
            **{("client", key): value for key, value in self.client.items()},
            **{("node", key): value for key, value in node.items()},
        }


def _read_file(environ: Mapping[str, str]) -> _File:
    """Read $GAFFER_CONFIG, or ~/.gaffer/gaffer.ini when there is one; sections of others are left alone."""
    given = environ.get("GAFFER_CONFIG")
    path = given or os.path.expanduser("~/.gaffer/gaffer.ini")
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(read_trusted(path).data.decode())
    except UntrustedFile as error:
        raise UsageError(error.message, hint=error.hint) from None
    except FileNotFoundError:
        if given:
            raise UsageError(f"there is no file {path}", hint="GAFFER_CONFIG names it") from None
        return _File()
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}") from None
    except (configparser.Error, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not a valid INI file: {' '.join(str(error).split())}") from None
    client: Mapping[str, str] = {}
    nodes = {}
    for section in parser.sections():
        if section == "client":
            client = _keys(parser, path, section, "client")
        elif section.startswith("node "):
            url = section.removeprefix("node ").strip().strip('"').rstrip("/")
            nodes[url] = _keys(parser, path, section, "node")
    return _File(client, nodes)


def _keys(parser: configparser.RawConfigParser, path: str, section: str, kind: str) -> dict[str, str]:
    known = [key for declared in SETTINGS for home, key in declared.keys if home == kind]
    values = dict(parser[section])
    for key in values:
        if key not in known:
            raise UsageError(
                f"{path}: [{section}] has no key {key!r}",
                hint=did_you_mean(key, known) or f"its keys are {', '.join(known)}",
            )
    return values
