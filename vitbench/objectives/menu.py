"""The menu of objectives. Imports no torch."""

from __future__ import annotations

from vitbench.menu import Choice

_REFUSALS = "vitbench.objectives.refusals"

MENU: dict[str, Choice] = {
    "classify": Choice("vitbench.objectives.classify:Classify", "the classes of images, by cross-entropy"),
    "simsiam": Choice(
        "vitbench.objectives.simsiam:SimSiam",
        "no labels: two views of an image agree (2011.10566)",
        f"{_REFUSALS}:simsiam",
    ),
    "mae": Choice(
        "vitbench.objectives.mae:MAE",
        "no labels: hidden patches are painted, ViT only (2111.06377)",
        f"{_REFUSALS}:mae",
    ),
}

# How often each image of a step goes through the whole network. It goes through a part of it with mae: nobody counted.
FORWARDS = {"classify": 1, "simsiam": 2}
