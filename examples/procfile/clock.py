"""Print the time each second."""

import signal
import sys
import time

for signum in (signal.SIGTERM, signal.SIGINT):
    signal.signal(signum, lambda number, frame: sys.exit(0))

while True:
    print(time.strftime("%H:%M:%S"))
    time.sleep(1)
