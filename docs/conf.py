"""Settings of the documentation site: ``make -C docs html``."""

import pathlib
import sys
from importlib import metadata

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE / "extensions"))

project = "ltjax"
author = "the ltjax authors"
release = metadata.version("ltjax")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "mathml",
    "pages",
]
exclude_patterns = ["_build", "extensions"]

# Pages in Markdown, some of them executed.
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE / "_build" / "executed")
nb_execution_raise_on_error = True
nb_execution_timeout = 300
copybutton_exclude = ".linenos, .gp, .go"

# The API reference.
default_role = "py:obj"
autodoc_typehints = "none"  # docstrings give types, shapes and ranges
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_rtype = False

# Looks.
html_theme = "sphinx_book_theme"
html_title = "ltjax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "repository_url": "https://github.com/ltjax/ltjax",
    "path_to_docs": "docs",
    "use_repository_button": True,
    "use_edit_page_button": True,
    "navbar_persistent": [],
    "show_navbar_depth": 1,
    "show_toc_level": 2,
}
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
