#!/usr/bin/env python3
"""Print a message to stdout and a counter to stderr each second."""

import itertools
import os
import signal
import sys
import time

signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(0))
for number in itertools.count(1):
    print(f"hello, dummy (pid: {os.getpid()}) is alive", flush=True)
    print(f"STDERR {number}", file=sys.stderr, flush=True)
    time.sleep(1)
