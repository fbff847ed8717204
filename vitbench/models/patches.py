"""The patch size where none is typed. Imports no torch."""

from __future__ import annotations

import math

SMALL = 4  # pixels, for images up to LARGEST_SMALL: at most 256 patches
LARGEST_SMALL = 64
PATCHES = 11  # a side that is aimed at in larger images: 64 to 196 patches in all, as in a ViT/16 at 224 px


def usual_patch_size(image_size: int, power_of_two: bool = False) -> int:
    """The pixels of a patch: 4 up to 64 px, then the divisor of the image's side that comes nearest to 11 x 11 patches.

    96 px: 8, 128 px: 16, 224 px: 16, 384 px: 32. It is 4 where no divisor leaves 4 x 4 patches or more.
    """
    if image_size <= LARGEST_SMALL:
        return SMALL
    sizes = [
        size
        for size in range(SMALL, image_size // 4 + 1)
        if image_size % size == 0 and not (power_of_two and size & (size - 1))
    ]
    return min(sizes, key=lambda size: abs(math.log(image_size / size / PATCHES)), default=SMALL)
