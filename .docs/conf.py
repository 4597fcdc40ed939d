"""The documentation site, which `.docs/run` builds from the pages that lie beside the code."""

from __future__ import annotations

import sys
from pathlib import Path

import localrpc

sys.path.insert(0, str(Path(__file__).parent))

project = "localrpc"
version = release = localrpc.__version__
author = project_copyright = "The localrpc maintainers"
extensions = ["myst_parser", "sphinx.ext.autodoc", "localrpc_docs"]
root_doc = "index"
source_suffix = {".md": "markdown"}
smartquotes = False

myst_heading_anchors = 6

autodoc_member_order = "bysource"
# No public class is for its users to call.
autodoc_class_signature = "separated"
autodoc_default_options = {"exclude-members": "__init__, __new__"}
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 80

html_theme = "furo"
html_title = f"localrpc {release}"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
