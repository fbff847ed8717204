"""Checks and completes the settings of distillation. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vitbench.errors import UserError, did_you_mean
from vitbench.menu import ABOVE_0, MOST, Range, check_ranges

DEIT = {"hard": 0.5, "soft": 0.1}  # DeiT's share of the teacher in the loss, by kind
SOFT_TEMPERATURE = 3.0  # DeiT's temperature
RANGES = {
    "distill.alpha": Range("0 to 1 (the teacher's share of the loss)", lambda value: 0 <= value <= 1),
    "distill.temperature": ABOVE_0.up_to(MOST),
}


def distillation(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings `distill` of a run with all defaults filled in; all are None without a teacher.

    Raises UserError for settings that are wrong or need a teacher.
    """
    teacher, kind = flat["teacher"], flat["distill.kind"] or "hard"
    alpha, temperature = flat["distill.alpha"], flat["distill.temperature"]
    if teacher is None:
        _refuse_without_teacher(flat)
        return {"kind": flat["distill.kind"], "alpha": alpha, "temperature": temperature}
    if not teacher.strip():
        raise UserError("teacher=: must be the id of a run, or settings such as 'model=resnet'; null for no teacher")
    if kind not in DEIT:
        raise UserError(f"distill.kind={kind}: {did_you_mean(kind, DEIT)}")
    if kind == "hard" and temperature is not None:
        raise UserError(
            f"distill.temperature={temperature}: is for distill.kind=soft; hard only learns the predicted class"
        )
    check_ranges(flat, RANGES)
    if kind == "soft" and temperature is None:
        temperature = SOFT_TEMPERATURE
    return {"kind": kind, "alpha": DEIT[kind] if alpha is None else alpha, "temperature": temperature}


def _refuse_without_teacher(flat: Mapping[str, Any]) -> None:
    for key in ("distill.kind", "distill.alpha", "distill.temperature", "model.distill_token"):
        value = flat.get(key)
        if value is not None and value is not False:
            typed = "true" if value is True else value
            raise UserError(f"{key}={typed}: is for a run with a teacher; add teacher=RUN_ID")
