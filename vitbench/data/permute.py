"""Rearranges the tiles of an image (`data.permute`), in the same way for every image of a run.

A CNN assumes that neighbouring pixels belong together. `data.permute=tiles` breaks this assumption for a share of the
tiles from 0 to 1. A network without positions loses nothing. Every image keeps all its pixels, and the rearrangement
can be undone. So what a network loses by it is due to an assumption of its architecture, and not to missing
information.

Zhang et al. (2017, arXiv 1611.03530, section 2.1) train on images whose pixels are all rearranged in the same way. The
share and the size of the tiles are ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitbench.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KINDS = ("none", "tiles", "pixels")  # "pixels" has tiles of one pixel


def rearrangement(image_size: int, tile: int, share: float, seed: int) -> NDArray[np.int64] | None:
    """Returns the pixel of the image that is shown at each place, (H W,), both counted row by row; None if none moves.

    The tiles are put in a random order, and the first ones, a `share` of all, are rotated by one: each place shows the
    tile that comes next in the order, and the last place shows the first tile. So no chosen tile stays in its place. A
    smaller share moves a subset of the tiles that a larger share moves, and with the same seed all but one of these
    places show the same tile at both shares. The number of moved tiles is rounded. One tile alone cannot move, so if
    the number is one, two tiles move.

    Raises UserError if the tiles do not divide the image, or if one tile covers it.
    """
    import numpy as np

    if image_size % tile or tile == image_size:
        sizes = [str(size) for size in range(1, image_size) if image_size % size == 0]
        raise UserError(
            f"data.permute_tile={tile}: must divide the image size, {image_size} px, and be smaller; "
            f"choices: {', '.join(sizes)}"
        )
    side = image_size // tile
    moved = round(share * side**2)
    if moved == 0:
        return None
    tiles = np.random.default_rng((seed, 0, 5)).permutation(side**2)[: max(2, moved)]  # its own random stream
    shown = np.arange(side**2)
    shown[tiles] = np.roll(tiles, -1)
    pixels = np.arange(image_size**2).reshape(side, tile, side, tile).swapaxes(1, 2).reshape(side**2, tile, tile)
    return pixels[shown].reshape(side, side, tile, tile).swapaxes(1, 2).reshape(-1)
