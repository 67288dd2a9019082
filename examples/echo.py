#!/usr/bin/env python3
"""A program that writes back what it reads, line by line."""

import signal
import sys

signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(0))
for line in sys.stdin.buffer:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()
