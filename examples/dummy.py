#!/usr/bin/env python3
"""A program that does nothing but say that it is alive."""

import os
import signal
import sys
import time

signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(0))
while True:
    print(f"hello, dummy (pid: {os.getpid()}) is alive", flush=True)
    time.sleep(1)
