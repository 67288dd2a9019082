"""The command line of gaffer_lookupd, checked: every mistake is found before anything is started."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from ssl import CERT_REQUIRED
from typing import Any

from msgspec import Struct

from gaffer.errors import BadRequest, ConfigError, GafferError, Problem
from gaffer.http.authority import is_loopback
from gaffer.loop import KINDS
from gaffer.runtime.keyfile import MIN_BITS, is_weak, read_key_file, warn_about_private_key
from gaffer.runtime.log import parse_level
from gaffer.runtime.sockets import parse_address
from gaffer.runtime.trusted_files import UntrustedFile, open_trusted
from gaffer.runtime.usage import parse_command_line
from gaffer_lookupd.lease import Lease

DEFAULT_PORT = 5010
DEFAULT_WARMUP = 20.0  # seconds: the longest window in which nodes reconnect

USAGE = """\
Tell which node of a cluster runs which job.

Usage:
  gaffer_lookupd [options] [--allowed-host=HOST]... [--allowed-origin=ORIGIN]...
  gaffer_lookupd (-h | --help)
  gaffer_lookupd --version

Options:
  -h --help                show this help and exit
  --version                show the version and exit
  -v                       log more: the same as --log-level=debug
  --daemon                 go to the background
  --pidfile=FILE           write the process id to FILE
  --bind=ADDRESS           where to listen: HOST:PORT, [V6]:PORT or unix:PATH, several with commas
                           [default: 0.0.0.0:5010]
  --backlog=N              connections that may wait to be accepted [default: 128]
  --certfile=FILE          serve over TLS with this certificate
  --keyfile=FILE           the private key of the certificate
  --cacert=FILE            clients must show a certificate signed by this authority
  --ttl=SECONDS            drop a node after this silence [default: 45]
  --interval=SECONDS       how often nodes give a sign of life [default: 15]
  --warmup=SECONDS         how long nodes may take to come back after a start, at most --ttl (default: 20, less when
                           all who are back say so)
  --cluster-key-file=FILE  nodes must present the key in this file (also: GAFFER_CLUSTER_KEY_FILE)
  --require-key            readers must present a key: that of --reader-key-file, or the cluster key
  --reader-key-file=FILE   readers can present the key in this file (also: GAFFER_READER_KEY_FILE)
  --allowed-host=HOST      a name that readers may use for this host, beside its own
  --allowed-origin=ORIGIN  web pages of this origin may read, as https://ops.example.com
  --error-log=FILE         log there, not on stderr
  --log-level=LEVEL        debug, info, warning, error or critical [default: info]
  --loop=KIND              auto, uvloop or asyncio [default: auto]

Examples:
  gaffer_lookupd
  gaffer_lookupd --bind=10.0.0.5:5010 --cluster-key-file=/etc/gaffer/cluster.key
"""


class Config(Struct, frozen=True, kw_only=True):
    """What gaffer_lookupd was asked to do; `tls` is what HttpEndpoint takes."""

    bind: list[str]
    backlog: int
    tls: dict[str, Any] | None
    lease: Lease
    cluster_key: str | None
    reader_key: str | None
    require_key: bool
    allowed_hosts: list[str]
    allowed_origins: list[str]
    loop: str
    daemon: bool
    pidfile: str | None
    log_level: str
    error_log: str | None


def parse_options(argv: Sequence[str]) -> dict[str, Any]:
    """The options of a command line by name; raises ConfigError. `--help` and `--version` print and exit."""
    leftover = "an option is unknown or given twice, or an argument is not an option's"
    return parse_command_line("gaffer_lookupd", USAGE, argv, leftover=leftover)


def make_config(options: Mapping[str, Any], environ: Mapping[str, str]) -> Config:
    """Check parsed options; raises ConfigError with all problems, whose paths are option names."""
    reader = _Reader(options)
    ttl, interval = reader.seconds("--ttl"), reader.seconds("--interval")
    if ttl < 2 * interval:
        reader.problem("--ttl", "it must be at least twice --interval, or one lost message drops a node")
    warmup = reader.warmup(ttl)
    config = Config(
        bind=reader.addresses("--bind"),
        backlog=reader.count("--backlog"),
        tls=reader.tls(),
        lease=Lease(ttl, interval, warmup, settles=options["--warmup"] is None),
        cluster_key=reader.key("--cluster-key-file", environ.get("GAFFER_CLUSTER_KEY_FILE")),
        reader_key=reader.key("--reader-key-file", environ.get("GAFFER_READER_KEY_FILE")),
        require_key=options["--require-key"],
        allowed_hosts=options["--allowed-host"],
        allowed_origins=options["--allowed-origin"],
        loop=reader.choice("--loop", KINDS),
        daemon=options["--daemon"],
        pidfile=options["--pidfile"],
        log_level="debug" if options["-v"] else reader.log_level("--log-level"),
        error_log=options["--error-log"],
    )
    if not all(map(_is_local, config.bind)):
        for option, key in (("--cluster-key-file", config.cluster_key), ("--reader-key-file", config.reader_key)):
            if key is not None and is_weak(key):
                reader.problem(
                    option,
                    f"others can reach --bind, and the key has fewer than {MIN_BITS} random bits",
                    f"make another one with `(umask 077; gaffer key:new > {option[2:].removesuffix('-key-file')}.key)`",
                )
    if config.require_key and config.cluster_key is None and config.reader_key is None:
        reader.problem("--require-key", "there is no key to require", "give --reader-key-file")
    if config.reader_key is not None and config.reader_key == config.cluster_key:
        hint = "make another one with `gaffer key:new`: readers must not be able to announce jobs"
        reader.problem("--reader-key-file", "it holds the cluster key", hint)
    if reader.problems:
        raise ConfigError(reader.problems)
    return config


def _is_local(uri: str) -> bool:
    """Whether only this host can reach the address."""
    host = uri.rpartition(":")[0].strip("[]")
    return uri.startswith("unix:") or host == "localhost" or is_loopback(host)


class _Reader:
    """Reads options and collects what is wrong with them."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options
        self.problems: list[Problem] = []

    def problem(self, option: str, message: str, hint: str | None = None) -> None:
        self.problems.append(Problem(option, message, hint))

    def seconds(self, option: str) -> float:
        text = self.options[option]
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            self.problem(option, f"{text!r} is not a number of seconds above 0")
            return math.nan
        return value

    def warmup(self, ttl: float) -> float:
        text = self.options["--warmup"]
        if text is None:
            return min(DEFAULT_WARMUP, ttl)
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value <= ttl:
            self.problem("--warmup", f"{text!r} is not a number of seconds from 0 to --ttl ({ttl:g})")
            return 0.0
        return value

    def count(self, option: str) -> int:
        text = self.options[option]
        if not text.isascii() or not text.isdigit() or not 0 < int(text) < 2**31:
            self.problem(option, f"{text!r} is not a whole number above 0")
            return 1
        return int(text)

    def choice(self, option: str, choices: tuple[str, ...]) -> str:
        value: str = self.options[option]
        if value not in choices:
            self.problem(option, f"there is no {value!r}", f"choose one of {', '.join(choices)}")
        return value

    def log_level(self, option: str) -> str:
        level: str = self.options[option]
        try:
            parse_level(level)
        except BadRequest as error:
            self.problem(option, error.message, error.hint)
        return level

    def addresses(self, option: str) -> list[str]:
        uris = []
        for address in self.options[option].split(","):
            try:
                parsed = parse_address(address, DEFAULT_PORT)
            except RuntimeError as error:
                self.problem(option, str(error), "write HOST:PORT, [V6]:PORT or unix:PATH")
                continue
            if isinstance(parsed, str):
                uris.append(f"unix:{parsed}")
            else:
                host, port = parsed
                uris.append(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        return uris

    def file(self, option: str) -> str | None:
        value: str | None = self.options[option]
        if value is None:
            return None
        if not Path(value).is_file():
            self.problem(option, f"there is no file {value}")
            return value
        try:
            os.close(open_trusted(value, follow=True))
        except UntrustedFile as error:
            self.problem(option, error.message, error.hint)
        except OSError as error:
            self.problem(option, f"can't read {value}: {error.strerror}")
        return value

    def tls(self) -> dict[str, Any] | None:
        certfile, keyfile, cacert = self.file("--certfile"), self.file("--keyfile"), self.file("--cacert")
        if certfile is None:
            for option in ("--keyfile", "--cacert"):
                if self.options[option] is not None:
                    self.problem(option, "it does nothing without a certificate", "give --certfile")
            return None
        tls: dict[str, Any] = {"certfile": certfile}
        if keyfile is not None:
            tls["keyfile"] = keyfile
            if Path(keyfile).is_file():
                warn_about_private_key(keyfile)
        if cacert is not None:
            tls |= {"ca_certs": cacert, "cert_reqs": CERT_REQUIRED}
        return tls

    def key(self, option: str, variable: str | None) -> str | None:
        path = self.options[option] or variable
        if not path:
            return None
        try:
            return read_key_file(path)
        except GafferError as error:
            self.problem(option, error.message, error.hint)
            return None
