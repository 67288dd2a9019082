"""A program on a terminal of tmux, which shows what is on its screen."""

import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from support.daemons import clean_env
from support.poll import eventually


class Tmux:
    """A shell on a terminal of its own; `run` types a command."""

    def __init__(self, folder: Path, columns: int, rows: int, **env: str) -> None:
        self._socket = folder / "tmux"
        self._env = clean_env({"TERM": "xterm-256color", "HOME": str(folder), **env})
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(rows), "bash --norc -i")
        self._server = int(self.value("#{pid}"))
        self.shows("bash-")

    def _tmux(self, *words: str) -> str:
        command = ["tmux", "-u", "-S", str(self._socket), *words]
        ran = subprocess.run(command, env=self._env, capture_output=True, text=True, timeout=20, check=True)
        return ran.stdout

    def run(self, *words: str | Path) -> None:
        self.type(shlex.join(map(str, words)), "Enter")

    def type(self, *keys: str) -> None:
        self._tmux("send-keys", *keys)

    def resize(self, columns: int, rows: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def value(self, form: str) -> str:
        return self._tmux("display-message", "-p", form).strip()

    @property
    def screen(self) -> str:
        return self._tmux("capture-pane", "-p")

    @property
    def styled(self) -> str:
        """The screen with the sequences for colours."""
        return self._tmux("capture-pane", "-p", "-e")

    def shows(self, *texts: str) -> str:
        """Wait until the screen shows all these texts; return it."""

        def shown() -> str:
            screen = self.screen
            for text in texts:
                assert text in screen, f"{text!r} is not on the screen:\n{screen}"
            return screen

        return eventually(shown)

    def hides(self, text: str) -> None:
        """Wait until the screen does not show this text."""
        eventually(lambda: text not in self.screen, message=f"{text!r} stays on the screen")

    def close(self) -> None:
        self._tmux("kill-server")
        eventually(self._has_ended)

    def _has_ended(self) -> bool:
        try:
            os.kill(self._server, signal.SIG_DFL)
        except ProcessLookupError:
            return True
        return False


@contextlib.contextmanager
def tmux(folder: Path, columns: int = 100, rows: int = 16, **env: str) -> Iterator[Tmux]:
    """Run a shell on a terminal of this size until the block ends."""
    terminal = Tmux(folder, columns, rows, **env)
    try:
        yield terminal
    finally:
        terminal.close()
