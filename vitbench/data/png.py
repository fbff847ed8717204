"""Decodes PNGs: notices missing rows, keeps pixels that are whole though what lies around them is not."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
NEEDED = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf"}  # pixels, and how they are turned
FILLS = 165, 0  # any value that is rare at the end of a picture, and black, which is another one in every mode
GREYS = {"L;2": 85, "L;4": 17}  # by what Pillow multiplies grey of few bits


def load(file: Any, path: str | Path) -> Image.Image:
    """Decodes an open PNG; ValueError where it holds fewer rows than it promises, which Pillow does not mention."""
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
    """A PNG without texts, profiles and animation, for which Pillow refuses some; None where it is none."""
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
    """Decodes a PNG over one colour, and where its last row is of that colour then, over another one."""
    raw_mode = file.tile[0][3]
    if file.info.get("bbox") not in (None, (0, 0, *file.size)):  # an animation whose first frame is a part
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
    """Decodes a PNG over a colour; whether the pixels that come last are still of that colour."""
    blank = Image.new(file.mode, file.size, fill)
    file.im = blank.im
    width, height = file.size
    last, step = height - 1, 1
    if file.info.get("interlace"):  # the odd rows come last, or where there are none, the odd columns
        last, step = (last - height % 2, 1) if height > 1 else (0, 2 if width > 1 else 1)
    row: np.ndarray = np.asarray(file.crop((0, last, width, last + 1)))[:, step - 1 :: step]
    return bool((row == np.asarray(Image.new(file.mode, (1, 1), fill))).all())


def _as_decoded(transparent: Any, raw_mode: str) -> Any:
    """The transparent colour of a PNG as its pixels are decoded; the header has it in the bits of the file."""
    if raw_mode in GREYS and isinstance(transparent, int):
        return transparent * GREYS[raw_mode]
    if raw_mode == "RGB;16B" and isinstance(transparent, tuple):  # 8 of 16 bits are kept, of pixels too
        return tuple(value >> 8 for value in transparent)
    return transparent
