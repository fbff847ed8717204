"""docs/reference/result-names.md lists the names of all results, as vitbench/numbers/result_names.py has them."""

from __future__ import annotations

import re

from tools import result_names_page
from vitbench.numbers.result_names import RUNS, columns_of_probes


def test_the_page_is_what_the_names_say() -> None:
    message = "type: python tools/result_names_page.py"
    assert result_names_page.PAGE.read_text(encoding="utf-8") == result_names_page.page(), message


def test_the_page_has_a_line_for_each_result_that_links_to_its_definition() -> None:
    page = result_names_page.page()
    lines = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    assert {*lines} == {*RUNS, *columns_of_probes()}
    anchors = {result_names_page.anchor(title) for title in result_names_page.sections()}
    linked = [re.search(r"\]\((metrics\.md#([\w-]+)|records\.md)\) \|$", line) for line in lines.values()]
    assert all(link and (link[2] is None or link[2] in anchors) for link in linked)
