"""Write the metadata that the four packages share: the version and the URLs of the project.

    python tools/metadata.py           # after a change of HOMEPAGE
    python tools/metadata.py 0.7.0     # set the version

`gaffer.runtime.version` defines the version; all other places repeat it.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Directory of a package -> import name
PACKAGES = {"common": "gaffer", "gafferd": "gafferd", "lookupd": "gaffer_lookupd", "client": "gaffer_client"}

# The project has no published address yet: .example is reserved and never resolves.
HOMEPAGE = "https://gaffer.example"
URLS = {"Homepage": HOMEPAGE, "Documentation": f"{HOMEPAGE}/docs", "Changelog": f"{HOMEPAGE}/changelog"}

_VERSION_FILE = "common/src/gaffer/runtime/version.py"

# File -> pattern whose group is the version
_VERSIONS = {
    _VERSION_FILE: r'^__version__ = "(.+)"$',
    **{f"{folder}/pyproject.toml": r'^version = "(.+)"$|"gaffer-common==(.+)"' for folder in PACKAGES},
    "docs/cluster.md": r"'gafferd/([\d.]+) \(",
}


def read_version(root: Path = ROOT) -> str:
    """Return the version in `gaffer.runtime.version`, as "0.6.0"."""
    found = re.search(_VERSIONS[_VERSION_FILE], (root / _VERSION_FILE).read_text(), re.MULTILINE)
    assert found, f"{_VERSION_FILE} has no version"
    return found[1]


def render(version: str, root: Path = ROOT) -> dict[Path, str]:
    """Return the expected text of each file, by path; raise AssertionError if a file has no version or URL."""
    texts = {}
    for name, pattern in _VERSIONS.items():
        path = root / name
        text, count = re.subn(pattern, lambda found: _replaced(found, version), path.read_text(), flags=re.MULTILINE)
        assert count, f"{name} has no version"
        if path.name == "pyproject.toml":
            for label, url in URLS.items():
                text, count = re.subn(f"^{label} = .*$", f'{label} = "{url}"', text, flags=re.MULTILINE)
                assert count == 1, f"{name} has no {label}"
        texts[path] = text
    return texts


def _replaced(found: re.Match[str], version: str) -> str:
    assert found.lastindex
    start, end = found.span(found.lastindex)
    return found.string[found.start() : start] + version + found.string[end : found.end()]


def find_stale(root: Path = ROOT) -> list[Path]:
    """Return the files whose version or URLs differ from the expected ones."""
    return [path for path, text in render(read_version(root), root).items() if path.read_text() != text]


def main(arguments: list[str]) -> None:
    """Write the files, with the version in `arguments` if given."""
    version = arguments[0] if arguments else read_version()
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", version):
        sys.exit(f"invalid version {version!r}: use three numbers, as in 0.7.0")
    for path, text in render(version).items():
        path.write_text(text)
    print(f"version set to {version}; run `make venv`, and add a heading for the version to CHANGELOG.md")


if __name__ == "__main__":
    main(sys.argv[1:])
