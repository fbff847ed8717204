"""A report for machines: everything as JSON, and one number a row as CSV."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from vitbench.comparing import formats
from vitbench.fitting.findings import Compared, Report, is_matched
from vitbench.fitting.sentences import crossover_sentence, efficiency_sentence
from vitbench.numbers.crossover import Ratio
from vitbench.numbers.curves import UNRELIABLE, Curve
from vitbench.numbers.text import csv_text

HEAD = ["model", "against", "images", "statistic", "value", "ci95_low", "ci95_high", "n", "words"]


def to_json(report: Report) -> str:
    content = {
        "title": report.heading or None,
        "value": report.value,
        "curves": [_curve(curve) for curve in report.curves],
        "pairs": [_compared(compared, report.value) for compared in report.pairs],
        "notes": [*report.warnings, *report.notes],
    }
    return json.dumps(_plain(content), indent=1, allow_nan=False) + "\n"


def to_csv(report: Report) -> str:
    return csv_text([HEAD, *([formats.escape_csv(cell) for cell in row] for row in _rows(report))])


def _rows(report: Report) -> Iterator[list[Any]]:
    """Yields a row for each number of the report, in the columns of HEAD."""
    for c in report.curves:
        n, e = len(c.seeds), c.exponent
        yield [c.label, None, None, "exponent", e.mean, e.low, e.high, n, c.form]
        if c.offset is not None:
            yield [c.label, None, None, "offset", c.offset.mean, c.offset.low, c.offset.high, n, c.form]
        yield [c.label, None, None, "log_b", c.fitted.log_b.item(), None, None, n, c.form]
        if c.form == "m4":
            yield [c.label, None, None, "alpha", c.fitted.alpha.item(), None, None, n, c.form]
        yield [c.label, None, None, "r2_log_error", c.r2, None, None, c.errors.size, c.form]
        yield [c.label, None, c.n[-1], "held_back_error", c.held_back, None, None, n, c.form]
    for compared in report.pairs:
        a, b, seeds = compared.pair.a.label, compared.pair.b.label, len(compared.pair.a.seeds)
        for size, (i, p), p_holm in compared.differences:
            yield [a, b, size, "difference", i.mean, i.low, i.high, i.n, None]
            yield [a, b, size, "p_sign_flip", p, None, None, i.n, None]
            yield [a, b, size, "p_holm", p_holm, None, None, i.n, None]
        for cost, cost_ratio in compared.costs.items():
            matched = "matched" if is_matched(cost_ratio) else None
            yield [a, b, None, f"{cost}_ratio", cost_ratio, None, None, None, matched]
        crossover = compared.crossover
        yield [a, b, None, "crossover", crossover.n, *_finite(crossover.low, crossover.high), seeds, crossover.verdict]
        yield [a, b, None, "draws_without_crossover", crossover.unmet_share, None, None, seeds, None]
        follower, leader = compared.follower.label, compared.leader.label
        for ratio in compared.ratios:
            bound = {-math.inf: "<", math.inf: ">"}.get(ratio.value)
            number = ratio.least if bound == "<" else ratio.most if bound == ">" else ratio.value
            low, high = _finite(ratio.low, ratio.high) if bound is None else (None, None)
            yield [follower, leader, ratio.n, "label_efficiency", number, low, high, seeds, bound]
        for test, p_holm in compared.tested:
            seed = f"seed {test.seed}"
            yield [a, b, test.images, "only_model_right", test.only_a, None, None, 1, seed]
            yield [a, b, test.images, "only_against_right", test.only_b, None, None, 1, seed]
            yield [a, b, test.images, "p_mcnemar", test.p, None, None, 1, seed]
            yield [a, b, test.images, "p_mcnemar_holm", p_holm, None, None, 1, seed]


def _curve(curve: Curve) -> dict[str, Any]:
    offset = curve.offset
    return {
        "label": curve.label,
        "form": curve.form,
        "images": curve.n.tolist(),
        "seeds": len(curve.seeds),
        "exponent": _with_ends(curve.exponent.mean, curve.exponent.low, curve.exponent.high),
        "offset": None if offset is None else _with_ends(offset.mean, offset.low, offset.high),
        "log_b": curve.fitted.log_b.item(),
        "alpha": curve.fitted.alpha.item() if curve.form == "m4" else None,
        "chance": curve.chance,
        "r2_log_error": curve.r2,
        "held_back_error": curve.held_back,
        "reliable": curve.held_back <= UNRELIABLE,
        "aicc": curve.aicc,
        "means": [math.exp(v) for v in curve.mean_logs],
    }


def _compared(compared: Compared, value: str) -> dict[str, Any]:
    crossover = compared.crossover
    return {
        "model": compared.pair.a.label,
        "against": compared.pair.b.label,
        "seeds": len(compared.pair.a.seeds),
        "costs": {cost: {"ratio": ratio, "matched": is_matched(ratio)} for cost, ratio in compared.costs.items()},
        "differences": [
            {"images": n, **_with_ends(i.mean, i.low, i.high), "n": i.n, "p": p, "p_holm": p_holm}
            for n, (i, p), p_holm in compared.differences
        ],
        "crossover": {
            "verdict": crossover.verdict,
            "why": crossover.why or None,
            "leads_at_first": crossover.first_leader or None,
            **_with_ends(crossover.n, crossover.low, crossover.high, "images"),
            "times_largest": crossover.times,
            "share_of_draws_without": crossover.unmet_share,
            "sentence": crossover_sentence(compared, value),
        },
        "label_efficiency": {
            "model": compared.follower.label,
            "matches": compared.leader.label,
            "sentence": efficiency_sentence(compared) or None,
            "at": [_ratio(ratio) for ratio in compared.ratios],
        },
        "checkpoints": [{**test._asdict(), "p_holm": p_holm} for test, p_holm in compared.tested],
    }


def _ratio(ratio: Ratio) -> dict[str, Any]:
    bound = {-math.inf: "<", math.inf: ">"}.get(ratio.value)
    if bound is None:
        return {"images": ratio.n, "bound": None, **_with_ends(ratio.value, ratio.low, ratio.high, "ratio")}
    return {"images": ratio.n, "bound": bound, "ratio": ratio.least if bound == "<" else ratio.most}


def _with_ends(mean: float, low: float, high: float, name: str = "value") -> dict[str, float]:
    return {name: mean, "ci95_low": low, "ci95_high": high}


def _plain(value: Any) -> Any:
    """Makes numbers as JSON knows them, which has neither NaN nor infinity; whole numbers lose their point."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return None if not math.isfinite(value) else int(value) if value.is_integer() else float(value)
    return value


def _finite(*values: float) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]
