"""The index of the helpers."""

import re
from pathlib import Path

import support


def test_every_helper_is_in_the_index_once() -> None:
    listed = re.findall(r"^- `(\w+)`: \S", support.__doc__ or "", re.MULTILINE)
    folder = Path(__file__).parent
    modules = {path.stem for path in folder.glob("*.py") if not path.stem.startswith(("test_", "__"))}
    assert sorted(listed) == sorted(modules)
