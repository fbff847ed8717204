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
        "drawn shapes, any number: their kind, side, place, or whether two are alike",
        "vitbench.data.refusals:shapes",
    ),
    "imagefolder": Choice(
        "vitbench.data.imagefolder:load",
        "your images: <class>/*, or train/<class>/* and test|val/<class>/*, or a table of labels",
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
    """Both splits of a source, from the cache or decoded into it; `options` are the source's own. Imports no torch.

    `classes` are the only ones kept, renumbered in this order. The cache holds all of them.

    With `files`, its images are decoded whenever they are asked for, and none goes into the cache.

    The last one stays open, so that runs which follow each other in one process share it, until `forget()`. If its file
    in the cache turns out to be damaged, the source is decoded again.
    """
    from vitbench.data.classes import only, with_balance
    from vitbench.data.stored import Stored

    for setting, folder in {"data.root": root, "data.cache": cache}.items():
        if folder.startswith("~"):  # settings have it in full wherever a home folder is known
            raise UserError(
                f"{setting}={folder}: no home folder is known, HOME is not set; type {setting}=FOLDER in full"
            )
    key = json.dumps([source, root, cache, image_size, files, options], sort_keys=True)
    if key not in _opened:
        load = look_up("data", source, MENU)
        if files:
            if "files" not in inspect.signature(load).parameters:
                raise UserError(
                    f"machine.images=files: data={source} cannot; data=imagefolder can, and "
                    "machine.images=cache needs no memory either"
                )
            options["files"] = True
        its_own = {"root": Path(root), "cache": Path(cache), "image_size": image_size, "progress": progress, **options}
        dataset: Dataset = load(**its_own)
        if isinstance(dataset.train.images, Stored):
            dataset.train.images.file.open_again = lambda: load(**its_own).train.images.file
        _opened.clear()
        _opened[key] = dataset
    return with_balance(_opened[key] if classes is None else only(_opened[key], classes))


_opened: dict[str, Dataset] = {}  # one at most


def scan_of(source: str, *, root: str, **options: Any) -> Scan | None:
    """Looks at the files of a source, once until `forget()`; `options` are the source's own.

    None of what is drawn, and where the files are not on this machine. DataError where a folder cannot be used.
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
    """The fingerprint of what `open_dataset` opens, which is opened for that once until `forget()`."""
    return remembered(
        ["fingerprint", source, options], lambda: open_dataset(source, progress=progress, **options).fingerprint
    )


def forget() -> None:
    """Looks at the images anew the next time."""
    _opened.clear()
    forget_scans()
