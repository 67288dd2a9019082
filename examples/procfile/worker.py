"""A worker: does a piece of work each second and says so."""

import itertools
import os
import signal
import sys
import time

signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(0))
for piece in itertools.count(1):
    print(f"worker {os.getpid()} finished piece {piece}")
    time.sleep(1)
