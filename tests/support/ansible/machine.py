"""A connection plugin of Ansible: hosts are machines of `support.machines`."""

import shutil

from ansible.plugins.connection.local import Connection as LocalConnection

DOCUMENTATION = """
name: machine
short_description: Run commands in the namespaces of a process
description: What a task does is done as root in all namespaces of the process.
author: The Gaffer developers
options:
  machine_pid:
    description: The process.
    type: int
    required: true
    vars: [{name: machine_pid}]
extends_documentation_fragment: [connection_pipelining]
"""


class Connection(LocalConnection):
    """Runs commands where the process of `machine_pid` is."""

    transport = "machine"

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        inside = f"nsenter --target {self.get_option('machine_pid')} --all {cmd}"
        done: tuple[int, bytes, bytes] = super().exec_command(inside, in_data, sudoable)
        return done

    def put_file(self, in_path: str, out_path: str) -> None:
        shutil.copyfile(in_path, f"/proc/{self.get_option('machine_pid')}/root{out_path}")
