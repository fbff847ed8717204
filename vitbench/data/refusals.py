"""Refuses settings that a source of images cannot be combined with. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vitbench.errors import UserError, check_choice
from vitbench.menu import FROM_0, FROM_1, MOST_IMAGES, Range, check_ranges

FOLDERS = {
    "data.test_fraction": Range("above 0 and below 1 (a share of the images)", lambda value: 0 < value < 1),
    "data.split_seed": Range("0 to 4294967295", lambda value: 0 <= value < 2**32),
}
FITS = ("crop", "pad", "squash")  # the ways to make images square
SHAPES = {
    "data.train_images": FROM_1.up_to(MOST_IMAGES),
    "data.test_images": FROM_1.up_to(MOST_IMAGES),
    "data.image_seed": FROM_0.up_to(2**32 - 1),
}

MOVED = "moves the object, and its place is the class of data.task=place"
ALONE = "may remove an object or add a third one, but data.task=same_different compares two"
# For each task, the augmentation that would change the class: the setting, the value that works, and the reason.
CHANGES: dict[str, list[tuple[str, float, str]]] = {
    "place": [
        ("augment.crop", 0, MOVED),
        ("augment.area", 1, MOVED),
        ("augment.rotate", 0, MOVED),
        ("augment.scale", 0, MOVED),
        ("augment.randaugment", 0, MOVED),
    ],
    "same_different": [("augment.area", 1, ALONE), ("augment.cutmix", 0, ALONE), ("augment.erase", 0, ALONE)],
}
# The settings that assume a fixed set of images, each with the value that has no effect.
REPEATED: dict[str, Any] = {"data.fraction": 1, "data.count": None, "data.subset_seed": None, "optim.epochs": None}


def shapes(flat: Mapping[str, Any]) -> None:
    """Refuses numbers of images out of range, augmentation that changes the class, and epochs of online images."""
    check_ranges(flat, SHAPES)
    task = flat["data.task"]
    if task in ("relation", "place") and flat["augment.flip"] and flat["data.flip"]:
        raise UserError(
            f"augment={flat['augment.name']}: mirroring changes the class of data.task={task}; add data.flip=false"
        )
    if task == "relation" and flat["augment.rotate"] >= 45:
        raise UserError(
            f"augment.rotate={flat['augment.rotate']:g}: such angles change the class of data.task=relation; "
            "below 45 works"
        )
    for key, right, why in CHANGES.get(task, []):
        if flat[key] != right:
            raise UserError(f"{key}={flat[key]:g}: {why}; {key}={right} works")
    if flat["data.online"]:
        _check_online(flat)


def imagefolder(flat: Mapping[str, Any]) -> None:
    """Refuses a test share or a seed out of range, an unknown way to make images square, and an empty table name."""
    check_ranges(flat, FOLDERS)
    check_choice("data.fit", flat["data.fit"], FITS)
    if flat["data.labels"] is not None and not flat["data.labels"].strip():
        raise UserError("data.labels=: must not be empty; data.labels=null takes the classes from folders")


def _check_online(flat: Mapping[str, Any]) -> None:
    for key, nothing in REPEATED.items():
        if (value := flat[key]) != nothing:
            raise UserError(
                f"{key}={value:g}: data.online=true repeats no image, and optim.steps and optim.batch_size decide how "
                "many there are; drop it"
            )
    if (weights := flat["optim.class_weights"]) != "none":
        raise UserError(
            f"optim.class_weights={weights}: data.online=true draws each class equally often; drop one of them"
        )
    if (classes := flat["data.classes"]) is not None:
        raise UserError(
            f"data.classes=[{','.join(map(str, classes))}]: data.online=true draws images of all classes; drop it"
        )
