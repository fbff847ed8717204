"""Sentences are read where they stand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vitbench.explaining.comments import sentences_of_choice, sentences_of_schema

SCHEMA = """
from dataclasses import dataclass, field


@dataclass
class Base:
    at_end: str = "#no comment"  # stands at the end
    # takes more room, and goes on
    # in a second line
    above: int | None = None
    without: int = 0


@dataclass
class Derived(Base):
    # of a part of the schema, and of no setting

    without: int = 1
    several: list[int] = field(
        default_factory=lambda: [1, 2],
    )  # ends where the field ends
"""


def test_a_sentence_stands_at_the_end_of_the_line_or_right_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_schema.py").write_text(SCHEMA)
    monkeypatch.syspath_prepend(tmp_path)
    import a_schema  # type: ignore[import-not-found]

    monkeypatch.delitem(sys.modules, "a_schema", raising=False)
    monkeypatch.setitem(sys.modules, "a_schema", a_schema)
    assert sentences_of_schema(a_schema.Derived) == {
        "at_end": "stands at the end",
        "above": "takes more room, and goes on in a second line",
        "without": "",
        "several": "ends where the field ends",
    }


def test_options_of_a_choice_have_their_sentences_in_its_file() -> None:
    sentences = sentences_of_choice("model", "vit")
    assert sentences["width"].startswith("embedding dimension")
    ending = "11 x 11 patches (docs/reference/datasets.md)"
    assert sentences["patch_size"].endswith(ending), "two lines above the key are one"
    assert "inductive bias" not in sentences["stem"], "what stands apart is no sentence of the key below"
