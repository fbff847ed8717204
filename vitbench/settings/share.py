"""What the settings `data` are to those who open a source of images, take a share of them and rearrange places."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from vitbench.data.permute import rearrangement
from vitbench.settings.schema import DataConfig

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LABEL_KEYS = ("name", "flip")  # what the images are called, and whether a mirror image keeps its class
SHARE_KEYS = ("fraction", "count", "val_fraction", "subset_seed")  # which of a source's images a run has
TRAINING_KEYS = ("online",)  # how training goes through the images
PLACE_KEYS = ("permute", "permute_share", "permute_tile", "permute_seed")  # how the places of an image are rearranged


def source_options(data: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `open_dataset` (vitbench/data/menu.py), but for those that say how it goes about it."""
    others = LABEL_KEYS + SHARE_KEYS + PLACE_KEYS + TRAINING_KEYS
    return {key: value for key, value in data.items() if key not in others}


def share_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `split_and_subset` (vitbench/data/subset.py) that a run's settings hold."""
    return {key: settings["data"][key] for key in SHARE_KEYS} | {"subset_seed": subset_seed(settings)}


def subset_seed(settings: Mapping[str, Any]) -> int:
    """The seed that draws a run's images: that of the run, unless `data.subset_seed` is another."""
    return _own_or_of_run(settings, "subset_seed")


def without_idle_dial(data: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of `data`, in which a share of 0 is no rearrangement: the same run, whichever way it was typed."""
    if data["permute_share"] != 0:
        return {**data}
    defaults = {field.name: field.default for field in fields(DataConfig)}
    return {**data, **{key: defaults[key] for key in PLACE_KEYS}}


def places_of(settings: Mapping[str, Any], image_size: int) -> NDArray[np.int64] | None:
    """Which pixel a run's network gets at each place of an image, (H W,); None where each stays in its place.

    UserError where no tile of that size divides the image.
    """
    data = settings["data"]
    kind = data.get("permute", "none")  # records of before there was the dial do not name it
    if kind == "none":
        return None
    tile = 1 if kind == "pixels" else data["permute_tile"]
    return rearrangement(image_size, tile, data["permute_share"], _own_or_of_run(settings, "permute_seed"))


def _own_or_of_run(settings: Mapping[str, Any], key: str) -> int:
    """A seed of `data`, or where that is null the seed of the run."""
    own: int | None = settings["data"][key]
    seed: int = settings["seed"]
    return seed if own is None else own
