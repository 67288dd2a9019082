"""Run a manager with the HTTP API: python control_over_http.py [ADDRESS]. Stop it with Ctrl-C.

In another terminal: gafferctl processes; curl http://127.0.0.1:5000/status/dummy
"""

import sys
from pathlib import Path

from gaffer.http_handler import HttpEndpoint, HttpHandler
from gaffer.loop import Loop
from gaffer.manager import Manager
from gaffer.process import ProcessConfig
from gaffer.sig_handler import SigHandler

DUMMY = Path(__file__).resolve().parent.parent / "dummy.py"


def main() -> None:
    address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:5000"

    # initialize the manager with the default loop
    loop = Loop.default_loop()
    manager = Manager(loop=loop)

    # start the manager with its applications
    http = HttpHandler(endpoints=[HttpEndpoint(uri=address)])
    manager.start(apps=[SigHandler(), http])

    # load a process template
    manager.load(ProcessConfig("dummy", sys.executable, args=[str(DUMMY)], numprocesses=2))
    print("serving on", *http.addresses, flush=True)

    # run the event loop until the manager has stopped
    manager.run()


if __name__ == "__main__":
    main()
