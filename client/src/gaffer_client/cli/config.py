"""The settings of a run: from flags, else the environment, else the configuration file, else defaults."""

import configparser
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypedDict

from gaffer.keyfile import KeyFileError, read_key_file
from gaffer.rules import did_you_mean
from gaffer.trusted_files import UntrustedFile, open_trusted, read_trusted
from gaffer_client.cli.errors import UsageError
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.table import Option, Program
from gaffer_client.lookup import Lookup
from gaffer_client.node import DEFAULT_URL, Server
from gaffer_client.transport import is_key

DEFAULT_LOOKUP = "http://127.0.0.1:5010"

# The keys of `[node "URL"]` sections, and of `[client]`.
NODE_KEYS = ("api_key_file", "cacert", "certfile", "keyfile")
CLIENT_KEYS = ("endpoint", "lookupd", "cluster_key_file", *NODE_KEYS)

CONNECTION_OPTIONS = (
    Option("--api-key-file=FILE", "file with the API key (GAFFER_API_KEY_FILE; GAFFER_API_KEY holds the key itself)"),
    Option("--cacert=FILE", "certificates of the authorities to trust"),
    Option("--certfile=FILE", "the client's own certificate"),
    Option("--keyfile=FILE", "the key of that certificate"),
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
    def endpoint(self) -> str:
        """The URL of the node."""
        flag = self.arguments.text("--endpoint") or self.arguments.text("--connect")
        return flag or self._environ.get("GAFFER_ENDPOINT") or self._file.client.get("endpoint") or DEFAULT_URL

    def server(self, url: str | None = None) -> Server:
        """The node, or the one at `url`."""
        url = url or self.endpoint
        at_node = {**self._file.client, **self._file.nodes.get(url.rstrip("/"), {})}
        return Server(url, api_key=self._api_key(at_node.get("api_key_file")), **self._tls(at_node))

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
            raise UsageError(f"can't read {path}: {error.strerror}", hint=f"it is given as {key}") from None
        return path


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
