from __future__ import annotations

import errno
import io
from pathlib import Path
from typing import Any, ClassVar
from urllib.error import HTTPError, URLError

import numpy as np
import pytest
import torchvision
from PIL import Image

from vitbench.data import menu, torchvision_sets
from vitbench.data.torchvision_sets import SETS, load
from vitbench.errors import DataError, StorageError


class Fake:
    """Stands for a torchvision set of 12 training images and 6 test images in 3 classes; `calls` lists the options."""

    calls: ClassVar[list[dict[str, Any]]]
    base_folder, url, filename, tgz_md5 = "unpacked", "https://example.org/a.tar.gz", "a.tar.gz", "0" * 32
    mode, size = "RGB", (32, 32)
    classes: Any = ("ant", "bee", "cow")

    def __init__(self, root: str, **options: Any) -> None:
        type(self).calls.append(options)
        test = options.get("train") is False or options.get("split") == "test"
        shape = (*self.size[::-1], 3) if self.mode == "RGB" else self.size[::-1]
        self.pixels = np.random.default_rng(test).integers(0, 256, (6 if test else 12, *shape), np.uint8)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, place: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.pixels[place]), place % 3


def fake(monkeypatch: pytest.MonkeyPatch, name: str, **attributes: Any) -> type[Fake]:
    """Replaces a set of torchvision's by a subclass of `Fake`."""
    fake_class = type(name, (Fake,), {"calls": [], **attributes})
    monkeypatch.setattr(torchvision_sets, "bring", lambda *_, **__: None)
    monkeypatch.setattr(torchvision.datasets, name, fake_class)
    return fake_class


def test_every_set_of_the_menu_is_there_and_torchvision_has_it() -> None:
    targets = [choice.target for choice in menu.MENU.values() if "torchvision_sets" in choice.target]
    assert [target.split(":")[1] for target in targets] == list(SETS)
    for name, about in SETS.items():
        assert hasattr(torchvision.datasets, about.name) and callable(getattr(torchvision_sets, name))


def test_colour_images_come_back_as_they_are_and_are_downloaded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_cifar10 = fake(monkeypatch, "CIFAR10")
    for _ in range(2):
        dataset = torchvision_sets.cifar10(root=tmp_path / "root", cache=tmp_path / "cache")
    assert fake_cifar10.calls == [{"train": True, "download": True}, {"train": False, "download": True}]
    assert dataset.classes == ("ant", "bee", "cow") and dataset.test.labels.tolist() == [0, 1, 2, 0, 1, 2]
    expected = fake_cifar10("", train=True).pixels.transpose(0, 3, 1, 2)
    assert np.array_equal(dataset.train.images, expected) and len(dataset.test) == 6


def test_images_that_are_there_twice_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cifar10 = fake(monkeypatch, "CIFAR10")
    draw = fake_cifar10.__init__

    def draw_copies(self: Any, root: str, **options: Any) -> None:
        draw(self, root, **options)
        if options["train"]:
            self.pixels[7] = self.pixels[3]  # these are in the classes 1 and 0
            self.pixels[11] = 9
        else:
            self.pixels[5] = 9  # this and training image 11 are in class 2

    monkeypatch.setattr(fake_cifar10, "__init__", draw_copies)
    dataset = torchvision_sets.cifar10(root=tmp_path / "root", cache=tmp_path / "cache")
    assert dataset.warnings == (
        "the same image is in train and in test: 1 image: training image 11 = test image 5",
        "the same image is in two classes: 1 image: training image 3 = training image 7",
    )


def test_grey_images_keep_one_channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_mnist = fake(monkeypatch, "MNIST", mode="L", size=(28, 28))
    dataset = torchvision_sets.mnist(root=tmp_path, cache=tmp_path)
    assert np.array_equal(dataset.train.images, fake_mnist("", train=True).pixels[:, None])
    larger = torchvision_sets.mnist(root=tmp_path, cache=tmp_path, image_size=32)
    assert larger.train.images.shape == (12, 1, 32, 32)


def test_photographs_are_resized_and_all_parts_of_a_split_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_flowers = fake(monkeypatch, "Flowers102", size=(50, 40))
    dataset = torchvision_sets.flowers102(root=tmp_path, cache=tmp_path, image_size=16)
    assert [options["split"] for options in fake_flowers.calls] == ["train", "val", "test"]
    assert dataset.train.images.shape == (24, 3, 16, 16) and dataset.test.images.shape == (6, 3, 16, 16)
    assert dataset.train.labels.tolist() == [0, 1, 2] * 8


class Photographs(Fake):
    """Enough photographs for several processes. Pickling needs a class that has a name in this module."""

    calls: ClassVar[list[dict[str, Any]]] = []
    size = (50, 40)

    def __len__(self) -> int:
        return 700

    def __getitem__(self, place: int) -> tuple[Image.Image, int]:
        return super().__getitem__(place % 6)


@pytest.mark.slow
def test_many_photographs_are_decoded_by_several_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.datasets, "Food101", Photographs)
    dataset = torchvision_sets.food101(root=tmp_path, cache=tmp_path, image_size=16)
    assert len(dataset.train) == len(dataset.test) == 700
    for split in (dataset.train, dataset.test):
        assert np.array_equal(split.images[:690:6], split.images[[6] * 115]) and split.labels[6:9].tolist() == [0, 1, 2]
    assert not np.array_equal(dataset.train.images[0], dataset.test.images[0])


def test_a_set_without_a_size_asks_for_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data=food101: its photographs have various sizes; set data.image_size"):
        load("food101", root=tmp_path, cache=tmp_path)


@pytest.mark.parametrize(
    "classes, expected",
    [
        (("ant", "bee", "cow"), ("ant", "bee", "cow")),
        ([("tench", "Tinca tinca"), ("crane",), ("crane",)], ("tench", "crane (1)", "crane (2)")),  # as in ImageNet
        (("too", "few"), ("0", "1", "2")),
        (None, ("0", "1", "2")),  # as in SVHN
    ],
)
def test_class_names_are_the_sets_own_and_differ(
    classes: Any, expected: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch, "SVHN", classes=classes)
    assert torchvision_sets.svhn(root=tmp_path, cache=tmp_path).classes == expected


# --- what goes wrong -------------------------------------------------------------------------------------------------

UNAVAILABLE = {
    "no network": URLError("[Errno -3] Temporary failure in name resolution"),
    "moved": HTTPError("https://example.org", 404, "Not Found", None, io.BytesIO()),  # type: ignore[arg-type]
    "corrupted": RuntimeError("File not found or corrupted."),
    "reset": ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    "cut": EOFError("Compressed file ended before the\nend-of-stream marker was reached"),
}


def failing(monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException) -> None:
    def fail(self: Fake, *_: Any, **__: Any) -> None:
        raise error

    fake(monkeypatch, name, __init__=fail)


@pytest.mark.parametrize("why", UNAVAILABLE)
def test_what_cannot_be_downloaded_is_one_line_that_says_what_else_there_is(
    why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, "CIFAR10", UNAVAILABLE[why])
    with pytest.raises(DataError) as error:
        torchvision_sets.cifar10(root=tmp_path / "root", cache=tmp_path / "cache")
    message, beginning = str(error.value), "data=cifar10: torchvision.datasets.CIFAR10 could not be downloaded to "
    assert message.startswith(f"{beginning}data.root={tmp_path}/root")
    assert " ".join(str(UNAVAILABLE[why]).split()) in message and "\n" not in message
    assert "data=shapes" in message and "data=imagefolder data.root=" in message
    assert "; put cifar-10-python.tar.gz there yourself, or type data=shapes" in message


def test_an_archive_that_no_address_has_is_one_line_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cifar10, asked = fake(monkeypatch, "CIFAR10"), []

    def fail(archive: Path, md5: str, addresses: tuple[str, ...], **_: Any) -> None:
        asked.extend([archive, md5, *addresses])
        raise URLError("[Errno -3] Temporary failure in name resolution")

    monkeypatch.setattr(torchvision_sets, "bring", fail)
    with pytest.raises(DataError, match=r"name resolution.*; put cifar-10-python\.tar\.gz there yourself"):
        torchvision_sets.cifar10(root=tmp_path, cache=tmp_path)
    assert asked == [tmp_path / "a.tar.gz", "0" * 32, fake_cifar10.url, *SETS["cifar10"].others]  # type: ignore[attr-defined]
    (tmp_path / "unpacked").mkdir()
    assert len(torchvision_sets.cifar10(root=tmp_path, cache=tmp_path).train) == 12  # nothing is asked for any more


def test_other_addresses_are_of_sets_whose_archive_torchvision_names() -> None:
    for about in SETS.values():
        dataset_class = getattr(torchvision.datasets, about.name)
        if about.others:
            assert dataset_class.filename == about.archives and len(dataset_class.tgz_md5) == 32
            assert dataset_class.url.startswith("https://") and dataset_class.base_folder


def test_imagenet_says_that_one_brings_the_archives(tmp_path: Path) -> None:
    message = r"could not be found .its licence asks you to bring the archives. in data.root="
    with pytest.raises(DataError, match=message):
        torchvision_sets.imagenet(root=tmp_path, cache=tmp_path, image_size=64)


def test_a_disk_that_is_full_while_downloading_is_a_matter_of_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, "CIFAR10", OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(StorageError, match=f"data.root={tmp_path}: No space left on device"):
        torchvision_sets.cifar10(root=tmp_path, cache=tmp_path)


def test_a_bug_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, "CIFAR10", __init__=lambda self: None)
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        torchvision_sets.cifar10(root=tmp_path, cache=tmp_path)


def test_an_image_that_broke_after_unpacking_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Fake, place: int) -> None:
        raise OSError("image file is truncated")

    fake(monkeypatch, "Flowers102", __getitem__=broken)
    message = f"data=flowers102: image 0 in data.root={tmp_path} cannot be read .image file is"
    with pytest.raises(DataError, match=message):
        torchvision_sets.flowers102(root=tmp_path, cache=tmp_path, image_size=16)
