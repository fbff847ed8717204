"""How Sphinx makes a site of these pages: `make docs`. The pages are plain Markdown and are read on GitHub, too."""

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vitbench.version import __version__

project = "vitbench"
copyright = "the vitbench authors"
version = release = __version__
language = "en"
extensions = ["myst_parser"]
myst_heading_anchors = 4  # headings have the anchors that GitHub gives them
exclude_patterns = ["_static"]

html_theme = "furo"
html_title = "vitbench"
smartquotes = False  # a quote may be typed
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = html_show_sourcelink = False  # the site needs no second copy of each page
html_use_index = html_domain_indices = False
html_show_sphinx = False
linkcheck_anchors = False  # pages that draw themselves with scripts have none


def anchors_in_html(app: Any, document: Any) -> None:
    """Lets pages link to the anchors that a page sets as `<a id="data.fraction"></a>`, as GitHub does."""
    from docutils import nodes

    labels = app.env.get_domain("std").anonlabels
    for raw in document.findall(nodes.raw):
        for anchor in re.findall(r'<a id="([^"]+)">', raw.astext()):
            labels[f"{app.env.docname}#{anchor}"] = app.env.docname, anchor


def menu_of_links(app: Any, docname: str, source: list[str]) -> None:
    """Makes the pages that an index lists, `- [Title](page.md): what it is`, the menu of the site, in their order."""
    if docname.rpartition("/")[2] == "index":
        pages = re.findall(r"^- \**\[[^]]+\]\(([\w/-]+)\.md\)", source[0], re.MULTILINE)
        source[0] += "\n".join(["\n```{toctree}", ":hidden:", "", *pages, "```\n"])


def setup(app: Any) -> None:
    app.connect("source-read", menu_of_links)
    app.connect("doctree-read", anchors_in_html)
