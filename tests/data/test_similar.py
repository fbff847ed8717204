from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from vitbench.data.similar import SIDE, groups, similar_pairs

RANDOM = np.random.default_rng(0)


def photograph(size: tuple[int, int] = (192, 144)) -> Image.Image:
    """Smooth colours with some grain, as photographs have them; no two are alike."""
    coarse = Image.fromarray(RANDOM.integers(0, 256, (6, 8, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    grain = RANDOM.normal(0, 8, (size[1], size[0], 3))
    return Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8))


def thumbnail(image: Image.Image) -> NDArray[np.uint8]:
    """The middle of an image at 32 px, (3, 32, 32)."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    small = image.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(small).transpose(2, 0, 1)


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "jpeg", quality=quality)
    return Image.open(buffer)


COPIES = {
    "rescaled": lambda image: image.resize((96, 72), Image.Resampling.BICUBIC),
    "enlarged": lambda image: image.resize((288, 216), Image.Resampling.BICUBIC),
    "JPEG": lambda image: as_jpeg(image, 30),
    "brightened": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "of less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.7),
    "cropped by 1 px": lambda image: image.crop((1, 1, *image.size)),
    "cropped by 2 px": lambda image: image.crop((2, 0, image.width, image.height - 2)),
    "the same": lambda image: image,
}


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_is_found_among_other_photographs(how: str) -> None:
    originals = [photograph() for _ in range(20)]
    images = [*originals, *(COPIES[how](image) for image in originals)]
    pairs = similar_pairs(np.stack([thumbnail(image) for image in images]))
    assert pairs.tolist() == [[i, i + 20] for i in range(20)]


def test_different_photographs_are_no_copies() -> None:
    assert len(similar_pairs(np.stack([thumbnail(photograph()) for _ in range(100)]))) == 0


@pytest.mark.parametrize("how", ["mirrored", "negative", "other colours"])
def test_what_shows_something_else_is_no_copy(how: str) -> None:
    one = thumbnail(photograph())
    other = {"mirrored": one[:, :, ::-1], "negative": 255 - one, "other colours": one[[1, 2, 0]]}[how]
    assert len(similar_pairs(np.stack([one, other]))) == 0


def test_candidates_are_found_across_the_chunks_in_which_pairs_are_sought(monkeypatch: pytest.MonkeyPatch) -> None:
    thumbnails = np.stack([thumbnail(photograph()) for _ in range(30)])
    thumbnails = np.concatenate([thumbnails, thumbnails // 2 + 20])
    whole = similar_pairs(thumbnails)
    monkeypatch.setattr("vitbench.data.similar.CHUNK", 4)
    assert np.array_equal(similar_pairs(thumbnails), whole) and len(whole) == 30


def test_pairs_among_some_are_those_of_the_some_alone() -> None:
    thumbnails = np.stack([thumbnail(photograph()) for _ in range(10)])
    thumbnails = RANDOM.permutation(np.concatenate([thumbnails, thumbnails // 2 + 20, thumbnails]))
    among = np.flatnonzero(RANDOM.random(30) < 0.7)
    pairs = similar_pairs(thumbnails, among)
    assert len(pairs) > 5 and np.array_equal(pairs, among[similar_pairs(thumbnails[among])])


def test_among_many_that_look_alike_few_pairs_are_told_and_no_group_is_torn(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (thumbnail(photograph()).astype(float) for _ in range(2))
    shares = np.linspace(0, 1, 120)[:, None, None, None]  # a film that fades from one picture to the other
    film = (one * (1 - shares) + other * shares).astype(np.uint8)
    thumbnails = RANDOM.permutation(np.concatenate([film, np.stack([thumbnail(photograph()) for _ in range(20)])]))
    all_pairs = similar_pairs(thumbnails)
    monkeypatch.setattr("vitbench.data.similar.PARTNERS", 2)
    monkeypatch.setattr("vitbench.data.similar.CHUNK", 16)
    few = similar_pairs(thumbnails)
    count = len(thumbnails)
    assert len(few) < 4 * count < len(all_pairs) and {*map(tuple, few)} <= {*map(tuple, all_pairs)}
    assert np.array_equal(groups(count, few), groups(count, all_pairs))
    assert np.bincount(groups(count, few)).tolist().count(1) == 20 and groups(count, few).max() == 20


def test_images_of_one_colour_are_like_their_equals_alone() -> None:
    colours = np.array([0, 0, 9, 255, 9], np.uint8)
    flat = np.broadcast_to(colours[:, None, None, None], (5, 3, SIDE, SIDE))
    assert similar_pairs(np.concatenate([flat, thumbnail(photograph())[None]])).tolist() == [[0, 1], [2, 4]]


def test_equal_thumbnails_are_paired_with_the_first_of_them() -> None:
    one = thumbnail(photograph())
    assert similar_pairs(np.stack([one] * 4)).tolist() == [[0, 1], [0, 2], [0, 3]]


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images_have_no_pairs(count: int) -> None:
    assert similar_pairs(np.zeros((count, 3, SIDE, SIDE), np.uint8)).shape == (0, 2)


def test_groups_are_chains_of_pairs() -> None:
    group = groups(6, np.array([[0, 2], [2, 5], [3, 4]])).tolist()
    assert group[0] == group[2] == group[5] and group[3] == group[4] and len({*group}) == 3
    assert len({*groups(4, np.empty((0, 2), np.int64)).tolist()}) == 4
