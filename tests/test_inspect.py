from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Output
from tests.data.test_similar import photograph
from vitbench.data.sheet import contact_sheet
from vitbench.inspect import _thumbnails, inspect

Cli = Callable[..., Output]


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Two classes without a split; a damaged file, and an image that is there twice."""
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(3):
            photograph((64, 64)).save(tmp_path / "pets" / name / f"{i}.png")
    (tmp_path / "pets" / "cat" / "torn.png").write_bytes((tmp_path / "pets" / "cat" / "0.png").read_bytes()[:900])
    (tmp_path / "pets" / "dog" / "again.png").write_bytes((tmp_path / "pets" / "cat" / "1.png").read_bytes())
    return tmp_path / "pets"


def test_each_finding_has_a_number_an_example_and_a_sentence(vitbench: Cli, pets: Path) -> None:
    done = vitbench("inspect", "data.root=pets")
    assert done.code == 0 and done.err == ""
    lines = done.out.splitlines()
    assert lines[0].startswith("pets: 8 images in 2 classes, not split into training and test images")
    assert "1  damaged files                  cat/torn.png (" in done.out
    assert "1  the same image in two classes  cat/1.png = dog/again.png (the same)" in done.out
    assert "\n    Training stops at them" in done.out
    assert lines[-2:] == ["cat         4", "dog         4"]


def test_json_lists_every_suspect(vitbench: Cli, pets: Path) -> None:
    report = json.loads(vitbench("inspect", "data.root=pets", "format=json").out)
    assert report["images"] == 8 and report["classes"] == {"cat": {"": 4}, "dog": {"": 4}}
    found = {one["finding"]: one for one in report["findings"]}
    assert found["damaged files"]["suspects"][0]["names"] == ["cat/torn.png"]
    assert {*found} == {"damaged files", "the same image in two classes"}


def test_a_contact_sheet_is_drawn(vitbench: Cli, pets: Path, tmp_path: Path) -> None:
    done = vitbench("inspect", "data.root=pets", "file=out/sheet.png")
    assert done.code == 0 and done.out.endswith("\nout/sheet.png\n")
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        assert sheet.width > 1000 and np.ptp(np.asarray(sheet.convert("L"))) == 255


def test_the_same_sheet_gives_the_same_bytes_and_a_good_folder_has_one_too(pets: Path, cache: Path) -> None:
    data = {"source": "imagefolder", "root": str(pets), "cache": str(cache), "image_size": None, "follow_links": False}
    seen = inspect(data)
    sheets = [contact_sheet(seen.what, seen.images, seen.paths, seen.findings, Path("a.svg")) for _ in range(2)]
    assert sheets[0] == sheets[1] and b"torn.png" in sheets[0]
    assert b"nothing suspicious" in contact_sheet("pets", seen.images, seen.paths, [], Path("a.svg"))


def test_public_and_drawn_sets_are_looked_at_too(vitbench: Cli) -> None:
    done = vitbench("inspect", "data=shapes", "data.train_images=30", "data.test_images=20")
    assert done.code == 0 and done.out.startswith("shapes: 50 images in 10 classes (30 in train, 20 in test)\n")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["data.root=nowhere"], 3, "data.root=nowhere: no such folder"),
        (["data.root=pets", "format=yaml"], 2, "format=yaml: choices: json, text"),
        (["data.root=pets", "file=sheet.gif"], 2, "file=sheet.gif: the ending says the format"),
        (["data.root=pets", "data.image_size=0"], 2, "data.image_size=0: must be 1 or more and at most 16,384 pixels"),
        (["data.root=pets", "data.rot=x"], 2, "no such setting of `vitbench inspect`"),
    ],
)
def test_a_slip_gets_one_line(vitbench: Cli, pets: Path, words: list[str], code: int, said: str) -> None:
    done = vitbench("inspect", *words)
    assert (done.code, done.out) == (code, "") and done.err.count("\n") == 1
    assert said in done.err.replace(str(pets.parent) + "/", "")


@pytest.mark.parametrize("side", [28, 32, 64, 80])
def test_thumbnails_are_means_of_pixels_or_the_nearest_of_fewer(side: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 3, side, side), np.uint8)
    small = _thumbnails(images)
    assert small.shape == (2, 3, 32, 32)
    if side == 64:
        assert small[1, 2, 3, 4] == int(images[1, 2, 6:8, 8:10].mean())
    if side == 32:
        assert (small == images).all()
    assert (_thumbnails(images[:, :1]) == small[:, :1]).all()
