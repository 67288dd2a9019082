"""Run an application that prints process events and stops the manager after the third exit."""

import asyncio
from typing import Any

from gaffer.loop import Loop
from gaffer.manager import Manager
from gaffer.process import ProcessConfig


class MyApplication:
    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.exits = 0

    def start(self, loop: asyncio.AbstractEventLoop, manager: Manager) -> None:
        """Called by the manager when it starts."""
        self.manager = manager
        manager.events.subscribe("spawn", self.on_event)
        manager.events.subscribe("exit", self.on_event)

    def stop(self) -> None:
        """Called when the manager stops, after all processes have exited."""
        print("stopped after", self.exits, "exits")

    def restart(self) -> None:
        """Called when the manager restarts."""

    def on_event(self, evtype: str, msg: dict[str, Any]) -> None:
        print(evtype, msg["name"], msg["os_pid"])
        if evtype == "exit":
            self.exits += 1
            if self.exits == self.limit:
                self.manager.stop()


def main() -> None:
    manager = Manager(loop=Loop.default_loop())
    manager.start(apps=[MyApplication(limit=3)])
    manager.load(ProcessConfig("nap", "sleep", args=["0.1"]))
    manager.run()


if __name__ == "__main__":
    main()
