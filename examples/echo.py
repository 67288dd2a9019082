#!/usr/bin/env python3
"""Copy stdin to stdout, line by line."""

import signal
import sys

signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(0))
for line in sys.stdin.buffer:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()
