"""What two models cost side by side, and in which of it they are matched: a fair comparison says what it holds equal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from vitbench.compare import MATCHED, Row
from vitbench.formats import TOTAL
from vitbench.records import total_seconds

WORDS = {
    "multiply_adds": ("FLOP-matched", "FLOPs"),
    "parameters": ("param-matched", "parameters"),
    TOTAL: ("time-matched", "training time"),
}  # of what is matched, and of what is not


def ratios(a: Sequence[Row], b: Sequence[Row], images: float) -> dict[str, float]:
    """Costs of model `a` over those of `b`, as far as they are known; training time at that many images, with that of what
    a run began from or learned from.

    Times compare on one kind of hardware only: where runs of the two differ in any of `hardware.*` there is no ratio.
    """
    found = {}
    for cost in ("multiply_adds", "parameters"):
        its, others = ({row.get(cost) or math.nan for row in rows} for rows in (a, b))
        if len(its) == len(others) == 1:
            found[cost] = its.pop() / others.pop()
    at = [[row for row in rows if row.get("train_images") == images and total_seconds(row, row)] for rows in (a, b)]
    kinds = {tuple(sorted((key, str(value)) for key, value in row.items() if key.startswith("hardware.")))
             for rows in at for row in rows}  # fmt: skip
    if all(at) and len(kinds) == 1 and () not in kinds:
        seconds = [fmean(total_seconds(row, row) or math.nan for row in rows) for rows in at]
        found[TOTAL] = seconds[0] / seconds[1]
    return {cost: ratio for cost, ratio in found.items() if math.isfinite(ratio)}


def is_matched(ratio: float) -> bool:
    return 1 / MATCHED <= ratio <= MATCHED


def words(found: Mapping[str, float]) -> str:
    """FLOP-matched 0.94x; parameters 4.1x; time-matched 1.02x"""
    return "; ".join(f"{WORDS[cost][not is_matched(ratio)]} {_times(ratio)}" for cost, ratio in found.items())


def _times(ratio: float) -> str:
    return f"{ratio:.2f}x" if ratio < 2 else f"{ratio:.1f}x" if ratio < 100 else f"{ratio:,.0f}x"
