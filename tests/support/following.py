"""Commands that go on until Ctrl-C, as subprocesses: the lines that they have printed so far."""

import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from support.daemons import clean_env, command_path


class Following:
    """A running command; `lines` grows."""

    def __init__(self, name: str, *args: str) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [command_path(name), *args],
            env=clean_env(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            for line in stream:
                self.lines.append(line.rstrip("\n"))

    def interrupt(self) -> tuple[int, str]:
        """Ctrl-C; the exit status, and what stands on stderr."""
        self.process.send_signal(signal.SIGINT)
        return self.wait()

    def wait(self) -> tuple[int, str]:
        """Wait for the end; the exit status, and what stands on stderr."""
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            status = self.process.wait(10)
            self._reader.join(10)
            return status, stream.read()


@contextmanager
def following(name: str, *args: str) -> Iterator[Following]:
    """Run a command until the block ends."""
    running = Following(name, *args)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
            running.wait()
