"""The start of a daemon: what is set up once, in a process of its own."""

import subprocess
import sys

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
