from __future__ import annotations

import hashlib
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vitbench.data.drawing import Nuisances
from vitbench.data.outlines import SHAPES
from vitbench.data.shape_tasks import RELATIONS, TASKS
from vitbench.data.shapes import CHUNK, draw_shapes, load
from vitbench.errors import UserError
from vitbench.models.build import build_model

FLAT = Nuisances(texture=0.0, background=0.0, noise=0.0)  # one colour on mid-grey
TEN = np.arange(10)
BY_TASK = pytest.mark.parametrize("task", TASKS)


def centre(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The middle of what differs from mid-grey, in half widths: x and y, (M,) each."""
    cover = np.abs(images.astype(float) - 128).max(axis=1)
    axis = (2 * np.arange(images.shape[-1]) + 1) / images.shape[-1] - 1
    weight = cover.sum(axis=(1, 2))
    return (cover.sum(axis=1) @ axis) / weight, (cover.sum(axis=2) @ axis) / weight


# --- the same image for the same (seed, split, index) ----------------------------------------------------------------


@BY_TASK
def test_an_image_is_the_same_whatever_is_drawn_with_it(task: str) -> None:
    images, labels = draw_shapes(np.arange(2 * CHUNK + 44), task=task)
    shuffled = np.random.default_rng(0).permutation(len(images))
    for indices in ([0], [299], np.arange(131, 264), shuffled[:77], shuffled[77:], [5, 5, 5]):
        some_images, some_labels = draw_shapes(np.asarray(indices), task=task)
        assert np.array_equal(some_images, images[indices]) and np.array_equal(some_labels, labels[indices])


@BY_TASK
def test_an_image_is_the_same_in_another_process(task: str) -> None:
    code = f"""
import hashlib, numpy as np
from vitbench.data.shapes import draw_shapes
images, _ = draw_shapes(np.arange(3, 40), task={task!r}, split="test", image_seed=7)
print(hashlib.sha256(images.tobytes()).hexdigest())"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    images, _ = draw_shapes(np.arange(3, 40), task=task, split="test", image_seed=7)
    assert printed.strip() == hashlib.sha256(images.tobytes()).hexdigest()


PIXELS = {
    "shape": "f58e7570aaba22cc",
    "relation": "c21f5e51eeafa344",
    "place": "ff8a69a47e70b70d",
    "same_different": "9f6d00ffa501b8e9",
}


@BY_TASK
def test_no_pixel_has_changed_since_caches_were_first_drawn(task: str) -> None:
    drawn = b"".join(draw_shapes(np.arange(40), task=task, image_size=size)[0].tobytes() for size in (16, 32))
    assert hashlib.sha256(drawn).hexdigest()[:16] == PIXELS[task]


@BY_TASK
def test_train_and_test_and_online_images_and_seeds_are_never_the_same(task: str) -> None:
    sets = [
        draw_shapes(np.arange(200), task=task, split=split, image_seed=seed)[0]
        for split in ("train", "test")
        for seed in (0, 1)
    ]
    sets += [draw_shapes(np.arange(200), task=task, online_seed=seed)[0] for seed in (0, 1)]
    assert len({image.tobytes() for images in sets for image in images}) == 1200


@BY_TASK
def test_classes_are_balanced_in_every_block_and_not_in_a_fixed_order(task: str) -> None:
    K = len(TASKS[task].classes)
    labels = draw_shapes(np.arange(50 * K), task=task)[1].reshape(50, K)
    assert np.array_equal(np.sort(labels, axis=1), np.tile(np.arange(K), (50, 1)))
    assert len({tuple(block) for block in labels.tolist()}) >= min(11, math.factorial(K))


def test_the_data_set_is_the_drawing_and_a_smaller_one_begins_it(tmp_path: Path) -> None:
    large = load(cache=tmp_path, train_images=1300, test_images=30, image_size=16)
    small = load(cache=tmp_path, train_images=1029, test_images=11, image_size=16)
    assert np.array_equal(large.train.images[:1029], small.train.images)
    assert np.array_equal(large.test.images[:11], small.test.images)
    assert np.array_equal(small.train.images, draw_shapes(np.arange(1029), image_size=16)[0])
    assert np.array_equal(small.test.images, draw_shapes(np.arange(11), image_size=16, split="test")[0])
    assert large.fingerprint != small.fingerprint and small.classes == tuple(SHAPES)


# --- nuisances -------------------------------------------------------------------------------------------------------


def test_no_noise_texture_background_and_contrast_is_mid_grey() -> None:
    images = draw_shapes(TEN, Nuisances(texture=0, background=0, contrast=0, noise=0))[0]
    assert (images == 128).all()


def test_without_texture_and_noise_an_image_has_two_colours_and_their_mixtures() -> None:
    nuisances = Nuisances(texture=0.0, noise=0.0)
    for image in draw_shapes(TEN, nuisances)[0]:
        colours = image.reshape(3, -1).T.astype(float)
        away = colours - colours[0]  # the corner is background
        line = away[np.abs(away).max(axis=1).argmax()]
        assert np.abs(away - (away @ line / (line @ line))[:, None] * line).max() <= 1


@pytest.mark.parametrize("name, axis", [("x", 0), ("y", 1)])
def test_place_moves_the_object_to_the_sides_asked_for(name: str, axis: int) -> None:
    for low, high in ((-1.0, -0.5), (0.5, 1.0)):
        nuisances = replace(FLAT, radius=(0.5, 0.5), **{name: (low, high)})
        images, labels = draw_shapes(np.arange(300), nuisances)
        middle = centre(images)[axis][labels == 0]  # of discs, because other shapes are not centred in their circles
        assert (
            low / 2 - 0.01 <= middle.min() < low / 2 + 0.05
        )  # the circle leaves half of the half width for its centre
        assert high / 2 - 0.05 < middle.max() <= high / 2 + 0.01


def test_the_object_stays_inside_the_image() -> None:
    border = np.ones((32, 32), bool)
    border[1:-1, 1:-1] = False
    images, labels = draw_shapes(np.arange(400), FLAT)
    corners = images[:, :, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == 128).all()
    assert (np.abs(images[labels == 0].astype(int) - 128)[:, :, border] <= 60).all()


def test_radius_scales_the_object() -> None:
    def area(radius: float) -> float:
        images, labels = draw_shapes(np.arange(100), replace(FLAT, radius=(radius, radius)))
        cover = np.abs(images[labels == 0].astype(float) - 128).max(axis=1)
        return float((cover / cover.max(axis=(1, 2), keepdims=True)).sum(axis=(1, 2)).mean())

    for radius in (0.3, 0.6):
        assert area(radius) == pytest.approx(
            np.pi * (0.85 * radius * 16) ** 2, rel=0.03
        )  # a disc has 0.85 of the circle's radius


def test_rotation_turns_the_bar() -> None:
    def extent(degrees: float) -> np.ndarray:
        nuisances = replace(FLAT, rotation=(degrees, degrees))
        images = draw_shapes(TEN, nuisances, labels=np.full(10, list(SHAPES).index("bar")))[0]
        drawn = (images != 128).any(axis=1)
        return np.array([drawn.any(axis=1).sum(axis=1), drawn.any(axis=2).sum(axis=1)]).T  # (10, width and height)

    assert (extent(0)[:, 0] > 2 * extent(0)[:, 1]).all()
    assert np.abs(extent(90) - extent(0)[:, ::-1]).max() <= 1


def test_contrast_is_the_largest_difference_from_the_background() -> None:
    for contrast in (0.1, 0.35):
        images = draw_shapes(np.arange(100), replace(FLAT, contrast=contrast))[0]
        assert np.abs(images.astype(int) - 128).max(axis=(1, 2, 3)) == pytest.approx(255 * contrast, abs=1.5)


def test_noise_and_texture_have_the_size_asked_for() -> None:
    noisy = draw_shapes(TEN, Nuisances(texture=0, background=0, contrast=0, noise=0.05))[0].astype(float)
    assert noisy.std() == pytest.approx(0.05 * 255, rel=0.03) and noisy.mean() == pytest.approx(127.5, abs=0.5)
    waves = draw_shapes(np.arange(50), Nuisances(texture=0.1, background=0, contrast=0, noise=0))[0].astype(int) - 128
    assert 0.1 * 255 < np.abs(waves).max() <= 2 * 0.1 * 255 + 1  # two waves


def test_background_varies_within_its_range_only() -> None:
    images = draw_shapes(np.arange(100), Nuisances(texture=0, background=0.2, contrast=0, noise=0))[0].astype(int)
    assert images.std(axis=(2, 3)).max() == 0
    assert 0.15 * 255 < np.abs(images - 128).max() <= 0.2 * 255 + 1


def test_test_options_change_test_images_alone(tmp_path: Path) -> None:
    options: dict[str, Any] = {"train_images": 100, "test_images": 100, "texture": 0, "background": 0, "noise": 0}
    plain = load(cache=tmp_path, **options)
    moved = load(cache=tmp_path, **options, x=(-1, -0.5), test={"x": (0.5, 1), "noise": None})
    only_test = load(cache=tmp_path, **options, test={"x": (0.5, 1)})
    assert np.array_equal(plain.train.images, only_test.train.images)
    assert np.array_equal(moved.test.images, only_test.test.images)
    train, test = (centre(np.asarray(split.images))[0] for split in (moved.train, moved.test))
    assert (train < 0).all() and (test > 0).all()


# --- relation: where the square lies, and nothing else ---------------------------------------------------------------


def versions(size: int = 32, M: int = 12) -> np.ndarray:
    """The same images in each of the four classes, (4,M,3,H,W)."""
    return np.stack(
        [draw_shapes(np.arange(M), task="relation", image_size=size, labels=np.full(M, k))[0] for k in range(4)]
    )


def patches(image: np.ndarray, patch: int) -> list[bytes]:
    """The patches of one image, sorted."""
    _, H, W = image.shape
    grid = image.reshape(3, H // patch, patch, W // patch, patch).transpose(1, 3, 0, 2, 4)
    return sorted(pixels.tobytes() for pixels in grid.reshape(-1, 3 * patch * patch))


@pytest.mark.parametrize("size, patch", [(32, 4), (32, 8), (32, 16), (48, 8), (64, 16)])
def test_all_versions_of_an_image_are_one_bag_of_patches(size: int, patch: int) -> None:
    for four in versions(size).swapaxes(0, 1):
        first, *others = (patches(image, patch) for image in four)
        assert all(other == first for other in others)
        assert len({image.tobytes() for image in four}) == 4


def test_the_class_says_on_which_side_of_the_disc_the_square_lies() -> None:
    nuisances = Nuisances(
        radius=(0.8, 0.8), texture=0, background=0, noise=0, contrast=0.5, rotation=(0, 0), x=(0, 0), y=(0, 0)
    )
    images, labels = draw_shapes(np.arange(40), nuisances, task="relation")
    drawn = (images != 128).any(axis=1)
    areas_of_images = drawn.reshape(40, 2, 16, 2, 16).sum(axis=(2, 4))  # (40, 2, 2), one for each quadrant
    for areas, label in zip(areas_of_images, labels, strict=True):
        occupied = np.argwhere(areas > 0)
        assert len(occupied) == 2
        disc, square = sorted(occupied, key=lambda place: -areas[tuple(place)])  # a disc, 0.85^2 pi, is above 1.4^2
        down, right = square - disc
        assert RELATIONS[label] == {(0, -1): "left", (0, 1): "right", (-1, 0): "above", (1, 0): "below"}[(down, right)]


@pytest.mark.parametrize("patch", [4, 8, 16])
@pytest.mark.parametrize("pe, equal", [("none", True), ("learned", False)])
def test_a_vit_without_encodings_sees_no_difference_and_one_with_them_does(pe: str, equal: bool, patch: int) -> None:
    torch.manual_seed(0)
    vit = build_model(
        "vit", image_size=32, channels=3, num_classes=4, pe={"name": pe}, size="nano", patch_size=patch, depth=2
    )
    vit = vit.double().eval()
    images = torch.from_numpy(versions(M=4)).double() / 255 - 0.5
    with torch.no_grad():
        logits = vit(images.flatten(0, 1)).unflatten(0, (4, 4))
    difference = (logits - logits[:1]).abs().amax(dim=(1, 2))
    assert (difference <= 1e-9).all() if equal else (difference[1:] > 1e-4).all()


# --- options ---------------------------------------------------------------------------------------------------------

BAD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "task": ({"task": "shap"}, ["data.task=shap", "shape"]),
    "few images": ({"train_images": 9}, ["data.train_images=9", "10"]),
    "no test images": ({"test_images": 0}, ["data.test_images=0"]),
    "tiny": ({"image_size": 4}, ["data.image_size=4", "8"]),
    "odd": ({"image_size": 33, "task": "relation"}, ["data.image_size=33", "even"]),
    "no whole regions": ({"image_size": 34, "task": "place"}, ["data.image_size=34", "a multiple of 4"]),
    "few places": ({"train_images": 15, "task": "place"}, ["data.train_images=15", "16 classes"]),
    "seed": ({"image_seed": -1}, ["data.image_seed=-1"]),
    "huge seed": ({"image_seed": 2**64}, ["data.image_seed="]),
    "range upside down": ({"x": (1, -1)}, ["data.x=", "-1 <= from <= to <= 1"]),
    "range of one": ({"y": (1,)}, ["data.y="]),
    "range of text": ({"rotation": "ab"}, ["data.rotation=ab"]),
    "radius": ({"radius": (0.5, 2)}, ["data.radius=", "0.05"]),
    "nan range": ({"radius": (float("nan"), 1)}, ["data.radius="]),
    "noise": ({"noise": -0.1}, ["data.noise=-0.1", "0 to 1"]),
    "nan": ({"contrast": float("nan")}, ["data.contrast=nan"]),
    "test": ({"test": {"background": 0.7}}, ["data.test.background=0.7", "0.5"]),
    "unknown": ({"test": {"nois": 0.1}}, ["data.test.nois", "noise"]),
    "texture": ({"task": "relation", "texture": 0.1}, ["data.texture=0.1", "relation"]),
    "test texture": ({"task": "relation", "test": {"texture": 0.1}}, ["data.test.texture=0.1", "relation"]),
}


@pytest.mark.parametrize("name", BAD)
def test_options_that_mean_nothing_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    options, words = BAD[name]
    with pytest.raises(UserError) as error:
        load(cache=tmp_path, **options)
    assert "\n" not in str(error.value) and all(word in str(error.value) for word in words), error.value
    assert error.value.exit_code == 2 and not list(tmp_path.iterdir())
