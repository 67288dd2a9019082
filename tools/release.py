"""Build source distributions and wheels of the four packages in dist/, check and test them: `make release`."""

import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

from metadata import PACKAGES, ROOT, find_stale, read_version
from packaging.metadata import Metadata

COMMANDS = ("gaffer", "gafferctl", "gafferd", "gaffer_lookupd")


def run(*command: str | Path) -> str:
    """Run a command with inherited stderr; return its output, or raise CalledProcessError if it fails."""
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=300, check=True).stdout


def build(target: Path) -> None:
    """Build every source distribution, and every wheel from its source distribution, in the directory `target`."""
    with TemporaryDirectory() as copies:
        for folder in PACKAGES:
            # A build in the checkout would write there and include files left by an earlier build.
            copy = Path(copies, folder)
            shutil.copytree(ROOT / folder, copy, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
            run(sys.executable, "-m", "build", "--quiet", "--no-isolation", "--outdir", target, copy)


def find_problems(target: Path) -> Iterator[str]:
    """Yield a message for each problem with the files in `target`."""
    version = read_version()
    for folder, module in PACKAGES.items():
        name = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]["name"]
        stem = f"{name.replace('-', '_')}-{version}"
        info = f"{stem}.dist-info"
        wheel, sdist = target / f"{stem}-py3-none-any.whl", target / f"{stem}.tar.gz"
        files = [f"{module}/py.typed", *_find_pages(folder)]
        required = {
            wheel: [f"{info}/METADATA", f"{info}/licenses/LICENSE", *files],
            sdist: [
                f"{stem}/{file}" for file in ("PKG-INFO", "LICENSE", "README.md", *(f"src/{file}" for file in files))
            ],
        }
        readme = (ROOT / folder / "README.md").read_text()
        for path, needed in required.items():
            if not path.exists():
                yield f"{path.name} is missing"
                continue
            contents = _read_archive(path)
            yield from (f"{path.name} has no {file}" for file in needed if file not in contents)
            yield from (f"{path.name} contains test {file}" for file in contents if _is_test(file))
            yield from _find_metadata_problems(path.name, contents.get(needed[0], b""), readme)


def _find_pages(folder: str) -> list[str]:
    """Return the files of the dashboard in a package, by their path in the wheel."""
    source = ROOT / folder / "src"
    return [path.relative_to(source).as_posix() for path in source.glob("*/ui/static/**/*") if path.is_file()]


def _read_archive(path: Path) -> dict[str, bytes]:
    if path.suffix == ".whl":
        with ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    with tarfile.open(path) as archive:
        return {member.name: file.read() for member in archive if (file := archive.extractfile(member))}


def _is_test(name: str) -> bool:
    return any(part == "tests" or part.startswith(("test_", "conftest.")) for part in Path(name).parts)


def _find_metadata_problems(name: str, text: bytes, readme: str) -> Iterator[str]:
    try:
        metadata = Metadata.from_email(text, validate=True)
    except ExceptionGroup as error:
        yield from (f"{name}: {problem}" for problem in error.exceptions)
        return
    if (metadata.description or "").strip() != readme.strip():
        yield f"{name}: the description differs from README.md"
    if metadata.license_files != ["LICENSE"]:
        yield f"{name}: LICENSE is not listed in the metadata"


def try_out(wheels: Path) -> None:
    """Install the wheels with the releases in constraints/, run all commands and import all packages."""
    with TemporaryDirectory() as path:
        venv.create(path)
        binaries = Path(path, "bin")
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", binaries / "python")
        install = (*pip, "install", "--quiet", "--no-build-isolation")
        for dependencies in ("build", "packages"):
            run(*install, "--require-hashes", "-r", ROOT / "constraints" / f"{dependencies}.txt")
        run(*install, "--no-deps", *wheels.glob("*.whl"))
        run(*pip, "check")
        for command in COMMANDS:
            print(run(binaries / command, "--version").strip())
        for module in PACKAGES.values():
            run(binaries / "python", "-I", "-c", f"import {module}")


def main() -> None:
    """Recreate dist/ from the commit that is checked out; exit with 1 and a message on problems."""
    if changed := run("git", "-C", ROOT, "status", "--porcelain"):
        sys.exit(f"uncommitted changes; commit or remove them first:\n{changed}")
    if stale := find_stale():
        sys.exit(f"outdated metadata; run `make version`: {', '.join(str(path.relative_to(ROOT)) for path in stale)}")
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    build(dist)
    if problems := list(find_problems(dist)):
        sys.exit("\n".join(problems))
    try_out(dist)
    print(*sorted(path.relative_to(ROOT) for path in dist.iterdir()), sep="\n")


if __name__ == "__main__":
    main()
