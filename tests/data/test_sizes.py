from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from tests.data.test_similar import photograph
from vitbench.data.menu import MENU
from vitbench.data.shapes import draw_shapes
from vitbench.data.sizes import PUBLIC_SETS, SHAPES, count_train_images, own_size
from vitbench.data.torchvision_sets import SETS
from vitbench.errors import DataError


def test_the_sizes_are_those_that_the_sources_have() -> None:
    assert {name: known.side for name, known in PUBLIC_SETS.items()} == {name: its.size for name, its in SETS.items()}
    assert inspect.signature(draw_shapes).parameters["image_size"].default == SHAPES
    assert {*PUBLIC_SETS, "shapes", "imagefolder"} == {*MENU}


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(5):
            photograph((96, 96)).save(tmp_path / name / f"{i}.png")
    return tmp_path


def test_a_folder_has_the_size_of_its_first_image_that_can_be_read(pets: Path) -> None:
    (pets / "cat" / ".hidden.png").write_text("x")
    (pets / "cat" / "0.png").write_text("torn")
    assert own_size("imagefolder", str(pets)) == 96
    assert own_size("imagefolder", str(pets / "nowhere")) is None


def test_training_images_are_counted_without_opening_one(pets: Path) -> None:
    for path in pets.glob("*/*.png"):
        path.write_text("no image")
    assert count_train_images("imagefolder", root=str(pets), follow_links=False, classes=None) == 8
    assert count_train_images("imagefolder", root=str(pets), test_fraction=0.5) == 5
    assert count_train_images("cifar10", root="nowhere") == 50_000
    assert count_train_images("shapes", root="nowhere", train_images=200) == 200
    assert count_train_images("cifar10", root="nowhere", classes=[0, 1]) is None


def test_a_folder_that_cannot_be_used_is_refused(pets: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        count_train_images("imagefolder", root=str(pets / "nowhere"))
    (pets / "Cat").mkdir()
    (pets / "Cat" / "0.png").write_text("x")
    with pytest.raises(DataError, match="differ only in case"):
        count_train_images("imagefolder", root=str(pets))
