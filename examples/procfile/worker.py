"""Complete a unit of work each second."""

import itertools
import os
import signal
import sys
import time

for signum in (signal.SIGTERM, signal.SIGINT):
    signal.signal(signum, lambda number, frame: sys.exit(0))

for unit in itertools.count(1):
    print(f"worker {os.getpid()} completed unit {unit}")
    time.sleep(1)
