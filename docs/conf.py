"""Sphinx: `make docs` builds docs/_build/html."""

import sys
from pathlib import Path

import gaffer

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "Gaffer"
version = release = gaffer.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "reference"]
exclude_patterns = ["_build", "_ext", "requirements.txt"]

html_theme = "furo"
html_title = f"Gaffer {version}"
html_static_path = ["_static"]
html_extra_path = ["../deploy/gafferd.schema.json"]
html_css_files = ["gaffer.css"]
html_show_copyright = False
html_show_sourcelink = False
html_copy_source = False

myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True}
python_maximum_signature_line_length = 100
# Docstrings use single backticks for names.
default_role = "code"
# Two classes are named Process, and annotations that only type checkers resolve are ambiguous.
suppress_warnings = ["ref.python"]
