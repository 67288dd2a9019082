"""Wheels for installing the packages without an index, made once for all workers of a test session."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import release
from metadata import ROOT


def built_wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the source distributions of the four packages, and the wheels built from these."""
    return _once(tmp_path_factory, "packages", release.build)


def dependency_wheels(tmp_path_factory: pytest.TempPathFactory, python: str) -> Path:
    """Return a directory with wheels of all that the packages depend on, as locked, for this interpreter."""
    requirements = ("--require-hashes", "--requirement", ROOT / "constraints/packages.txt")

    def make(target: Path) -> None:
        pip = (sys.executable, "-m", "pip", "--python", python, "--quiet", "--disable-pip-version-check")
        subprocess.run([*pip, "wheel", *requirements, "--wheel-dir", target], check=True, timeout=200)

    return _once(tmp_path_factory, f"dependencies{python.replace('/', '-')}", make)


def _once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # that of the session
    target = base / name
    with open(base / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            unfinished = base / f"{name}.unfinished"
            make(unfinished)
            unfinished.rename(target)
    return target
