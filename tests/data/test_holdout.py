from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.data.test_similar import photograph
from vitbench.data import holdout
from vitbench.data.holdout import choose, hold_out
from vitbench.data.listing import File
from vitbench.errors import DataError

RANDOM = np.random.default_rng(0)


def split(labels: list[int], alike: list[int] | None = None, fraction: float = 0.2, seed: int = 0) -> NDArray[np.bool_]:
    """Which images are test images; without `alike`, no two look alike."""
    own = np.arange(len(labels))
    return choose(np.array(labels), own if alike is None else np.array(alike), own, fraction=fraction, seed=seed).test


@pytest.mark.parametrize("fraction, expected", [(0.2, [20, 6, 1, 1]), (0.5, [50, 15, 2, 1]), (0.01, [1, 1, 1, 1])])
def test_every_class_gives_its_share_and_has_an_image_on_each_side(fraction: float, expected: list[int]) -> None:
    labels = [0] * 100 + [1] * 30 + [2] * 3 + [3] * 2
    test = split(labels, fraction=fraction)
    assert np.bincount(np.array(labels)[test]).tolist() == expected


def test_the_seed_decides_which_and_not_how_many() -> None:
    one, again, other = (split([0] * 50 + [1] * 50, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(one, again) and not np.array_equal(one, other)
    assert one.sum() == other.sum() == 20


@pytest.mark.parametrize("seed", range(20))
def test_a_group_goes_to_one_side_and_the_shares_are_met_all_the_same(seed: int) -> None:
    random = np.random.default_rng(seed)
    labels, alike = random.integers(0, 4, 400).tolist(), random.integers(0, 200, 400)
    test = split(labels, alike.tolist(), seed=seed)
    for group in range(200):
        assert len({*test[alike == group].tolist()}) <= 1
    counts = np.bincount(labels)
    assert np.abs(np.bincount(np.array(labels)[test], minlength=4) - 0.2 * counts).max() <= 3


def test_images_of_groups_are_drawn_as_often_as_others() -> None:
    alike = [*np.repeat(np.arange(50), 2), *range(100, 200)]
    drawn = np.mean([split([0] * 200, alike, seed=seed) for seed in range(100)], axis=0)
    assert abs(drawn[:100].mean() - 0.2) < 0.02 and abs(drawn[100:].mean() - 0.2) < 0.02


def test_where_only_groups_are_left_the_nearest_number_is_taken() -> None:
    assert split([0] * 12, [*np.repeat(np.arange(6), 2)]).sum() == 2  # 2.4 wanted
    assert split([0] * 4, [0, 0, 1, 1]).sum() == 2  # 1 wanted, and none is not allowed
    assert split([0] * 5 + [1] * 5, [0, 0, 0, 0, 1, 2, 2, 2, 2, 3]).tolist() == [False] * 4 + [True] + [False] * 4 + [
        True
    ]


def test_a_group_that_is_most_of_a_class_is_broken_into_copies() -> None:
    labels, alike = np.array([0] * 20 + [1] * 20), np.array([0] * 20 + [*range(1, 21)])
    copies = np.array([0, 0, *range(2, 40)])
    found = choose(labels, alike, copies, fraction=0.2, seed=0)
    assert found.loosened == (0,) and np.bincount(labels[found.test]).tolist() == [4, 4]
    assert found.alike == 2 and found.test[0] == found.test[1]


# --- files -----------------------------------------------------------------------------------------------------------


def listed(root: Path) -> list[File]:
    """The files below a root, class folder by class folder."""
    paths = sorted(path for path in root.rglob("*.*") if path.is_file())
    return [
        File(path.parent.name, str(path), (str(path.relative_to(root)), path.stat().st_size, path.stat().st_mtime_ns))
        for path in paths
    ]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of ten photographs; in cat 2 others are small copies of the first, and in dog one is."""
    for name, copies in (("cat", 2), ("dog", 1)):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(10):
            photograph().save(tmp_path / "pets" / name / f"{i}.png")
        first = Image.open(tmp_path / "pets" / name / "0.png")
        for i in range(copies):
            first.resize((96 + i, 72)).save(tmp_path / "pets" / name / f"copy{i}.jpg")
    return tmp_path / "pets"


def held_out(root: Path, seed: int = 0) -> tuple[list[str], list[str]]:
    """The paths below the root of the test images, and what is said."""
    train, test, lines = hold_out(listed(root), "2 class folders", fraction=0.2, seed=seed, cache=root.parent / "cache")
    assert sorted(train + test) == sorted(listed(root))
    return [file.stamp[0] for file in test], lines


def test_the_split_is_told_in_one_line_and_copies_stay_together(root: Path) -> None:
    sides = set()
    for seed in range(8):
        test, lines = held_out(root, seed)
        assert lines == [
            "the 23 images in 2 class folders have no split: 4 of them are the test images (data.test_fraction=0.2); "
            "5 near-duplicates stay on one side"
        ]
        for copies in (("dog/0.png", "dog/copy0.jpg"), ("cat/0.png", "cat/copy0.jpg", "cat/copy1.jpg")):
            sides.add(len({name in test for name in copies}))
    assert sides == {1}


def test_a_copy_of_the_folder_elsewhere_has_the_same_test_images(root: Path) -> None:
    first = held_out(root)[0]
    assert held_out(root.rename(root.parent / "elsewhere"))[0] == first


def test_the_second_time_no_image_is_looked_at(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = held_out(root)
    monkeypatch.setattr(holdout, "survey", None)
    assert held_out(root) == first


def test_a_broken_file_changes_nothing_for_the_others(root: Path) -> None:
    whole = held_out(root)
    for name in ("cat", "dog"):
        (root / name / "5broken.png").write_bytes(b"no image")
    assert held_out(root) == whole


def test_where_no_file_can_be_read_nothing_is_split(root: Path) -> None:
    for path in root.rglob("*.*"):
        path.write_bytes(b"no image")
    assert held_out(root) == ([], [])


def test_a_class_of_one_image_is_refused_and_named(root: Path) -> None:
    for path in [*(root / "dog").iterdir()][1:]:
        path.unlink()
    with pytest.raises(
        DataError, match=r"^1 class: dog with a single image, which cannot be both a training and a test image; add"
    ):
        held_out(root)


def test_a_class_of_copies_alone_is_refused(root: Path) -> None:
    blob = (root / "dog" / "0.png").read_bytes()
    for path in [*(root / "dog").iterdir()]:
        path.unlink()
    for name in ("a.png", "b.png"):
        (root / "dog" / name).write_bytes(blob)
    with pytest.raises(DataError, match="the 2 images of class dog are copies of one image, which cannot be"):
        held_out(root)


def test_classes_whose_images_all_look_alike_are_told(root: Path) -> None:
    image = Image.open(root / "dog" / "0.png")
    for path in [*(root / "dog").iterdir()]:
        path.unlink()
    for i in range(10):
        Image.fromarray(
            (np.asarray(image).clip(30, 220) + RANDOM.integers(-20, 20, (*image.size[::-1], 3))).astype(np.uint8)
        ).save(root / "dog" / f"{i}.png")
    test, lines = held_out(root)
    assert len([name for name in test if name.startswith("dog")]) == 2
    assert "so many images look alike in 1 class: dog, that only exact copies stay on one side" in lines[1]
