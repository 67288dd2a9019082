"""Files of job descriptions: one JSON object, or `{"jobs": [...]}`."""

import codecs
import sys
from dataclasses import dataclass
from typing import Any

import msgspec

from gaffer.jobs.names import DEFAULT_SESSION, split_job_name
from gaffer_client.cli.errors import UsageError


@dataclass(frozen=True)
class JobFile:
    """The job descriptions in a file; `single` if it contains one that is not in a list."""

    source: str
    descriptions: list[dict[str, Any]]
    single: bool

    def session(self, app: str | None = None) -> str:
        """Return the session of all jobs, from their names or `app`; raise UsageError if there are several."""
        default = app or DEFAULT_SESSION
        found = sorted({split_job_name(str(job.get("name", "")), default)[0] for job in self.descriptions})
        if app is not None and found != [app]:
            raise UsageError(
                f"{self.source} contains jobs of the session {', '.join(found)}, not {app}",
                hint="omit --app, or omit the session from the job names",
            )
        if len(found) > 1:
            raise UsageError(
                f"{self.source} contains jobs of several sessions: {', '.join(found)}",
                hint="load each session separately",
            )
        return found[0]


def read_jobs(path: str) -> JobFile:
    """Read the file, or stdin for `-`; raise UsageError if it contains no job descriptions."""
    source = "standard input" if path == "-" else path
    try:
        if path == "-":
            content = sys.stdin.buffer.read()
        else:
            with open(path, "rb") as file:
                content = file.read()
    except OSError as error:
        raise UsageError(f"can't read {source}: {error.strerror}") from None
    try:
        document = msgspec.json.decode(content.removeprefix(codecs.BOM_UTF8))
    except (msgspec.DecodeError, RecursionError) as error:
        raise UsageError(f"{source} is not valid JSON: {error}") from None
    listed = document.get("jobs") if isinstance(document, dict) and "name" not in document else None
    jobs = [document] if listed is None else listed
    if not isinstance(jobs, list) or not jobs or not all(isinstance(job, dict) for job in jobs):
        raise UsageError(
            f"{source} contains no job description",
            hint='write an object with "name" and "cmd", or {"jobs": [...]} for several',
        )
    return JobFile(source, jobs, single=listed is None)
