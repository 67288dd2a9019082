"""The settings of gaffer_lookupd and their checks: all mistakes are found before anything is started."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ssl import CERT_REQUIRED
from typing import Any

from gaffer.errors import GafferError, InvalidValue, quoted
from gaffer.http.authority import is_loopback
from gaffer.loop import KINDS
from gaffer.runtime.keyfile import MIN_BITS, is_weak, read_key_file, warn_about_private_key
from gaffer.runtime.log import log_level
from gaffer.runtime.log_lines import FORMATS
from gaffer.runtime.options import Option
from gaffer.runtime.settings import Resolution, option_groups, setting, settings_of
from gaffer.runtime.sockets import parse_address
from gaffer.runtime.trusted_files import trusted_file
from gaffer.runtime.usage import parse_command_line, usage_text
from gaffer.runtime.values import Choice, Seconds, Whole, boolean, items, text
from gaffer_lookupd.lease import Lease

DEFAULT_PORT = 5010
DEFAULT_WARMUP = 20.0  # seconds; the longest window over which nodes reconnect


def bind(text: str) -> tuple[str, ...]:
    """Addresses to listen on, separated by commas, as `host:port`, `[v6]:port` or `unix:path`."""
    uris = []
    for address in text.split(","):
        try:
            parsed = parse_address(address, DEFAULT_PORT)
        except RuntimeError as error:
            raise InvalidValue(str(error), "write HOST:PORT, [V6]:PORT or unix:PATH") from None
        if isinstance(parsed, str):
            uris.append(f"unix:{parsed}")
        else:
            host, port = parsed
            uris.append(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    return tuple(uris)


def warmup(text: str) -> float:
    """Return a number of seconds; its range depends on another setting."""
    try:
        return float(text)
    except ValueError:
        raise InvalidValue(f"expected a number of seconds from 0 to `--ttl`, got {quoted(text)}") from None


def key(path: str) -> str:
    """Return the key in the file at `path`."""
    try:
        return read_key_file(path)
    except GafferError as error:
        raise InvalidValue(error.message, error.hint) from None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of gaffer_lookupd; None or an empty tuple if not given."""

    bind: tuple[str, ...] = setting(
        "addresses to listen on: HOST:PORT, [V6]:PORT or unix:PATH, separated by commas",
        bind,
        (f"0.0.0.0:{DEFAULT_PORT}",),
        flag="--bind=ADDRESS",
        heading="Listening and access",
    )
    backlog: int = setting("connections that can wait to be accepted", Whole(1, 2**31 - 1), 128, flag="--backlog=N")
    certfile: str | None = setting("certificate to serve over TLS", trusted_file, flag="--certfile=FILE")
    keyfile: str | None = setting("private key of the certificate", trusted_file, flag="--keyfile=FILE")
    cacert: str | None = setting(
        "require clients to present a certificate signed by this authority", trusted_file, flag="--cacert=FILE"
    )
    cluster_key: str | None = setting(
        "file with the key that nodes must present",
        key,
        flag="--cluster-key-file=FILE",
        variable="GAFFER_CLUSTER_KEY_FILE",
    )
    reader_key: str | None = setting(
        "file with a key that readers can present",
        key,
        flag="--reader-key-file=FILE",
        variable="GAFFER_READER_KEY_FILE",
    )
    require_key: bool = setting(
        "require a key from readers: the reader key or the cluster key", boolean, False, flag="--require-key"
    )
    allowed_host: tuple[str, ...] = setting(
        "additional name of this host that readers can use", items, (), flag="--allowed-host=HOST", repeat=True
    )
    allowed_origin: tuple[str, ...] = setting(
        "origin of web pages that are allowed to read, such as https://ops.example.com",
        items,
        (),
        flag="--allowed-origin=ORIGIN",
        repeat=True,
    )
    ui: bool = setting("serve the dashboard at `/ui/`", boolean, True, flag="--ui", off="--no-ui")

    ttl: float = setting(
        "drop a node after this time of silence", Seconds(), 45.0, flag="--ttl=SECONDS", heading="Leases of nodes"
    )
    interval: float = setting("interval at which nodes send heartbeats", Seconds(), 15.0, flag="--interval=SECONDS")
    warmup: float | None = setting(
        "time that nodes have to reconnect after a start, at most `--ttl`",
        warmup,
        flag="--warmup=SECONDS",
        shown=f"{DEFAULT_WARMUP:g}, less if the reconnected nodes need less",
    )

    daemon: bool = setting(
        "go to the background once listening; the log is discarded unless it goes to a file",
        boolean,
        False,
        flag="--daemon",
        heading="Process and log",
    )
    pidfile: str | None = setting("write the process id to this file", text, flag="--pidfile=FILE")
    error_log: str | None = setting("log to this file", text, flag="--error-log=FILE", shown="stderr")
    log_level: str = setting("debug, info, warning, error or critical", log_level, "info", flag="--log-level=LEVEL")
    log_format: str = setting(
        "format of the log: text or json", Choice("log format", FORMATS), "text", flag="--log-format=FORMAT"
    )
    loop: str = setting(
        "event loop: uvloop, asyncio, or auto for uvloop where it is installed",
        Choice("loop", KINDS),
        "auto",
        flag="--loop=KIND",
    )

    @property
    def tls(self) -> dict[str, Any] | None:
        """The TLS options of HttpEndpoint; None without a certificate."""
        if self.certfile is None:
            return None
        tls: dict[str, Any] = {"certfile": self.certfile}
        if self.keyfile is not None:
            tls["keyfile"] = self.keyfile
        if self.cacert is not None:
            tls |= {"ca_certs": self.cacert, "cert_reqs": CERT_REQUIRED}
        return tls

    @property
    def lease(self) -> Lease:
        """The lease terms of nodes."""
        warmup = min(DEFAULT_WARMUP, self.ttl) if self.warmup is None else self.warmup
        return Lease(self.ttl, self.interval, warmup, settles=self.warmup is None)


_COMMAND_OPTIONS = (
    Option("-h, --help", "show this help and exit"),
    Option("--version", "show the version and exit"),
    Option("-v", "log more: same as `--log-level=debug`"),
)

USAGE = usage_text(
    "gaffer_lookupd",
    "Keep track of which node of a cluster runs which job.",
    option_groups(Settings, _COMMAND_OPTIONS),
    epilog="""
Examples:
  gaffer_lookupd
  gaffer_lookupd --bind=10.0.0.5:5010 --cluster-key-file=/etc/gaffer/cluster.key

Signals: TERM, INT and QUIT exit; USR1 reopens the log file.
""",
)


def parse_options(argv: Sequence[str]) -> dict[str, Any]:
    """Return the options of a command line by name; raises ConfigError. `--help` and `--version` print and exit."""
    leftover = "an option is unknown or given twice, or an argument is not an option's"
    return parse_command_line("gaffer_lookupd", USAGE, argv, leftover=leftover)


def make_settings(options: Mapping[str, Any], environ: Mapping[str, str], passed: Sequence[str] = ()) -> Settings:
    """Return the settings from parsed options and the environment; raises ConfigError with all mistakes.

    The addresses of `passed` sockets take the place of `bind`.
    """
    resolution = Resolution(Settings, options, environ)
    if passed:
        resolution.values["bind"] = tuple(passed)
    _refuse_empty(resolution, options)
    _check_together(resolution)
    if options["-v"]:
        resolution.values["log_level"] = "debug"
    settings = resolution.settings()
    if settings.keyfile is not None:
        warn_about_private_key(settings.keyfile)
    return settings


def _refuse_empty(resolution: Resolution[Settings], options: Mapping[str, Any]) -> None:
    """Add the flags with an empty value, such as `--cacert=$CA` without CA: the default could be less strict.

    Where there is a variable, too, an empty flag leaves the choice to it.
    """
    for name, declared in settings_of(Settings).items():
        empty = any(options.get(flag) == "" or options.get(flag) == [""] for flag in declared.flags)
        if empty and declared.variable is None:
            resolution.problem(name, "expected a value that is not empty", "leave the flag out for the default")


def _check_together(resolution: Resolution[Settings]) -> None:
    """Check values against each other, and record mistakes; invalid values are None."""
    values, given = resolution.values, resolution.given
    ttl, interval, warmup = values["ttl"], values["interval"], values["warmup"]
    if ttl and interval and ttl < 2 * interval:
        message = f"{ttl:g} is less than twice --interval ({interval:g}): one lost message would drop a node"
        resolution.problem("ttl", message, "use at least twice --interval")
    if ttl and warmup is not None and not 0 <= warmup <= ttl:
        resolution.problem("warmup", f"{warmup:g} is not a number of seconds from 0 to --ttl ({ttl:g})")
    for name in ("keyfile", "cacert"):
        if name in given and "certfile" not in given:
            resolution.problem(name, "has no effect without a certificate", "add --certfile")
    cluster_key, reader_key = values["cluster_key"], values["reader_key"]
    if values["bind"] and not all(map(_is_local, values["bind"])):
        for name, secret in (("cluster_key", cluster_key), ("reader_key", reader_key)):
            if secret is not None and is_weak(secret):
                resolution.problem(
                    name,
                    f"the key has fewer than {MIN_BITS} random bits, and --bind is reachable from other hosts",
                    f"generate a new key: `(umask 077; gaffer key:new > {name.removesuffix('_key')}.key)`",
                )
    if values["require_key"] and not given.keys() & {"cluster_key", "reader_key"}:
        resolution.problem("require_key", "no key to require", "add --reader-key-file")
    if reader_key is not None and reader_key == cluster_key:
        hint = "generate another key with `gaffer key:new`: readers must not be able to announce jobs"
        resolution.problem("reader_key", "the file holds the cluster key", hint)


def _is_local(uri: str) -> bool:
    """Return whether only this host can reach the address."""
    host = uri.rpartition(":")[0].strip("[]")
    return uri.startswith("unix:") or host == "localhost" or is_loopback(host)
