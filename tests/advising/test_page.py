from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from tests.advising.test_advise import Page
from tests.advising.test_words import made
from vitbench.advising.page import missed_by_all, page
from vitbench.advising.results import Results
from vitbench.advising.words import Section, sections
from vitbench.data.split import Split


def a_page(folder: Path) -> str:
    """A page of made-up results."""
    return told_page(folder)[2]


def told_page(folder: Path) -> tuple[Results, list[Section], str]:
    """Results of two networks, what is said of them, and their page."""
    vit = {100: [0.30, 0.33, 0.31], 300: [0.41, 0.42, 0.44], 900: [0.52, 0.50, 0.51]}
    resnet = {100: [0.35, 0.36, 0.38], 300: [0.50, 0.52, 0.53], 900: [0.70, 0.69, 0.71]}
    results = made(folder, {"vit": vit, "resnet": resnet})
    told = sections(results)
    pixels = np.random.default_rng(0).integers(0, 255, (len(results.labels), 3, 32, 32), np.uint8)
    text = page(
        "pets <b>",
        results,
        told,
        "To use it",
        ["vitbench train data.root='/my pets'"],
        Split(pixels, results.labels, ("a",)),
    )
    return results, told, text


def test_a_page_holds_all_words_and_nothing_from_elsewhere(tmp_path: Path) -> None:
    results, told, text = told_page(tmp_path)
    shown = Page(text)
    assert shown.open == [""] and "<b>" not in text.replace("<body>", "")
    assert all(sentence in shown.shown for section in told for sentence in section.sentences)
    sources = [source for source in shown.sources if source.startswith("data:image/jpeg;base64,")]
    others = {*shown.sources} - {*sources}
    assert sources and all(source.startswith("#") or source == "" for source in others)
    assert len(sources) == min(48, len(missed_by_all(results))) and text.count("<svg") == 2
    assert "var(--ink)" in text and "#000000" not in text
    assert len(re.findall("<title>.*95 % interval .* mean of 3 runs</title>", text)) == 6


def test_only_images_that_every_run_got_wrong_are_shown(tmp_path: Path) -> None:
    results = made(tmp_path, {"vit": {900: [0.5, 0.6]}, "resnet": {900: [0.7]}})
    wrong = missed_by_all(results)
    right = [its == results.labels for network in results.networks for its in network.predictions.values()]
    assert len(wrong) and not np.any(np.stack(right)[:, wrong]) and np.any(right, 0).sum() + len(wrong) == 400
