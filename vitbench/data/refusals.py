"""What a source of images cannot be combined with, by the settings of a run. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vitbench.errors import UserError
from vitbench.menu import FROM_0, FROM_1, check_ranges

SHAPES = {"data.train_images": FROM_1, "data.test_images": FROM_1, "data.image_seed": FROM_0}


def shapes(flat: Mapping[str, Any]) -> None:
    """Refuses numbers of images that cannot be, and a change of the image that changes where the square lies."""
    check_ranges(flat, SHAPES)
    if flat["data.task"] != "relation":
        return
    if flat["augment.flip"] and flat["data.flip"]:
        raise UserError(
            f"augment={flat['augment.name']}: a mirror image changes the class of data.task=relation; "
            "add data.flip=false"
        )
    if flat["augment.rotate"] >= 45:
        raise UserError(
            f"augment.rotate={flat['augment.rotate']:g}: turning changes the class of data.task=relation; "
            "below 45 works"
        )
