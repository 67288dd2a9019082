"""Print the branch coverage of each room, and of the pure ones; exit with 1 when one of these has too little.

Reads what `coverage run` wrote.
"""

import io
import sys
from collections.abc import Iterable
from pathlib import Path

from coverage import Coverage
from coverage.exceptions import NoDataError

LEAST = 98.0  # percent, of each pure room

PURE = (
    "gaffer.jobs",
    "gaffer.schemas",
    "gaffer.http.access",
    "gaffer.http.authority",
    "gaffer.http.operations",
    "gaffer.http.routes",
    "gaffer.http.search",
    "gafferd.announce.journal",
    "gafferd.config.reload",
    "gafferd.plugins.dependencies",
    "gafferd.usage.samples",
    "gaffer_lookupd.changes",
    "gaffer_lookupd.job_index",
    "gaffer_lookupd.lease",
    "gaffer_lookupd.node_index",
    "gaffer_lookupd.records",
    "gaffer_lookupd.registry",
)


def rooms() -> Iterable[str]:
    """The packages of the four distributions, two levels deep."""
    for source in sorted(Path().glob("*/src")):
        found = {package.parent.relative_to(source).parts for package in source.rglob("__init__.py")}
        yield from sorted(".".join(parts) for parts in found if len(parts) <= 2)


def report(coverage: Coverage, name: str) -> tuple[float, str]:
    """The percentage of the package or module `name`, without the packages in it, and the table of what is missing."""
    place = name.replace(".", "/")
    include = [f"*/src/{place}.py", f"*/src/{place}/*.py"]
    table = io.StringIO()
    try:
        percent = coverage.report(include=include, show_missing=True, skip_covered=True, file=table)
    except NoDataError:
        return 0.0, "No test imports it."
    return percent, table.getvalue()


def main() -> int:
    """Print the table; return the exit status."""
    coverage = Coverage()
    coverage.load()
    for room in rooms():
        print(f"{room:32}{report(coverage, room)[0]:6.1f} %")
    low = {name: table for name in PURE for percent, table in [report(coverage, name)] if percent < LEAST}
    for name, table in low.items():
        print(f"\n{name} is pure and has less than {LEAST:g} %:\n{table}", file=sys.stderr)
    return 1 if low else 0


if __name__ == "__main__":
    sys.exit(main())
