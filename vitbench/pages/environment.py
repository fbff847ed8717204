"""Opens the templates of a room, which can extend base.html.j2.

Anyone can have written the words of studies, classes and folders, so templates escape what they get. Only figures that
matplotlib drew, and HTML that was made from escaped text, are inserted as they are, as Markup.
"""

from __future__ import annotations

from functools import cache

from jinja2 import ChoiceLoader, Environment, PackageLoader


@cache
def page_environment(room: str) -> Environment:
    """Returns the environment of the templates of `vitbench.<room>`."""
    loader = ChoiceLoader([PackageLoader(f"vitbench.{room}"), PackageLoader("vitbench.pages")])
    return Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
