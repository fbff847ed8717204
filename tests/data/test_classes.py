"""`data.classes`: a part of the classes is a data set of its own, whatever the source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vitbench.data.menu import forget, open_dataset
from vitbench.data.share import load
from vitbench.errors import UserError


def options(cache: Path) -> dict[str, Any]:
    return {
        "root": "data",
        "cache": str(cache),
        "image_size": 8,
        "progress": False,
        "train_images": 200,
        "test_images": 50,
    }


def test_they_are_the_images_of_these_classes_in_this_order(cache: Path) -> None:
    whole = open_dataset("shapes", **options(cache))
    part = open_dataset("shapes", **options(cache), classes=[7, 2, 0])
    assert part.classes == tuple(whole.classes[number] for number in (7, 2, 0))
    for split in ("train", "test"):
        all_, some = getattr(whole, split), getattr(part, split)
        rows = np.flatnonzero(np.isin(all_.labels, [7, 2, 0]))
        assert np.array_equal(np.array([7, 2, 0])[some.labels], all_.labels[rows])
        assert np.array_equal(np.array(some.images), all_.images[rows]) and some.images.shape == all_.images[rows].shape
        assert np.array_equal(some.images[2:9][np.array([3, 1])], all_.images[rows][[5, 3]])
    assert (
        len(
            {
                part.fingerprint,
                whole.fingerprint,
                open_dataset("shapes", **options(cache), classes=[0, 2, 7]).fingerprint,
            }
        )
        == 3
    )


@pytest.mark.parametrize("images", ["memory", "cache"])
def test_shares_and_validation_are_cut_from_them(cache: Path, images: str) -> None:
    share = load(
        "shapes",
        **options(cache),
        classes=[4, 9],
        fraction=0.5,
        count=None,
        val_fraction=0.1,
        subset_seed=0,
        images=images,
    )
    pixels, labels = share.train(torch.device("cpu"))
    assert len(labels) == 18 and len(share.held_out) == 4 and labels.unique().tolist() == [0, 1]
    shown = torch.cat(list(pixels.split(5))) if images == "cache" else pixels
    whole = open_dataset("shapes", **options(cache)).train
    assert all(
        (whole.images[whole.labels == (4, 9)[label]] == image.numpy()).all((1, 2, 3)).any()
        for image, label in zip(shown, labels.tolist(), strict=True)
    )


def test_what_is_not_there_is_refused(cache: Path) -> None:
    forget()
    with pytest.raises(UserError, match=r"^data.classes: there is no class 10; these images have 10, 0 to 9$"):
        open_dataset("shapes", **options(cache), classes=[0, 10])
