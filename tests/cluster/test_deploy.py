"""The configurations that we ship are good, with their examples on as well as off."""

import re
from pathlib import Path

import pytest

from gafferd.config import load_config

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", ["deploy/gafferd.ini", "deploy/compose/gafferd.ini"])
def test_configuration_as_it_is(path: str) -> None:
    config = load_config(ROOT / path)

    assert config.jobs
    assert config.warnings == ()


def test_configuration_with_its_examples(tmp_path: Path) -> None:
    text = (ROOT / "deploy/gafferd.ini").read_text().replace("/etc/gaffer", str(tmp_path))
    text, examples = re.subn("^; (?=[a-z_]+ = )", "", text, flags=re.MULTILINE)
    for name in ("node.crt", "node.key", "cluster.key", "api.key"):
        (tmp_path / name).touch()
    (tmp_path / "gafferd.ini").write_text(text)

    config = load_config(tmp_path / "gafferd.ini")

    assert len(config.settings) == examples
    assert config.warnings == ()
