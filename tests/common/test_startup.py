"""The start of a daemon or a command: what is set up once, in a process of its own."""

import subprocess
import sys
from pathlib import Path

SPARED = """
import gc
from gaffer.runtime import startup
gc.disable()
startup.spare_collector()
print(gc.isenabled(), gc.get_freeze_count() > 1000)
"""


def test_objects_of_the_start_are_exempt_from_garbage_collection() -> None:
    answer = subprocess.run([sys.executable, "-c", SPARED], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["True", "True"]


INTERRUPTED_WHILE_NAMING = """
import signal

class Name:
    def __set_name__(self, owner, name):
        signal.raise_signal(signal.SIGINT)

def command():
    class Owner:
        name = Name()
"""


def test_an_interrupt_while_a_class_is_made_ends_a_command_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "naming.py").write_text(INTERRUPTED_WHILE_NAMING)
    run = "from gaffer.runtime.startup import run_command; run_command('naming', 'command')"
    ended = subprocess.run([sys.executable, "-c", run], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stderr) == (130, "")
