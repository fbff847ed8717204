from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import fake_runs
from tests.conftest import Output
from vitbench.fitting.limits import Point, sizes_of
from vitbench.numbers.curves import Curve
from vitbench.numbers.words import number

Cli = Callable[..., Output]
N = np.array([450.0, 1350, 4500, 13_500, 45_000])
NOISE = np.array([[0.004], [-0.001], [-0.003]]) * np.array([1, -1, 1, -1, 1])


def points_of(
    errors: list[float],
    samples: Callable[[float], float | None] = lambda n: None,
    trained: list[float] | None = None,
    seeds: int = 3,
) -> tuple[Curve, list[Point]]:
    """A curve with little noise, and its runs as points."""
    values = np.array(errors) + NOISE[:seeds]
    points = []
    for seed in range(seeds):
        for k, n in enumerate(N.tolist()):
            value, train = values[seed, k], None if trained is None else trained[k]
            gap = None if train is None else value - train
            points.append(Point(n, seed, value, f"{seed} {n}", samples(n), train, gap))
    return Curve("a", N, values, tuple(range(seeds))), points


def limits(curve: Curve, points: list[Point], references: list[Point] | None = None) -> list[str]:
    return [size.limit for size in sizes_of(curve, points, references or [], {})]


def test_a_point_is_limited_by_images_where_as_many_samples_of_more_images_err_less() -> None:
    curve, points = points_of([0.6, 0.5, 0.4, 0.4, 0.4], lambda n: 64_000)
    assert limits(curve, points) == ["images", "images", "not", "not", "not"]
    first = sizes_of(curve, points, [], {})[0]
    assert first.excess is not None and first.excess.mean == pytest.approx(0.2) and first.reference == 45_000
    assert first.epochs == pytest.approx(64_000 / 450)


def test_runs_of_another_budget_are_references_where_they_saw_as_many_samples() -> None:
    """The largest sizes trained longer, so that only a run of the fixed budget tells what limits the smallest."""
    curve, points = points_of([0.6, 0.5, 0.4, 0.3, 0.2], lambda n: max(256_000, 40 * n))
    own = sizes_of(curve, points, [], {})
    assert [size.reference for size in own] == [4500, 4500, None, None, None]
    fixed = [Point(45_000, seed, 0.39 + NOISE[seed, 4], "", 256_000) for seed in range(3)]
    found = sizes_of(curve, points, fixed, {})
    assert [size.reference for size in found[:3]] == [45_000] * 3
    assert found[2].excess is not None and found[2].excess.mean == pytest.approx(0.01)


def test_without_a_reference_the_gap_says_not_or_perhaps() -> None:
    errors = [0.6, 0.5, 0.4, 0.3, 0.2]
    assert limits(*points_of(errors, trained=[0.1, 0.2, 0.3, 0.3, 0.2])) == ["perhaps"] * 3 + ["not"] * 2


def test_a_curve_that_became_flat_is_not_limited_by_images_from_there_on() -> None:
    assert limits(*points_of([0.7, 0.5, 0.5, 0.5, 0.5])) == ["unknown", "not", "not", "not", "not"]
    assert limits(*points_of([0.5] * 5)) == ["not"] * 5
    assert limits(*points_of((2 * N**-0.2).tolist())) == ["unknown"] * 5
    assert limits(*points_of((0.1 + 2 * N**-0.4).tolist())) == ["unknown"] * 5  # an offset is not yet a plateau


def test_two_seeds_make_no_point_certain() -> None:
    curve, points = points_of([0.5] * 5, lambda n: 64_000, [0.5] * 5, seeds=2)
    assert limits(curve, points) == ["unknown"] * 5


def test_the_fall_to_a_certificate_is_judged_by_the_deviation_over_seeds() -> None:
    curve, points = points_of([0.6, 0.5, 0.4, 0.3, 0.2])
    twice = Point(450, 0, points[0].value - 0.05, "", 512_000)
    certificate = sizes_of(curve, points, [], {points[0].source: twice})[0].certificate
    assert certificate is not None and certificate.samples == 512_000
    deviation = np.std(0.6 + NOISE[:, 0], ddof=1)
    assert certificate.fall.mean == pytest.approx(0.05) and certificate.fall.n == 1
    assert certificate.fall.half == pytest.approx(4.30265 * math.sqrt(2) * deviation, rel=1e-4)


@pytest.mark.parametrize("equal", [False, True])
def test_neither_two_seeds_nor_equal_values_certify_anything(equal: bool) -> None:
    curve, points = points_of([0.6, 0.5, 0.4, 0.3, 0.2], seeds=3 if equal else 2)
    if equal:
        points = [replace(point, value=0.6) for point in points]
    twice = Point(450, 0, 0.5, "", 512_000)
    certificate = sizes_of(curve, points, [], {points[0].source: twice})[0].certificate
    assert certificate is not None and math.isnan(certificate.fall.low) and math.isnan(certificate.fall.high)


def test_gaps_of_losses_and_of_errors_are_in_no_mean_together() -> None:
    curve, points = points_of([0.6, 0.5, 0.4, 0.3, 0.2], trained=[0.5, 0.4, 0.3, 0.2, 0.1])
    of_batches = [replace(point, trained=None, gap=-3.0) if point.seed == 0 else point for point in points]
    assert [size.gap.mean for size in sizes_of(curve, of_batches, [], {}) if size.gap] == pytest.approx(
        [0.1] * 5, abs=0.01
    )


# --------------------------------------------------------------------------------------------------------- of tables


def table(
    path: Path,
    a: Callable[[float], float],
    b: Callable[[float], float],
    rng: int = 0,
    noise: float = 0.01,
    **columns: Any,
) -> None:
    random = np.random.default_rng(rng)
    lines = [",".join(["model,images,seed,error", *columns])]
    for model, law in (("vit", a), ("resnet", b)):
        for n in N:
            for seed in range(3):
                error = law(n) * math.exp(random.normal(0, 0.01))
                lines.append(
                    ",".join([f"{model},{n:.0f},{seed},{error}", *(str(of(n, error)) for of in columns.values())])
                )
    path.write_text("\n".join(lines) + "\n")


def of_table(vitbench: Cli, *words: str) -> dict[str, Any]:
    done = vitbench("fit", "runs=t.csv", "format=json", *words)
    assert done.code == 0, done.err
    report: dict[str, Any] = json.loads(done.out)
    return report


def law(b: float, c: float, floor: float = 0.0) -> Callable[[float], float]:
    return lambda n: max(b * n**c, floor)


@pytest.mark.parametrize("rng", range(3))
def test_curves_that_cross_below_a_floor_of_training_are_limited_and_not_parallel(
    tmp_path: Path, vitbench: Cli, rng: int
) -> None:
    """They cross at 4,708 images, where training alone keeps their errors at 0.50 and 0.36."""
    table(tmp_path / "t.csv", law(6.0, -0.35, 0.50), law(6 * 4708**-0.212, -0.138, 0.36), rng)
    (pair,) = of_table(vitbench)["pairs"]
    assert pair["crossover"]["verdict"] == "limited"
    assert "this evidence cannot say what more images would do" in pair["crossover"]["sentence"]
    out = vitbench("fit", "runs=t.csv", "target=0.7").out
    assert "train longer or larger networks, for example optim.epochs=40" in out
    assert re.search(
        r"How many images \w+ needs for a test accuracy of 70 % cannot be told: \d of its 5 sizes count", out
    )


def test_a_task_that_is_solved_is_said_to_be_too_easy(tmp_path: Path, vitbench: Cli) -> None:
    """Longer training would show nothing where a model makes no errors, so that is not advised."""
    solved = lambda n, error: 1 - (0.0 if error < 0.02 else error / 2)  # noqa: E731
    table(tmp_path / "t.csv", law(3.0, -0.2), lambda n: 0.2 if n < 1000 else 0.005, train_eval_accuracy=solved)
    out = vitbench("fit", "runs=t.csv").out
    assert "resnet has solved the task at 1,350, 4,500, 13,500 and 45,000 images" in out and "nothing, solved" in out
    assert "train longer" not in out


@pytest.mark.slow
def test_sixty_tables_with_such_a_floor_are_all_limited(tmp_path: Path) -> None:
    from vitbench.fitting.findings import report_of
    from vitbench.fitting.fit_file import read_table

    verdicts = []
    for rng in range(60):
        table(tmp_path / "t.csv", law(6.0, -0.35, 0.50), law(6 * 4708**-0.212, -0.138, 0.36), rng)
        verdicts.append(report_of(*read_table(tmp_path / "t.csv")).pairs[0].crossover.verdict)
    print(f"a floor at 0.50 and 0.36: {verdicts.count('limited')} of 60 tables are limited by budget or size")
    assert verdicts == ["limited"] * 60


def test_epochs_and_training_errors_of_a_table_tell_what_limits_it(tmp_path: Path, vitbench: Cli) -> None:
    table(
        tmp_path / "t.csv",
        law(3.0, -0.2),
        law(2.0, -0.2),
        epochs=lambda n, error: 40,
        train_eval_accuracy=lambda n, error: 1 - (error - 0.1 if n < 10_000 else error + 0.001),
    )
    report = of_table(vitbench)
    assert [size["limit"] for size in report["sizes"][:5]] == ["perhaps"] * 3 + ["not"] * 2
    assert {size["epochs"] for size in report["sizes"]} == {40}
    assert report["sizes"][0]["gap"]["value"] == pytest.approx(0.1)
    assert report["pairs"][0]["crossover"]["verdict"] == "none"  # of the three sizes that are left


def test_losses_of_a_table_are_taken_as_they_are_and_it_is_said(tmp_path: Path, vitbench: Cli) -> None:
    table(
        tmp_path / "t.csv",
        law(3.0, -0.2),
        law(2.0, -0.2),
        loss=lambda n, error: 2 * error,
        train_loss=lambda n, error: error,
    )
    done = vitbench("fit", "runs=t.csv", "value=test_error")
    assert "Augmentation and label smoothing raise the loss of training batches" in done.out
    assert "loss gap" in done.out and done.code == 0


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("epochs", "0", "line 2: epochs=0: how often each image was seen is a number above 0"),
        ("epochs", "many", "line 2: epochs=many is no number"),
        ("classes", "2.5", "line 2: classes=2.5: a number of classes is whole and above 1"),
        ("train_eval_accuracy", "98", "line 2: train_eval_accuracy=98: shares of 1 are wanted (0.12, not 12)"),
    ],
)
def test_a_wrong_cell_is_named(tmp_path: Path, vitbench: Cli, column: str, value: str, said: str) -> None:
    table(tmp_path / "t.csv", law(3.0, -0.2), law(2.0, -0.2), **{column: lambda n, error: value})
    done = vitbench("fit", "runs=t.csv")
    assert done.code == 3 and said in done.err and done.err.count("\n") == 1


def test_the_training_loss_of_a_table_of_losses_is_that_of_batches(tmp_path: Path, vitbench: Cli) -> None:
    losses: dict[str, Any] = {"loss": lambda n, error: 2 * error, "train_loss": lambda n, error: error}
    table(tmp_path / "t.csv", law(3.0, -0.2), law(2.0, -0.2), **losses)
    assert "Augmentation and label smoothing raise the loss" in vitbench("fit", "runs=t.csv", "value=test_loss").out


def test_where_both_guess_at_nearly_all_sizes_that_is_what_is_said(tmp_path: Path, vitbench: Cli) -> None:
    table(tmp_path / "t.csv", law(0.9, 0.0), law(0.9, 0.0), classes=lambda n, error: 10)
    (pair,) = of_table(vitbench)["pairs"]
    assert "neither model is surely better than guessing at" in pair["crossover"]["sentence"]


def test_sizes_at_chance_do_not_hide_that_the_budget_limits_the_others(tmp_path: Path, vitbench: Cli) -> None:
    """Both guess at 450 images, and train as well as they test from 4,500 on: one size counts, of four."""
    table(
        tmp_path / "t.csv",
        lambda n: 0.9 if n < 1000 else 3.0 * n**-0.2,
        lambda n: 0.9 if n < 1000 else 2.5 * n**-0.2,
        classes=lambda n, error: 10,
        train_eval_accuracy=lambda n, error: 1 - (error - 0.1 if n < 2000 else error + 0.001),
    )
    (pair,) = of_table(vitbench)["pairs"]
    assert pair["crossover"]["verdict"] == "limited"
    assert "At 4,500, 13,500 and 45,000 images both models are" in pair["crossover"]["sentence"]
    assert "Differences" in vitbench("fit", "runs=t.csv").out


def test_curves_are_said_to_cross_only_where_both_signs_are_sure(tmp_path: Path, vitbench: Cli) -> None:
    """The difference falls by 1 point a size in each seed, from about 2 to -2, and the seeds differ by 3 points."""
    lines = ["model,images,seed,error"]
    for k, n in enumerate(N):
        for seed in range(3):
            other = 0.6 * 0.85**k
            lines += [
                f"a,{n:.0f},{seed},{other + (0.01 + seed / 10_000) * (2 - k) + 0.03 * (seed - 1)}",
                f"b,{n:.0f},{seed},{other}",
            ]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    (pair,) = of_table(vitbench)["pairs"]
    assert pair["crossover"]["verdict"] == "undefined"
    assert pair["pooled"]["sentence"].endswith("the curves may cross in points.")
    assert "it is not sure at either end which errs less" in pair["crossover"]["sentence"]


def test_each_row_of_the_csv_has_a_number_or_a_verdict(tmp_path: Path, vitbench: Cli) -> None:
    table(tmp_path / "t.csv", law(0.5, 0.0), law(2.0, -0.2))
    rows = list(csv.DictReader(io.StringIO(vitbench("fit", "runs=t.csv", "format=csv").out)))
    empty = [row["statistic"] for row in rows if not row["value"]]
    assert empty == ["crossover"] and not any("nan" in cell for row in rows for cell in row.values())
    assert {row["words"] for row in rows if row["statistic"] == "value"} == {"budget, size", "not known"}


# ----------------------------------------------------------------------------------------------------------- of runs


def runs_of_two_budgets(runs: Path) -> Path:
    """Both models at 40 epochs and at least 4,000 steps, the largest share also at 4,000 steps, and one certificate."""
    for model, b in (("resnet", 2.0), ("vit", 3.0)):
        for fraction in (0.01, 0.03, 0.1, 0.3, 1.0):
            for seed in range(3):
                n = int(45_000 * fraction)
                error = b * n**-0.2 * math.exp(np.random.default_rng([n, seed, len(model)]).normal(0, 0.01))
                common: dict[str, Any] = {
                    "model.name": model,
                    "data.fraction": fraction,
                    "data.train_images": 45_000,
                    "seed": seed,
                    "optim.batch_size": 64,
                    "result_train_eval_accuracy": 1 - error / 2,
                    "result_train_eval_loss": 0.5,
                    **({"model.pe.name": "none"} if model == "vit" else {}),
                }
                long = {"optim.steps": None, "optim.epochs": 40.0, "optim.min_steps": 4000}
                steps = max(4000, math.ceil(40 * n / 64))
                name = f"{model}-{n}-{seed}"
                fake_runs.write(runs, name, 1 - error, **common, **long, result_steps=steps)
                if fraction == 1:
                    fixed = {"optim.steps": 4000, "optim.epochs": None, "optim.min_steps": None}
                    fake_runs.write(runs, f"{name}-fixed", 1 - 1.3 * error, **common, **fixed, result_steps=4000)
                if fraction == 0.01 and seed == 0:
                    twice = {"optim.steps": None, "optim.epochs": 80.0, "optim.min_steps": 8000}
                    fake_runs.write(runs, f"{name}-twice", 1 - error, **common, **twice, result_steps=8000)
    return runs


def test_runs_of_a_fixed_budget_serve_as_references_and_make_no_curve(tmp_path: Path, vitbench: Cli) -> None:
    runs_of_two_budgets(tmp_path / "runs")
    report = json.loads(vitbench("fit", "format=json").out)
    assert [curve["label"].split()[0] for curve in report["curves"]] == ["vit", "resnet"]
    assert not any("left out" in note or "a curve takes" in note for note in report["notes"])
    small, *_, largest = report["sizes"][:5]
    assert small["limit"] == "images" and small["reference_images"] == 45_000
    assert largest["limit"] == "perhaps" and largest["epochs"] == pytest.approx(40, rel=0.01)
    assert largest["train"]["value"] == pytest.approx(largest["value"]["value"] / 2)


def test_certificates_are_read(tmp_path: Path, vitbench: Cli) -> None:
    runs_of_two_budgets(tmp_path / "runs")
    report = json.loads(vitbench("fit", "format=json").out)
    assert [(one["images"], one["samples"], one["reading"]) for one in report["certificates"]] == [
        (450, 512_000, "certified")
    ] * 2
    assert "Certificates: the same runs with more samples" in vitbench("fit").out


@pytest.mark.parametrize(("fall", "reading"), [(0.0, "certified"), (0.15, "also limited by the budget")])
def test_a_certificate_is_read_by_the_difference_at_its_own_size_where_that_changes(
    tmp_path: Path, vitbench: Cli, fall: float, reading: str
) -> None:
    """The ViT is 45 points behind at 450 images and 0.3 at 45,000, so the mean over sizes says nothing there."""
    runs = tmp_path / "runs"
    for model, b, c in (("resnet", 2.0, -0.25), ("vit", 20.0, -0.46)):
        for fraction in (0.01, 0.1, 1.0):
            for seed in range(3):
                n = int(45_000 * fraction)
                error = min(b * n**c * math.exp(np.random.default_rng([n, seed, len(model)]).normal(0, 0.002)), 0.95)
                common: dict[str, Any] = {"model.name": model, "data.fraction": fraction, "seed": seed}
                common |= {"data.train_images": 45_000, "optim.batch_size": 64, "result_train_eval_accuracy": 0.999}
                common |= {"model.pe.name": "none"} if model == "vit" else {}
                fake_runs.write(runs, f"{model}{n}{seed}", 1 - error, **common, **steps(4000))
                if n == 45_000 and seed == 0 and model == "vit":
                    fake_runs.write(runs, "twice", 1 - error * (1 - fall), **common, **steps(8000))
    report = json.loads(vitbench("fit", "format=json").out)
    (one,) = report["certificates"]
    *_, last = report["pairs"][0]["differences"]
    assert one["images"] == last["images"] == 45_000 and one["reading"] == reading
    assert one["difference"] == pytest.approx(abs(last["value"])) and one["difference"] < 0.01


@pytest.mark.parametrize(("fall", "said"), [(0.0, "size"), (-0.05, "too long a training"), (0.15, "budget")])
def test_a_certified_size_that_images_do_not_limit_is_limited_by_the_networks_size(
    tmp_path: Path, vitbench: Cli, fall: float, said: str
) -> None:
    """The ViT errs as often on training images as on test images; all formats say the same of it."""
    for model, base in (("resnet", 0.2), ("vit", 0.5)):
        for fraction in (0.01, 0.1, 1.0):
            for seed in range(3):
                n, error = int(45_000 * fraction), base + (1 - fraction) / 10 + seed * base / 200
                common: dict[str, Any] = {"model.name": model, "data.fraction": fraction, "seed": seed}
                common |= {"data.train_images": 45_000, "optim.batch_size": 64}
                common |= {
                    "result_train_eval_accuracy": 1 - error,
                    **({"model.pe.name": "none"} if model == "vit" else {}),
                }
                fake_runs.write(tmp_path / "runs", f"{model}{n}{seed}", 1 - error, **common, **steps(4000))
                if n == 45_000 and seed == 0 and model == "vit":
                    fake_runs.write(tmp_path / "runs", "twice", 1 - error + fall, **common, **steps(8000))
    report = json.loads(vitbench("fit", "format=json").out)
    (size,) = [size for size in report["sizes"] if "vit" in size["label"] and size["images"] == 45_000]
    assert size["limited_by"] == said
    (row,) = [line for line in vitbench("fit").out.splitlines() if line.startswith("vit pe=none  45,000  ")][:1]
    assert row.endswith(f" {size['limited_by']}")
    rows = csv.DictReader(io.StringIO(vitbench("fit", "format=csv").out))
    words = [
        row["words"]
        for row in rows
        if row["statistic"] == "value" and row["images"] == "45000" and "vit" in row["model"]
    ]
    assert words == [size["limited_by"]]


def steps(n: int) -> dict[str, Any]:
    return {"optim.steps": n, "result_steps": n}


def test_a_reference_that_is_too_noisy_leaves_the_point_to_its_gap() -> None:
    """An excess of 0 ± 12 points: neither is the point surely worse than its reference, nor surely about as good."""
    curve, points = points_of([0.6, 0.5, 0.4, 0.3, 0.2], lambda n: 256_000 + n, trained=[0.1] * 5)
    for spread, limit in ((0.05, "perhaps"), (0.001, "not")):
        of_more = [Point(45_001, seed, 0.4 + NOISE[seed, 2] + spread * (seed - 1), "", 260_500) for seed in range(3)]
        assert limits(curve, points, of_more)[2] == limit


# ------------------------------------------------------------------------------- other axes, other forms, and targets


def test_error_against_compute_is_a_curve_and_has_a_verdict(tmp_path: Path, vitbench: Cli) -> None:
    """The ViT costs a tenth more a step, so that the two have no size in common along multiply-adds."""
    for model, b, cost in (("resnet", 20.0, 1_000_000), ("vit", 30.0, 1_100_000)):
        for steps in (500, 1000, 2000, 4000):
            for seed in range(3):
                error = b * (steps * 64) ** -0.35 * (1 + seed / 100)
                model_of = {"model.name": model, **({"model.pe.name": "none"} if model == "vit" else {})}
                settings = {"optim.steps": steps, "optim.batch_size": 64, "seed": seed}
                costs = {"result_multiply_adds": cost, "result_steps": steps}
                fake_runs.write(tmp_path / "runs", f"{model}{steps}{seed}", 1 - error, **model_of, **settings, **costs)
    report = json.loads(vitbench("fit", "x=multiply_adds", "format=json").out)
    assert [curve["exponent"]["value"] for curve in report["curves"]] == pytest.approx([-0.35, -0.35])
    assert report["curves"][1]["images"][0] == 3 * 1.0e6 * 500 * 64
    (pair,) = report["pairs"]
    assert pair["crossover"]["verdict"] == "none"
    assert "multiply-adds" in pair["crossover"]["sentence"]
    assert "no crossover up to 768,000 samples" not in vitbench("fit", "x=samples_seen").out
    assert vitbench("plot", "x=total_multiply_adds", "y=test_error", "fit=true", "file=compute.svg").code == 0
    assert (tmp_path / "compute.svg").exists()
    assert vitbench("fit", "x=smples").err.startswith("vitbench: x=smples: did you mean samples_seen")


def test_a_target_says_how_many_images_each_model_needs(tmp_path: Path, vitbench: Cli) -> None:
    table(tmp_path / "t.csv", law(3.0, -0.2), law(2.0, -0.2))
    out = vitbench("fit", "runs=t.csv", "target=0.7").out
    needed = (0.3 / 2.0) ** (1 / -0.2)  # 13,169
    assert "resnet needs about 13," in out and f"{needed:,.0f}".startswith("13,")
    assert "vit needs about" in out and "images for a test accuracy of 70 %" in out
    assert (
        "resnet would need more than 180,000 images for a test accuracy of 90 %"
        in vitbench("fit", "runs=t.csv", "target=0.9").out
    )
    assert "resnet needs fewer than 450 images" in vitbench("fit", "runs=t.csv", "target=0.2").out
    table(tmp_path / "loss.csv", law(3.0, -0.2), law(2.0, -0.2), loss=lambda n, error: error)
    for word in ("nan", "inf"):
        assert vitbench("fit", "runs=loss.csv", "value=test_loss", f"target={word}").code == 2
    wrong = vitbench("fit", "runs=t.csv", "target=90")
    assert wrong.code == 2 and "target=90: must be an accuracy between 0 and 1 (0.9, not 90)" in wrong.err


def test_another_form_that_fits_as_well_is_named_with_what_it_changes(tmp_path: Path, vitbench: Cli) -> None:
    table(tmp_path / "t.csv", law(3.0, -0.2), law(2.0, -0.2))
    report = of_table(vitbench, "form=pow3")
    assert report["form"] == "pow3" and {curve["form"] for curve in report["curves"]} == {"pow3"}
    out = vitbench("fit", "runs=t.csv", "form=pow3").out
    assert "pow2 fits better than pow3 (AICc -" in out and "exponents vit -0.20, resnet -0.20" in out
    assert "form=pow9: did you mean" in vitbench("fit", "runs=t.csv", "form=pow9").err


def test_a_curve_that_does_not_fall_needs_no_images_for_what_it_has(tmp_path: Path, vitbench: Cli) -> None:
    lines = [
        f"{model},{n:.0f},{seed},{0.1 + 0.01 * k + seed / 1000}"
        for model in "ab"
        for k, n in enumerate(N)
        for seed in (0, 1)
    ]
    (tmp_path / "t.csv").write_text("\n".join(["model,images,seed,error", *lines]) + "\n")
    assert (
        "a needs fewer than 450 images for a test accuracy of 50 %" in vitbench("fit", "runs=t.csv", "target=0.5").out
    )
    out = vitbench("fit", "runs=t.csv", "target=0.95").out
    assert "a would need more than 180,000 images for a test accuracy of 95 %, if it reaches that at all" in out


def test_a_target_below_guessing_needs_fewer_images_than_any_size() -> None:
    errors = np.stack([0.05 + 0.8 / (1 + (N / (3000 + 50 * seed)) ** 0.8) for seed in range(3)])
    curve = Curve("a", N, errors, (0, 1, 2), 0.9, "m4")
    assert curve.needed_for(0.95).mean == 0


def test_few_seconds_of_training_keep_their_digits() -> None:
    assert [number(n) for n in (0.123, 4.56, 8.0, 45.6, 1234.5, 2.6e12)] == [
        "0.12",
        "4.6",
        "8",
        "46",
        "1,230",
        "2.6e12",
    ]


def test_the_ratio_of_errors_is_below_1_where_the_one_that_errs_less_errs_more(tmp_path: Path, vitbench: Cli) -> None:
    """The ViT errs a little more at the smallest size, and less at all others."""
    table(tmp_path / "t.csv", law(0.505 * 450**0.2, -0.2), law(0.5 * 450**0.1, -0.1), rng=1, noise=0.03)
    (pair,) = of_table(vitbench)["pairs"]
    assert pair["crossover"]["verdict"] == "none" and pair["crossover"]["leads_at_first"] == "vit"
    said = pair["crossover"]["sentence"]
    (first,) = re.findall(r"the error of resnet is (0\.\d+) times that of vit at the smallest size", said)
    assert pair["differences"][0]["value"] > 0 and float(first) < 1
