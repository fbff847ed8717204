"""Reads TIFFs as their tags say where Pillow takes them for another kind, or says why there is no rule for them."""

from __future__ import annotations

from typing import Any, NamedTuple

BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, PLANES = 258, 259, 262, 277, 284
TILE_WIDTH, TILE_HEIGHT, SAMPLE_FORMAT, SUBSAMPLING = 322, 323, 339, 530
UNSIGNED, FLOAT, WHITE_IS_ZERO, SEPARATE, PLAIN, YCBCR = 1, 3, 0, 2, 1, 6
HEADS = b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"


class Grey(NamedTuple):
    """What the values of a grey image of more than 8 bits mean."""

    top: int = 65535  # the largest that its bits can hold
    white_is_zero: bool = False


def prepare(file: Any, largest: int) -> Grey:
    """Looks at an open TIFF, and mends how Pillow would read it; ValueError with the reason where no rule does.

    A tile may have `largest` pixels.
    """
    tags = file.tag_v2
    kinds, bits = {*tags.get(SAMPLE_FORMAT, (UNSIGNED,))}, max(tags.get(BITS, (1,)))
    if FLOAT in kinds:
        raise ValueError("pixels are floating-point numbers, whose range no rule tells")
    if bits > 16:
        raise ValueError(f"pixels of more than 16 bits ({bits}), whose range no rule tells")
    if kinds != {UNSIGNED}:
        raise ValueError("pixels are signed numbers, whose range no rule tells")
    if (tile := tags.get(TILE_WIDTH, 0) * tags.get(TILE_HEIGHT, 0)) > largest:
        raise ValueError(f"tiles of {tile:,} pixels, more than {largest:,}")
    if tags.get(COMPRESSION, PLAIN) == PLAIN:
        _prepare_plain(file, bits)
    return Grey(2**bits - 1, tags.get(PHOTOMETRIC) == WHITE_IS_ZERO)


def _prepare_plain(file: Any, bits: int) -> None:
    """The same of a TIFF without compression, which Pillow reads itself."""
    tags = file.tag_v2
    separate = tags.get(PLANES) == SEPARATE
    if separate and tags.get(SAMPLES, 1) == 1:
        tags[PLANES], separate = 1, False  # one plane is no planes; Pillow would take only the first letter of its mode
        file._setup()
    if tags.get(PHOTOMETRIC) == YCBCR and (tags.get(SUBSAMPLING, (1, 1)) != (1, 1) or separate):
        raise ValueError("colours of fewer pixels than the light, without compression")
    if separate and bits == 16:
        if file.mode not in ("RGB", "RGBA"):
            raise ValueError(f"planes of 16 bits, in {file.mode}")
        order = "L" if tags.prefix == b"II" else "B"
        file.tile = [tile._replace(args=(f"{tile.args[0]};16{order}", *tile.args[1:])) for tile in file.tile]
    areas = ((right - left) * (lower - upper) for _, (left, upper, right, lower), *_ in file.tile)
    if sum(areas) < file.width * file.height * (len(file.getbands()) if separate else 1):
        raise ValueError("image file has too few rows")
