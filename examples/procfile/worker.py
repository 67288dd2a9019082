"""A worker: does a piece of work each second and says so."""

import itertools
import os
import signal
import sys
import time

for signum in (signal.SIGTERM, signal.SIGINT):
    signal.signal(signum, lambda number, frame: sys.exit(0))

for piece in itertools.count(1):
    print(f"worker {os.getpid()} finished piece {piece}")
    time.sleep(1)
