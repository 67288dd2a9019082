"""The settings of the tools: from flags, else the environment, else the configuration file, else defaults.

A setting is read when a command needs it; an invalid setting does not affect commands that do not use it.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypedDict
from urllib.parse import urlsplit

from gaffer.errors import InvalidValue
from gaffer.runtime.options import Option
from gaffer.runtime.settings import Given, Setting, find
from gaffer.runtime.values import boolean, items, text
from gaffer_client.cli.errors import UsageError
from gaffer_client.cli.files import (
    ClientFile,
    Contexts,
    NamedContext,
    chosen_context,
    read_client_file,
    read_contexts,
)
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.table import Program
from gaffer_client.transport import DEFAULT_TIMEOUT, DEFAULT_URL, is_key

if TYPE_CHECKING:
    from gaffer_client.announced import NodePattern, Origin
    from gaffer_client.live import LiveLookup
    from gaffer_client.lookup import Lookup
    from gaffer_client.node import Server

_LEAST_TIMEOUT = 2.0  # seconds, of answers that are only a part of what a command does

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
    help="the node: http://, https:// or unix:/path, or its name, which the lookups know",
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

CONTEXT: Final = Setting(
    help="the context: a set of these settings, see `gaffer context`",
    rule=text,
    flag="--context=NAME",
    variable="GAFFER_CONTEXT",
)

SETTINGS: Final = (
    CONTEXT,
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
    *(declared.option for declared in (CONTEXT, _API_KEY_FILE, _CACERT, _CERTFILE, _KEYFILE, _INSECURE)),
    Option("--json", "print the JSON document returned by the API"),
    Option("--plain", "print tables as lines of tab-separated values without headings, and no colours"),
    Option("-h, --help", "show help"),
)


def known_keys(section: str) -> list[str]:
    """Return the keys of a section of the configuration file."""
    return [key for declared in SETTINGS for home, key in declared.keys if home == section]


class _TLSFiles(TypedDict):
    cacert: str | None
    certfile: str | None
    keyfile: str | None


class Context:
    """The settings of a command, and its connections to a node and to the lookups."""

    def __init__(
        self,
        program: Program,
        arguments: Arguments,
        environ: Mapping[str, str],
        *,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        self.program = program
        self.arguments = arguments
        self.environ = environ
        self.timeout = timeout
        """The seconds that a server may take for an answer."""

    def limit(self, seconds: float) -> None:
        """Give servers at most so many seconds for an answer, though at least two."""
        self.timeout = min(self.timeout, max(seconds, _LEAST_TIMEOUT))

    @cached_property
    def _file(self) -> ClientFile:
        return read_client_file(self.environ, {kind: known_keys(kind) for kind in ("client", "node")})

    @cached_property
    def contexts(self) -> Contexts:
        """The contexts of the user."""
        return read_contexts(self.environ, known_keys("client"))

    @cached_property
    def _context(self) -> NamedContext | None:
        return chosen_context(self.contexts, find(CONTEXT, self.arguments.values, self.environ))

    @property
    def json(self) -> bool:
        """Whether to print JSON documents instead of text."""
        return self.arguments.flag("--json")

    def given(self, declared: Setting, url: str | None = None) -> Given | None:
        """Return the text of a setting and its source, or None; `url` selects the section of a node.

        A flag comes first, then the context that --context names, the environment, the section of the node, the
        current context, and [client].
        """
        context = self._context
        of_context = context.find(declared) if context is not None else None
        first = find(declared, self.arguments.values, {})
        if first is None and context is not None and context.explicit:
            first = of_context
        return (
            first
            or find(declared, {}, self.environ)
            or self._file.of_node(declared, url)
            or of_context
            or self._file.of_client(declared)
        )

    def _value(self, declared: Setting, url: str | None = None) -> Any:
        """Return the value of a setting, or its default; raise UsageError, naming the source, if it is invalid."""
        return _checked(declared, self.given(declared, url))

    @property
    def _endpoint_given(self) -> str | None:
        given: str | None = self._value(self.program.endpoint)
        return given

    def node_name(self, server: "Server") -> str:
        """Return what to call the chosen node: the name that the user gave it, else its URL."""
        given = self._endpoint_given
        return given if given and not is_address(given) else server.url

    def server(self, url: str | None = None) -> "AbstractContextManager[Server]":
        """Return the chosen node, or the node at `url`, an address or a name given by the user."""
        from gaffer_client.local import default_url
        from gaffer_client.node import Server
        from gaffer_client.plain import PlainSender

        given = url or self._endpoint_given
        if given and not is_address(given):
            return self._named_server(given)
        url = given or default_url(self.environ)
        configured = given or DEFAULT_URL  # the address that a `[node "URL"]` section would have
        key = self._api_key(configured)
        return Server(
            url,
            api_key=key,
            insecure=self._value(_INSECURE, configured),
            timeout=self.timeout,
            sender=PlainSender,
            **self._tls(configured),
        )

    @contextmanager
    def _named_server(self, name: str) -> "Iterator[Server]":
        from gaffer_client.cli.nodes import find_node

        with self.lookup() as lookup, self.announced_server(find_node(lookup, name), lookup) as server:
            yield server

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
        insecure = self._value(_INSECURE, url)
        with Server(url, api_key=key, insecure=insecure, timeout=self.timeout, sender=PlainSender, **tls) as server:
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

    def lookup(self, timeout: float | None = None) -> "Lookup":
        """Return a client of the lookups, with another `timeout` in seconds than usual if it is given."""
        from gaffer_client.lookup import DEFAULT_TIMEOUT, Lookup
        from gaffer_client.plain import PlainSender

        return Lookup(
            list(self._value(LOOKUPD)),
            timeout=min(max(self.timeout, _LEAST_TIMEOUT), DEFAULT_TIMEOUT if timeout is None else timeout),
            api_key=self._value(_CLUSTER_KEY),
            sender=PlainSender,
            **self._tls(None),
        )

    def key_source(self) -> tuple[str, str | None] | None:
        """Return where the API key for the chosen node comes from, and the path of its file; None without a key.

        Raises UsageError if it is invalid.
        """
        url = self._endpoint_given or DEFAULT_URL
        if self._api_key(url) is None:
            return None
        declared, given = self._given_key(url)
        assert given is not None
        return given.source, os.path.expanduser(given.text) if declared is _API_KEY_FILE else None

    def _api_key(self, url: str) -> str | None:
        """Return the key of the first source that has one."""
        chosen: str | None = _checked(*self._given_key(url))
        return chosen

    def _given_key(self, url: str) -> tuple[Setting, Given | None]:
        """Return the setting that has the key; GAFFER_API_KEY follows GAFFER_API_KEY_FILE."""
        file, key = self.given(_API_KEY_FILE, url), self.given(_API_KEY)
        if key is not None and (file is None or file.source.startswith("[")):
            return _API_KEY, key
        return _API_KEY_FILE, file

    def _tls(self, url: str | None) -> _TLSFiles:
        files: _TLSFiles = {
            "cacert": self._value(_CACERT, url),
            "certfile": self._value(_CERTFILE, url),
            "keyfile": self._value(_KEYFILE, url),
        }
        if files["keyfile"] and not files["certfile"]:
            raise UsageError("keyfile without certfile", hint="give both, or a certfile that also contains the key")
        return files


def _checked(declared: Setting, given: Given | None) -> Any:
    if given is None:
        return declared.default
    try:
        return declared.rule(given.text)
    except InvalidValue as wrong:
        source = f"{given.place}: {given.source}" if given.place else given.source
        raise UsageError(f"{source}: {wrong.message}", hint=wrong.hint) from None


def is_address(text: str) -> bool:
    """Return whether `text` is meant as an address of a node, not as its name."""
    return ":" in text or "/" in text


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
