"""How Sphinx builds the documentation: `tox -e docs`, or `sphinx-build docs build/docs`."""

from __future__ import annotations

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS / "_ext"))

import robustok_core  # noqa: E402

project = "robustok"
author = "The robustok authors"
project_copyright = "the robustok authors, Apache-2.0"
release = version = robustok_core.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "sphinx_gallery.gen_gallery",
    "component_options",
    "new_pages",
    "plain_docstrings",
    "public_names",
    "recipe_pages",
]
exclude_patterns = ["tutorial"]  # the build reads what it makes of it, auto_tutorial

# Docstrings put names in single backticks, and say what they return and raise in Google's style.
default_role = "literal"
smartquotes_action = "D"  # dashes, but no curly quotes: values are copied into recipes
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True  # attributes as a list of fields; autodoc describes the same names as members

# Markdown as GitHub renders it, with anchors for headings.
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 4

sphinx_gallery_conf = {
    "examples_dirs": "tutorial",
    "gallery_dirs": "auto_tutorial",
    "filename_pattern": r"\.py$",
    "image_scrapers": ("matplotlib",),
    "capture_repr": (),
    "min_reported_time": 10**9,  # what it took depends on the machine
    "show_signature": False,
    "write_computation_times": False,
    "abort_on_example_error": True,
}

html_theme = "furo"
html_title = f"robustok {release}"
html_static_path = ["_static"]
html_css_files = ["robustok.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}
