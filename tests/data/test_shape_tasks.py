"""What the tasks `place` and `same_different` tell a network, and what they do not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.conftest import TINY
from tests.training.test_train import Cli
from vitbench.data.drawing import Nuisances
from vitbench.data.outlines import SHAPES
from vitbench.data.shape_tasks import GRID, KINDS, PLACES, TASKS
from vitbench.data.shapes import draw_shapes
from vitbench.models.build import build_model

CLEAN = {"texture": 0.0, "background": 0.0, "noise": 0.0}
M = 300


def versions(task: str, size: int, images: int = M, nuisances: Nuisances | None = None) -> np.ndarray:
    """The same images in each class, (K,M,3,H,W)."""
    labels = range(len(TASKS[task].classes))
    drawn = [
        draw_shapes(np.arange(images), nuisances, task=task, image_size=size, labels=np.full(images, k)) for k in labels
    ]
    return np.stack([pixels for pixels, _ in drawn])


# --- place ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [16, 32])
def test_all_places_of_an_image_are_the_image_rolled_by_whole_regions(size: int) -> None:
    first, *others = versions("place", size)
    for k, images in enumerate(others, 1):
        row, column = divmod(k, GRID)
        assert np.array_equal(images, np.roll(first, (row * size // GRID, column * size // GRID), (2, 3)))


def test_the_class_says_in_which_region_the_centre_lies_with_a_margin() -> None:
    nuisances = Nuisances(radius=(0.2, 0.2), rotation=(0, 0), **CLEAN)
    size, images = 64, versions("place", 64, nuisances=nuisances)
    area = (images[0] != 128).any(axis=1).sum(axis=(1, 2))
    discs = area > 0.93 * area.max()  # the largest kind, whose centre is that of its pixels
    assert discs.sum() > 10
    axis = (np.arange(size) + 0.5) / size * 2 * np.pi
    for k, drawn in enumerate(images[:, discs]):
        mass = np.abs(drawn.astype(float) - 128).max(axis=1)
        for along, region in ((1, k // GRID), (2, k % GRID)):  # the mean on a circle, as images wrap around
            weights = mass.sum(axis=3 - along)
            centre = np.arctan2(weights @ np.sin(axis), weights @ np.cos(axis)) % (2 * np.pi) / (2 * np.pi) * GRID
            assert region + 0.1 < centre.min() < region + 0.4 and region + 0.6 < centre.max() < region + 0.9


def test_opposite_borders_join_as_neighbouring_pixels_do() -> None:
    images = draw_shapes(np.arange(M), Nuisances(contrast=0.0, noise=0.0, radius=(0.2, 0.2)), task="place")[0]
    step = np.abs(np.diff(images.astype(float), axis=3))
    across_border = np.abs(images[..., 0].astype(float) - images[..., -1])
    assert across_border.mean() == pytest.approx(step.mean(), rel=0.1)


def resnet(**options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    network = build_model("resnet", image_size=16, channels=3, num_classes=len(PLACES), base_width=4, **options)
    return network.double().eval()


@pytest.mark.parametrize(
    ("options", "equal"),
    [
        ({"padding": "circular", "hierarchy": False}, True),
        ({"padding": "circular"}, True),  # its stride of 4 in all divides the 4 pixels of a region
        ({"padding": "zero", "hierarchy": False}, False),
        ({"padding": "circular", "pool": "flatten"}, False),
    ],
)
def test_a_mean_over_a_map_without_a_border_cannot_know_the_place(options: dict[str, object], equal: bool) -> None:
    images = torch.from_numpy(versions("place", 16, images=4)).double() / 255 - 0.5
    with torch.no_grad():
        logits = resnet(**options)(images.flatten(0, 1)).unflatten(0, (len(PLACES), 4))
    difference = (logits - logits[:1]).abs().amax(dim=(1, 2))
    assert (difference < 1e-12).all() if equal else (difference[1:] > 1e-6).all()


# --- same or different ------------------------------------------------------------------------------------------------


def test_both_versions_of_a_pair_differ_in_the_second_object_alone() -> None:
    same, different = versions("same_different", 32)
    changed = (same != different).any(axis=1).reshape(M, 2, 16, 2, 16).any(axis=(2, 4)).sum(axis=(1, 2))
    assert (changed == 1).all()  # one quadrant of each image


def kinds_seen(images: np.ndarray) -> np.ndarray:
    """The kind of the object in each quadrant, (M,4), by its pixels; -1 where there is none. Nuisances are FIXED."""
    quadrants = images.reshape(len(images), 3, 2, 16, 2, 16).transpose(0, 2, 4, 1, 3, 5)
    area = (quadrants != 128).any(axis=3).sum(axis=(3, 4)).reshape(len(images), 4)
    areas = [0, *np.unique(area[area > 0])]
    assert len(areas) == len(KINDS) + 1
    return np.searchsorted(areas, area) - 1


FIXED = Nuisances(x=(0, 0), y=(0, 0), rotation=(0, 0), radius=(0.8, 0.8), contrast=0.4, **CLEAN)


def test_the_class_says_whether_two_objects_are_of_one_kind_and_neither_object_says_anything() -> None:
    images, labels = draw_shapes(np.arange(4000), FIXED, task="same_different")
    kinds = kinds_seen(images)
    assert ((kinds >= 0).sum(axis=1) == 2).all()
    pairs = kinds[kinds >= 0].reshape(-1, 2)
    assert np.array_equal(pairs[:, 0] != pairs[:, 1], labels == 1)
    assert labels.sum() == 2000
    for quadrant in range(4):  # what lies there, or that nothing does, is as frequent in both classes
        counts = np.stack([np.bincount(kinds[labels == k, quadrant] + 1, minlength=len(KINDS) + 1) for k in (0, 1)])
        assert counts.min() > 150
        assert np.abs(counts[0] - counts[1]).max() < 4 * np.sqrt(counts.sum(axis=0)).max()


def test_the_first_object_is_the_same_image_for_image_in_both_classes() -> None:
    same, different = versions("same_different", 32, nuisances=FIXED)
    before, after = kinds_seen(same), kinds_seen(different)
    kept = (before == after).sum(axis=1)
    assert (kept == 3).all()  # two quadrants without objects, and the first object
    second = after[before != after]
    frequencies = np.bincount(second, minlength=len(KINDS)) / M
    assert np.abs(frequencies - 1 / len(KINDS)).max() < 0.1


def test_objects_differ_in_colour_size_and_place_independently() -> None:
    images = draw_shapes(np.arange(M), Nuisances(radius=(0.4, 0.9), **CLEAN), task="same_different")[0].astype(float)
    quadrants = images.reshape(M, 3, 2, 16, 2, 16).transpose(0, 2, 4, 1, 3, 5).reshape(M, 4, 3, 256)
    mass = np.abs(quadrants - 128).max(axis=2).sum(axis=2)  # (M,4)
    two = np.take_along_axis(mass, np.argsort(-mass, axis=1, kind="stable")[:, :2], 1)
    shuffled = np.random.default_rng(0).permuted(two, axis=1)  # the larger one is not always the first
    assert abs(np.corrcoef(shuffled.T)[0, 1]) < 0.2
    assert len(SHAPES) > len(KINDS)


# --- what is refused --------------------------------------------------------------------------------------------------

MISTAKES = {
    "data.task=place augment=light": "augment=light: mirroring changes the class of data.task=place;",
    "data.task=place augment.crop=0.1": "augment.crop=0.1: moves the object, and its place is the class",
    "data.task=place augment.area=0.5": "augment.area=0.5: moves the object",
    "data.task=place augment.rotate=5": "augment.rotate=5: moves the object",
    "data.task=place augment.scale=0.1": "augment.scale=0.1: moves the object",
    "data.task=place augment.randaugment=2": "augment.randaugment=2: moves the object",
    "data.task=same_different augment.area=0.5": "augment.area=0.5: may remove an object",
    "data.task=same_different augment.cutmix=1": "augment.cutmix=1: may remove an object or add a third one",
    "data.task=same_different augment.erase=0.2": "augment.erase=0.2: may remove an object",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_change_of_the_image_that_changes_its_class_is_refused(vitbench: Cli, words: str) -> None:
    output = vitbench("train", *TINY, *words.split())
    assert output.code == 2 and output.err.startswith(f"vitbench: {MISTAKES[words]}"), output.err
    assert output.err.count("\n") == 1
