"""Measure commands as whole processes, in turn with the imports that a small HTTP client in Python can't avoid.

python bench/commands.py [--rounds 15] [--processes 200] [--supervisor DIRECTORY]

DIRECTORY holds `supervisord` and `supervisorctl`, which then list as many processes.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from _measure import BIN, daemon, installed_environment, pairs, show, show_ratio

FLOOR = (sys.executable, "-c", "import http.client, json, docopt")

_SUPERVISORD = """
[unix_http_server]
file={folder}/supervisor.sock
[supervisord]
logfile={folder}/supervisord.log
pidfile={folder}/supervisord.pid
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://{folder}/supervisor.sock
[program:web]
command=sleep 1000
numprocs={processes}
process_name=%(program_name)s_%(process_num)03d
stdout_logfile=NONE
stderr_logfile=NONE
"""


def running(words: Sequence[str], env: Mapping[str, str]) -> float:
    """Return the seconds that a command takes from its start to its end."""
    began = time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, env=env)
    return time.perf_counter() - began


@contextlib.contextmanager
def supervisor(programs: Path, processes: int) -> Iterator[list[str]]:
    """Run supervisord; yield the command that lists its processes."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "supervisord.conf")
        config.write_text(_SUPERVISORD.format(folder=folder, processes=processes))
        daemon = subprocess.Popen(
            [str(programs / "supervisord"), "-n", "-c", str(config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        words = [str(programs / "supervisorctl"), "-c", str(config), "status"]
        try:
            while True:
                listed = subprocess.run(words, capture_output=True, text=True, check=False).stdout
                if listed.count("RUNNING") == processes:
                    break
                time.sleep(0.2)
            yield words
        finally:
            daemon.terminate()
            daemon.wait(60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--processes", type=int, default=200)
    parser.add_argument("--supervisor", type=Path)
    chosen = parser.parse_args()
    with daemon("gafferd") as node:
        job = {"name": "web", "cmd": "sleep 1000", "numprocesses": chosen.processes}
        node.call("POST", "/jobs/shop", job)
        while len(node.call("GET", "/pids")["pids"]) < chosen.processes:
            time.sleep(0.1)
        env = {**installed_environment(), "GAFFER_ENDPOINT": node.url, "HOME": os.devnull}
        floor = partial(running, FLOOR, env)
        for words in (["ps", "shop"], ["status"], ["apps"], ["scale", "shop", f"web={chosen.processes}"], ["help"]):
            ours, imports = pairs(partial(running, [str(BIN / "gaffer"), *words], env), floor, chosen.rounds)
            show(f"gaffer {' '.join(words)}", ours)
            show("import http.client, json, docopt", imports)
            show_ratio("ratio", ours, imports)
        if chosen.supervisor is not None:
            with supervisor(chosen.supervisor, chosen.processes) as listing:
                theirs = partial(running, listing, env)
                ours, others = pairs(partial(running, [str(BIN / "gaffer"), "ps", "shop"], env), theirs, chosen.rounds)
                show("gaffer ps", ours)
                show("supervisorctl status", others)
                show_ratio("ratio", ours, others)


if __name__ == "__main__":
    main()
