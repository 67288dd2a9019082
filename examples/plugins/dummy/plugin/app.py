"""The application of the plugin."""

import asyncio

from gaffer import Manager


class DummyApp:
    """An application that only prints."""

    def start(self, loop: asyncio.AbstractEventLoop, manager: Manager) -> None:
        print("start dummy app", flush=True)

    def stop(self) -> None:
        print("stop dummy", flush=True)

    def restart(self) -> None:
        print("restart dummy", flush=True)
