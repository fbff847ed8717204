"""Chooses the patch size if none is typed. Imports no torch."""

from __future__ import annotations

import math

SMALL = 4  # patch size in pixels for images of up to LARGEST_SMALL px, which gives at most 256 patches
LARGEST_SMALL = 64
PATCHES = 11  # patches along a side to aim at in larger images; a ViT/16 has 14 at 224 px


def usual_patch_size(image_size: int, power_of_two: bool = False) -> int:
    """Returns the side of a patch: 4 px for images of up to 64 px, else the divisor that gives about 11 x 11 patches.

    It is 8 for 96 px, 16 for 128 px, 16 for 224 px and 32 for 384 px. If no divisor gives at least 4 x 4 patches, it is
    4.
    """
    if image_size <= LARGEST_SMALL:
        return SMALL
    sizes = [
        size
        for size in range(SMALL, image_size // 4 + 1)
        if image_size % size == 0 and not (power_of_two and size & (size - 1))
    ]
    return min(sizes, key=lambda size: abs(math.log(image_size / size / PATCHES)), default=SMALL)
