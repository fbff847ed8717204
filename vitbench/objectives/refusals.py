"""Refuses settings that an objective cannot be combined with. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vitbench.errors import UserError
from vitbench.machine.distributed import WORLD_SIZE
from vitbench.menu import FROM_1, MOST_DEPTH, MOST_WIDTH, SHARE, Range, check_ranges
from vitbench.models.refusals import refuse_parts

SIMSIAM = {
    "objective.width": FROM_1.up_to(MOST_WIDTH),
    "objective.area": SHARE.with_note("a share of the image"),
    "objective.colour": Range("0 to 1", lambda value: 0 <= value <= 1),
    "objective.grey": Range("0 to 1 (a share of the views)", lambda value: 0 <= value <= 1),
}
MAE = {
    "objective.width": FROM_1.up_to(MOST_WIDTH),
    "objective.depth": FROM_1.up_to(MOST_DEPTH).of("blocks"),
    "objective.mask": Range("above 0 and below 1 (a share of the patches)", lambda value: 0 < value < 1),
}


def simsiam(flat: Mapping[str, Any]) -> None:
    check_ranges(flat, SIMSIAM)
    refuse_parts(flat, "objective=simsiam")
    _refuse_labels(flat)


def mae(flat: Mapping[str, Any]) -> None:
    check_ranges(flat, MAE)
    if "model.patch_size" not in flat:
        raise UserError(
            f"objective=mae: masks patches, and model={flat['model.name']} has none; model=vit has patches, and "
            "objective=simsiam works with every model"
        )
    _refuse_labels(flat)


def _refuse_labels(flat: Mapping[str, Any]) -> None:
    """Refuses settings that have no effect with an objective without labels."""
    typed = f"objective={flat['objective.name']}"
    useless = ("augment.mixup", "augment.cutmix", "optim.label_smoothing", "augment.erase")
    if on := [key for key in useless if flat[key]]:
        given, without = " ".join(f"{key}={flat[key]}" for key in on), " ".join(f"{key}=0" for key in on)
        raise UserError(f"{given}: has no effect with {typed}, which uses no labels and erases nothing; add {without}")
    if (weights := flat["optim.class_weights"]) != "none":
        raise UserError(f"optim.class_weights={weights}: {typed} learns no classes; drop it")
    if flat["freeze"] == "backbone":
        raise UserError(f"freeze=backbone: {typed} trains the backbone; drop one of them")
    if flat["optim.batch_size"] < 2:
        raise UserError(f"optim.batch_size={flat['optim.batch_size']}: {typed} needs 2 or more images")
    if WORLD_SIZE > 1:
        raise UserError(f"{typed}: trains in one process only; type the command without torchrun")
    if flat["teacher"]:
        raise UserError(f"teacher={flat['teacher']}: teaches classes, and {typed} learns none; drop one of them")
