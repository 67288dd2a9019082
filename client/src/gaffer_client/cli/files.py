"""The files with settings of the user: `gaffer.ini`, and next to it `contexts.ini`, which `gaffer context` writes."""

import os
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from gaffer.errors import did_you_mean
from gaffer.runtime.settings import Given, Setting
from gaffer_client.cli.errors import UsageError

if TYPE_CHECKING:
    from gaffer.runtime.ini import Section, Value

Values = Mapping[str, "Value"]
"""The values of a section, by key."""

_CONTEXT = "context "  # the beginning of the headings of contexts
_CURRENT = "contexts"
_NODE = "node "


class ClientFile(NamedTuple):
    """The configuration file: its section `[client]` and its sections `[node "URL"]`, by URL."""

    client: Values = MappingProxyType({})
    nodes: Mapping[str, Values] = MappingProxyType({})

    def of_node(self, declared: Setting, url: str | None) -> Given | None:
        """Return what the section of the node at `url` says about a setting."""
        return _find(declared, "node", self.nodes.get(url.rstrip("/"), {}) if url else {})

    def of_client(self, declared: Setting) -> Given | None:
        """Return what applies to all nodes."""
        return _find(declared, "client", self.client)


class NamedContext(NamedTuple):
    """A context in use; `explicit` if it was given on the command line."""

    name: str
    values: Values
    explicit: bool

    def find(self, declared: Setting) -> Given | None:
        """Return what the context says about a setting."""
        found = _find(declared, "client", self.values, f"context {self.name}")
        return found._replace(source=f"--context={self.name}") if found and self.explicit else found


def _find(declared: Setting, home: str, values: Values, section: str | None = None) -> Given | None:
    """Return what a section says about a setting that belongs to `home`; empty texts are ignored."""
    for owner, key in declared.keys:
        if owner == home and (value := values.get(key)) is not None and value.text:
            return Given(f"[{section or home}] {key}", value.text, f"{value.file}:{value.line}")
    return None


class Contexts(NamedTuple):
    """The contexts in a file, by name, and the current one."""

    path: str
    current: str | None
    named: Mapping[str, Values]

    def require(self, name: str) -> Values:
        """Return the settings of a context; raise UsageError if it does not exist."""
        if name not in self.named:
            hint = did_you_mean(name, list(self.named)) or "run `gaffer context` to list the contexts"
            raise UsageError(f"no context {name!r} in {self.path}", hint=hint)
        return self.named[name]

    def texts(self, name: str) -> dict[str, str]:
        """Return the settings of a context as they are written; raise UsageError if it does not exist."""
        return {key: value.text for key, value in self.require(name).items()}

    def write(self, current: str | None, named: Mapping[str, Mapping[str, str]]) -> None:
        """Replace the file by one with these contexts; raise OSError."""
        sections: dict[str, Mapping[str, str]] = {_CURRENT: {"current": current}} if current is not None else {}
        sections |= {f"{_CONTEXT}{name}": keys for name, keys in named.items()}
        text = "\n".join(
            "".join([f"[{section}]\n", *(f"{key} = {value}\n" for key, value in keys.items())])
            for section, keys in sections.items()
        )
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        temporary = f"{self.path}.{os.getpid()}"
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, self.path)


def config_path(environ: Mapping[str, str]) -> str:
    """Return the path of the configuration file."""
    return environ.get("GAFFER_CONFIG") or os.path.expanduser("~/.gaffer/gaffer.ini")


def read_client_file(environ: Mapping[str, str], known: Mapping[str, Collection[str]]) -> ClientFile:
    """Read $GAFFER_CONFIG, or ~/.gaffer/gaffer.ini if it exists; ignore sections of other programs.

    `known` are the keys of the sections `client` and `node`. Raises UsageError, or ConfigError with all mistakes.
    """
    path = config_path(environ)
    if not environ.get("GAFFER_CONFIG") and _is_absent(path):
        return ClientFile()
    client: Values = {}
    nodes = {}
    for section in _read(path, "client", lambda name: known.get(name.partition(" ")[0])):
        if section.name == "client":
            client = section.values
        elif section.name.startswith(_NODE):
            nodes[section.name.removeprefix(_NODE).strip().strip('"').rstrip("/")] = section.values
    return ClientFile(client, nodes)


def read_contexts(environ: Mapping[str, str], known: Collection[str]) -> Contexts:
    """Read the contexts; there are none without the file. Raises UsageError, or ConfigError with all mistakes."""
    path = os.path.join(os.path.dirname(config_path(environ)), "contexts.ini")
    if _is_absent(path):
        return Contexts(path, None, {})

    def keys(name: str) -> Collection[str] | None:
        return known if name.startswith(_CONTEXT) else ("current",) if name == _CURRENT else None

    current = None
    named = {}
    for section in _read(path, f"{_CONTEXT}NAME", keys):
        if section.name == _CURRENT and "current" in section.values:
            current = section.values["current"].text
        elif section.name.startswith(_CONTEXT):
            named[section.name.removeprefix(_CONTEXT)] = section.values
    return Contexts(path, current, named)


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


def _read(path: str, first: str, known: Callable[[str], Collection[str] | None]) -> "list[Section]":
    """Return the sections of a file; `known` returns the keys that a section may have, or None if it may have any.

    `first` is a section that such a file may begin with.
    """
    from gaffer.errors import ConfigError, Problem
    from gaffer.runtime.ini import parse_ini, position
    from gaffer.runtime.trusted_files import UntrustedFile, read_trusted

    try:
        data = read_trusted(path).data
    except UntrustedFile as error:
        raise UsageError(error.message, hint=error.hint) from None
    except FileNotFoundError:
        raise UsageError(f"no such file: {path}", hint="correct GAFFER_CONFIG") from None
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}", hint="set GAFFER_CONFIG for another file") from None
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem(f"{path}:{line}", "the file is not UTF-8 text", "save it as UTF-8")]) from None
    sections, problems = parse_ini(text, path, first)
    for section in sections.values():
        allowed = known(section.name)
        for key in section.values:
            if allowed is not None and key not in allowed:
                hint = did_you_mean(key, list(allowed)) or f"known keys: {', '.join(allowed)}"
                problems.append(section.problem(f"unknown key {key!r}", hint, key))
    if problems:
        raise ConfigError(sorted(problems, key=position))
    return list(sections.values())
