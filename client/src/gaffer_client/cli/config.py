"""The settings of the tools: from flags, else the environment, else the configuration file, else defaults.

A setting is read when a command needs it; an invalid setting does not affect commands that do not use it.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypedDict
from urllib.parse import urlsplit

from gaffer.errors import InvalidValue, did_you_mean
from gaffer.runtime.options import Option
from gaffer.runtime.settings import Setting, find
from gaffer.runtime.values import boolean, items, text
from gaffer_client.cli.errors import UsageError
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.table import Program
from gaffer_client.transport import DEFAULT_URL, is_key

if TYPE_CHECKING:
    import configparser

    from gaffer_client.announced import NodePattern, Origin
    from gaffer_client.live import LiveLookup
    from gaffer_client.lookup import Lookup
    from gaffer_client.node import Server

# Commands that need no server, or no file, start faster without what is imported where it is used.


def _lookups(text: str) -> tuple[str, ...]:
    urls = items(text)
    if not urls:
        raise InvalidValue("no lookup given", "give a comma-separated list of URLs")
    return urls


def _patterns(text: str) -> "list[NodePattern]":
    from gaffer_client.announced import NodePattern

    try:
        return [NodePattern.parse(word) for word in text.replace(",", " ").split()]
    except ValueError as error:
        raise InvalidValue(str(error), "for example *.example.com, 10.0.0.0/24, web1:5000") from None


def _key_in(path: str) -> str:
    from gaffer.runtime.keyfile import KeyFileError, read_key_file

    try:
        return read_key_file(os.path.expanduser(path))
    except KeyFileError as error:
        raise InvalidValue(error.message, error.hint) from None


def _key(text: str) -> str | None:
    key = text.strip()
    if key and not is_key(key):
        raise InvalidValue("not a key", "a key must be one word of printable ASCII characters")
    return key or None


def _file(path: str) -> str:
    from gaffer.runtime.trusted_files import trusted_file

    return trusted_file(os.path.expanduser(path))


def _node_or_client(key: str) -> tuple[tuple[str, str], ...]:
    """Return the places of a key that is allowed in `[node "URL"]` as well as in `[client]`."""
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
CONNECT: Final = ENDPOINT._replace(flag="--connect=URL", aliases=("--endpoint",))
LOOKUPD: Final = Setting(
    help="the lookups, a comma-separated list",
    rule=_lookups,
    default=("http://127.0.0.1:5010",),
    flag="-L URLS, --lookupd=URLS",
    repeat=True,
    variable="GAFFER_LOOKUPD",
    keys=(("client", "lookupd"),),
)
_NODES: Final = Setting(
    help="patterns of announced addresses to send the API key to",
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
    keys=_node_or_client("api_key_file"),
)
_API_KEY: Final = Setting(help="the API key", rule=_key, variable="GAFFER_API_KEY")
_CACERT: Final = Setting(
    help="CA certificates to trust", rule=_file, flag="--cacert=FILE", keys=_node_or_client("cacert")
)
_CERTFILE: Final = Setting(
    help="the client certificate", rule=_file, flag="--certfile=FILE", keys=_node_or_client("certfile")
)
_KEYFILE: Final = Setting(
    help="the private key of the client certificate", rule=_file, flag="--keyfile=FILE", keys=_node_or_client("keyfile")
)
_INSECURE: Final = Setting(
    help="send the API key over plain http and to local servers that run as other users",
    rule=boolean,
    default=False,
    flag="--insecure",
    variable="GAFFER_INSECURE",
    keys=_node_or_client("insecure"),
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
    Option("--json", "print the JSON document returned by the API"),
    Option("-h, --help", "show help"),
)


class _TLSFiles(TypedDict):
    cacert: str | None
    certfile: str | None
    keyfile: str | None


class Context:
    """The settings of a command, and its connections to a node and to the lookups."""

    def __init__(self, program: Program, arguments: Arguments, environ: Mapping[str, str]) -> None:
        self.program = program
        self.arguments = arguments
        self._environ = environ

    @cached_property
    def _file(self) -> "_File":
        return _read_file(self._environ)

    @property
    def json(self) -> bool:
        """Whether to print JSON documents instead of text."""
        return self.arguments.flag("--json")

    def _value(self, declared: Setting, url: str | None = None) -> Any:
        """Return the value of a setting, or its default; `url` selects the section of a node."""
        return _checked(declared, self.arguments.values, self._environ, self._file.keys_for(url))

    @property
    def _endpoint_given(self) -> str | None:
        given: str | None = self._value(self.program.endpoint)
        return given

    def server(self, url: str | None = None) -> "Server":
        """Return the chosen node, or the node at `url`, an address given by the user."""
        from gaffer_client.local import default_url
        from gaffer_client.node import Server
        from gaffer_client.plain import PlainSender

        given = url or self._endpoint_given
        url = given or default_url(self._environ)
        configured = given or DEFAULT_URL  # the address that a `[node "URL"]` section would have
        key = self._api_key(configured)
        return Server(
            url, api_key=key, insecure=self._value(_INSECURE, configured), sender=PlainSender, **self._tls(configured)
        )

    @contextmanager
    def announced_server(self, url: str, lookup: "Lookup | LiveLookup") -> "Iterator[Server]":
        """Connect to a node at an announced address; send the API key only if the user has listed the address.

        Otherwise, the hint of Unauthorized explains how to list it. Raises MalformedAnswer if nodes can't announce
        such an address, and UntrustedServer if a lookup on another host announces an address of this host.
        """
        from gaffer_client.announced import Origin
        from gaffer_client.errors import Unauthorized, UntrustedServer
        from gaffer_client.node import Server
        from gaffer_client.plain import PlainSender

        origin = Origin.parse(url)
        tls = self._tls(url)
        listed = self._is_listed(origin) or (origin.scheme == "https" and tls["cacert"] is not None)
        key = self._api_key(url) if listed else None
        with Server(url, api_key=key, insecure=self._value(_INSECURE, url), sender=PlainSender, **tls) as server:
            server.transport.allow_loopback = listed or all(map(_is_local, lookup.urls))
            try:
                yield server
            except Unauthorized as error:
                if not listed:
                    error.hint = f"API keys are not sent to announced addresses unless you list them: {_listing(url)}"
                raise
            except UntrustedServer as error:
                error.hint = error.hint or _listing(url)
                raise

    def _is_listed(self, origin: "Origin") -> bool:
        """Return whether the user has listed the address, directly or by a pattern."""
        from gaffer_client.announced import covered

        given = self._endpoint_given, *self._file.nodes
        if any(known and known[1:] == origin[1:] for known in map(_origin, given)):
            return True
        return covered(origin, self._value(_NODES))

    def lookup(self) -> "Lookup":
        """Return a client of the lookups."""
        from gaffer_client.lookup import Lookup
        from gaffer_client.plain import PlainSender

        return Lookup(
            list(self._value(LOOKUPD)), api_key=self._value(_CLUSTER_KEY), sender=PlainSender, **self._tls(None)
        )

    def _api_key(self, url: str) -> str | None:
        """Return the key from a flag or variable, or else from the configuration file."""
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
            raise UsageError("keyfile without certfile", hint="give both, or a certfile that also contains the key")
        return files


def _checked(
    declared: Setting,
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    file: Mapping[tuple[str, str], str],
) -> Any:
    """Return the value of a setting, or its default; raise UsageError, naming the source, if it is invalid."""
    given = find(declared, flags, environ, file)
    if given is None:
        return declared.default
    try:
        return declared.rule(given.text)
    except InvalidValue as wrong:
        raise UsageError(f"{given.source}: {wrong.message}", hint=wrong.hint) from None


def _listing(url: str) -> str:
    return (
        f"if this is the address of the node, add `nodes = {urlsplit(url).netloc}` to [client] of"
        " ~/.gaffer/gaffer.ini or set GAFFER_NODES"
    )


def _origin(url: str | None) -> "Origin | None":
    from gaffer_client.announced import Origin
    from gaffer_client.errors import MalformedAnswer

    try:
        return Origin.parse(url.rstrip("/")) if url else None
    except MalformedAnswer:
        return None


def _is_local(url: str) -> bool:
    """Return whether a server at this address certainly runs on this host."""
    origin = _origin(url)
    return origin.is_loopback if origin else url.startswith("unix:")


class _File(NamedTuple):
    """The configuration file: its section `[client]` and its sections `[node "URL"]`, by URL."""

    client: Mapping[str, str] = MappingProxyType({})
    nodes: Mapping[str, Mapping[str, str]] = MappingProxyType({})

    def keys_for(self, url: str | None) -> dict[tuple[str, str], str]:
        """Return the keys that apply to the node at `url`, or to all nodes, by section."""
        node = self.nodes.get(url.rstrip("/"), {}) if url else {}
        return {
            **{("client", key): value for key, value in self.client.items()},
            **{("node", key): value for key, value in node.items()},
        }


def _read_file(environ: Mapping[str, str]) -> _File:
    """Read $GAFFER_CONFIG, or ~/.gaffer/gaffer.ini if it exists; ignore sections of other programs."""
    given = environ.get("GAFFER_CONFIG")
    path = given or os.path.expanduser("~/.gaffer/gaffer.ini")
    if not given and not os.path.lexists(path):
        return _File()
    import configparser

    from gaffer.runtime.trusted_files import UntrustedFile, read_trusted

    parser = configparser.RawConfigParser()
    try:
        parser.read_string(read_trusted(path).data.decode())
    except UntrustedFile as error:
        raise UsageError(error.message, hint=error.hint) from None
    except FileNotFoundError:
        raise UsageError(f"no such file: {path}", hint="correct GAFFER_CONFIG") from None
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


def _keys(parser: "configparser.RawConfigParser", path: str, section: str, kind: str) -> dict[str, str]:
    known = [key for declared in SETTINGS for home, key in declared.keys if home == kind]
    values = dict(parser[section])
    for key in values:
        if key not in known:
            raise UsageError(
                f"{path}: [{section}] unknown key {key!r}",
                hint=did_you_mean(key, known) or f"known keys: {', '.join(known)}",
            )
    return values
