"""Turns the settings `data` into arguments: for opening a source of images, taking a share, and rearranging places."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from vitbench.data.permute import rearrangement
from vitbench.settings.schema import DataConfig

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LABEL_KEYS = ("name", "flip")  # the name of the images, and whether a mirror image keeps its class
SHARE_KEYS = ("fraction", "count", "val_fraction", "subset_seed")  # these choose which images of a source a run has
TRAINING_KEYS = ("online",)  # how training goes through the images
PLACE_KEYS = ("permute", "permute_share", "permute_tile", "permute_seed")  # how the places of an image are rearranged


def source_options(data: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of `open_dataset` (vitbench/data/menu.py) that say which images it opens."""
    others = LABEL_KEYS + SHARE_KEYS + PLACE_KEYS + TRAINING_KEYS
    return {key: value for key, value in data.items() if key not in others}


def share_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of `split_and_subset` (vitbench/data/subset.py) that are settings of a run."""
    return {key: settings["data"][key] for key in SHARE_KEYS} | {"subset_seed": subset_seed(settings)}


def subset_seed(settings: Mapping[str, Any]) -> int:
    """Returns the seed that draws a run's images: `data.subset_seed` or, where that is null, the run's own."""
    return _own_or_of_run(settings, "subset_seed")


def without_idle_dial(data: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of `data` without a rearrangement where its share is 0, so that both are the same run."""
    if data["permute_share"] != 0:
        return {**data}
    defaults = {field.name: field.default for field in fields(DataConfig)}
    return {**data, **{key: defaults[key] for key in PLACE_KEYS}}


def places_of(settings: Mapping[str, Any], image_size: int) -> NDArray[np.int64] | None:
    """Returns which pixel a run's network gets at each place of an image, (H W,); None where each stays in its place.

    Raises UserError where the tile does not divide the image.
    """
    data = settings["data"]
    kind = data.get("permute", "none")  # records that are older than this setting lack it
    if kind == "none":
        return None
    tile = 1 if kind == "pixels" else data["permute_tile"]
    return rearrangement(image_size, tile, data["permute_share"], _own_or_of_run(settings, "permute_seed"))


def _own_or_of_run(settings: Mapping[str, Any], key: str) -> int:
    """Returns a seed of `data` or, where that is null, the seed of the run."""
    own: int | None = settings["data"][key]
    seed: int = settings["seed"]
    return seed if own is None else own
