"""How Sphinx makes a site of the documents: `make docs`. They are plain Markdown and are read on GitHub, too.

The site has the folders of the repository, so that a link between two pages is the same in both places. A link to any
other file becomes a download.
"""

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
root_doc = "docs/index"
include_patterns = ["docs/**", "*.md", "results/README.md", "results/archive/README.md", "results/bench/*.md"]
include_patterns += ["results/**/fit.md"]
exclude_patterns = [".*", "build", "data", "dist", "runs", "tests", "docs/_static"]

html_theme = "furo"
html_title = "vitbench"
smartquotes = False  # a quote may be typed
html_static_path = ["_static"]
html_extra_path = ["_static/index.html"]  # the site's own address leads to its first page
html_css_files = ["site.css"]
html_copy_source = html_show_sourcelink = False  # the site needs no second copy of each page
html_use_index = html_domain_indices = False
html_show_sphinx = False
linkcheck_anchors = False  # pages that draw themselves with scripts have none


def not_in_the_menu(app: Any, document: Any) -> None:
    """Lets pages outside docs/ stand in no menu; a page of docs/ that no index lists is an error."""
    if not app.env.docname.startswith("docs/"):
        app.env.metadata[app.env.docname]["orphan"] = True


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
        pages = re.findall(r"^- \**\[[^]]+\]\(([\w/.-]+)\.md\)", source[0], re.MULTILINE)
        source[0] += "\n".join(["\n```{toctree}", ":hidden:", "", *pages, "```\n"])


def setup(app: Any) -> None:
    app.connect("source-read", menu_of_links)
    app.connect("doctree-read", anchors_in_html)
    app.connect("doctree-read", not_in_the_menu)
