"""Each fault is put into a folder of good photographs, and is the only one that is found."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.data.test_similar import photograph
from vitbench.data.listing import colliding
from vitbench.data.suspects import Finding
from vitbench.data.tolerant import list_images
from vitbench.errors import DataError
from vitbench.inspect import inspect


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of four photographs in train and of two in test."""
    for split, count in (("train", 4), ("test", 2)):
        for name in ("cat", "dog"):
            (tmp_path / "pets" / split / name).mkdir(parents=True)
            for i in range(count):
                photograph((64, 64)).save(tmp_path / "pets" / split / name / f"{i}.png")
    return tmp_path / "pets"


def findings_in(root: Path, image_size: int | None = None) -> dict[str, Finding]:
    cache = str(root.parent / "cache")
    data = {"source": "imagefolder", "root": str(root), "cache": cache, "image_size": image_size, "follow_links": False}
    return {one.what: one for one in inspect(data).findings}


def test_nothing_is_found_in_a_good_folder(root: Path) -> None:
    assert findings_in(root) == {}


def turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photograph((64, 64)).save(path.with_suffix(".jpg"), exif=exif)


def animated(path: Path) -> None:
    photograph((64, 64)).save(path.with_suffix(".gif"), save_all=True, append_images=[photograph((64, 64))])


def dark(path: Path) -> None:
    Image.fromarray((np.asarray(photograph((64, 64))) * 0.08).astype(np.uint8)).save(path)


def deep(path: Path) -> None:
    Image.fromarray(np.asarray(photograph((64, 64)).convert("L")).astype(np.uint16) * 257).save(path)


def with_profile(path: Path, kind: str = "LAB") -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile(kind))
    photograph((64, 64)).save(path, icc_profile=profile.tobytes())


FAULTS: dict[str, Callable[[Path], object]] = {
    "damaged files": lambda path: path.write_text("no image"),
    "of one colour, or nearly": lambda path: Image.new("RGB", (64, 64), (90, 120, 90)).save(path),
    "very dark": dark,
    "far smaller than the others": lambda path: photograph((20, 20)).save(path),
    "not square": lambda path: photograph((128, 64)).save(path),
    "grey of 12 or 16 bits": deep,
    "CMYK": lambda path: photograph((64, 64)).convert("CMYK").save(path.with_suffix(".jpg")),
    "animated": animated,
    "turned by EXIF": turned,
    "transparent": lambda path: photograph((64, 64)).convert("RGBA").save(path),
    "with a colour profile other than sRGB": with_profile,
}


@pytest.mark.parametrize("what", FAULTS)
def test_a_fault_is_found_and_nothing_else(root: Path, what: str) -> None:
    FAULTS[what](root / "train" / "cat" / "new.png")
    found = findings_in(root)
    assert {*found} == {what}
    (suspect,) = found[what].suspects
    assert suspect.names[0].startswith("train/cat/new.") and suspect.reason and found[what].means.endswith(".")


def test_16_bits_that_are_hardly_used_are_found(root: Path) -> None:
    path = root / "train" / "cat" / "new.png"
    Image.fromarray(np.asarray(photograph((64, 64)).convert("L")).astype(np.uint16)).save(path)
    found = findings_in(root)
    assert {*found} == {"grey of 12 or 16 bits", "grey of 12 or 16 bits, nearly black", "of one colour, or nearly"}


def test_what_lies_behind_the_first_frame_damages_nothing(root: Path) -> None:
    path = root / "train" / "cat" / "new.gif"
    animated(path)
    path.write_bytes(path.read_bytes()[:-900])
    assert "damaged files" not in findings_in(root)


def test_a_jpeg_that_was_cut_and_ended_is_damaged(root: Path) -> None:
    path = root / "train" / "cat" / "new.jpg"
    photograph((64, 64)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] + b"\xff\xd9")
    [suspect] = findings_in(root)["damaged files"].suspects
    assert suspect.names == ("train/cat/new.jpg",) and "truncated" in suspect.reason


def test_srgb_is_no_finding(root: Path) -> None:
    with_profile(root / "train" / "cat" / "new.png", "sRGB")
    assert findings_in(root) == {}


def test_images_below_the_asked_size_are_found(root: Path) -> None:
    assert len(findings_in(root, 65)["smaller than data.image_size=65"].suspects) == 12
    assert findings_in(root, 64) == {}


COPIES = {
    "the same image in two classes": "train/dog/new.png",
    "the same image in two splits": "test/cat/new.png",
    "copies of another file": "train/cat/new.png",
}


@pytest.mark.parametrize("what", COPIES)
def test_a_copy_is_found_where_it_does_harm(root: Path, what: str) -> None:
    shutil.copy(root / "train" / "cat" / "0.png", root / COPIES[what])
    found = findings_in(root)
    assert {*found} == {what}
    assert {*found[what].suspects[0].names} == {"train/cat/0.png", COPIES[what]}


@pytest.mark.parametrize("what", COPIES)
def test_a_near_copy_is_found_as_such(root: Path, what: str) -> None:
    Image.open(root / "train" / "cat" / "0.png").resize((56, 56)).save(root / COPIES[what])
    expected = f"near-{what}" if what.startswith("copies") else f"nearly {what}"
    assert {*findings_in(root)} == {expected}


def test_a_class_with_few_images_is_found(root: Path) -> None:
    for path in [*(root / "train" / "dog").iterdir()][1:]:
        path.unlink()
    for i in range(4):
        photograph((64, 64)).save(root / "train" / "cat" / f"more{i}.png")
    (suspect,) = findings_in(root)["classes with few images"].suspects
    assert suspect.names == ("dog",) and suspect.reason == "3, the largest has 10"


def test_a_folder_that_training_refuses_is_looked_at_all_the_same(root: Path) -> None:
    (root / "train" / "bird").mkdir()
    os.symlink("/nowhere", root / "train" / "cat" / "broken.png")
    os.mkfifo(root / "train" / "cat" / "pipe.png")
    shutil.copy(root / "train" / "cat" / "0.png", root / "test" / "cat" / "new.png")
    found = findings_in(root)
    assert {*found} == {"what training refuses", "class folders without images", "the same image in two splits"}
    first, second = (suspect.names[0] for suspect in found["what training refuses"].suspects)
    assert "broken link" in first and "a pipe, socket or device" in second
    assert found["class folders without images"].suspects[0].names == ("train/bird",)


def test_names_that_look_alike_are_found(root: Path) -> None:
    for split in ("train", "test"):
        for i, name in enumerate(("Gru\u0308n", "gr\u00fcn")):
            (root / split / name).mkdir()
            photograph((64, 64)).save(root / split / name / f"{i}.png")
    photograph((64, 64)).save(root / "train" / "cat" / "A.png")
    photograph((64, 64)).save(root / "train" / "cat" / "a.png")
    found = findings_in(root)
    assert found["classes whose names collide"].suspects[0].names == ("Gru\u0308n", "gr\u00fcn")
    assert found["files whose names collide"].suspects[0].names == ("train/cat/A.png", "train/cat/a.png")
    assert colliding(["a", "b", "A ", "a"]) == [("a", "A ")]


def test_one_class_alone_and_one_in_training_only_are_found(root: Path) -> None:
    shutil.rmtree(root / "test" / "dog")
    assert "none in test" in findings_in(root)["classes that are not in every split"].suspects[0].reason
    shutil.rmtree(root / "train" / "dog")
    assert findings_in(root)["only one class"].suspects[0].names == ("cat",)


def test_class_folders_beside_a_test_folder_are_looked_at_though_training_refuses_them(root: Path) -> None:
    for name in ("cat", "dog"):
        (root / "train" / name).rename(root / name)
    (root / "train").rmdir()
    shutil.copy(root / "cat" / "0.png", root / "test" / "cat" / "new.png")
    found = findings_in(root)
    assert {*found} == {"what training refuses", "the same image in two splits"}
    assert "cat, dog beside test/; put them into train/" in found["what training refuses"].suspects[0].names[0]
    assert {*found["the same image in two splits"].suspects[0].names} == {"cat/0.png", "test/cat/new.png"}
    assert list_images(root).splits.count("class folders") == 8


def test_a_class_of_one_image_is_found_where_training_has_to_split(root: Path) -> None:
    for path in [*(root / "train" / "dog").iterdir()][1:]:
        path.unlink()
    assert findings_in(root) == {}  # there are images to test
    shutil.rmtree(root / "test")
    for path in [*(root / "train" / "cat").iterdir()][2:]:
        path.unlink()
    found = findings_in(root)
    assert {*found} == {"classes with a single image"} and found["classes with a single image"].suspects[0].names == (
        "dog",
    )


def test_damaged_files_are_no_copies_of_each_other(root: Path) -> None:
    for name in ("cat", "dog"):
        (root / "train" / name / "empty.png").touch()
    found = findings_in(root)
    assert {*found} == {"damaged files"} and len(found["damaged files"].suspects) == 2


def test_an_orientation_that_exif_does_not_know_turns_nothing(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 0  # some cameras write it
    photograph((64, 64)).save(root / "train" / "cat" / "new.jpg", exif=exif)
    assert findings_in(root) == {}


def test_a_folder_that_may_not_be_read_is_told_and_the_others_are_looked_at(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def closed(path: Any) -> Any:
        if str(path).endswith("train/dog"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    found = findings_in(root)["what training refuses"].suspects
    assert [suspect.names[0] for suspect in found] == [f"{root}/train/dog cannot be read: Permission denied"]
    assert len(list_images(root).files) == 8


def test_what_is_no_folder_of_images_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "nowhere", tmp_path / "empty", root / "train" / "cat" / "0.png", tmp_path / ("x" * 300)):
        with pytest.raises(DataError) as error:
            list_images(path)
        assert error.value.exit_code == 3 and "\n" not in str(error.value)
    with pytest.raises(DataError, match=r"cannot be read: File name too long"):
        list_images(root, "x" * 300)
