"""The data sets that `data=` offers, each a function `load(*, root, cache, image_size, progress, **options)`."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitbench.data.scan import Scan, forget_scans, remembered
from vitbench.errors import UserError
from vitbench.menu import Choice, look_up

if TYPE_CHECKING:
    from vitbench.data.split import Dataset

_SETS = "vitbench.data.torchvision_sets"

MENU: dict[str, Choice] = {
    "shapes": Choice(
        "vitbench.data.shapes:load",
        "drawn shapes, as many as you like; the class is a shape, a side, a place, or same or different",
        "vitbench.data.refusals:shapes",
    ),
    "imagefolder": Choice(
        "vitbench.data.imagefolder:load",
        "your own images: <class>/*, or train/<class>/* and test/<class>/*, or a table of labels",
        "vitbench.data.refusals:imagefolder",
    ),
    "cifar10": Choice(f"{_SETS}:cifar10", "60,000 photographs of 32 px, 10 classes (Krizhevsky 2009)"),
    "cifar100": Choice(f"{_SETS}:cifar100", "60,000 photographs of 32 px, 100 classes (Krizhevsky 2009)"),
    "mnist": Choice(f"{_SETS}:mnist", "70,000 handwritten digits of 28 px, grey (LeCun et al. 1998)"),
    "fashion_mnist": Choice(f"{_SETS}:fashion_mnist", "70,000 clothes of 28 px, grey, 10 classes (Xiao et al. 2017)"),
    "svhn": Choice(f"{_SETS}:svhn", "99,289 house-number digits of 32 px (Netzer et al. 2011)"),
    "stl10": Choice(f"{_SETS}:stl10", "13,000 labelled photographs of 96 px, 10 classes (Coates et al. 2011)"),
    "flowers102": Choice(f"{_SETS}:flowers102", "8,189 photographs of 102 flowers (Nilsback & Zisserman 2008)"),
    "food101": Choice(f"{_SETS}:food101", "101,000 photographs of 101 dishes (Bossard et al. 2014)"),
    "imagenet": Choice(f"{_SETS}:imagenet", "ImageNet-1k, 1.33 million photographs; bring the archives (Deng 2009)"),
}


def open_dataset(
    source: str,
    *,
    root: str,
    cache: str,
    image_size: int | None,
    progress: bool,
    files: bool = False,
    classes: Sequence[int] | None = None,
    **options: Any,
) -> Dataset:
    """Opens both splits of a source, from the cache or decoded into it. Imports no torch.

    Only the images of `classes` are kept, which are renumbered in this order; the cache holds all classes. With
    `files`, images are decoded whenever they are needed, and the cache holds none. `options` are the source's own.

    The last data set stays open until `forget()`, so that successive runs of one process share it. If its file in the
    cache turns out to be damaged, the source is decoded again.
    """
    from vitbench.data.classes import only, with_balance
    from vitbench.data.stored import Stored

    for setting, folder in {"data.root": root, "data.cache": cache}.items():
        if folder.startswith("~"):  # settings already contain the full path if the home folder is known
            raise UserError(f"{setting}={folder}: no home folder is known, because HOME is not set; type the full path")
    key = json.dumps([source, root, cache, image_size, files, options], sort_keys=True)
    if key not in _opened:
        load = look_up("data", source, MENU)
        if files:
            if "files" not in inspect.signature(load).parameters:
                raise UserError(
                    f"machine.images=files: is for data=imagefolder, not for data={source}; machine.images=cache needs "
                    "little memory, too"
                )
            options["files"] = True
        its_own = {"root": Path(root), "cache": Path(cache), "image_size": image_size, "progress": progress, **options}
        dataset: Dataset = load(**its_own)
        if isinstance(dataset.train.images, Stored):
            dataset.train.images.file.open_again = lambda: load(**its_own).train.images.file
        _opened.clear()
        _opened[key] = dataset
    return with_balance(_opened[key] if classes is None else only(_opened[key], classes))


_opened: dict[str, Dataset] = {}  # holds one data set at most


def scan_of(source: str, *, root: str, **options: Any) -> Scan | None:
    """Scans the files of a source and remembers the result until `forget()`; `options` are the source's own.

    Returns None for images that are drawn, and if the files are not on this machine. Raises DataError if a folder
    cannot be used.
    """
    if not os.path.isdir(root):
        return None
    if source == "imagefolder":
        from vitbench.data.imagefolder import look_at

        return look_at(Path(root), **options).scan
    from vitbench.data.sizes import PUBLIC_SETS

    if source not in PUBLIC_SETS:
        return None
    from vitbench.data.torchvision_sets import scan_of_set

    return remembered([source, os.path.realpath(root)], lambda: scan_of_set(source, Path(root)))


def fingerprint_of(source: str, *, progress: bool, **options: Any) -> str:
    """Returns the fingerprint of what `open_dataset` opens, and remembers it until `forget()`."""
    return remembered(
        ["fingerprint", source, options], lambda: open_dataset(source, progress=progress, **options).fingerprint
    )


def forget() -> None:
    """Forgets opened data sets and scans, so that the files are looked at again."""
    _opened.clear()
    forget_scans()
