"""What listens on this host."""

import os
import socket

import pytest

from gaffer.processes.ports import listener_on
from support.needs import needs_linux


@needs_linux
@pytest.mark.parametrize(
    ("family", "host"),
    [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET, ""), (socket.AF_INET6, "::1"), (socket.AF_INET6, "::")],
)
def test_a_listener_of_any_address(family: socket.AddressFamily, host: str) -> None:
    before = os.listdir("/dev/fd")
    with socket.socket(family) as listener:
        listener.bind((host, 0))
        port = listener.getsockname()[1]
        assert not listener_on(port)
        listener.listen()
        assert listener_on(port)
        with socket.create_connection((host or "127.0.0.1", port)) as client:
            assert not listener_on(client.getsockname()[1])
            listener.close()
            assert not listener_on(port)
    assert os.listdir("/dev/fd") == before
