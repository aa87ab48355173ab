"""Sphinx's configuration of the documentation site; `make docs` builds it (docs/adr/0024)."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import generated  # noqa: E402
from sphinx.application import Sphinx  # noqa: E402

project = "Fieldlens"
copyright = "Fieldlens, Apache-2.0"
release = metadata.version("fieldlens")
html_title = f"Fieldlens {release}"

# No intersphinx, no analytics, no web fonts: building and reading need no network.
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_static", "img"]
# GitHub's anchors, so that a link works there and on the site.
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
add_module_names = False

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}


def _fill(_app: Sphinx, _page: str, source: list[str]) -> None:
    source[0] = generated.filled(source[0])


def setup(app: Sphinx) -> None:
    """Fill what is made from the code."""
    app.connect("source-read", _fill)
