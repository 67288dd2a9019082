"""The settings of the daemon: each one's flag, environment variable, place in the configuration file and default.

`Settings` is the schema: its fields name the rule that checks a value and where it may be given. A flag wins over
the environment, the environment over the file, the file over the default.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from gaffer.applications.http_post import Address
from gaffer.errors import BadRequest, ConfigError, Problem, quoted
from gaffer.http.access import Scope
from gaffer.http.limits import DEFAULT_LIMITS
from gaffer.jobs import rules
from gaffer.jobs.rules import InvalidValue
from gaffer.runtime.accounts import check_gid, check_uid
from gaffer.runtime.log import parse_level
from gaffer.runtime.sockets import parse_address
from gaffer.runtime.trusted_files import UntrustedFile, inherited_descriptor, open_trusted
from gaffer.schemas import messages

T = TypeVar("T")

_MAX_DIGITS = 18  # of a number in a setting


def number(text: str, lowest: int, highest: int) -> int:
    """A whole number from `lowest` to `highest`."""
    digits = text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS
    if not (digits and lowest <= int(text) <= highest):
        raise InvalidValue(f"expected a whole number from {lowest} to {highest}, got {quoted(text)}")
    return int(text)


def backlog(text: str) -> int:
    return number(text, 1, 65535)


def port(text: str) -> int:
    return number(text, 0, 65535)


def connections(text: str) -> int:
    return number(text, 8, 1_000_000)


def body_size(text: str) -> int:
    return _size(text, 1024, 1024**3)


def header_size(text: str) -> int:
    return _size(text, 1024, 1024**2)


def _size(text: str, lowest: int, highest: int) -> int:
    """A number of bytes, also as `64K` or `8M`."""
    size = rules.size(text, True)
    if not lowest <= size <= highest:
        raise InvalidValue(f"expected {lowest} to {highest} bytes, got {quoted(text)}", "such as 65536, 64K or 8M")
    return size


def timeout(text: str) -> float:
    """A number of seconds, more than 0 and at most a day."""
    seconds = rules.seconds(text, True)
    if not 0 < seconds <= 86400:
        raise InvalidValue(f"expected a number of seconds, more than 0 and at most 86400, got {quoted(text)}")
    return seconds


def boolean(text: str) -> bool:
    return rules.boolean(text, True)


def items(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


def addresses(text: str) -> tuple[str, ...]:
    """Addresses to listen on, each `host:port`, `[v6]:port` or `unix:/path`."""
    if not items(text):
        raise InvalidValue("expected an address", "such as 127.0.0.1:5000, [::1]:5000 or unix:/run/gafferd.sock")
    for address in items(text):
        try:
            parse_address(address)
        except RuntimeError as error:
            raise InvalidValue(str(error), "such as 127.0.0.1:5000, [::1]:5000 or unix:/run/gafferd.sock") from None
    return items(text)


def url(text: str) -> str:
    """An http or https URL with a host."""
    try:
        Address(text)
    except BadRequest:
        raise InvalidValue(f"expected an http or https URL, got {text!r}", "such as http://10.0.0.7:5010") from None
    return text


def urls(text: str) -> tuple[str, ...]:
    return tuple(map(url, items(text)))


def existing_file(text: str) -> str:
    if not os.path.isfile(text):
        raise InvalidValue(f"there is no file {text!r}")
    return text


def key_file(text: str) -> str:
    """A file with a key, or an open descriptor such as `/dev/fd/63`."""
    return text if inherited_descriptor(text) is not None else existing_file(text)


def tls_file(text: str) -> str:
    """A file with a certificate or a private key, which nobody else may change. Links to it are followed."""
    try:
        os.close(open_trusted(existing_file(text), follow=True))
    except UntrustedFile as error:
        raise InvalidValue(error.message, error.hint) from None
    except OSError as error:
        raise InvalidValue(f"can't read {text}: {error.strerror}") from None
    return text


def existing_folder(text: str) -> str:
    """A folder that is there, as an absolute path."""
    if not os.path.isdir(text):
        raise InvalidValue(f"there is no folder {text!r}", "make it, or name another one")
    return os.path.abspath(text)


def text(value: str) -> str:
    if not value:
        raise InvalidValue("expected a text that is not empty")
    return value


def node_name(text: str) -> str:
    """A name that lookupds take."""
    return _checked(messages.check_node_name, text)


def public_url(text: str) -> str:
    """`http(s)://host[:port]`, how others reach the node."""
    return _checked(messages.check_origin, text.removesuffix("/"))


def _checked(check: Callable[[Any], T], value: Any) -> T:
    try:
        return check(value)
    except BadRequest as error:
        raise InvalidValue(error.message, error.hint) from None


def log_level(text: str) -> str:
    try:
        parse_level(text)
    except BadRequest as error:
        raise InvalidValue(error.message, error.hint) from None
    return text.strip().lower()


def loop_kind(text: str) -> str:
    if text not in ("auto", "uvloop", "asyncio"):
        raise InvalidValue(f"there is no loop {text!r}", "use auto, uvloop or asyncio")
    return text


def labels(text: str) -> dict[str, str]:
    """`name=value` pairs that describe the node."""
    result = {}
    for item in items(text):
        name, separator, value = item.partition("=")
        if not separator or not name.strip():
            raise InvalidValue(f"expected name=value pairs, got {item!r}", "such as zone=a, disk=ssd")
        result[name.strip()] = value.strip()
    return _checked(messages.check_labels, result)


def variables(text: str) -> dict[str, str]:
    """Variables as a JSON object of texts, for values that an INI file can't hold otherwise."""
    try:
        return msgspec.json.decode(text, type=dict[str, str])
    except msgspec.DecodeError as error:
        hint = 'write {"NAME": "VALUE"}, or each one as env:NAME = VALUE'
        raise InvalidValue(f"expected a JSON object of texts: {error}", hint) from None


def scopes(text: str) -> tuple[Scope, ...]:
    """Scopes joined with `+`, such as `read+control`."""
    try:
        return tuple(Scope(scope.strip()) for scope in text.split("+"))
    except ValueError:
        raise InvalidValue(f"expected scopes joined with +, got {text!r}", f"scopes: {', '.join(Scope)}") from None


def grants(text: str, check: Callable[[str], int]) -> dict[int, tuple[Scope, ...]]:
    """`NAME:SCOPES` items by the id that `check` finds for the name."""
    result = {}
    for item in items(text):
        name, _, allowed = item.rpartition(":")
        try:
            result[check(name.strip())] = scopes(allowed)
        except ValueError as error:
            raise InvalidValue(str(error), "write NAME:SCOPE, such as alice:read or bob:read+control") from None
    return result


def local_users(text: str) -> dict[int, tuple[Scope, ...]]:
    return grants(text, check_uid)


def socket_group(text: str) -> dict[int, tuple[Scope, ...]]:
    found = grants(text, check_gid)
    if len(found) > 1:
        raise InvalidValue("a socket can belong to one group only")
    return found


def setting(
    rule: Any,
    default: Any = None,
    *,
    flag: str | None = None,
    env: str | None = None,
    ini: str | None = None,
    other_flag: str | None = None,
    other_ini: str | None = None,
) -> Any:
    """A field of Settings. `ini` is `section key`; a key that ends in `*` may be followed by digits.

    `other_flag` and `other_ini` are second spellings.
    """
    metadata = {
        "rule": rule,
        "flag": flag,
        "env": env,
        "ini": tuple(ini.split()) if ini else None,
        "other_flag": other_flag,
        "other_ini": tuple(other_ini.split()) if other_ini else None,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What gafferd runs with. None or an empty tuple where nothing was given."""

    bind: tuple[str, ...] = setting(addresses, (), flag="--bind", ini="gaffer bind")
    """Where to listen: `host:port`, `[v6]:port` or `unix:/path`, several with commas; 127.0.0.1:5000 unless given."""
    backlog: int = setting(backlog, 128, flag="--backlog", ini="gaffer backlog")
    """Connections that may wait to be accepted."""
    certfile: str | None = setting(tls_file, flag="--certfile", ini="ssl certfile")
    """Serve `bind` over TLS with this certificate."""
    keyfile: str | None = setting(tls_file, flag="--keyfile", ini="ssl keyfile")
    """The private key of the certificate."""
    client_ca: str | None = setting(tls_file, ini="ssl ca_certs")
    """Clients must show a certificate signed by this authority."""
    http_endpoints: tuple[str, ...] = setting(items, (), ini="gaffer http_endpoints")
    """The names of the `[endpoint:NAME]` sections to listen on."""
    state_dir: str | None = setting(text, flag="--state-dir", env="GAFFER_STATE_DIR", ini="gaffer state_dir")
    """Where the identity of the node, its socket, keys, logs and the records of its processes are."""
    lookupd_address: tuple[str, ...] = setting(urls, (), flag="--lookupd-address", ini="gaffer lookupd_address*")
    """The lookups to announce to."""
    broadcast_address: str | None = setting(public_url, flag="--broadcast-address", ini="gaffer broadcast_address")
    """How others reach this node; found out from `bind` unless given."""
    broadcast_port: int | None = setting(port, flag="--broadcast-port", ini="gaffer broadcast_port")
    """The port of that, when it is another one."""
    cacert: str | None = setting(tls_file, flag="--cacert", ini="lookup_ssl ca_certs")
    """Trust lookups with a certificate signed by this authority."""
    client_certfile: str | None = setting(tls_file, flag="--client-certfile", ini="lookup_ssl certfile")
    """The certificate to show to lookups."""
    client_keyfile: str | None = setting(tls_file, flag="--client-keyfile", ini="lookup_ssl keyfile")
    """The private key of that certificate."""
    cluster_key_file: str | None = setting(
        key_file,
        flag="--cluster-key-file",
        env="GAFFER_CLUSTER_KEY_FILE",
        ini="gaffer cluster_key_file",
    )
    """The key that lookups want of nodes."""
    api_key_file: str | None = setting(key_file, flag="--api-key-file", ini="gaffer api_key_file")
    """A key that may do everything."""
    require_key: bool = setting(boolean, False, ini="gaffer require_key")
    """Let nobody do anything without a key."""
    trust_local: bool = setting(boolean, True, ini="gaffer trust_local")
    """Let the own user and root, on this host, do everything without a key."""
    local_users: Mapping[int, tuple[Scope, ...]] | None = setting(local_users, ini="gaffer local_users")
    """Other users of this host and what they may do, as in `alice:read, bob:read+control`."""
    socket_group: Mapping[int, tuple[Scope, ...]] | None = setting(socket_group, ini="gaffer socket_group")
    """A group that may use the unix socket and what it may do, as in `ops:read+control`."""
    insecure: bool = setting(boolean, False, flag="--insecure", ini="gaffer insecure")
    """Listen beyond loopback without TLS."""
    allowed_host: tuple[str, ...] = setting(items, (), flag="--allowed-host", ini="gaffer allowed_host")
    """Names that callers without a key may use for this host, beside its own."""
    allowed_origin: tuple[str, ...] = setting(items, (), flag="--allowed-origin", ini="gaffer allowed_origin")
    """Web pages of these origins may control the node."""
    max_body: int = setting(body_size, DEFAULT_LIMITS.max_body, ini="http max_body")
    """Bytes of a request body, also as `8M`; larger ones get a 413."""
    max_header: int = setting(header_size, DEFAULT_LIMITS.max_header, ini="http max_header")
    """Bytes of the head of a request, its path and cookies included; larger ones get a 431."""
    header_timeout: float = setting(timeout, DEFAULT_LIMITS.header_timeout, ini="http header_timeout")
    """Seconds for the head of a request to come, from its first byte on; of a new connection, from its start on."""
    body_timeout: float = setting(timeout, DEFAULT_LIMITS.body_timeout, ini="http body_timeout")
    """Seconds for the body of a request to come, and for the client to take an answer that is complete."""
    idle_timeout: float = setting(timeout, DEFAULT_LIMITS.idle_timeout, ini="http idle_timeout")
    """Seconds after which a connection without a request is closed."""
    max_connections: int | None = setting(connections, ini="http max_connections")
    """Connections on each endpoint, websockets included; unless given, as many as leave half of the descriptors free.

    When there are as many, new ones displace those that send nothing.
    """
    node_name: str | None = setting(node_name, flag="--node-name", ini="gaffer node_name")
    """What the node is called in lookups; the host's full name unless given."""
    labels: Mapping[str, str] | None = setting(labels, ini="gaffer labels")
    """What describes the node in lookups, as in `zone=a, disk=ssd`."""
    plugin_dir: str | None = setting(
        existing_folder,
        flag="--plugins-dir",
        other_flag="--plugin-dir",
        env="GAFFER_PLUGIN_DIR",
        ini="gaffer plugin_dir",
        other_ini="gaffer plugins_dir",
    )
    """The folder of plugins; ~/.gafferd/plugins or ~/.gaffer/plugins unless given, where there is one."""
    daemon: bool = setting(boolean, False, flag="--daemon", ini="gaffer daemonize")
    """Go to the background once listening."""
    pidfile: str | None = setting(text, flag="--pidfile", ini="gaffer pidfile")
    """Where to write the process id."""
    error_log: str | None = setting(text, flag="--error-log", ini="gaffer error_log")
    """Where to log; stderr unless given."""
    log_level: str = setting(log_level, "info", flag="--log-level", ini="gaffer log_level")
    """debug, info, warning, error or critical."""
    loop: str = setting(loop_kind, "auto", flag="--loop", ini="gaffer loop")
    """uvloop, asyncio, or auto for the first that is there."""


_FIELDS = {f.name: f for f in dataclasses.fields(Settings)}

# (section, key) in the configuration file -> name of the setting; the key may end in `*`
FILE_KEYS: dict[tuple[str, str], str] = {
    f.metadata[spelling]: name
    for name, f in _FIELDS.items()
    for spelling in ("ini", "other_ini")
    if f.metadata[spelling]
}


def check(name: str, given: str) -> Any:
    """The value of the setting `name` that the text `given` spells; raises gaffer.jobs.rules.Wrong when it is none."""
    return _FIELDS[name].metadata["rule"](given)


def resolve(
    flags: Mapping[str, str | list[str] | bool | None],
    environ: Mapping[str, str],
    from_file: Mapping[str, Any],
) -> Settings:
    """The settings, from flags as docopt gives them, environment variables and the checked values of the file.

    A repeated flag adds to its list. Raises ConfigError with every wrong flag and variable.
    """
    values = dict(from_file)
    problems = []
    for name, f in _FIELDS.items():
        flag, other_flag, variable = f.metadata["flag"], f.metadata["other_flag"], f.metadata["env"]
        given = flags.get(flag)
        if other_flag and flags.get(other_flag):
            if given:
                problems.append(Problem(other_flag, f"{flag} says the same", "give one of them"))
            flag, given = other_flag, flags[other_flag]
        if given:
            source, text = flag, ",".join(given) if isinstance(given, list) else str(given)
        elif environ.get(variable or ""):
            source, text = variable, environ[variable]
        else:
            continue
        try:
            values[name] = check(name, text)
        except InvalidValue as wrong:
            problems.append(Problem(source, wrong.message, wrong.hint))
    for key, certificate in (("keyfile", "certfile"), ("client_keyfile", "client_certfile")):
        if values.get(key) and not values.get(certificate):
            flags_of = [_FIELDS[name].metadata["flag"] for name in (key, certificate)]
            problems.append(
                Problem(flags_of[0], "a private key is of no use without its certificate", f"add {flags_of[1]}")
            )
    if problems:
        raise ConfigError(problems)
    return Settings(**values)
