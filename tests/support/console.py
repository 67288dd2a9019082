"""Commands on a terminal of their own, or with a pipe for output."""

import contextlib
import os
import pty
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from support.daemons import clean_env, command_path
from support.poll import eventually


class Terminal:
    """A program on a terminal of its own, as the leader of its session; `text` is what the terminal shows."""

    def __init__(self, *words: str | Path, cwd: Path, **env: str) -> None:
        self.text = ""
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            # setsid -c makes the terminal the controlling one
            ["setsid", "-c", *words],
            cwd=cwd,
            env=clean_env({"TERM": "xterm", **env}),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        # EIO: nobody has the terminal open any more.
        with contextlib.suppress(OSError):
            while data := os.read(self._ours, 65536):
                self.text += data.decode(errors="replace").replace("\r\n", "\n")

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def shows(self, pattern: str) -> re.Match[str]:
        return eventually(lambda: re.search(pattern, self.text), message=f"{pattern!r} is not in {self.text!r}")

    def wait(self) -> int:
        code = self.process.wait(10)
        self._reader.join(10)
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(10)
        self._reader.join(10)
        os.close(self._ours)


@contextlib.contextmanager
def piped(app: Path, *args: str, **env: str) -> Iterator["subprocess.Popen[str]"]:
    """Run `gaffer` with these arguments without a terminal."""
    command = [command_path("gaffer"), *args]
    with subprocess.Popen(
        command, cwd=app, env=clean_env(env), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def until(process: "subprocess.Popen[str]", text: str) -> list[str]:
    """Read lines of its output until one contains `text`, and return them."""
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if text in line:
            return lines
    raise AssertionError(f"{text!r} does not come; it wrote {lines}")
