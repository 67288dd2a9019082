#!/usr/bin/env python3
"""Exchange a message with the process `echo` of gaffer.ini over a websocket.

gafferd -c gaffer.ini
python echo_client.py [URL]
"""

import sys

from gaffer_client import Server
from gaffer_client.connection import Connection
from gaffer_client.errors import GafferClientError

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:5000"
try:
    with Server(url) as server:
        pid = server.get_job("echo").pids[0]
        with Connection(server.transport, f"/wstreams/{pid}") as websocket:
            websocket.send("ECHO\n")
            print("Sent")
            print("Receiving...")
            answer = websocket.receive(10)
            print(f"Received '{answer.decode() if isinstance(answer, bytes) else answer}'")
except GafferClientError as error:
    sys.exit(f"echo_client.py: {error}")
