"""Decodes image files into arrays of pixels, in several processes if there are many files."""

from __future__ import annotations

import io
import multiprocessing
import os
import stat
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from vitbench.data import jpeg, png, tiff
from vitbench.data.files import may_start_processes, worker_killed
from vitbench.errors import DataError
from vitbench.machine.provenance import cores
from vitbench.machine.terminal import shown_path

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP")  # the only formats that Pillow may open
LARGEST = 100_000_000  # most pixels of a file before it is scaled down; a PNG of 12 kB can claim 400 million
LARGEST_FILE = 1_000_000_000  # most bytes of a file; 100 million uncompressed pixels take at most 800 million
BAND = 1_000_000  # number of pixels that are converted at a time
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SRGB = {"c2"}  # names of sRGB profiles that do not contain "sRGB"
DIM = 16  # an image is dim if its brightest value is at most 1/16 of the largest that its bits can hold


class Noticed(NamedTuple):
    """Facts about an intact file that the user should know."""

    oblong: bool  # it is not square
    dim: bool  # it is grey of up to 16 bits and uses at most a sixteenth of their range
    profile: str  # the name of a colour profile other than sRGB, which is ignored


@contextmanager
def opened(path: str | Path) -> Iterator[Any]:
    """Opens an image file and reads its header. Raises ValueError with the reason if its contents are wrong.

    An error of the operating system (no permission, too many open files) becomes a DataError: the image is not broken,
    and the error may be gone the next time.
    """
    try:
        with warnings.catch_warnings(action="ignore"), _open(path) as file:
            width, height = file.size
            if width * height > LARGEST:
                raise ValueError(f"{width:,} x {height:,} px, more than {LARGEST:,} pixels")
            yield file
    except MemoryError:
        raise
    except UnidentifiedImageError:
        raise ValueError(_unknown(path)) from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, KeyError and others
        if isinstance(error, OSError) and error.errno:
            raise DataError(f"{shown_path(path)} cannot be read: {error.strerror}") from None
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None


def _open(path: str | Path) -> Image.Image:
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not an ordinary file")
    if status.st_size > LARGEST_FILE:
        raise ValueError(f"{status.st_size:,} bytes, more than {LARGEST_FILE:,}")
    try:
        return Image.open(path, formats=FORMATS)
    except (ValueError, UnidentifiedImageError):  # texts or profiles in a PNG may be too large, or damaged
        if (bare := png.without_metadata(path)) is None:
            raise
        return Image.open(io.BytesIO(bare), formats=("PNG",))


def _unknown(path: str | Path) -> str:
    """Returns the reason why a file that Pillow does not recognise is refused."""
    with open(path, "rb") as file:
        is_tiff = file.read(4) in tiff.HEADS
    return "a TIFF that is cut off, or whose kind of pixels is not supported" if is_tiff else "not an image"


def decode(path: str | Path, size: int, fit: str = "crop", known: bool = False) -> np.ndarray:
    """Decodes a file as uint8 (3, size, size). Raises ValueError with the reason if it cannot be read completely.

    If the pixels are `known`, because the caller will compare them with a digest, fewer checks for missing data are
    made.
    """
    return square(picture(path, size, known)[0], size, fit)


def decode_and_notice(path: str | Path, size: int, fit: str = "crop") -> tuple[np.ndarray, Noticed]:
    """Does the same as `decode`, and also returns facts about the file."""
    image, noticed = picture(path, size)
    return square(image, size, fit), noticed


def picture(path: str | Path, size: int, known: bool = False) -> tuple[Image.Image, Noticed]:
    """Decodes a file in RGB, upright, and returns facts about it. Raises ValueError if it cannot be read completely.

    A JPEG whose sides have at least twice `size` pixels is decoded at a fraction of its size.
    """
    with opened(path) as file:
        oblong, profile = file.width != file.height, other_profile(file.info.get("icc_profile"))
        image: Image.Image = file
        grey = tiff.Grey()
        if file.format in ("JPEG", "MPO"):
            jpeg.load(file, size, known)
        elif file.format == "PNG":
            image = png.load(file, path)
        elif file.format == "TIFF":
            grey = tiff.prepare(file, LARGEST)
        image.load()
        dim = False
        if image.mode.startswith("I"):
            image, dim = to_8_bits(image, grey)
        if (turn := turn_of(file)) is not None:
            image = image.transpose(turn)
    return rgb(image), Noticed(oblong, dim, profile)


def turn_of(file: Image.Image) -> Image.Transpose | None:
    """Returns how EXIF says that an image has to be turned or mirrored; None if it says nothing or cannot be read."""
    try:
        said: Any = file.getexif().get(ExifTags.Base.Orientation)
        return TURNS.get(said)
    except MemoryError:
        raise
    except Exception:  # Pillow may raise anything on damaged EXIF data
        return None


def other_profile(profile: bytes | None) -> str:
    """Returns the name of a colour profile other than sRGB; empty if there is none."""
    name = _profile_name(profile) if profile else ""
    return "" if name in SRGB or "srgb" in name.lower() else name


@lru_cache(maxsize=64)  # thousands of photographs have the same profile
def _profile_name(profile: bytes) -> str:
    try:
        return ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile))).strip() or "unnamed"
    except (ImportError, OSError, ImageCms.PyCMSError):
        return "unreadable"


def to_8_bits(image: Image.Image, grey: tiff.Grey) -> tuple[Image.Image, bool]:
    """Scales grey of up to 16 bits to 8 bits; also returns whether it uses at most a sixteenth of its range.

    A transparent value becomes white. Raises ValueError for grey of more than 16 bits.
    """
    transparent, brightest, shown = image.info.get("transparency"), 0, Image.new("L", image.size)
    for box in _bands(image):
        values = np.asarray(image.crop(box)).astype(np.int32)
        if values.min() < 0 or values.max() > grey.top:
            raise ValueError("grey of more than 16 bits")
        if grey.white_is_zero:
            values = grey.top - values
        brightest = max(brightest, int(values.max()))
        eight = (values * 255 + grey.top // 2) // grey.top
        if transparent is not None:
            eight[values == transparent] = 255
        shown.paste(Image.fromarray(eight.astype(np.uint8)), box)
    return shown, 0 < brightest * DIM <= grey.top


def rgb(image: Image.Image) -> Image.Image:
    """Converts any mode to RGB by the rule of imagefolder. Raises ValueError for floating-point pixels."""
    if image.mode.startswith("I"):  # convert() would clip at 255
        image, _ = to_8_bits(image, tiff.Grey())
    if image.mode == "F":
        raise ValueError("pixels are floating-point numbers, whose range is not known")
    transparent = image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    if image.mode == "RGB" and not transparent:
        return image
    boxes = [*_bands(image)]
    if len(boxes) == 1:
        return _rgb(image, transparent)
    shown = Image.new("RGB", image.size)  # in bands, because converting a large image at once takes much memory
    for box in boxes:
        shown.paste(_rgb(image.crop(box), transparent), box)
    return shown


def _rgb(image: Image.Image, transparent: bool) -> Image.Image:
    if transparent:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _bands(image: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    """Yields boxes of about BAND pixels that cover an image from its first row to its last."""
    rows = max(1, BAND // image.width)
    for top in range(0, image.height, rows):
        yield 0, top, image.width, min(top + rows, image.height)


def square(image: Image.Image, size: int, fit: str = "crop") -> np.ndarray:
    """Returns an image of any shape as uint8 (C, size, size).

    With `fit` crop, the shorter side becomes `size` and the middle is cut out. With pad, the longer side becomes `size`
    and black borders fill the rest, as in torchvision and Pillow. With squash, both sides become `size`.
    """
    width, height = image.size
    if fit == "squash" and (width, height) != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    elif fit == "pad" and (width, height) != (size, size):
        scale = size / max(width, height)
        shape = max(1, round(width * scale)), max(1, round(height * scale))
        padded = Image.new(image.mode, (size, size))
        padded.paste(image.resize(shape, Image.Resampling.BILINEAR), ((size - shape[0]) // 2, (size - shape[1]) // 2))
        image = padded
    elif (width, height) != (size, size):
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2  # whole pixels, because half a pixel would blur
        # Only the middle is resized. The result is the same, and a 10,000 x 10 image costs no more than a small one.
        box = (left, top, left + side, top + side)
        image = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)


@contextmanager
def mapped(
    workers: int | None, jobs: int, initialise: Callable[..., None] | None = None, *given: Any
) -> Iterator[Callable[..., Iterator[Any]]]:
    """Yields a `map` that runs in several processes if there is more than one job; workers=None: one for each core.

    Each process first calls `initialise(*given)`.
    """
    workers = min(workers or cores(), jobs)
    if workers <= 1 or not may_start_processes():
        if initialise:
            initialise(*given)
        yield map
        return
    try:
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initialise, given) as pool:
            yield pool.map
    except BrokenProcessPool:
        raise worker_killed() from None
