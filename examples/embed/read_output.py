"""Read three pieces of the stdout of a process, then stop."""

import sys
from pathlib import Path
from typing import Any

from gaffer.loop import Loop
from gaffer.manager import Manager

DUMMY = Path(__file__).resolve().parent.parent / "dummy.py"


def main() -> None:
    manager = Manager(loop=Loop.default_loop())
    pieces = 0

    def somecallback(evtype: str, msg: dict[str, Any]) -> None:
        nonlocal pieces
        print(f"{evtype} of {msg['name']}: {msg['data'].decode().strip()}")
        pieces += 1
        if pieces == 3:
            manager.stop()

    def on_spawn(evtype: str, msg: dict[str, Any]) -> None:
        process = manager.running[msg["pid"]]
        process.monitor_io("stdout", somecallback)

    manager.events.subscribe("proc.dummy.spawn", on_spawn)
    manager.start()
    # the labels are arbitrary: the first is for stdout, the second for stderr
    manager.add_process("dummy", sys.executable, args=[str(DUMMY)], redirect_output=["stdout", "stderr"])
    manager.run()


if __name__ == "__main__":
    main()
