"""Networks at chance are marked where a probe measured them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_type_hints

from tests import fake_runs
from tests.comparing.printed import groups_named, printed, rows_of
from tests.conftest import Output
from vitbench.runs.record import Beginning

Cli = Callable[..., Output]


def write_probed(runs: Path, accuracies: dict[str, tuple[float, ...]], **results: object) -> None:
    for model, of_seeds in accuracies.items():
        for seed, accuracy in enumerate(of_seeds):
            probed = {"result_probe": {"steadiness": 0.8 + seed / 100}} | results
            fake_runs.write(runs, f"{model}-{seed}", accuracy, **{"model.name": model, "seed": seed}, **probed)


def test_a_network_at_chance_is_marked_and_explained(tmp_path: Path) -> None:
    # 112 right of 1,000 are still inside chance, and 125 are not
    write_probed(tmp_path, {"vit": (0.096, 0.112, 0.125), "resnet": (0.5, 0.52, 0.54)})
    note = "! † 2 of 6 runs are at chance, or give nearly all images one class: what a probe measures of them is the"
    out = printed(tmp_path, value="probe.steadiness")
    assert out.count("†") == 2 and "0.810 ± 0.025†" in out and note in out
    out = printed(tmp_path, value="probe.steadiness", against="resnet", show="mean")
    assert out.count("†") == 2 and note in out
    assert r"$\dagger$" in printed(tmp_path, "tex", value="probe.steadiness")
    assert {row["model"]: row["degenerate"] for row in rows_of(printed(tmp_path, "csv", value="probe.steadiness"))} == {
        "vit": "2",
        "resnet": "0",
    }
    assert [g["degenerate"] for g in groups_named(printed(tmp_path, "json", value="probe.steadiness"))] == [2, 0]


def test_an_accuracy_is_not_marked(tmp_path: Path) -> None:
    write_probed(tmp_path, {"vit": (0.096, 0.1)}, result_probe={"accuracy": 0.1})
    assert "†" not in printed(tmp_path, value=["test_accuracy", "probe.accuracy"])


def test_a_probes_flag_marks_a_network_and_before_training_only_its_own(tmp_path: Path) -> None:
    flags = {"shift": {"crop": {"consistency": 1.0, "degenerate": 1}}, "lee": {"logit": 0.1}}
    write_probed(tmp_path, {"vit": (0.5, 0.5)}, result_shift=flags["shift"], result_lee=flags["lee"])
    assert "†" in printed(tmp_path, value="shift.crop.consistency")
    assert "†" in printed(tmp_path, value="lee.logit")
    begun = dict.fromkeys(get_type_hints(Beginning), "") | {
        "interpolated": [],
        "kept_parameters": 1,
        "new_parameters": 0,
    }
    write_probed(tmp_path / "init", {"vit": (0.5, 0.5)}, result_init=begun | flags)
    assert "†" in printed(tmp_path / "init", value="init.shift.crop.consistency")
    assert "†" not in printed(tmp_path / "init", value="init.lee.logit")
