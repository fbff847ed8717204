"""Makes Pillow read TIFFs as their tags say, or refuses those whose kind of pixels is not supported."""

from __future__ import annotations

from typing import Any, NamedTuple

BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, PLANES = 258, 259, 262, 277, 284
TILE_WIDTH, TILE_HEIGHT, SAMPLE_FORMAT, SUBSAMPLING = 322, 323, 339, 530
UNSIGNED, FLOAT, WHITE_IS_ZERO, SEPARATE, PLAIN, YCBCR = 1, 3, 0, 2, 1, 6
HEADS = b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"


class Grey(NamedTuple):
    """The meaning of the values of a grey image of more than 8 bits."""

    top: int = 65535  # the largest value that its bits can hold
    white_is_zero: bool = False


def prepare(file: Any, largest: int) -> Grey:
    """Checks an open TIFF and corrects how Pillow would read it. Raises ValueError if its pixels are not supported.

    A tile may have at most `largest` pixels.
    """
    tags = file.tag_v2
    kinds, bits = {*tags.get(SAMPLE_FORMAT, (UNSIGNED,))}, max(tags.get(BITS, (1,)))
    if FLOAT in kinds:
        raise ValueError("pixels are floating-point numbers, whose range is not known")
    if bits > 16:
        raise ValueError(f"pixels have more than 16 bits ({bits}), so their range is not known")
    if kinds != {UNSIGNED}:
        raise ValueError("pixels are signed numbers, whose range is not known")
    if (tile := tags.get(TILE_WIDTH, 0) * tags.get(TILE_HEIGHT, 0)) > largest:
        raise ValueError(f"its tiles have {tile:,} pixels, more than {largest:,}")
    if tags.get(COMPRESSION, PLAIN) == PLAIN:
        _prepare_plain(file, bits)
    return Grey(2**bits - 1, tags.get(PHOTOMETRIC) == WHITE_IS_ZERO)


def _prepare_plain(file: Any, bits: int) -> None:
    """Does the same for a TIFF without compression, which Pillow reads without libtiff."""
    tags = file.tag_v2
    separate = tags.get(PLANES) == SEPARATE
    if separate and tags.get(SAMPLES, 1) == 1:
        tags[PLANES], separate = 1, False  # for a single plane, Pillow would use only the first letter of the mode
        file._setup()
    if tags.get(PHOTOMETRIC) == YCBCR and (tags.get(SUBSAMPLING, (1, 1)) != (1, 1) or separate):
        raise ValueError("its colours are subsampled without compression, which is not supported")
    if separate and bits == 16:
        if file.mode not in ("RGB", "RGBA"):
            raise ValueError(f"it has planes of 16 bits in {file.mode}, which is not supported")
        order = "L" if tags.prefix == b"II" else "B"
        file.tile = [tile._replace(args=(f"{tile.args[0]};16{order}", *tile.args[1:])) for tile in file.tile]
    areas = ((right - left) * (lower - upper) for _, (left, upper, right, lower), *_ in file.tile)
    if sum(areas) < file.width * file.height * (len(file.getbands()) if separate else 1):
        raise ValueError("image file has too few rows")
