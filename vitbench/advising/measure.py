"""Measures how long training takes on this machine, and chooses patches with which a ViT costs what a ResNet does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from vitbench.advising.plan import Arm
from vitbench.errors import UserError
from vitbench.models.build import cost
from vitbench.models.menu import SIZES
from vitbench.runs.plan import Planner
from vitbench.training.step_time import seconds_an_image

SIZE = "nano"
PATCHES = (36, 256)  # the fewest and the most patches of an image


@cache
def scratch_costs(image_size: int, memory: Path) -> tuple[int, int, int]:
    """Returns the patch size in pixels at which the ViT's cost is nearest to the ResNet's, and the multiply-adds of an
    image for the ViT and the ResNet."""
    shape: dict[str, Any] = {"image_size": image_size, "channels": 3, "num_classes": 10, "memory": memory}
    _, of_resnet = cost("resnet", **shape, **SIZES[SIZE]["resnet"].options)
    sides = [image_size // patch for patch in range(1, image_size) if image_size % patch == 0]
    patches = [image_size // side for side in sides if PATCHES[0] <= side**2 <= PATCHES[1]]
    costs = {
        patch: cost("vit", **shape, **SIZES[SIZE]["vit"].options, patch_size=patch, pe={"name": "learned"})[1]
        for patch in patches
    }
    best = min(costs, key=lambda patch: abs(math.log(costs[patch] / of_resnet)))
    return best, costs[best], of_resnet


def scratch_arms(image_size: int, common: Sequence[str], memory: Path) -> list[Arm]:
    """Returns a ViT and a ResNet of about equal cost for images of this size, with their measured training times."""
    patch, _, _ = scratch_costs(image_size, memory)
    arms = {
        "ViT": f"model=vit model.size={SIZE} model.patch_size={patch} pe=learned",
        "ResNet": f"model=resnet model.size={SIZE}",
    }
    return [Arm(name, words, measured(words, image_size, common)) for name, words in arms.items()]


def measured(words: str, image_size: int, common: Sequence[str]) -> float:
    """Measures how many seconds a network trains on an image, on one core. Raises UserError where it cannot."""
    settings = Planner().settings([*common, f"data.image_size={image_size}", *words.split(" "), "machine.threads=1"])
    seconds = seconds_an_image(settings, image_size)
    if seconds is None:
        raise UserError(f"{words}: cannot be trained on images of {image_size} px here")
    return seconds
