"""What `import gaffer` gives."""

import subprocess
import sys

import pytest

import gaffer
from gaffer.manager import Manager
from gaffer.plugin import Plugin


@pytest.mark.row("FEAT-20")
def test_the_names_at_the_top() -> None:
    assert gaffer.Manager is Manager
    assert gaffer.Plugin is Plugin
    assert gaffer.__version__ == ".".join(map(str, gaffer.version_info))


def test_the_manager_is_imported_when_it_is_asked_for() -> None:
    there = "print('gaffer.manager' in sys.modules)"
    code = f"import gaffer, sys; {there}; gaffer.Manager; {there}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.split() == ["False", "True"]
