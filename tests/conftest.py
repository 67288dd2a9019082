"""Loads what applies to every test: the checks for leaks, the marks for what a test needs, how hypothesis searches."""

import os

from hypothesis import settings

pytest_plugins = ("pytester", "support.browser", "support.leaks", "support.needs")

# A verdict must depend on the code alone; `--hypothesis-profile=search` is the run that looks for new examples.
settings.register_profile("default", deadline=None, derandomize=bool(os.environ.get("GAFFER_TEST_STRICT")))
settings.register_profile("search", deadline=None, max_examples=3000)
settings.load_profile("default")
