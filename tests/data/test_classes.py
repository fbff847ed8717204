"""`data.classes`: a part of the classes is a data set of its own, whatever the source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vitbench.data.classes import only, with_balance
from vitbench.data.menu import forget, open_dataset
from vitbench.data.share import load
from vitbench.data.split import Dataset, Split
from vitbench.errors import UserError


def options(cache: Path) -> dict[str, Any]:
    source = {"root": "data", "cache": str(cache), "image_size": 8, "progress": False}
    return source | {"train_images": 200, "test_images": 50}


def test_they_are_the_images_of_these_classes_in_this_order(cache: Path) -> None:
    whole = open_dataset("shapes", **options(cache))
    part = open_dataset("shapes", **options(cache), classes=[7, 2, 0])
    assert part.classes == tuple(whole.classes[number] for number in (7, 2, 0))
    for whole_split, split in ((whole.train, part.train), (whole.test, part.test)):
        rows = np.flatnonzero(np.isin(whole_split.labels, [7, 2, 0]))
        expected = whole_split.images[rows]
        assert np.array_equal(np.array([7, 2, 0])[split.labels], whole_split.labels[rows])
        assert np.array_equal(np.array(split.images), expected) and split.images.shape == expected.shape
        assert np.array_equal(split.images[2:9][np.array([3, 1])], expected[[5, 3]])
    in_another_order = open_dataset("shapes", **options(cache), classes=[0, 2, 7])
    assert len({part.fingerprint, whole.fingerprint, in_another_order.fingerprint}) == 3


@pytest.mark.parametrize("images", ["memory", "cache"])
def test_shares_and_validation_are_cut_from_them(cache: Path, images: str) -> None:
    subset: dict[str, Any] = {"fraction": 0.5, "count": None, "val_fraction": 0.1, "subset_seed": 0}
    share = load("shapes", **options(cache), **subset, classes=[4, 9], images=images)
    pixels, labels = share.train(torch.device("cpu"))
    assert len(labels) == 18 and len(share.held_out) == 4 and labels.unique().tolist() == [0, 1]
    batches = pixels.split(5)
    whole = open_dataset("shapes", **options(cache)).train
    for image, label in zip(torch.cat(list(batches)), labels.tolist(), strict=True):
        of_class = whole.images[whole.labels == (4, 9)[label]]
        assert (of_class == image.numpy()).all((1, 2, 3)).any()


def test_what_is_not_there_is_refused(cache: Path) -> None:
    forget()
    with pytest.raises(UserError, match=r"^data.classes: there is no class 10; these images have 10, 0 to 9$"):
        open_dataset("shapes", **options(cache), classes=[0, 10])


def with_counts(*counts: int) -> Dataset:
    """A data set with so many training images of each class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    split = Split(np.zeros((len(labels), 1, 2, 2), np.uint8), labels, tuple("abcd"[: len(counts)]))
    return Dataset(split, split, "0")


@pytest.mark.parametrize("counts", [(5, 5), (20, 59, 30), (1, 2), (0, 3, 4)])
def test_classes_that_are_even_enough_are_not_mentioned(counts: tuple[int, ...]) -> None:
    assert with_balance(with_counts(*counts)).warnings == ()


def test_uneven_classes_are_told_with_the_smallest_and_the_largest() -> None:
    (line,) = with_balance(with_counts(50, 200, 6)).warnings
    assert line.startswith("classes are uneven: b has 200 training images, 33.3 times as many as c (6); ")
    assert "optim.class_weights=balanced" in line


def test_the_balance_is_that_of_the_classes_that_are_kept() -> None:
    kept = only(with_counts(50, 200, 6), [0, 1])
    (line,) = with_balance(kept).warnings
    assert line.startswith("classes are uneven: b has 200 training images, 4 times as many as a (50); ")
