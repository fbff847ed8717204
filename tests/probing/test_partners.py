"""Which runs a run is compared with, by what `other=` says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import fake_runs
from vitbench.errors import UserError
from vitbench.probing.partners import reader, resolve_partners


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Runs named encoding-share-seed, of two ViTs and a ResNet (None): learned-0.05-0 ... None-1.0-2."""
    return fake_runs.quickstart(tmp_path, seeds=3)


def resolve(runs: Path, own: str, other: Any) -> Any:
    return resolve_partners("probe.cka.other", other, runs / own, reader())


def test_a_partner_differs_in_what_is_said_and_else_as_little_as_can_be(runs: Path) -> None:
    words = {"cnn": {"model": "resnet", "data.fraction": 1}, "share": {"data.fraction": 0.2}}
    assert resolve(runs, "learned-0.05-1", words) == {"cnn": "None-1.0-1", "share": "learned-0.2-1"}
    assert resolve(runs, "learned-0.05-1", "none-0.2-0") == "none-0.2-0"


def test_of_several_seeds_the_first_that_is_another_run(runs: Path) -> None:
    words = {"seed": {"seed": [0, 1]}}
    assert [resolve(runs, f"none-0.2-{seed}", words)["seed"] for seed in range(3)] == [
        "none-0.2-1",
        "none-0.2-0",
        "none-0.2-0",
    ]


def test_a_run_that_has_the_settings_itself_has_no_partner(runs: Path) -> None:
    words = {"cnn": {"model": "resnet", "data.fraction": 1}, "seed": {"seed": 0}}
    assert resolve(runs, "None-1.0-2", words) == {"cnn": None, "seed": "None-1.0-0"}


def test_raw_pixels_are_no_run(runs: Path) -> None:
    words = {"cnn": {"model": "resnet", "data.fraction": 1}, "pixels": "pixels"}
    assert resolve(runs, "learned-0.05-1", words) == {"cnn": "None-1.0-1", "pixels": "pixels"}


def test_what_cannot_be_gets_one_line(runs: Path) -> None:
    fake_runs.write(runs, "diverged", None)
    fake_runs.write(runs, "elsewhere", 0.5, **{"data.name": "photographs"})
    mistakes = {
        "nane-0.2-0": "probe.cka.other: .* is no finished run; did you mean none-0.2-0",
        "diverged": "other=diverged: diverged and has no weights",
    }
    words = {
        "model=transformer": (
            {"model": "transformer"},
            r"other.cnn: model=transformer: none of 29 runs; there model is resnet, vit",
        ),
        "unknown": ({"modle": "vit"}, r"other.cnn: modle=vit: did you mean model"),
        "a tie": ({"model": "resnet", "seed": 9}, "seed=9: none of"),
        "elsewhere": ({"data": "photographs"}, "no other run has been trained on the images of none-0.2-0"),
        "no settings": ({}, "must be the ID of a run, or settings"),
    }
    for other, expected in mistakes.items():
        with pytest.raises(UserError, match=expected):
            resolve(runs, "none-0.2-0", other)
    for said, expected in words.values():
        with pytest.raises(UserError, match=expected):
            resolve(runs, "none-0.2-0", {"cnn": said})
    with pytest.raises(UserError, match=r"other.c.n: a label must be a word"):
        resolve(runs, "none-0.2-0", {"c.n": {"seed": 1}})
    (runs / "learned-0.2-1" / "record.json").unlink()
    with pytest.raises(
        UserError, match=r"seed: no finished run differs only in that; learned-0.05-1 also differs in data.fraction"
    ):
        resolve(runs, "learned-0.2-0", {"seed": {"seed": 1}})
    with pytest.raises(UserError, match=r"learned-0.2-0 and none-0.2-0 fit equally well; name more settings"):
        resolve(runs, "None-0.2-0", {"twin": {"model": "vit"}})
