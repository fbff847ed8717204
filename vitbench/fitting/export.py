"""A report for machines: everything as JSON, and one number a row as CSV."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from vitbench.comparing import formats
from vitbench.fitting.findings import Compared, Report, is_matched
from vitbench.fitting.limits import Size
from vitbench.fitting.remarks import target_sentences
from vitbench.fitting.sentences import crossover_sentence, efficiency_sentence, pooled_sentence
from vitbench.fitting.tables import certificate_words, limited_by
from vitbench.numbers.curves import UNRELIABLE, Curve
from vitbench.numbers.efficiency import Ratio
from vitbench.numbers.intervals import Interval, smallest_difference
from vitbench.numbers.text import csv_text

HEAD = ["model", "against", "images", "statistic", "value", "ci95_low", "ci95_high", "n", "words"]


def to_json(report: Report) -> str:
    content = {
        "title": report.heading or None,
        "value": report.value,
        "x": report.axis.column,
        "form": report.form.form,
        "aicc": report.form.aicc,
        "curves": [_curve(curve) for curve in report.curves],
        "sizes": [
            {"label": line.label, **_size(size, (line.label, size.n) in report.certified_sizes)}
            for line in report.lines
            for size in line.sizes
        ],
        "pairs": [_compared(compared, report) for compared in report.pairs],
        "certificates": [
            {
                "label": c.curve.label,
                "images": c.size.n,
                "samples": c.size.certificate.samples,
                "fall": _interval(c.size.certificate.fall),
                "difference": c.difference,
                "reading": certificate_words(c),
            }
            for c in report.certified
            if c.size.certificate
        ],
        "targets": [
            {"label": target.curve.label, "error": report.asked_target, report.axis.unit: _interval(target.needed)}
            for target in report.targets
        ],
        "target_sentences": target_sentences(report),
        "notes": [*report.warnings, *report.rises, *report.notes],
    }
    return json.dumps(_plain(content), indent=1, allow_nan=False) + "\n"


def to_csv(report: Report) -> str:
    """A number that is unknown or infinite is an empty cell."""
    return csv_text([HEAD, *([formats.escape_csv(cell) for cell in row] for row in number_rows(report))])


def number_rows(report: Report) -> list[list[Any]]:
    """One number a row, in the columns of HEAD: None where it is unknown or infinite; no row that says nothing else."""
    rows = [[None if _is_endless(cell) else cell for cell in row] for row in _rows(report)]
    return [row for row in rows if row[4] is not None or row[8] is not None]


def _is_endless(cell: Any) -> bool:
    return isinstance(cell, float) and not math.isfinite(cell)


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
    for line in report.lines:
        for size in line.sizes:
            yield [line.label, None, size.n, "epochs", size.epochs, None, None, size.value.n, None]
            for statistic, of in _measured(size).items():
                if of is not None:
                    certified = (line.label, size.n) in report.certified_sizes
                    words = limited_by(size, certified) if of is size.value else None
                    yield [line.label, None, size.n, statistic, of.mean, of.low, of.high, of.n, words]
    for found in report.certified:
        if found.size.certificate is not None:
            fall, label = found.size.certificate.fall, found.curve.label
            words = certificate_words(found)
            yield [label, None, found.size.n, "certificate_fall", fall.mean, fall.low, fall.high, fall.n, words]
    for target in report.targets:
        needed = target.needed
        ends = needed.mean, needed.low, needed.high
        yield [target.curve.label, None, None, "needed_for_target", *ends, needed.n, f"{report.asked_target:g}"]
    for compared in report.pairs:
        a, b, seeds = compared.pair.a.label, compared.pair.b.label, len(compared.pair.a.seeds)
        for images, i, counts in compared.differences:
            words = None if counts else "does not count"
            yield [a, b, images, "difference", i.mean, i.low, i.high, i.n, words]
            yield [a, b, images, "smallest_difference", smallest_difference(i), None, None, i.n, None]
        pooled, i = compared.pooled, compared.pooled.interval
        yield [a, b, None, "pooled_difference", i.mean, i.low, i.high, i.n, None]
        yield [a, b, None, "pooled_smallest_difference", pooled.smallest, None, None, i.n, None]
        slope = pooled.slope
        yield [a, b, None, "difference_slope", slope.mean, slope.low, slope.high, i.n, None]
        for name, p in (("p_t", pooled.p), ("p_holm", compared.p_holm), ("p_sign_flip", pooled.sign_flip)):
            yield [a, b, None, name, p, None, None, i.n, None]
        for cost, cost_ratio in compared.costs.items():
            matched = "matched" if is_matched(cost_ratio) else None
            yield [a, b, None, f"{cost}_ratio", cost_ratio, None, None, None, matched]
        crossover = compared.crossover
        yield [a, b, None, "crossover", crossover.n, crossover.low, crossover.high, seeds, crossover.verdict]
        yield [a, b, None, "draws_without_crossover", crossover.unmet_share, None, None, seeds, None]
        follower, leader = compared.follower.label, compared.leader.label
        for ratio in compared.ratios:
            bound = {-math.inf: "<", math.inf: ">"}.get(ratio.value)
            number = ratio.least if bound == "<" else ratio.most if bound == ">" else ratio.value
            low, high = (ratio.low, ratio.high) if bound is None else (None, None)
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


def _measured(size: Size) -> dict[str, Interval | None]:
    """What was measured at one size, by the name of the statistic."""
    return {
        "value": size.value,
        "train": size.trained,
        "gap": size.gap,
        "loss_gap": size.loss_gap,
        "above_reference": size.excess,
    }


def _size(size: Size, is_certified: bool) -> dict[str, Any]:
    measured = {key: None if of is None else _interval(of) for key, of in _measured(size).items()}
    said = {"limit": size.limit, "limited_by": limited_by(size, is_certified), "counts": size.counts}
    return {"images": size.n, "epochs": size.epochs, **measured, "reference_images": size.reference, **said}


def _interval(interval: Interval) -> dict[str, Any]:
    return {**_with_ends(interval.mean, interval.low, interval.high), "n": interval.n}


def _compared(compared: Compared, report: Report) -> dict[str, Any]:
    crossover, pooled = compared.crossover, compared.pooled
    return {
        "model": compared.pair.a.label,
        "against": compared.pair.b.label,
        "seeds": len(compared.pair.a.seeds),
        "costs": {cost: {"ratio": ratio, "matched": is_matched(ratio)} for cost, ratio in compared.costs.items()},
        "differences": [
            {"images": n, **_interval(i), "smallest": smallest_difference(i), "counts": counts}
            for n, i, counts in compared.differences
        ],
        "pooled": {
            **_interval(pooled.interval),
            "p": pooled.p,
            "p_holm": compared.p_holm,
            "p_sign_flip": pooled.sign_flip,
            "smallest": pooled.smallest,
            "slope": _interval(pooled.slope),
            "sentence": pooled_sentence(compared, report.value, report.axis) or None,
        },
        "crossover": {
            "verdict": crossover.verdict,
            "why": crossover.why or None,
            "leads_at_first": crossover.first_leader or None,
            **_with_ends(crossover.n, crossover.low, crossover.high, "images"),
            "times_largest": crossover.times,
            "share_of_draws_without": crossover.unmet_share,
            "sentence": crossover_sentence(compared, report.axis),
        },
        "label_efficiency": {
            "model": compared.follower.label,
            "matches": compared.leader.label,
            "sentence": efficiency_sentence(compared, report.axis) or None,
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
