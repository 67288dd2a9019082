"""The file with what is desired of the jobs of a node."""

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from gaffer.errors import BadRequest, ConfigError
from gaffer.jobs.config import JobConfig
from gaffer.jobs.desired import Desired
from gaffer.jobs.names import JobName, parse_job_name
from gaffer.jobs.states import Disabled, Phase
from gaffer.process import ProcessConfig
from gafferd.state.documents import DamagedFile, Document

logger = logging.getLogger(__name__)

FORMAT = 2  # in format 1, the file held the records of processes

_DEFAULTS = ProcessConfig("default", "default").to_dict()


class Stored(NamedTuple):
    """A job in the file; `digest` identifies its definition in the configuration file, None without one."""

    desired: Desired
    digest: str | None = None


class _Definition(msgspec.Struct, frozen=True):
    generation: int
    config: dict[str, Any]


class _Entry(msgspec.Struct, frozen=True):
    name: str
    phase: Phase
    processes: int
    definitions: list[_Definition]
    disabled: Disabled | None = None
    why: str = ""
    digest: str | None = None


class _Named(msgspec.Struct, frozen=True):
    name: str


class _Content(msgspec.Struct, frozen=True):
    jobs: list[msgspec.Raw] = []
    processes: list[Any] = []  # of format 1


class JobsFile:
    """The document `state.json` of a state directory: jobs in the order of their loading.

    An entry that this version of gafferd can't read is kept as it is. With `discard`, what is in the file is ignored.
    `check` raises OSError before a write if the directory is no longer ours.
    """

    def __init__(self, directory: Path, *, discard: bool = False, check: Callable[[], None] = lambda: None) -> None:
        self._discard = discard
        self._check = check
        self.path = directory / "state.json"
        self._document = Document(self.path, _Content, format=FORMAT, keep_previous=True)
        self._unread: dict[JobName, msgspec.Raw] = {}
        self._encoded: dict[JobName, tuple[Stored, msgspec.Raw]] = {}

    def load(self) -> dict[JobName, Stored]:
        """Return the jobs, none if the file is missing or damaged; a damaged file is logged and moved aside.

        Raises NewerFile and UntrustedFile.
        """
        try:
            content = self._document.load_either()
        except DamagedFile as error:
            kept = self._document.move_aside("damaged")
            logger.error(
                "%s, and so is its copy: starting without the jobs loaded over the API; the files are kept as %s",
                error.message,
                " and ".join(path.name for path in kept),
            )
            return {}
        found: dict[JobName, Stored] = {}
        if self._discard and content is not None and content.jobs:
            kept = self._document.move_aside("original")  # the next start is that of its own gafferd
            logger.warning(
                "this state directory is a copy: leaving the jobs in it to their own gafferd; the files are kept as %s",
                " and ".join(path.name for path in kept),
            )
            return found
        for raw in content.jobs if content is not None else []:
            try:
                stored = _decode(raw)
            except (msgspec.DecodeError, BadRequest) as error:
                name = _name_in(raw)
                logger.error("%s: can't restore the job %s: %s", self.path, name or "without a name", _reason(error))
                if name is not None:
                    self._unread[name] = raw
            else:
                found[stored.desired.name] = stored
        return found

    def keep(self, stored: Stored) -> None:
        """Keep the entry of a job that could not be loaded."""
        self._unread[stored.desired.name] = _encode(stored)

    def save(self, jobs: Iterable[Stored]) -> None:
        """Replace the file, so that it survives a crash of the host; raises OSError and keeps the old one on failure.

        Blocks. Jobs that could not be read are kept unless there is a new one of that name.
        """
        self._check()
        encoded = {}
        for stored in jobs:
            name = stored.desired.name
            known = self._encoded.get(name)
            encoded[name] = known if known is not None and known[0] == stored else (stored, _encode(stored))
        unread = {name: raw for name, raw in self._unread.items() if name not in encoded}
        self._document.save(_Content([*unread.values(), *(raw for _, raw in encoded.values())]), sync=True)
        self._encoded, self._unread = encoded, unread


def digest_of(config: JobConfig | None) -> str | None:
    """Return what identifies the definition of a job in the configuration file; None for None."""
    if config is None:
        return None
    return hashlib.sha256(msgspec.json.encode(_given(config), order="deterministic")).hexdigest()


def _given(config: JobConfig) -> dict[str, Any]:
    """Return the settings that differ from the defaults."""
    return {key: value for key, value in config.to_dict().items() if value != _DEFAULTS[key] or key in ("name", "cmd")}


def _encode(stored: Stored) -> msgspec.Raw:
    desired = stored.desired
    definitions = [_Definition(generation, _given(config)) for generation, config in desired.definitions]
    entry = _Entry(
        str(desired.name), desired.phase, desired.target, definitions, desired.disabled, desired.why, stored.digest
    )
    return msgspec.Raw(msgspec.json.encode(entry))


def _decode(raw: msgspec.Raw) -> Stored:
    entry = msgspec.json.decode(raw, type=_Entry)
    if not entry.definitions or entry.processes < 0 or entry.phase in (Phase.HELD, Phase.LEAVING):
        raise msgspec.ValidationError("the entry contradicts itself")
    name = parse_job_name(entry.name)
    definitions = tuple((each.generation, _config(each.config)) for each in entry.definitions)
    desired = Desired(name, entry.phase, entry.processes, definitions, entry.disabled, entry.why)
    desired.config.replace(numprocesses=entry.processes)  # raises if the definition allows fewer
    return Stored(desired, entry.digest)


def _config(settings: Mapping[str, Any]) -> ProcessConfig:
    return ProcessConfig.from_dict(settings)


def _name_in(raw: msgspec.Raw) -> JobName | None:
    try:
        return parse_job_name(msgspec.json.decode(raw, type=_Named).name)
    except (msgspec.DecodeError, BadRequest):
        return None


def _reason(error: Exception) -> str:
    if isinstance(error, ConfigError):
        return "; ".join(problem.message for problem in error.problems)
    return str(error)
