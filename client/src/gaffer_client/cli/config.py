"""The settings of a run: from flags, else the environment, else the configuration file, else defaults."""

import configparser
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypedDict
from urllib.parse import urlsplit

from gaffer.errors import did_you_mean
from gaffer.runtime.keyfile import KeyFileError, read_key_file
from gaffer.runtime.trusted_files import UntrustedFile, open_trusted, read_trusted
from gaffer_client.announced import NodePattern, Origin, covered
from gaffer_client.cli.errors import UsageError
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.table import Option, Program
from gaffer_client.errors import MalformedAnswer, Unauthorized, UntrustedServer
from gaffer_client.local import default_url
from gaffer_client.lookup import Lookup
from gaffer_client.node import Server
from gaffer_client.transport import DEFAULT_URL, is_key

DEFAULT_LOOKUP = "http://127.0.0.1:5010"

# The keys of `[node "URL"]` sections, and of `[client]`.
NODE_KEYS = ("api_key_file", "cacert", "certfile", "keyfile", "insecure")
CLIENT_KEYS = ("endpoint", "lookupd", "nodes", "cluster_key_file", *NODE_KEYS)
_SWITCH = {"1": True, "yes": True, "true": True, "on": True, "0": False, "no": False, "false": False, "off": False}

CONNECTION_OPTIONS = (
    Option("--api-key-file=FILE", "file with the API key (GAFFER_API_KEY_FILE; GAFFER_API_KEY holds the key itself)"),
    Option("--cacert=FILE", "certificates of the authorities to trust"),
    Option("--certfile=FILE", "the client's own certificate"),
    Option("--keyfile=FILE", "the key of that certificate"),
    Option(
        "--insecure",
        "send the API key over plain http, and to servers of other users of this host (GAFFER_INSECURE=1)",
    ),
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

    @property
    def _endpoint_given(self) -> str | None:
        flag = self.arguments.text("--endpoint") or self.arguments.text("--connect")
        return flag or self._environ.get("GAFFER_ENDPOINT") or self._file.client.get("endpoint")

    def server(self, url: str | None = None) -> Server:
        """The node, or the one at `url`, an address that the user gave."""
        given = url or self._endpoint_given
        url = given or default_url(self._environ)
        settings = self._settings(given or DEFAULT_URL)
        key = self._api_key(settings.get("api_key_file"))
        return Server(url, api_key=key, insecure=self._insecure(settings), **self._tls(settings))

    @contextmanager
    def announced_server(self, url: str, lookup: Lookup) -> Iterator[Server]:
        """The node at an address that lookups announce; it gets the API key only when the user has listed it.

        Without the key, its Unauthorized says how to list it. Raises MalformedAnswer for what a node
        can't announce, UntrustedServer for an address of this host that a lookup elsewhere announces.
        """
        origin = Origin.parse(url)
        settings = self._settings(url)
        listed = self._is_listed(origin) or (origin.scheme == "https" and self._tls(settings)["cacert"] is not None)
        key = self._api_key(settings.get("api_key_file")) if listed else None
        with Server(url, api_key=key, insecure=self._insecure(settings), **self._tls(settings)) as server:
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
        written = self._environ.get("GAFFER_NODES") or self._file.client.get("nodes") or ""
        try:
            return covered(origin, [NodePattern.parse(word) for word in written.replace(",", " ").split()])
        except ValueError as error:
            raise UsageError(
                f"nodes (GAFFER_NODES): {error}", hint="for example *.example.com, 10.0.0.0/24, web1:5000"
            ) from None

    def _settings(self, url: str) -> Mapping[str, str]:
        return {**self._file.client, **self._file.nodes.get(url.rstrip("/"), {})}

    def _insecure(self, settings: Mapping[str, str]) -> bool:
        written = self._environ.get("GAFFER_INSECURE") or settings.get("insecure") or "no"
        if written.lower() not in _SWITCH:
            raise UsageError(f"insecure (GAFFER_INSECURE) is {written!r}", hint="write yes or no")
        return self.arguments.flag("--insecure") or _SWITCH[written.lower()]

    def lookup(self) -> Lookup:
        """The lookups."""
        fallback = self._environ.get("GAFFER_LOOKUPD") or self._file.client.get("lookupd") or DEFAULT_LOOKUP
        given = self.arguments.words("--lookupd") or [fallback]
        urls = [url.strip() for text in given for url in text.split(",") if url.strip()]
        if not urls:
            raise UsageError("no lookup is given", hint="-L and GAFFER_LOOKUPD take a comma list of URLs")
        path = self._environ.get("GAFFER_CLUSTER_KEY_FILE") or self._file.client.get("cluster_key_file")
        return Lookup(urls, api_key=_read_key(path) if path else None, **self._tls(self._file.client))

    def _api_key(self, configured: str | None) -> str | None:
        path = self.arguments.text("--api-key-file") or self._environ.get("GAFFER_API_KEY_FILE")
        if path is None and (key := self._environ.get("GAFFER_API_KEY", "").strip()):
            if not is_key(key):
                raise UsageError("GAFFER_API_KEY holds no key", hint="a key is one printable ASCII word")
            return key
        path = path or configured
        return _read_key(path) if path else None

    def _tls(self, configured: Mapping[str, str]) -> _TLSFiles:
        files: _TLSFiles = {
            "cacert": self._path("cacert", configured),
            "certfile": self._path("certfile", configured),
            "keyfile": self._path("keyfile", configured),
        }
        if files["keyfile"] and not files["certfile"]:
            raise UsageError("keyfile is given without certfile", hint="both are needed, or one file that holds both")
        return files

    def _path(self, key: str, configured: Mapping[str, str]) -> str | None:
        path = self.arguments.text(f"--{key}") or configured.get(key)
        if path is None:
            return None
        path = os.path.expanduser(path)
        try:
            os.close(open_trusted(path, follow=True))
        except UntrustedFile as error:
            raise UsageError(error.message, hint=error.hint) from None
        except OSError as error:
            raise UsageError(f"can't read {path}: {error.strerror}", hint=f"set by {key}") from None
        return path


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


def _read_key(path: str) -> str:
    try:
        return read_key_file(os.path.expanduser(path))
    except KeyFileError as error:
        raise UsageError(error.message, hint=error.hint) from None


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
            client = _keys(parser, path, section, CLIENT_KEYS)
        elif section.startswith("node "):
            url = section.removeprefix("node ").strip().strip('"').rstrip("/")
            nodes[url] = _keys(parser, path, section, NODE_KEYS)
    return _File(client, nodes)


def _keys(parser: configparser.RawConfigParser, path: str, section: str, known: tuple[str, ...]) -> dict[str, str]:
    values = dict(parser[section])
    for key in values:
        if key not in known:
            raise UsageError(
                f"{path}: [{section}] has no key {key!r}",
                hint=did_you_mean(key, known) or f"its keys are {', '.join(known)}",
            )
    return values
