"""What the settings `data` are to those who open a source of images and take a share of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LABEL_KEYS = ("name", "flip")  # what the images are called, and whether a mirror image keeps its class
SHARE_KEYS = ("fraction", "count", "val_fraction", "subset_seed")  # which of a source's images a run has


def source_options(data: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `open_dataset` (vitbench/data/menu.py), but for those that say how it goes about it."""
    return {key: value for key, value in data.items() if key not in LABEL_KEYS + SHARE_KEYS}


def share_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `split_and_subset` (vitbench/data/subset.py) that a run's settings hold."""
    return {key: settings["data"][key] for key in SHARE_KEYS} | {"subset_seed": subset_seed(settings)}


def subset_seed(settings: Mapping[str, Any]) -> int:
    """The seed that draws a run's images: that of the run, unless `data.subset_seed` is another."""
    own: int | None = settings["data"]["subset_seed"]
    seed: int = settings["seed"]
    return seed if own is None else own
