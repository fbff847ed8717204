"""docs/reference/records.md says what stands in records and in the CSV of all runs, as types and comments do."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import get_type_hints

import pytest

from tests import fake_runs
from tools import records_page, settings_reference
from tools.result_names_page import anchor
from vitbench.comparing.evidence import evidence_text
from vitbench.comparing.select import select_runs
from vitbench.machine.provenance import Hardware, Provenance, Versions
from vitbench.probes.menu import MENU as PROBES
from vitbench.runs.record import Beginning, Essentials, FrozenFeatures, Metrics, Record, ScannedFiles

KINDS = (Essentials, Metrics, Provenance, Record, Hardware, Versions, Beginning, FrozenFeatures, ScannedFiles)
HEADINGS = re.compile("^#+ (.*)$", re.MULTILINE)
RESULTS = Path(__file__).parent.parent / "results"


def test_the_page_is_what_the_types_say() -> None:
    message = "run `make reference`"
    assert records_page.PAGE.read_text(encoding="utf-8") == records_page.page(), message


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_field_has_words_of_its_own(kind: type) -> None:
    comments = records_page.comments_of(kind)
    assert {name for name, words in comments.items() if not words or words.startswith("the same")} == set()
    assert f"`{next(iter(comments))}`" in records_page.page() or f".{next(iter(comments))}`" in records_page.page()


def test_the_page_names_every_field_of_a_record() -> None:
    page = records_page.page()
    assert [name for name in get_type_hints(Record) if f"| `{name}` |" not in page] == []


def test_each_setting_is_linked_to_its_line_in_the_reference() -> None:
    reference = settings_reference.pages()["settings.md"]
    headings = [*map(anchor, HEADINGS.findall(reference))]
    anchors = re.findall('<a id="([^"]+)"></a>', reference)
    assert len({*anchors}) == len(anchors) and not {*anchors} & {*headings}
    links = re.findall(r"\[`([^`]+)`\]\(settings\.md#([^)]+)\)", records_page.page())
    assert len(links) > 100 and {target for _, target in links} <= {*anchors, *headings}
    assert ("data.fraction", "data.fraction") in links and ("model.patch_size", "model=vit-model.patch_size") in links


def test_a_type_is_said_with_its_range_and_unit() -> None:
    hints = get_type_hints(Record, include_extras=True)
    assert records_page.described(hints["test_accuracy"]) == ("number (from 0 to 1) or null", "share of 1", False)
    assert records_page.described(hints["compile_seconds"]) == ("number (0 or more)", "seconds", True)
    assert records_page.described(hints["status"]) == ("`finished` or `diverged`", "", False)


def test_the_page_names_every_column_of_a_csv_of_runs(tmp_path: Path) -> None:
    fake_runs.quickstart(tmp_path)
    heads = [evidence_text(select_runs(str(tmp_path), {}), {}).splitlines()[0]]
    heads += [path.read_text(encoding="utf-8").splitlines()[0] for path in sorted(RESULTS.glob("*/runs.csv"))]
    columns = {column for head in csv.reader(heads) for column in head}
    page = records_page.page()
    probes = {name for name in columns if {*name.split(".")[:2]} & {*PROBES, "lee"}}  # lee: a measure of the probe lie
    assert len(columns) > 100 and [name for name in sorted(columns - probes) if f"`{name}`" not in page] == []
