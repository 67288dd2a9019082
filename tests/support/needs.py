"""Marks for tests that need more than a Python and a loopback interface.

Where the need is absent the test skips and says why. With GAFFER_TEST_STRICT=1 (see .ci/run) it fails instead,
as every other skip does (tests/conftest.py), so that a machine that lost a need is noticed.
"""

import functools
import glob
import grp
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from support.docker import BASE_IMAGE, COMPOSE, DOCKER
from support.strangers import STRANGER

STRICT = os.environ.get("GAFFER_TEST_STRICT") == "1"

NGINX = "/usr/sbin/nginx"
SYSTEMD = "/lib/systemd/systemd"


def _need(name: str, missing: Callable[[], str | None]) -> pytest.MarkDecorator:
    return pytest.mark.needs.with_args(name, functools.cache(missing))


def _no_root() -> str | None:
    return None if os.geteuid() == 0 else "needs root"


def _no_docker() -> str | None:
    for program in (DOCKER, COMPOSE):
        if not os.access(program, os.X_OK):
            return f"needs docker: {program} is missing (apt-get install docker.io docker-compose)"
    answer = _try([DOCKER, "info"])
    return f"needs docker: {answer}" if answer else None


def _no_base_image() -> str | None:
    if _try([DOCKER, "image", "inspect", BASE_IMAGE]) and (_no_root() or not shutil.which("debootstrap")):
        return f"needs the image {BASE_IMAGE}, or root and debootstrap (apt-get install debootstrap) to make it"
    return None


def _no_netns() -> str | None:
    answer = _try(["unshare", "--net", "ip", "link", "set", "lo", "up"])
    return f"needs network namespaces: {answer}" if answer else None


def _no_userns() -> str | None:
    answer = _no_root() or _try(["setpriv", "--reuid", "65534", "--clear-groups", "unshare", "--user", "true"])
    return f"needs user namespaces for all users: {answer}" if answer else None


def _no_pidns() -> str | None:
    answer = _try(["unshare", "--pid", "--fork", "true"])
    return f"needs PID namespaces: {answer}" if answer else None


def _no_mount() -> str | None:
    answer = _try(["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"])
    return f"needs mount(2): {answer}" if answer else None


def _no_systemd() -> str | None:
    return None if os.access(SYSTEMD, os.X_OK) else "needs systemd (apt-get install systemd)"


def _no_tmux() -> str | None:
    return None if shutil.which("tmux") else "needs tmux (apt-get install tmux)"


def _no_zsh() -> str | None:
    return None if shutil.which("zsh") else "needs zsh (apt-get install zsh)"


def _no_fish() -> str | None:
    return None if shutil.which("fish") else "needs fish (apt-get install fish)"


def _no_iptables() -> str | None:
    answer = _try(["unshare", "--net", "iptables", "--list"])
    return f"needs iptables in network namespaces: {answer}" if answer else None


def _no_browser() -> str | None:
    return None if shutil.which("chromium") else "needs chromium (apt-get install chromium)"


def _no_nginx() -> str | None:
    return None if os.access(NGINX, os.X_OK) else "needs nginx (apt-get install nginx-light)"


def _no_prometheus() -> str | None:
    return None if shutil.which("prometheus") else "needs prometheus (apt-get install prometheus)"


def _no_curl() -> str | None:
    return None if shutil.which("curl") else "needs curl (apt-get install curl)"


def _no_cgroup() -> str | None:
    mounts = Path("/proc/self/mountinfo")
    points = (
        [line.split()[4] for line in mounts.read_text().splitlines() if "- cgroup2 " in line] if mounts.exists() else []
    )
    if not points:
        return "needs control groups of version 2"
    return None if os.access(points[0], os.W_OK) else f"needs {points[0]} to be writable"


def _no_faketime() -> str | None:
    return None if faketime_library() else "needs libfaketime (apt-get install faketime)"


def faketime_library() -> str | None:
    """Debian's libfaketime for programs with threads."""
    return next(iter(glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")), None)


def _no_shared_group() -> str | None:
    return None if shared_group() is not None else "needs a group that is not our user's own, or root"


def shared_group() -> int | None:
    """A group that this user can give files to and that others can be in; None when it is in no such group.

    The group that useradd(8) makes for a user is not shared.
    """
    if os.geteuid() == 0:
        return STRANGER
    user = pwd.getpwuid(os.geteuid())
    groups = {os.getegid(), *os.getgroups()}
    if user.pw_gid in groups and grp.getgrgid(user.pw_gid).gr_name == user.pw_name:
        groups.remove(user.pw_gid)
    return min(groups, default=None)


def _no_linux() -> str | None:
    return None if sys.platform == "linux" else "needs Linux"


def _try(argv: list[str]) -> str | None:
    """Why `argv` can't be run here, None when it can."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return None
    return (done.stderr.strip().splitlines() or [f"{argv[0]} ended with {done.returncode}"])[-1]


needs_linux = _need("linux", _no_linux)
needs_cgroup = _need("cgroup", _no_cgroup)
needs_root = _need("root", _no_root)
needs_docker = _need("docker", _no_docker)
needs_base_image = _need("base image", _no_base_image)
needs_netns = _need("netns", _no_netns)
needs_pidns = _need("pidns", _no_pidns)
needs_mount = _need("mount", _no_mount)
needs_userns = _need("userns", _no_userns)
needs_systemd = _need("systemd", _no_systemd)
needs_iptables = _need("iptables", _no_iptables)
needs_tmux = _need("tmux", _no_tmux)
needs_zsh = _need("zsh", _no_zsh)
needs_fish = _need("fish", _no_fish)
needs_browser = _need("browser", _no_browser)
needs_nginx = _need("nginx", _no_nginx)
needs_prometheus = _need("prometheus", _no_prometheus)
needs_curl = _need("curl", _no_curl)
needs_faketime = _need("faketime", _no_faketime)
needs_shared_group = _need("shared group", _no_shared_group)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        _name, missing = mark.args
        if reason := missing():
            pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if STRICT and report.skipped and not hasattr(report, "wasxfail"):
        _fail(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if STRICT and report.skipped:
        _fail(report)
    return report


def _fail(report: pytest.TestReport | pytest.CollectReport) -> None:
    assert isinstance(report.longrepr, tuple)  # that of a skip
    _file, _line, reason = report.longrepr
    report.outcome = "failed"
    report.longrepr = f"{reason} (a skip is a failure here: GAFFER_TEST_STRICT=1)"
