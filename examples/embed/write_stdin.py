"""Write to the stdin of a process from two threads, and read its output."""

import sys
import threading
from pathlib import Path
from typing import Any

from gaffer.loop import Loop
from gaffer.manager import Manager

ECHO = Path(__file__).resolve().parent.parent / "echo.py"


def main() -> None:
    manager = Manager(loop=Loop.default_loop())
    received: list[str] = []

    def on_output(evtype: str, msg: dict[str, Any]) -> None:
        received.extend(msg["data"].decode().split())
        if len(received) == 4:
            print("received:", *sorted(received))
            manager.stop()

    def on_spawn(evtype: str, msg: dict[str, Any]) -> None:
        process = manager.running[msg["pid"]]
        process.monitor_io("out", on_output)
        process.write("somedata\n")
        process.writelines(["line1\n", "line2\n"])
        threading.Thread(target=process.write, args=["thread\n"]).start()

    manager.events.subscribe("proc.echo.spawn", on_spawn)
    manager.start()
    manager.add_process("echo", sys.executable, args=[str(ECHO)], redirect_output=["out"], redirect_input=True)
    manager.run()


if __name__ == "__main__":
    main()
