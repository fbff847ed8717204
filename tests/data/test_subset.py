from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from vitbench.data.subset import nested_order, split_and_subset
from vitbench.errors import UserError

BALANCED = np.arange(1000) % 10
UNBALANCED = np.repeat(np.arange(4), [700, 200, 83, 17])
SETS = {"balanced": BALANCED, "unbalanced": UNBALANCED}


def subset(
    labels: np.ndarray, fraction: float | None = None, count: int | None = None, val: float = 0.1, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The indices of the training and of the validation images."""
    classes = [str(label) for label in np.unique(labels)]
    return split_and_subset(labels, classes, fraction=fraction, count=count, val_fraction=val, subset_seed=seed)


@pytest.mark.parametrize("name", SETS)
def test_a_smaller_share_lies_inside_every_larger_one(name: str) -> None:
    shares = [set(subset(SETS[name], fraction)[0].tolist()) for fraction in (0.1, 0.15, 0.3, 0.31, 1)]
    assert all(small < large for small, large in pairwise(shares))


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("count", [100, 137, 500])
def test_every_class_has_its_share_within_one_image(name: str, count: int) -> None:
    labels = SETS[name]
    prefix = nested_order(labels, seed=3)[:count]
    expected = np.bincount(labels) * count / len(labels)
    assert np.abs(np.bincount(labels[prefix], minlength=len(expected)) - expected).max() <= 1


def test_validation_is_the_same_for_every_share_and_apart_from_it() -> None:
    large, validation = subset(BALANCED, 1.0)
    small, validation_of_small = subset(BALANCED, 0.02)
    assert validation.tolist() == validation_of_small.tolist() and len(validation) == 100
    assert not set(large.tolist()) & set(validation.tolist())
    assert len(large) == 900 and len(small) == 18
    assert np.bincount(BALANCED[validation]).tolist() == [10] * 10


def test_the_subset_depends_on_its_seed_only() -> None:
    assert subset(BALANCED, 0.1, seed=1)[0].tolist() == subset(BALANCED, 0.1, seed=1)[0].tolist()
    assert set(subset(BALANCED, 0.1, seed=1)[0].tolist()) != set(subset(BALANCED, 0.1, seed=2)[0].tolist())


def test_every_image_is_as_likely_as_any_other() -> None:
    hits = np.zeros(40)
    for seed in range(600):
        hits[subset(np.arange(40) % 2, 0.25, val=0.0, seed=seed)[0]] += 1
    assert np.abs(hits / 600 - 0.25).max() < 0.08  # 4.5 standard deviations


def test_not_the_first_images_of_the_file() -> None:
    assert subset(BALANCED, 0.05)[0].max() > 500


def test_a_count_is_a_count() -> None:
    assert len(subset(BALANCED, count=123)[0]) == 123


@pytest.mark.parametrize(
    ("share", "message"),
    [
        ({"fraction": 0.001}, "data.fraction=0.001: 1 images have none of class"),
        ({"count": 3}, "data.count=3"),
        ({"count": 901}, "data.count=901: must be 1 to 900 images"),
        ({"fraction": 0.0}, "data.fraction=0: must be above 0"),
        ({"fraction": -1.0}, "must be above 0"),
        ({"fraction": 1.5}, "must be above 0"),
        ({"fraction": float("nan")}, "data.fraction=nan"),
        ({"count": 0}, "data.count=0"),
    ],
)
def test_what_cannot_be_is_one_line(share: dict[str, float], message: str) -> None:
    with pytest.raises(UserError) as error:
        subset(BALANCED, **share)  # type: ignore[arg-type]
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", SETS)
def test_the_least_share_it_names_works_and_a_smaller_one_does_not(name: str) -> None:
    with pytest.raises(UserError) as error:
        subset(SETS[name], count=1)
    least = int(str(error.value).split("data.count=")[-1].split(" ")[0])
    assert len(subset(SETS[name], count=least)[0]) == least
    with pytest.raises(UserError):
        subset(SETS[name], count=least - 1)
    with pytest.raises(UserError) as error:
        subset(SETS[name], fraction=0.0011)
    subset(SETS[name], fraction=float(str(error.value).split("data.fraction=")[-1].split(" ")[0]))
