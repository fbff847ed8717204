"""The pages of `vitbench report` and `vitbench advise`, as axe-core sees them in a browser, light and dark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.advising.test_page import a_page
from tests.pages.axe import needs_chromium, violations
from vitbench.reporting.page import index_page, study_page
from vitbench.reporting.section import Section

RESULTS = Path(__file__).parents[2] / "results"
STUDIES = ("quickstart", "pretraining", "cnn_ladder", "first_look")  # curves, a fit, a ladder, and neither


def several_studies(folder: Path) -> str:
    return index_page([Section.read(RESULTS / name) for name in STUDIES])


def one_study(folder: Path) -> str:
    return study_page(Section.read(RESULTS / "quickstart"))


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("made", [several_studies, one_study, a_page], ids=["studies", "study", "advice"])
def test_a_page_has_nothing_serious_or_critical(made: Callable[[Path], str], dark: bool, tmp_path: Path) -> None:
    assert violations(made(tmp_path), tmp_path, dark) == []


@pytest.mark.slow
@needs_chromium
def test_faults_are_found_in_light_and_in_dark(tmp_path: Path) -> None:
    page = one_study(tmp_path)
    without_words = page.replace("</main>", "<img src='data:image/gif;base64,R0lGODlhAQABAAAAACw='></main>")
    (found,) = violations(without_words, tmp_path)
    assert found.startswith("image-alt: ")
    grey = page.replace("</main>", "<p style='color: #222428; background: var(--paper)'>words</p></main>")
    assert violations(grey, tmp_path) == []
    (found,) = violations(grey, tmp_path, dark=True)
    assert found.startswith("color-contrast: ")
