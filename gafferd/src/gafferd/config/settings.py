"""The settings of the daemon: flags, environment variables, keys of the configuration file and defaults.

`Settings` declares them for the command line, the configuration file, the reference and the JSON Schema.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from msgspec import Struct

from gaffer.applications.http_post import Address
from gaffer.errors import BadRequest, InvalidValue, quoted
from gaffer.http.access import Scope
from gaffer.http.limits import DEFAULT_LIMITS
from gaffer.jobs import rules
from gaffer.loop import KINDS
from gaffer.runtime.accounts import check_gid, check_uid
from gaffer.runtime.log import log_level
from gaffer.runtime.log_lines import FORMATS
from gaffer.runtime.settings import Resolution, setting, settings_of
from gaffer.runtime.sockets import parse_address
from gaffer.runtime.trusted_files import existing_file, inherited_descriptor, trusted_file
from gaffer.runtime.values import Choice, Seconds, Whole, boolean, items, pairs, text
from gaffer.schemas import messages

T = TypeVar("T")

_NONE = "none"  # of the plugins


class Size(Struct, frozen=True):
    """Rule for a number of bytes from `lowest` to `highest`, also written as `64K` or `8M`."""

    lowest: int
    highest: int

    def __call__(self, text: str) -> int:
        size = rules.size(text, True)
        if not self.lowest <= size <= self.highest:
            raise InvalidValue(
                f"expected {self.lowest} to {self.highest} bytes, got {quoted(text)}", "such as 65536, 64K or 8M"
            )
        return size

    @property
    def schema(self) -> dict[str, Any]:
        """The rule as JSON Schema."""
        return {"type": "integer", "minimum": self.lowest, "maximum": self.highest}


def plugin_names(text: str) -> tuple[str, ...]:
    """Parse the names of plugins, or `none`."""
    names = items(text)
    if not names or (_NONE in names and len(names) > 1):
        raise InvalidValue(f"expected names of plugins, or {_NONE}", "such as `hello, dummy`")
    return () if names == (_NONE,) else names


backlog: Final = Whole(1, 65535)
timeout: Final = Seconds(86400)
watchdog: Final = Seconds(86400, 1)  # a loaded machine may delay any process for some tenths


def addresses(text: str) -> tuple[str, ...]:
    """Parse addresses to listen on, each `host:port`, `[v6]:port` or `unix:/path`."""
    if not items(text):
        raise InvalidValue("expected an address", "such as 127.0.0.1:5000, [::1]:5000 or unix:/run/gafferd.sock")
    for address in items(text):
        try:
            parse_address(address)
        except RuntimeError as error:
            raise InvalidValue(str(error), "such as 127.0.0.1:5000, [::1]:5000 or unix:/run/gafferd.sock") from None
    return items(text)


def url(text: str) -> str:
    """Check an http or https URL with a host."""
    try:
        Address(text)
    except BadRequest:
        raise InvalidValue(f"expected an http or https URL, got {text!r}", "such as http://10.0.0.7:5010") from None
    return text


def urls(text: str) -> tuple[str, ...]:
    return tuple(map(url, items(text)))


def key_file(text: str) -> str:
    """Check the path of a key file, or of an open descriptor such as `/dev/fd/63`."""
    return text if inherited_descriptor(text) is not None else existing_file(text)


def existing_directory(text: str) -> str:
    """Return the absolute path of an existing directory."""
    if not os.path.isdir(text):
        raise InvalidValue(f"no such directory: {text!r}", "create it, or use another one")
    return os.path.abspath(text)


def node_name(text: str) -> str:
    """Check a node name by the rules of lookupds."""
    return _checked(messages.check_node_name, text)


def public_url(text: str) -> str:
    """Check the public URL of the node, `http(s)://host[:port]`."""
    return _checked(messages.check_origin, text.removesuffix("/"))


def _checked(check: Callable[[Any], T], value: Any) -> T:
    try:
        return check(value)
    except BadRequest as error:
        raise InvalidValue(error.message, error.hint) from None


def labels(text: str) -> dict[str, str]:
    """Parse `name=value` pairs that describe the node."""
    return _checked(messages.check_labels, pairs(text))


def scopes(text: str) -> tuple[Scope, ...]:
    """Parse scopes joined with `+`, such as `read+control`."""
    try:
        return tuple(Scope(scope.strip()) for scope in text.split("+"))
    except ValueError:
        raise InvalidValue(f"expected scopes joined with +, got {text!r}", f"scopes: {', '.join(Scope)}") from None


def grants(text: str, check: Callable[[str], int]) -> dict[int, tuple[Scope, ...]]:
    """Parse `NAME:SCOPES` items; return the scopes by uid or gid, which `check` looks up."""
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
        raise InvalidValue("a socket can belong to only one group")
    return found


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of gafferd. None or an empty tuple if not set."""

    plugin_dir: str | None = setting(
        "directory of the plugins",
        existing_directory,
        flag="-p DIR, --plugins-dir=DIR",
        aliases=("--plugin-dir",),
        variable="GAFFER_PLUGIN_DIR",
        key="gaffer plugin_dir, gaffer plugins_dir",
        shown="~/.gafferd/plugins, else ~/.gaffer/plugins",
    )
    plugins: tuple[str, ...] | None = setting(
        "names of the directories and entry points of the plugins to use, separated by commas, or `none`",
        plugin_names,
        flag="--plugins=NAMES",
        key="gaffer plugins",
        shown="all",
    )
    mandatory: tuple[str, ...] = setting(
        "names of plugins without which gafferd does not start", items, (), key="gaffer mandatory"
    )

    bind: tuple[str, ...] = setting(
        "addresses to listen on: HOST:PORT, [V6]:PORT or unix:PATH, separated by commas",
        addresses,
        (),
        flag="--bind=ADDRESS",
        key="gaffer bind",
        shown="127.0.0.1:5000",
        heading="Listening and access",
    )
    backlog: int = setting(
        "connections that can wait to be accepted", backlog, 128, flag="--backlog=N", key="gaffer backlog"
    )
    certfile: str | None = setting(
        "certificate to serve `bind` over TLS", trusted_file, flag="--certfile=FILE", key="ssl certfile"
    )
    keyfile: str | None = setting(
        "private key of the certificate", trusted_file, flag="--keyfile=FILE", key="ssl keyfile"
    )
    client_ca: str | None = setting(
        "require clients to present a certificate signed by this authority", trusted_file, key="ssl ca_certs"
    )
    http_endpoints: tuple[str, ...] = setting(
        "names of the `[endpoint:NAME]` sections to listen on", items, (), key="gaffer http_endpoints"
    )
    api_key_file: str | None = setting(
        "file with an API key that has all scopes; `gaffer key:new` prints a new key",
        key_file,
        flag="--api-key-file=FILE",
        key="gaffer api_key_file",
    )
    require_key: bool = setting("require a key from every caller", boolean, False, key="gaffer require_key")
    trust_local: bool = setting(
        "give root and the user of gafferd on this host full access without a key",
        boolean,
        True,
        key="gaffer trust_local",
    )
    local_users: Mapping[int, tuple[Scope, ...]] | None = setting(
        "scopes of other users of this host, such as `alice:read, bob:read+control`",
        local_users,
        key="gaffer local_users",
    )
    socket_group: Mapping[int, tuple[Scope, ...]] | None = setting(
        "group with access to the unix socket, and its scopes, such as `ops:read+control`",
        socket_group,
        key="gaffer socket_group",
    )
    insecure: bool = setting(
        "listen beyond loopback without TLS", boolean, False, flag="--insecure", key="gaffer insecure"
    )
    allowed_host: tuple[str, ...] = setting(
        "additional name of this host for callers without a key",
        items,
        (),
        flag="--allowed-host=HOST",
        repeat=True,
        key="gaffer allowed_host",
    )
    allowed_origin: tuple[str, ...] = setting(
        "origin of web pages that can control the node, such as https://ops.example.com",
        items,
        (),
        flag="--allowed-origin=ORIGIN",
        repeat=True,
        key="gaffer allowed_origin",
    )
    ui: bool = setting("serve the dashboard at `/ui/`", boolean, True, key="gaffer ui")
    max_body: int = setting(
        "maximum bytes of a request body, also as `8M`; larger requests get a 413",
        Size(1024, 1024**3),
        DEFAULT_LIMITS.max_body,
        key="http max_body",
    )
    max_header: int = setting(
        "maximum bytes of a request header, including path and cookies; larger requests get a 431",
        Size(1024, 1024**2),
        DEFAULT_LIMITS.max_header,
        key="http max_header",
    )
    header_timeout: float = setting(
        "seconds to receive a request header, from its first byte or the start of a new connection",
        timeout,
        DEFAULT_LIMITS.header_timeout,
        key="http header_timeout",
    )
    body_timeout: float = setting(
        "seconds to receive the body of a request, and for the client to read a complete response",
        timeout,
        DEFAULT_LIMITS.body_timeout,
        key="http body_timeout",
    )
    idle_timeout: float = setting(
        "seconds after which an idle connection is closed",
        timeout,
        DEFAULT_LIMITS.idle_timeout,
        key="http idle_timeout",
    )
    max_connections: int | None = setting(
        "maximum connections on each endpoint, including websockets; new ones then displace those that send nothing",
        Whole(8, 1_000_000),
        key="http max_connections",
        shown="half of the file descriptors",
    )

    state_dir: str | None = setting(
        "directory for the node's identity, socket, keys, logs and process records",
        text,
        flag="--state-dir=DIR",
        variable="GAFFER_STATE_DIR",
        key="gaffer state_dir",
        shown="~/.local/state/gaffer or, for root, /var/lib/gaffer",
        heading="Node and cluster",
    )
    keep_jobs: bool = setting(
        "restore jobs and changes made over the API at the next start", boolean, True, key="gaffer keep_jobs"
    )
    lookupd_address: tuple[str, ...] = setting(
        "URL of a gaffer_lookupd to announce this node to",
        urls,
        (),
        flag="--lookupd-address=URL",
        repeat=True,
        key="gaffer lookupd_address*",
    )
    cluster_key_file: str | None = setting(
        "file with the cluster key that the lookupds require of nodes",
        key_file,
        flag="--cluster-key-file=FILE",
        variable="GAFFER_CLUSTER_KEY_FILE",
        key="gaffer cluster_key_file",
    )
    usage_history: bool = setting(
        "keep the CPU and memory usage of processes, measured at intervals, in memory for the charts of the dashboard",
        boolean,
        True,
        key="gaffer usage_history",
    )
    usage_interval: float = setting(
        "seconds between two measurements of the usage history, which has 360 of each process",
        timeout,
        10.0,
        key="gaffer usage_interval",
    )
    webhook_secret_file: str | None = setting(
        "file with the key that signs the requests to webhooks; read again at a reload",
        existing_file,
        key="gaffer webhook_secret_file",
    )
    webhook_queue: str = setting(
        "where events wait for webhooks: `memory`, or `disk` to keep them over a restart",
        Choice("queue", ("memory", "disk")),
        "memory",
        key="gaffer webhook_queue",
    )
    node_name: str | None = setting(
        "name of the node in lookupds",
        node_name,
        flag="--node-name=NAME",
        key="gaffer node_name",
        shown="the full name of the host",
    )
    labels: Mapping[str, str] | None = setting(
        "labels of the node in lookupds, such as `zone=a, disk=ssd`", labels, key="gaffer labels"
    )
    broadcast_address: str | None = setting(
        "URL at which others reach this node",
        public_url,
        flag="--broadcast-address=URL",
        key="gaffer broadcast_address",
        shown="derived from `bind`",
    )
    broadcast_port: int | None = setting(
        "port at which others reach this node",
        Whole(0, 65535),
        flag="--broadcast-port=N",
        key="gaffer broadcast_port",
        shown="that of the broadcast address or of `bind`",
    )
    cacert: str | None = setting(
        "trust lookupds with a certificate signed by this authority",
        trusted_file,
        flag="--cacert=FILE",
        key="lookup_ssl ca_certs",
    )
    client_certfile: str | None = setting(
        "certificate to present to lookupds", trusted_file, flag="--client-certfile=FILE", key="lookup_ssl certfile"
    )
    client_keyfile: str | None = setting(
        "private key of that certificate", trusted_file, flag="--client-keyfile=FILE", key="lookup_ssl keyfile"
    )

    daemon: bool = setting(
        "go to the background once listening; the log is discarded unless it goes to a file",
        boolean,
        False,
        flag="--daemon",
        key="gaffer daemonize",
        heading="Process and log",
    )
    keeper: bool = setting(
        "run below a keeper, which starts gafferd again when it dies or hangs, while its processes go on; off by"
        " default with a key that is read from a descriptor",
        boolean,
        True,
        flag="--keeper",
        off="--no-keeper",
        key="gaffer keeper",
    )
    watchdog: float = setting(
        "seconds without a turn of its event loop after which the keeper replaces gafferd",
        watchdog,
        10.0,
        key="gaffer watchdog",
    )
    orphans: str = setting(
        "what to do at the start with processes that outlived an earlier gafferd and its keeper: adopt those that write"
        " only to files, or end them all; jobs can override it",
        Choice("policy", ("adopt", "end")),
        "adopt",
        key="gaffer orphans",
    )
    pidfile: str | None = setting(
        "write the process id to this file", text, flag="--pidfile=FILE", key="gaffer pidfile"
    )
    error_log: str | None = setting(
        "log to this file", text, flag="--error-log=FILE", key="gaffer error_log", shown="stderr"
    )
    log_level: str = setting(
        "debug, info, warning, error or critical", log_level, "info", flag="--log-level=LEVEL", key="gaffer log_level"
    )
    log_format: str = setting(
        "format of the log: text or json",
        Choice("log format", FORMATS),
        "text",
        flag="--log-format=FORMAT",
        key="gaffer log_format",
    )
    watch: bool = setting(
        "restart jobs when the files that their setting `watch` names change",
        boolean,
        False,
        flag="--watch",
        key="gaffer watch",
    )
    loop: str = setting(
        "event loop: uvloop, asyncio, or auto (uvloop if installed)",
        Choice("loop", KINDS),
        "auto",
        flag="--loop=KIND",
        key="gaffer loop",
    )


SETTINGS: Final = settings_of(Settings)

FILE_KEYS: Final = {place: name for name, declared in SETTINGS.items() for place in declared.keys}
"""Name of the setting by (section, key) of the configuration file; the key may end in `*`."""


def resolve(flags: Mapping[str, Any], environ: Mapping[str, str], from_file: Mapping[str, Any]) -> Settings:
    """Return the settings from docopt flags, environment variables and the validated values of the file.

    Raises ConfigError with all invalid flags and variables.
    """
    return find_settings(flags, environ, from_file).settings()


def find_settings(
    flags: Mapping[str, Any], environ: Mapping[str, str], from_file: Mapping[str, Any]
) -> Resolution[Settings]:
    """Return the settings with their sources and all mistakes in flags and variables."""
    resolution = Resolution(Settings, flags, environ, from_file)
    values = resolution.values
    for key, certificate in (("keyfile", "certfile"), ("client_keyfile", "client_certfile")):
        if values[key] and not values[certificate]:
            flag = SETTINGS[certificate].option.long
            resolution.problem(key, "a private key requires a certificate", f"add {flag}")
    asked = "keeper" in resolution.given or "keeper" in from_file
    for key in ("api_key_file", "cluster_key_file") if values["keeper"] else ():
        if values[key] and inherited_descriptor(values[key]) is not None:
            if asked:
                resolution.problem(key, "a descriptor can be read only once, not again after a restart", "use a file")
            values["keeper"] = False
    return resolution
