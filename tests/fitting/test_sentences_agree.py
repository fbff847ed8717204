"""No sentence of a fit contradicts the table above it: tables that went wrong, and tables drawn at random."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vitbench.fitting.findings import Report, report_of
from vitbench.fitting.fit_file import read_table
from vitbench.fitting.render import render_report

SIZES = (100, 300, 1000, 3000, 10_000)
Errors = dict[str, np.ndarray]  # by model: (S, k)


def fitted(tmp_path: Path, errors: Errors, sizes: tuple[int, ...] = SIZES) -> Report:
    path = tmp_path / "table.csv"
    out = io.StringIO("model,images,seed,error\n")
    out.seek(0, 2)
    for model, table in errors.items():
        for seed, row in enumerate(table):
            for n, error in zip(sizes, row, strict=True):
                out.write(f"{model},{n},{seed},{float(error)!r}\n")
    path.write_text(out.getvalue())
    return report_of(*read_table(path))


def draw(curve: Callable[[np.ndarray], object], noise: float, seeds: int = 5, random: int = 0) -> np.ndarray:
    n = np.array(SIZES, float)
    factors = np.exp(np.random.default_rng(random).normal(0, noise, (seeds, len(n))))
    return np.clip(np.broadcast_to(np.asarray(curve(n), float), n.shape) * factors, 0, 0.999)


def same(*values: float, seeds: int = 5) -> np.ndarray:
    return np.tile(values, (seeds, 1))


def contradictions(errors: Errors, report: Report, sizes: tuple[int, ...] = SIZES) -> list[str]:
    """Reads each sentence against the means of the table; returns those that do not agree."""
    text, number = render_report("text", report), r"([\d,.e+]+)"
    means, found = {model: dict(zip(sizes, table.mean(0), strict=True)) for model, table in errors.items()}, []

    def value(words: str) -> float:
        return float(words.rstrip(".,").replace(",", ""))

    for less, more in re.findall(r"(\w+) errs less than (\w+), by", text):
        compared = report.pairs[0]
        of = compared.pooled_pair.n.tolist()
        if not np.mean([means[less][n] - means[more][n] for n in of]) < 0:
            found.append(f"{less} errs less than {more}")
    needs = rf"(\w+) needs (more than )?{number}x (?:\[.*?\] )?the images of (\w+) to match its error at {number}"
    for follower, bound, ratio, leader, n in re.findall(needs, text):
        behind = means[follower][int(value(n))] - means[leader][int(value(n))]
        if (value(ratio) > 1 and behind < -1e-12) or (not bound and value(ratio) < 0.995 and behind > 1e-12):
            found.append(f"{follower} needs {bound}{ratio}x at {n}, where it is {behind:+.3f} behind")
    points = r"([+-])([\d.e-]+) points at .*?"
    for a, first, b, last, way in re.findall(
        rf"changes with the images: {points}, {points}; the curves ([a-z ]+)", text
    ):
        ends = [report.pairs[0].pooled_pair.differences.mean(0)[i] for i in (0, -1)]
        if (a == "+") != (ends[0] > 0) or (b == "+") != (ends[1] > 0):
            found.append(f"{a}{first}, {b}{last} of {ends}")
        if way.startswith("approach") and (a != b or float(last) > float(first)):
            found.append(f"they {way} from {a}{first} to {b}{last}")
        if way.startswith("part") and (a != b or float(last) < float(first)):
            found.append(f"they {way} from {a}{first} to {b}{last}")
    for follower, leader, n in re.findall(rf"observed: (\w+) overtakes (\w+) at about {number} images", text):
        sides = [[size for size in sizes if (size < value(n)) is before] for before in (True, False)]
        ahead = [np.mean([means[leader][k] - means[follower][k] for k in side]) for side in sides if side]
        if not (ahead[0] < 0 < ahead[-1]):
            found.append(f"{follower} overtakes {leader} at {n}: {ahead}")
    found += [f"an interval without width: {shown}" for shown in re.findall(r"± 0\.?0*(?![\d.])", text)]
    for low, high in re.findall(r"\[([^],]+), ([^]]+)\]", text):
        if (
            low == high and low[0] not in "<>" and len(low.lstrip("-0.").replace(".", "")) > 4
        ):  # fewer digits may be rounded
            found.append(f"an interval without width: {low}")
    nothing = re.findall(r"[<>] 0\.0+(?!\d)|[-+]0\.0+(?![\d.])", text)
    return found + [f"0.0 of what is not nothing: {shown}" for shown in nothing]


TABLES: dict[str, Errors] = {
    "two equal curves": {"vit": same(0.5, 0.4, 0.3, 0.2, 0.1), "resnet": same(0.5, 0.4, 0.3, 0.2, 0.1)},
    "equal but for the last bits": {
        "vit": same(0.5, 0.4, 0.3, 0.2, 0.1),
        "resnet": same(0.5, 0.4, 0.3, 0.2, 0.1) + np.linspace(-4e-17, 4e-17, 5)[:, None],
    },
    "equal and flat within": {"vit": same(0.5, 0.3, 0.3, 0.3, 0.1), "resnet": same(0.5, 0.3, 0.3, 0.3, 0.1)},
    "an equal difference": {
        "vit": draw(lambda n: 2 * n**-0.2, 0.02) + 0.1,
        "resnet": draw(lambda n: 2 * n**-0.2, 0.02),
    },
    "parallel": {"vit": draw(lambda n: 2 * n**-0.2, 0.02), "resnet": draw(lambda n: n**-0.2, 0.02, random=1)},
    "ceiling": {"vit": draw(lambda n: 0.9 + 0 * n, 0.002), "resnet": draw(lambda n: 0.9 + 0 * n, 0.002, random=1)},
    "floor": {"vit": draw(lambda n: 0.002 * n**-0.3, 0.3), "resnet": draw(lambda n: 0.001 * n**-0.2, 0.3, random=1)},
    "tiny and sure": {
        "vit": draw(lambda n: 0.00012 * n**-0.3, 0.001),
        "resnet": draw(lambda n: 0.0001 * n**-0.3, 0.001, random=1),
    },
    "crossing once": {"vit": draw(lambda n: 4 * n**-0.35, 0.02), "resnet": draw(lambda n: n**-0.15, 0.02, random=1)},
    "crossing twice": {
        "vit": draw(lambda n: 0.3 * n**-0.05 + 0.03 * np.sin(np.log(n)), 0.01),
        "resnet": draw(lambda n: 0.3 * n**-0.05, 0.01, random=1),
    },
    "a bump": {
        "vit": draw(lambda n: np.where(n == 1000, 0.6, 2 * n**-0.3), 0.02),
        "resnet": draw(lambda n: n**-0.2, 0.02),
    },
    "rising and better at first": {
        "vit": draw(lambda n: np.array([0.2, 0.34, 0.33, 0.31, 0.3]), 0.01),
        "resnet": draw(lambda n: np.array([0.25, 0.245, 0.24, 0.235, 0.23]), 0.01, random=1),
    },
    "rising": {"vit": draw(lambda n: 0.1 * n**0.1, 0.01), "resnet": draw(lambda n: 0.08 * n**0.12, 0.01, random=1)},
    "noisy": {"vit": draw(lambda n: 2 * n**-0.3, 0.4), "resnet": draw(lambda n: n**-0.2, 0.4, random=1)},
}


@pytest.mark.parametrize("name", TABLES)
def test_no_sentence_contradicts_the_table_above_it(tmp_path: Path, name: str) -> None:
    assert contradictions(TABLES[name], fitted(tmp_path, TABLES[name])) == []


@pytest.mark.parametrize("seed", range(25))
def test_no_sentence_contradicts_a_table_drawn_at_random(tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    seeds, k = int(random.integers(2, 7)), int(random.integers(3, 6))
    n = np.array(SIZES[:k], float)
    errors: Errors = {}
    for model in ("vit", "resnet"):
        b, c, floor = random.uniform(0.5, 3), random.uniform(-0.05, 0.4), random.choice([0, 0.1])
        bend = random.choice([0, 0.3]) * np.sin(np.log(n) * random.uniform(0.5, 2))
        table = (floor + b * n**-c) * np.exp(bend + random.normal(0, random.choice([0, 0.01, 0.1]), (seeds, k)))
        errors[model] = np.clip(table * min(1, 0.95 / table.max()), 0, 1)
        if random.random() < 0.3:  # as counts of 200 test images give it, now and then without an error
            errors[model] = np.round(200 * errors[model] * random.choice([1, 0.05])) / 200
    if all(table.any() for table in errors.values()):
        assert contradictions(errors, fitted(tmp_path, errors, SIZES[:k]), SIZES[:k]) == []


@pytest.mark.parametrize("name", ["rising", "rising and better at first"])
def test_an_error_that_surely_rises_is_said_to_rise(tmp_path: Path, name: str) -> None:
    report = fitted(tmp_path, TABLES[name])
    assert any(said.startswith("vit: its test_error surely rises with the images, from ") for said in report.rises)
    assert "surely rises" in render_report("text", report) and "surely rises" in render_report("json", report)


def test_an_error_that_falls_or_only_seems_to_rise_is_not_said_to_rise(tmp_path: Path) -> None:
    said = [fitted(tmp_path, TABLES[name]).rises for name in ("parallel", "crossing once", "floor", "noisy", "ceiling")]
    assert said == [[]] * 5


def test_a_curve_that_rises_needs_no_hundred_times_the_images_where_it_is_better(tmp_path: Path) -> None:
    sizes = (100, 1000, 10_000)  # vit is 5 points better at 100 images; its regression is flat at 29 %
    errors = {
        "vit": np.array([[0.20, 0.34, 0.30], [0.21, 0.35, 0.31], [0.19, 0.33, 0.29]]),
        "resnet": np.array([[0.25, 0.24, 0.23], [0.26, 0.25, 0.24], [0.25, 0.235, 0.225]]),
    }
    assert contradictions(errors, fitted(tmp_path, errors, sizes), sizes) == []


@pytest.mark.parametrize("perfect", [1, 3, 5])
def test_perfect_runs_refuse_no_fit(tmp_path: Path, perfect: int) -> None:
    errors = {"vit": draw(lambda n: 3 * n**-0.3, 0.01), "resnet": draw(lambda n: 1.5 * n**-0.25, 0.01)}
    errors = {model: table[:, :3].copy() for model, table in errors.items()}
    errors["vit"][:perfect, -1] = errors["resnet"][:perfect, -1] = 0
    report = fitted(tmp_path, errors, SIZES[:3])
    last = report.pairs[0].differences[-1]
    assert last.interval.mean == pytest.approx((errors["vit"] - errors["resnet"])[:, -1].mean(), abs=1e-12)
    assert [size.counts for size in report.lines[0].sizes] == [True, True, perfect == 1]
    text = render_report("text", report)
    assert "which has no logarithm" in text or (perfect > 1 and "have a test_error of 0" in text)
    assert perfect == 1 or "nothing left to learn" in text


def test_one_total_failure_is_named(tmp_path: Path) -> None:
    errors = {"vit": draw(lambda n: 3 * n**-0.3, 0.01), "resnet": draw(lambda n: 1.5 * n**-0.25, 0.01)}
    errors["vit"][2, 1] = 1.0
    with pytest.raises(Exception, match=r"line 13: test_error is 1 with 300 images"):
        fitted(tmp_path, errors)
