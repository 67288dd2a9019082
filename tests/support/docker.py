"""Images and containers for tests, through Debian's docker and docker-compose.

As a program it makes the images that tests need; it does without any package.
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Debian's client, by its path: another `docker` earlier on PATH may be a wrapper that knows no daemon.
DOCKER = "/usr/bin/docker"
COMPOSE = "/usr/bin/docker-compose"
BASE_IMAGE = "debian:bookworm-slim"
ROOT = Path(__file__).parents[2]
CERTIFICATES = Path("/usr/local/share/ca-certificates")
UNUSED = ("usr/share/doc", "usr/share/locale", "usr/share/man", "var/lib/apt/lists")  # the real image lacks them too
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


def run(command: Sequence[str | Path], timeout: float = 120) -> str:
    """Run a command in the checkout; return its stdout. AssertionError with all it wrote when it fails."""
    done = subprocess.run(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False
    )
    shown = " ".join(map(str, command))
    assert done.returncode == 0, f"`{shown}` ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def has_base_image() -> bool:
    """Whether the daemon has the image that ours is built from."""
    return subprocess.run([DOCKER, "image", "inspect", BASE_IMAGE], capture_output=True, timeout=30).returncode == 0


def make_base_image() -> None:
    """Make the base image with debootstrap, for hosts that can't pull it; it trusts whom this host trusts.

    It stays with the docker daemon, so that only the first run takes the time.
    """
    with tempfile.TemporaryDirectory(prefix="base-image-") as temporary:
        root = Path(temporary)
        root.chmod(0o755)
        run(["debootstrap", "--variant=minbase", "bookworm", root], timeout=400)
        run(["chroot", root, "apt-get", "clean"])
        for folder in UNUSED:
            shutil.rmtree(root / folder)
        if CERTIFICATES.is_dir():
            shutil.copytree(CERTIFICATES, root / CERTIFICATES.relative_to("/"), dirs_exist_ok=True)
        with subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE) as tar:
            subprocess.run(
                [DOCKER, "import", "--change", f"ENV PIP_CERT={BUNDLE}", "-", BASE_IMAGE],
                stdin=tar.stdout,
                capture_output=True,
                timeout=200,
                check=True,
            )
        assert tar.returncode == 0


def build_image(tag: str) -> None:
    """Build our image from this checkout."""
    # The host's network: the daemon of a test machine may have no way out of its bridge.
    run([DOCKER, "build", "--network", "host", "-f", "deploy/Dockerfile", "-t", tag, "."], timeout=500)


def make_images() -> None:
    """Make the base image, unless the daemon has one, and ours."""
    if not has_base_image():
        make_base_image()
    build_image("gaffer")


class Compose:
    """The cluster of docker-compose.yml, or of several files, as a project of its own."""

    def __init__(self, project: str, *files: str) -> None:
        self.project = project
        self._files = [f"--file={file}" for file in files]

    def __call__(self, *args: str, timeout: float = 120) -> str:
        """Run docker-compose; return its stdout."""
        return run([COMPOSE, "--project-name", self.project, *self._files, *args], timeout)

    def state(self, service: str) -> Any:
        """What docker says of the state of a container."""
        return json.loads(
            run([DOCKER, "inspect", "--format={{json .State}}", self("ps", "--all", "--quiet", service).strip()])
        )

    def exec(self, service: str, *command: str) -> str:
        """Run a command in a container; return its stdout."""
        return self("exec", "-T", service, *command)


if __name__ == "__main__":
    make_images()
