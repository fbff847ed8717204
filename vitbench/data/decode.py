"""An image file as an array of pixels, over several processes where there are many."""

from __future__ import annotations

import multiprocessing
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vitbench.data.files import may_start_processes, worker_killed
from vitbench.errors import DataError
from vitbench.machine.provenance import cores

LARGEST = 100_000_000  # pixels of a file before it is scaled down; a PNG of 12 kB can ask for 400 million


@contextmanager
def opened(path: str | Path) -> Iterator[Image.Image]:
    """An image file; what is wrong with its contents is a ValueError with the reason.

    What the system has to say (no permission, too many open files) is a DataError: that is no broken image, and may be
    gone the next time.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as file:
            yield file
    except MemoryError:
        raise
    except UnidentifiedImageError:
        raise ValueError("no image") from None
    except Exception as error:  # Pillow raises what its decoders raise: OSError, SyntaxError, struct.error, KeyError
        if isinstance(error, OSError) and error.errno:
            raise DataError(f"{shown_path(path)} cannot be read: {error.strerror}") from None
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None


def decode(path: str | Path, size: int, fit: str = "crop") -> np.ndarray:
    """One file as uint8 (3, size, size); raises ValueError with the reason where it cannot be read whole."""
    with opened(path) as file:
        width, height = file.size
        if width * height > LARGEST:
            raise ValueError(f"{width:,} x {height:,} px, more than {LARGEST:,} pixels")
        file.draft("RGB", (size, size))  # large JPEGs decode at a fraction of their size
        image = ImageOps.exif_transpose(file)
        if file.format == "PNG" and _png_is_short(file, path):
            raise ValueError("image file has too few rows")
    return square(rgb(image), size, fit)


def _png_is_short(file: Image.Image, path: str | Path) -> bool:
    """Whether a PNG holds fewer rows than it promises, which Pillow leaves black and does not mention.

    Decoded over another colour, they are of that colour. The last two rows tell, also of an interlaced file.
    """
    with Image.open(path) as again:
        again.im = Image.new(again.mode, again.size, 255).im
        last = (0, file.height - 2, *file.size)
        return file.crop(last).tobytes() != again.crop(last).tobytes()


def rgb(image: Image.Image) -> Image.Image:
    """Any mode as RGB, by the rule above; ValueError where there is none."""
    if image.mode.startswith("I"):  # convert() would clip at 255
        grey: np.ndarray = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError("grey of more than 16 bits")
        return Image.fromarray(((grey + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("pixels are floating-point numbers, whose range no rule tells")
    if image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        shown = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown).convert("RGB")
    return image.convert("RGB")


def square(image: Image.Image, size: int, fit: str = "crop") -> np.ndarray:
    """An image as uint8 (C, size, size), whatever its shape.

    crop: the shortest side becomes `size` and the middle is cut out. pad: the longest side becomes `size`, and black
    borders fill the rest, as torchvision's and Pillow's do. squash: both sides become `size`.
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
        left, top = (width - side) // 2, (height - side) // 2  # whole pixels: half a pixel off would blur
        # only the middle is resized: the same picture, and a 10,000 x 10 image costs no more than a small one
        box = (left, top, left + side, top + side)
        image = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)


@contextmanager
def mapped(
    workers: int | None, jobs: int, initialise: Callable[..., None] | None = None, *given: Any
) -> Iterator[Callable[..., Iterator[Any]]]:
    """`map`, over processes (None: one for each core) where there is more than one job.

    Each process begins with `initialise`.
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


def shown_path(path: str | Path) -> str:
    """A name as text on one line, whatever bytes it has."""
    if (text := os.fspath(path)).isprintable():  # most are, and there may be many
        return text
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
