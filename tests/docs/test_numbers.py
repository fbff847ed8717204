"""The explanations say no number that the results do not have."""

from __future__ import annotations

import re

import pytest

from tests.docs.test_tutorials import ROOT

DECIMAL = re.compile(r"\d[\d,]*\.\d+")
PAGES = ["inductive-bias", "fairness", "what-we-do-not-claim"]


@pytest.mark.parametrize("name", PAGES)
def test_a_decimal_of_an_explanation_stands_in_results(name: str) -> None:
    measured = {number for page in (ROOT / "results").rglob("*.md") for number in DECIMAL.findall(page.read_text())}
    page = (ROOT / "docs" / "explanation" / f"{name}.md").read_text(encoding="utf-8")
    words = re.sub(r"```.*?```|^    .*?$|`[^`]*`|\]\([^)]*\)", "", page, flags=re.DOTALL | re.MULTILINE)
    assert not {*DECIMAL.findall(words)} - measured


def test_inductive_bias_says_decimals_of_the_studies_that_it_names() -> None:
    page = (ROOT / "docs" / "explanation" / "inductive-bias.md").read_text(encoding="utf-8")
    studies = set(re.findall(r"study\s+`(\w+)`", page, flags=re.IGNORECASE))
    files = [path for study in studies for path in (ROOT / "results" / study).glob("*.md")]
    measured = {number for path in files for number in DECIMAL.findall(path.read_text(encoding="utf-8"))}
    words = re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)", "", page, flags=re.DOTALL)
    said = {*DECIMAL.findall(words)}
    assert len(studies) > 6 and len(said) > 40
    assert not said - measured
