"""A clock: prints the time each second."""

import signal
import sys
import time

signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(0))
while True:
    print(time.strftime("%H:%M:%S"))
    time.sleep(1)
