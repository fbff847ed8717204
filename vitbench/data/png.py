"""Decodes PNGs. It detects missing rows, and reads intact pixels even if the metadata around them is damaged."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
NEEDED = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf"}  # the chunks with pixels and orientation
FILLS = 165, 0  # a value that is rare at the end of pictures, and black, which differs from it in every mode
GREYS = {"L;2": 85, "L;4": 17}  # the factors by which Pillow scales grey of 2 and 4 bits


def load(file: Any, path: str | Path) -> Image.Image:
    """Decodes an open PNG. Raises ValueError if it holds fewer rows than its header says, which Pillow ignores."""
    try:
        return _whole(file, path)
    except MemoryError:
        raise
    except Exception:
        if (bare := without_metadata(path)) is None:
            raise
        with Image.open(io.BytesIO(bare), formats=("PNG",)) as again:
            return _whole(again, path)


def without_metadata(path: str | Path) -> bytes | None:
    """Returns a PNG without texts, profiles and animation, which Pillow may refuse; None for other files."""
    data = Path(path).read_bytes()
    if not data.startswith(SIGNATURE):
        return None
    kept, place = [SIGNATURE], len(SIGNATURE)
    while place + 8 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        if data[place + 4 : place + 8] in NEEDED:
            kept.append(data[place:end])
        place = end
    return b"".join(kept)


def _whole(file: Any, path: str | Path) -> Image.Image:
    """Decodes a PNG over one colour; if its last row then has that colour, decodes it again over another one."""
    raw_mode = file.tile[0][3]
    if file.info.get("bbox") not in (None, (0, 0, *file.size)):  # an animation whose first frame is only a part
        file.load()
    elif _is_untouched(file, FILLS[0]):
        with Image.open(io.BytesIO(without_metadata(path) or b""), formats=("PNG",)) as again:
            if _is_untouched(again, FILLS[1]):
                raise ValueError("image file has too few rows")
    if "transparency" in file.info:
        file.info["transparency"] = _as_decoded(file.info["transparency"], raw_mode)
    image: Image.Image = file
    return image


def _is_untouched(file: Any, fill: int) -> bool:
    """Decodes a PNG over a colour; returns whether the last pixels in the file still have that colour."""
    blank = Image.new(file.mode, file.size, fill)
    file.im = blank.im
    width, height = file.size
    last, step = height - 1, 1
    if file.info.get("interlace"):  # the odd rows come last, or the odd columns if there is only one row
        last, step = (last - height % 2, 1) if height > 1 else (0, 2 if width > 1 else 1)
    row: np.ndarray = np.asarray(file.crop((0, last, width, last + 1)))[:, step - 1 :: step]
    return bool((row == np.asarray(Image.new(file.mode, (1, 1), fill))).all())


def _as_decoded(transparent: Any, raw_mode: str) -> Any:
    """Converts the transparent colour of a PNG, which the header has in the bits of the file, to decoded values."""
    if raw_mode in GREYS and isinstance(transparent, int):
        return transparent * GREYS[raw_mode]
    if raw_mode == "RGB;16B" and isinstance(transparent, tuple):  # Pillow keeps 8 of the 16 bits of pixels
        return tuple(value >> 8 for value in transparent)
    return transparent
