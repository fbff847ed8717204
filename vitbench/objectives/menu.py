"""The menu of objectives. Imports no torch."""

from __future__ import annotations

from vitbench.menu import Choice

_REFUSALS = "vitbench.objectives.refusals"

MENU: dict[str, Choice] = {
    "classify": Choice("vitbench.objectives.classify:Classify", "learns classes by cross-entropy"),
    "simsiam": Choice(
        "vitbench.objectives.simsiam:SimSiam",
        "without labels: two views of an image get the same features (2011.10566)",
        f"{_REFUSALS}:simsiam",
    ),
    "mae": Choice(
        "vitbench.objectives.mae:MAE",
        "without labels: reconstructs masked patches, ViT only (2111.06377)",
        f"{_REFUSALS}:mae",
    ),
}

# How often a step passes each image through the whole network. mae is missing: it uses a part of the network, which is
# not counted.
FORWARDS = {"classify": 1, "simsiam": 2}
