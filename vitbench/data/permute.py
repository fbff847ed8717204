"""The dial of places: a fixed rearrangement of an image's tiles, the same one for every image of a run.

A CNN assumes that neighbouring pixels belong together. `data.permute=tiles` takes that from it, by a share of the tiles
that is turned from 0 to 1, and leaves a network without positions all that it had. Every image keeps its pixels, and
the rearrangement can be undone: what a network loses by it, it had assumed and not learned.

Zhang et al. (2017, arXiv 1611.03530, section 2.1) train on pixels that are all rearranged in one way. The share and the
size of the tiles are ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitbench.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KINDS = ("none", "tiles", "pixels")  # pixels: tiles of one pixel


def rearrangement(image_size: int, tile: int, share: float, seed: int) -> NDArray[np.int64] | None:
    """Which pixel of the image is shown at each place, (H W,), both counted row by row; None where none moves.

    The tiles are put in a random order. The first of them, the `share` of all, are moved round by one: each shows the
    tile that comes next in the order, and the last one the first. So every moved tile moves, the tiles that a share
    moves are among those that a larger share moves, and of the same seed all but one of them show the same tile at
    both shares. The number of moved tiles is rounded. One tile alone cannot move: where the share comes to one, two do.

    Raises UserError where the tiles do not divide the image, or there is only one of them.
    """
    import numpy as np

    if image_size % tile or tile == image_size:
        sizes = [str(size) for size in range(1, image_size) if image_size % size == 0]
        raise UserError(
            f"data.permute_tile={tile}: must divide the images' {image_size} px and be smaller: {', '.join(sizes)}"
        )
    side = image_size // tile
    moved = round(share * side**2)
    if moved == 0:
        return None
    tiles = np.random.default_rng((seed, 0, 5)).permutation(side**2)[: max(2, moved)]  # a stream of its own
    shown = np.arange(side**2)
    shown[tiles] = np.roll(tiles, -1)
    pixels = np.arange(image_size**2).reshape(side, tile, side, tile).swapaxes(1, 2).reshape(side**2, tile, tile)
    return pixels[shown].reshape(side, side, tile, tile).swapaxes(1, 2).reshape(-1)
