"""What `vitbench fit` found, for machines: everything as JSON, and one number a row as CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from vitbench.comparing import formats
from vitbench.fitting.findings import is_matched
from vitbench.fitting.sentences import verdict, worth
from vitbench.numbers.curves import UNRELIABLE, Curve

if TYPE_CHECKING:
    from vitbench.fitting.findings import Compared, Report
    from vitbench.numbers.crossover import Ratio

HEAD = ["model", "against", "images", "statistic", "value", "ci95_low", "ci95_high", "n", "words"]


def to_json(report: Report) -> str:
    content = {
        "title": report.heading or None,
        "value": report.value,
        "curves": [_curve(curve) for curve in report.curves],
        "pairs": [_pair(pair, report.value) for pair in report.pairs],
        "notes": [*report.warnings, *report.notes],
    }
    return json.dumps(_plain(content), indent=1, allow_nan=False) + "\n"


def to_csv(report: Report) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEAD)
    writer.writerows([formats.escape_csv(cell) for cell in row] for row in rows(report))
    return out.getvalue()


def rows(report: Report) -> Iterator[list[Any]]:
    """One number a row, under HEAD."""
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
    for pair in report.pairs:
        a, b, seeds, found = pair.pair.a.label, pair.pair.b.label, len(pair.pair.a.seeds), pair.crossover
        for size, (i, p), p_holm in pair.differences:
            yield [a, b, size, "difference", i.mean, i.low, i.high, i.n, None]
            yield [a, b, size, "p_sign_flip", p, None, None, i.n, None]
            yield [a, b, size, "p_holm", p_holm, None, None, i.n, None]
        for cost, cost_ratio in pair.costs.items():
            yield [
                a,
                b,
                None,
                f"{cost}_ratio",
                cost_ratio,
                None,
                None,
                None,
                "matched" if is_matched(cost_ratio) else None,
            ]
        yield [a, b, None, "crossover", found.n, *_finite(found.low, found.high), seeds, found.verdict]
        yield [a, b, None, "draws_without_crossover", found.unmet_share, None, None, seeds, None]
        for ratio in pair.ratios:
            bound = {-math.inf: "<", math.inf: ">"}.get(ratio.value, "")
            number = ratio.least if bound == "<" else ratio.most if bound else ratio.value
            yield [
                pair.follower.label,
                pair.leader.label,
                ratio.n,
                "label_efficiency",
                number,
                *(_finite(ratio.low, ratio.high) if not bound else (None, None)),
                seeds,
                bound or None,
            ]
        for one, p_holm in pair.tested:
            seed = f"seed {one.seed}"
            yield [a, b, one.images, "only_model_right", one.only_a, None, None, 1, seed]
            yield [a, b, one.images, "only_against_right", one.only_b, None, None, 1, seed]
            yield [a, b, one.images, "p_mcnemar", one.p, None, None, 1, seed]
            yield [a, b, one.images, "p_mcnemar_holm", p_holm, None, None, 1, seed]


def _curve(curve: Curve) -> dict[str, Any]:
    offset = curve.offset
    return {
        "label": curve.label,
        "form": curve.form,
        "images": curve.n.tolist(),
        "seeds": len(curve.seeds),
        "exponent": _ends(curve.exponent.mean, curve.exponent.low, curve.exponent.high),
        "offset": None if offset is None else _ends(offset.mean, offset.low, offset.high),
        "log_b": curve.fitted.log_b.item(),
        "alpha": curve.fitted.alpha.item() if curve.form == "m4" else None,
        "chance": curve.chance,
        "r2_log_error": curve.r2,
        "held_back_error": curve.held_back,
        "reliable": curve.held_back <= UNRELIABLE,
        "aicc": curve.aicc,
        "means": [math.exp(v) for v in curve.mean_logs],
    }


def _pair(pair: Compared, value: str) -> dict[str, Any]:
    found = pair.crossover
    return {
        "model": pair.pair.a.label,
        "against": pair.pair.b.label,
        "seeds": len(pair.pair.a.seeds),
        "costs": {cost: {"ratio": ratio, "matched": is_matched(ratio)} for cost, ratio in pair.costs.items()},
        "differences": [
            {
                "images": n,
                **_ends(interval.mean, interval.low, interval.high),
                "n": interval.n,
                "p": p,
                "p_holm": p_holm,
            }
            for n, (interval, p), p_holm in pair.differences
        ],
        "crossover": {
            "verdict": found.verdict,
            "why": found.why or None,
            "leads_at_first": found.leader or None,
            **_ends(found.n, found.low, found.high, "images"),
            "times_largest": found.times,
            "share_of_draws_without": found.unmet_share,
            "sentence": verdict(pair, value),
        },
        "label_efficiency": {
            "model": pair.follower.label,
            "matches": pair.leader.label,
            "sentence": worth(pair) or None,
            "at": [_ratio(ratio) for ratio in pair.ratios],
        },
        "checkpoints": [{**one._asdict(), "p_holm": p_holm} for one, p_holm in pair.tested],
    }


def _ratio(ratio: Ratio) -> dict[str, Any]:
    bound = {-math.inf: "<", math.inf: ">"}.get(ratio.value)
    known = _ends(ratio.value, ratio.low, ratio.high, "ratio") if bound is None else {}
    return {"images": ratio.n, "bound": bound} | (known or {"ratio": ratio.least if bound == "<" else ratio.most})


def _ends(mean: float, low: float, high: float, name: str = "value") -> dict[str, float]:
    return {name: mean, "ci95_low": low, "ci95_high": high}


def _plain(value: Any) -> Any:
    """JSON knows neither NaN nor infinity."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return None if not math.isfinite(value) else int(value) if value.is_integer() else float(value)
    return value


def _finite(*values: float) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]
