"""Print five measurements of the statistics of a job's processes, then stop."""

import sys
from typing import Any

from gaffer.loop import Loop
from gaffer.manager import Manager
from gaffer.process import ProcessConfig


def main() -> None:
    manager = Manager(loop=Loop.default_loop())
    seen = 0

    def listener(evtype: str, msg: dict[str, Any]) -> None:
        nonlocal seen
        print(evtype, msg["pid"], f"{msg['cpu']} % CPU, {msg['mem']} % of memory, {msg['mem_info1']}")
        seen += 1
        if seen == 5:
            manager.unmonitor("busy", listener)
            manager.stop()

    manager.start()
    manager.load(ProcessConfig("busy", sys.executable, args=["-c", "while True: pass"], numprocesses=2))
    manager.monitor("busy", listener)
    manager.run()


if __name__ == "__main__":
    main()
