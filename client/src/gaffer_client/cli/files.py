"""The files with settings of the user: `gaffer.ini`, and next to it `contexts.ini`, which `gaffer context` writes."""

import os
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from gaffer.errors import did_you_mean
from gaffer.runtime.settings import Given, Setting
from gaffer_client.cli.errors import UsageError

if TYPE_CHECKING:
    import configparser

_CONTEXT = "context "  # the beginning of the headings of contexts
_CURRENT = "contexts"


class ClientFile(NamedTuple):
    """The configuration file: its section `[client]` and its sections `[node "URL"]`, by URL."""

    client: Mapping[str, str] = MappingProxyType({})
    nodes: Mapping[str, Mapping[str, str]] = MappingProxyType({})

    def of_node(self, url: str | None) -> dict[tuple[str, str], str]:
        """Return the keys in the section of the node at `url`."""
        found = self.nodes.get(url.rstrip("/"), {}) if url else {}
        return {("node", key): value for key, value in found.items()}

    def of_client(self) -> dict[tuple[str, str], str]:
        """Return the keys that apply to all nodes."""
        return {("client", key): value for key, value in self.client.items()}


class NamedContext(NamedTuple):
    """A context in use; `explicit` if it was given on the command line."""

    name: str
    keys: Mapping[str, str]
    explicit: bool

    def find(self, declared: Setting) -> Given | None:
        """Return what the context says about a setting."""
        for section, key in declared.keys:
            if section == "client" and (text := self.keys.get(key)):
                return Given(f"--context={self.name}" if self.explicit else f"[context {self.name}] {key}", text)
        return None


class Contexts(NamedTuple):
    """The contexts in a file, by name, and the current one."""

    path: str
    current: str | None
    named: dict[str, dict[str, str]]

    def require(self, name: str) -> dict[str, str]:
        """Return the keys of a context; raise UsageError if it does not exist."""
        if name not in self.named:
            hint = did_you_mean(name, list(self.named)) or "run `gaffer context` to list the contexts"
            raise UsageError(f"no context {name!r} in {self.path}", hint=hint)
        return self.named[name]

    def write(self) -> None:
        """Replace the file; raise OSError."""
        import configparser

        parser = configparser.RawConfigParser()
        if self.current is not None:
            parser[_CURRENT] = {"current": self.current}
        for name, keys in self.named.items():
            parser[f"{_CONTEXT}{name}"] = keys
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        temporary = f"{self.path}.{os.getpid()}"
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            parser.write(file)
        os.replace(temporary, self.path)


def config_path(environ: Mapping[str, str]) -> str:
    """Return the path of the configuration file."""
    return environ.get("GAFFER_CONFIG") or os.path.expanduser("~/.gaffer/gaffer.ini")


def read_client_file(environ: Mapping[str, str], known: Mapping[str, Collection[str]]) -> ClientFile:
    """Read $GAFFER_CONFIG, or ~/.gaffer/gaffer.ini if it exists; ignore sections of other programs.

    `known` are the keys of the sections `client` and `node`. Raises UsageError.
    """
    path = config_path(environ)
    if not environ.get("GAFFER_CONFIG") and _is_absent(path):
        return ClientFile()
    parser = _read(path)
    client: Mapping[str, str] = {}
    nodes = {}
    for section in parser.sections():
        if section == "client":
            client = _keys(parser, path, section, known["client"])
        elif section.startswith("node "):
            url = section.removeprefix("node ").strip().strip('"').rstrip("/")
            nodes[url] = _keys(parser, path, section, known["node"])
    return ClientFile(client, nodes)


def read_contexts(environ: Mapping[str, str], known: Collection[str]) -> Contexts:
    """Read the contexts; there are none without the file. Raises UsageError."""
    path = os.path.join(os.path.dirname(config_path(environ)), "contexts.ini")
    if _is_absent(path):
        return Contexts(path, None, {})
    parser = _read(path)
    named = {
        section.removeprefix(_CONTEXT): _keys(parser, path, section, known)
        for section in parser.sections()
        if section.startswith(_CONTEXT)
    }
    return Contexts(path, parser.get(_CURRENT, "current", fallback=None), named)


def chosen_context(contexts: Contexts, given: Given | None) -> NamedContext | None:
    """Return the context that a flag or variable names, else the current one, if any; raise UsageError."""
    name = contexts.current if given is None else given.text
    if name is None:
        return None
    explicit = given is not None and given.source.startswith("-")
    return NamedContext(name, contexts.require(name), explicit)


def _is_absent(path: str) -> bool:
    """Return whether there is no such file; False also if that can't be found out, which `_read` then reports."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _read(path: str) -> "configparser.RawConfigParser":
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
        raise UsageError(f"can't read {path}: {error.strerror}", hint="set GAFFER_CONFIG for another file") from None
    except (configparser.Error, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not a valid INI file: {' '.join(str(error).split())}") from None
    return parser


def _keys(parser: "configparser.RawConfigParser", path: str, section: str, known: Collection[str]) -> dict[str, str]:
    values = dict(parser[section])
    for key in values:
        if key not in known:
            raise UsageError(
                f"{path}: [{section}] unknown key {key!r}",
                hint=did_you_mean(key, list(known)) or f"known keys: {', '.join(known)}",
            )
    return values
