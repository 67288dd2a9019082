"""What the pages show works as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

from gafferd.config import load_config

DOCS = Path(__file__).parents[1] / "docs"


def only_block(page: str, language: str) -> str:
    [block] = re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
    return block


def test_the_embedded_manager_runs() -> None:
    program = only_block("embedding.md", "python").replace("127.0.0.1:5000", "127.0.0.1:0")
    # Its process is killed as soon as it is there, and its end stops the manager.
    program = program.replace(
        "manager.run()",
        "manager.events.subscribe('spawn', lambda event, message: manager.killall('shop.echo', 'TERM'))\n"
        "manager.events.subscribe('exit', lambda event, message: manager.stop())\n"
        "manager.run()",
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert done.stderr == ""
    assert done.stdout.startswith("exit {")
    assert "'name': 'shop.echo'" in done.stdout


def test_the_job_in_a_file_is_understood(tmp_path: Path) -> None:
    file = tmp_path / "gafferd.ini"
    file.write_text(only_block("laptop.md", "ini"))
    config = load_config(file)
    assert len(config.jobs) == 1
    assert not config.warnings
