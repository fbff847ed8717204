"""What authors say of their published tables comes out here too; `fixtures/README.md` has the sources."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Output
from vitbench.numbers.curves import Curve
from vitbench.numbers.efficiency import label_efficiency
from vitbench.numbers.forms import Array, fit_curves
from vitbench.numbers.pair import Pair

FIXTURES = Path(__file__).parents[1] / "fixtures"
Cli = Callable[..., Output]


def rows(name: str) -> list[dict[str, str]]:
    with (FIXTURES / name).open(newline="") as file:
        return list(csv.DictReader(file))


def points(task: str, split: str) -> tuple[Array, Array]:
    found = [
        (float(row["images"]), float(row["error"]))
        for row in rows("scaling_law_benchmark.csv")
        if (row["task"], row["split"]) == (task, split)
    ]
    n, errors = np.array(found).T
    return n, np.log(errors)


def extrapolation_loss(form: str, task: str) -> float:
    """Computes the authors' measure: the root mean square error of log e on the sizes that were not fitted."""
    n, logs = points(task, "1")
    fitted = fit_curves(form, n, logs[None], np.ones(len(n)), chance=1 - 1 / 200)
    later, measured = points(task, "0")
    return float(np.sqrt(((fitted.logs(later)[0] - measured) ** 2).mean()))


@pytest.mark.parametrize("task", ["bird_5", "bird_25"])
def test_m4_extrapolates_more_accurately_than_power_laws_as_its_authors_show(task: str) -> None:
    m4, pow3, pow2 = (extrapolation_loss(form, task) for form in ("m4", "pow3", "pow2"))
    assert m4 < 0.05 and m4 < pow3 / 2 and m4 < pow2 / 2


def simclr() -> dict[str, Curve]:
    """Reads the top-1 errors of models that were fine-tuned on 1, 10 and 100 % of the labels."""
    found: dict[str, list[float]] = {}
    for row in rows("simclrv2.csv"):
        found.setdefault(row["model"], []).append(1 - float(row["accuracy"]))
    return {name: Curve(name, np.array([1.0, 10, 100]), np.array([errors]), (0,)) for name, errors in found.items()}


def test_bigger_models_gain_more_from_few_labels() -> None:
    """The caption of their figure 1 says so of the relative gain in accuracy over the smallest model."""
    curves = simclr()
    smallest = 1 - curves["resnet50 1x"].errors[0]
    for name, curve in curves.items():
        gain = (1 - curve.errors[0]) / smallest - 1
        assert name == "resnet50 1x" or gain[0] > gain[1] > gain[2] > 0


def test_bigger_models_are_more_label_efficient() -> None:
    """At one depth, the narrow model needs more labels to match the wide one at 1 %, and more than all at 100 %."""
    curves = simclr()
    for depth in (50, 101, 152):
        for kernel in ("", " sk"):
            wide, narrow = (curves[f"resnet{depth} {width}{kernel}"] for width in ("2x", "1x"))
            few, _, all_labels = label_efficiency(Pair(wide, narrow))
            assert 3 < few.value < 12 and all_labels.value == np.inf
    few, *_ = label_efficiency(Pair(curves["resnet152 3x sk"], curves["resnet50 1x"]))
    assert few.value == pytest.approx(63, rel=0.01)  # by hand: 10^(1 + log(31.6 / 25.1) / log(31.6 / 23.7))


def test_one_run_a_size_is_no_curve_with_an_interval(vitbench: Cli) -> None:
    done = vitbench("fit", f"runs={FIXTURES / 'simclrv2.csv'}")
    assert done.code == 3 and "resnet50 1x has 1 seed; a curve takes 2 or more" in done.err
