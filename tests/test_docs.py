"""What the pages show works as it stands there; see tests/common/test_examples.py for the programs."""

import re
import textwrap
from pathlib import Path

import pytest

from gafferd.config.file import load_config

DOCS = Path(__file__).parents[1] / "docs"


def test_the_job_in_a_file(tmp_path: Path) -> None:
    [text] = re.findall(r"^```ini\n(.*?)^```$", (DOCS / "laptop.md").read_text(), re.MULTILINE | re.DOTALL)
    file = tmp_path / "gafferd.ini"
    file.write_text(text)
    config = load_config(file)
    assert len(config.jobs) == 1
    assert not config.warnings


def test_the_two_formats_of_a_configuration(tmp_path: Path) -> None:
    page = (DOCS / "configuration.md").read_text()
    (tmp_path / "jobs.d").mkdir()
    found = {}
    for suffix in ("ini", "yaml"):
        [text] = re.findall(rf"^[* ] - ```{suffix}\n(.*?)^    ```$", page, re.MULTILINE | re.DOTALL)
        (tmp_path / f"gafferd.{suffix}").write_text(textwrap.dedent(text))
        found[suffix] = load_config(tmp_path / f"gafferd.{suffix}")
    ini, yaml = found["ini"], found["yaml"]
    assert (yaml.settings, yaml.endpoints, yaml.webhooks) == (ini.settings, ini.endpoints, ini.webhooks)
    assert list(yaml.jobs.items()) == list(ini.jobs.items())
    assert len(ini.jobs) == 3
    assert (ini.warnings, yaml.warnings) == ((), ())


@pytest.mark.parametrize(
    "text", re.findall(r"^```ini\n(.*?)^```$", (DOCS / "supervision.md").read_text(), re.MULTILINE | re.DOTALL)
)
def test_each_job_of_the_page_on_supervision(tmp_path: Path, text: str) -> None:
    file = tmp_path / "gafferd.ini"
    file.write_text(text)
    config = load_config(file)
    assert len(config.jobs) == text.count("[process:")
    assert not config.warnings
