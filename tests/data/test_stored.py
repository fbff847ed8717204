"""Whatever happens to a file of the cache, nobody gets other pixels than those that were decoded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import TINY
from tests.data.test_cache import IMAGES, LABELS, Source, cut, files, flip, open_cache
from tests.training.test_train import Cli, assert_same_run, folder
from vitbench.data import cache as cache_module
from vitbench.data import menu, shapes
from vitbench.data.split import Dataset
from vitbench.data.stored import HEADER, digests_of
from vitbench.data.stream import Stream
from vitbench.errors import DataError, StorageError

IMAGE = 3 * 8 * 8  # bytes


def images_file(cache: Path) -> Path:
    (path,) = files(cache, "npy")
    return path


def change(path: Path, offset: int, of: bytes = b"\xa5") -> None:
    """Overwrites bytes in place, as a failing disk or another program would."""
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(of)


def with_source(dataset: Dataset, tmp_path: Path, source: Source) -> Any:
    """The file of a data set that is decoded again where it is damaged, as `open_dataset` has it."""
    file: Any = dataset.train.images.file  # type: ignore[attr-defined]
    file.open_again = lambda: open_cache(tmp_path, source).train.images.file  # type: ignore[attr-defined]
    return file


@pytest.fixture(autouse=True)
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening looks at nothing of the images, so that it is loading which notices."""
    monkeypatch.setattr(cache_module, "_sample", lambda path: "")


# ------------------------------------------------------------------------------------------------------- what is loaded


def test_images_of_a_file_are_indexed_as_those_of_an_array(tmp_path: Path) -> None:
    stored: Any = open_cache(tmp_path, Source()).test.images
    array = IMAGES[40:]
    for part in (
        slice(None),
        slice(3, 9),
        slice(None, None, 3),
        slice(-2, None),
        np.array([5, 0, -1]),
        [2, 1],
        LABELS[40:] == 1,
        4,
        -1,
    ):
        assert np.array_equal(stored[part], array[part])
    assert np.array_equal(stored[2:12][::2][np.array([1, 4])], array[2:12][::2][[1, 4]])
    assert len(stored) == 20 and len([*stored]) == 20
    for outside in (20, -21, np.array([20]), np.array([0.5])):
        with pytest.raises(IndexError):
            stored[outside]


def test_each_changed_byte_is_noticed_and_decoded_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for round_, offset in enumerate(np.random.default_rng(0).integers(0, 60 * IMAGE, 30).tolist()):
        cache, source = tmp_path / str(round_), Source()
        open_cache(cache, source)
        flip(images_file(cache), HEADER + offset)
        dataset = open_cache(cache, source)
        assert source.decoded == 1  # opening reads no image
        with_source(dataset, cache, source)
        assert np.array_equal(dataset.train.images, IMAGES[:40]) and np.array_equal(dataset.test.images, IMAGES[40:])
        assert source.decoded == 2 and capsys.readouterr().err.count("is damaged") == 1
        assert images_file(cache).read_bytes()[HEADER:] == IMAGES.tobytes()


def test_only_what_is_loaded_is_checked(tmp_path: Path) -> None:
    dataset = open_cache(tmp_path, Source())
    change(images_file(tmp_path), HEADER + 7 * IMAGE)
    images: Any = dataset.train.images
    assert np.array_equal(images[np.array([6, 8, 39])], IMAGES[[6, 8, 39]])
    with pytest.raises(StorageError, match="image 7 of 60 has other pixels"):
        images[np.array([6, 7])]


def test_an_image_that_is_damaged_after_it_was_loaded_is_noticed(tmp_path: Path) -> None:
    images: Any = open_cache(tmp_path, Source()).train.images
    assert np.array_equal(images[np.array([3])], IMAGES[[3]])
    change(images_file(tmp_path), HEADER + 3 * IMAGE)
    os.utime(images_file(tmp_path), ns=(0, 0))  # clocks of disks are coarse
    with pytest.raises(StorageError, match="image 3"):
        images[np.array([3])]


@pytest.mark.parametrize("size", [0, HEADER, HEADER + 5 * IMAGE + 1])
def test_a_file_that_is_cut_while_it_is_in_use_is_no_bus_error(tmp_path: Path, size: int) -> None:
    images: Any = open_cache(tmp_path, Source()).train.images
    batches = Stream(images, np.arange(40), torch.device("cpu")).split(8)
    cut(images_file(tmp_path), size)
    with pytest.raises(StorageError, match=r"is damaged \(it was cut off\); remove it") as error:
        list(batches)
    assert "\n" not in str(error.value)


def test_other_processes_go_on_with_the_file_that_they_have_open(tmp_path: Path) -> None:
    """A damaged file is replaced, and not written to, so that nobody's images change under them."""
    source = Source()
    one, other = open_cache(tmp_path, source), open_cache(tmp_path, source)
    for dataset in (one, other):
        with_source(dataset, tmp_path, source)
    change(images_file(tmp_path), HEADER)
    assert np.array_equal(one.train.images, IMAGES[:40])
    assert np.array_equal(other.train.images, IMAGES[:40])  # it takes what the first one decoded
    assert source.decoded == 2


def test_where_the_images_are_gone_the_line_says_so(tmp_path: Path) -> None:
    dataset = open_cache(tmp_path, Source())

    def gone() -> Any:
        raise DataError("data.root=pets: no such folder")

    with_source(dataset, tmp_path, Source()).open_again = gone
    change(images_file(tmp_path), HEADER)
    with pytest.raises(DataError, match=r"has other pixels.*cannot be decoded again: data\.root=pets: no such folder"):
        np.asarray(dataset.train.images)


def test_images_that_changed_since_are_not_mixed_with_those_that_were_loaded(tmp_path: Path) -> None:
    dataset = open_cache(tmp_path, Source())

    class Others(Source):
        def __call__(self, rows: Any) -> Any:
            contents = super().__call__(rows)
            rows.write(0, IMAGES[1:2])
            return contents

    with_source(dataset, tmp_path, Others())
    change(images_file(tmp_path), HEADER)
    with pytest.raises(DataError, match="changed since they were decoded"):
        np.asarray(dataset.train.images)


def test_a_disk_that_damages_what_was_just_written_is_told(tmp_path: Path) -> None:
    dataset = open_cache(tmp_path, Source())
    file = with_source(dataset, tmp_path, Source())
    decode_again = file.open_again

    def failing() -> Any:
        fresh = decode_again()
        change(images_file(tmp_path), HEADER)
        return fresh

    file.open_again = failing
    change(images_file(tmp_path), HEADER)
    with pytest.raises(StorageError, match="the disk may be failing"):
        np.asarray(dataset.train.images)


def test_a_run_on_a_damaged_cache_has_the_bits_of_one_on_a_whole_cache(vitbench: Cli, tmp_path: Path) -> None:
    assert vitbench("train", *TINY, "data.cache=cache", "runs=whole").code == 0
    for images, where in (("memory", 0.1), ("cache", 0.2)):
        (path,) = (tmp_path / "cache").glob("*.npy")
        change(path, HEADER + int(where * (path.stat().st_size - HEADER)))
        output = vitbench("train", *TINY, "data.cache=cache", f"machine.images={images}", f"runs=of_{images}")
        assert output.code == 0 and "is damaged" in output.err, output.err
        assert_same_run(folder(tmp_path / "whole"), folder(tmp_path / f"of_{images}"))


def test_a_source_that_is_opened_by_its_name_decodes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, load = [], shapes.load
    monkeypatch.setattr(shapes, "load", lambda **options: drawn.append(1) or load(**options))
    options: dict[str, Any] = {"root": "", "cache": str(tmp_path), "image_size": 16, "progress": False}
    menu.forget()
    dataset = menu.open_dataset("shapes", train_images=20, test_images=10, **options)
    whole = load(cache=tmp_path / "other", image_size=16, train_images=20, test_images=10)
    change(images_file(tmp_path), HEADER + 100)
    assert np.array_equal(dataset.train.images, whole.train.images) and len(drawn) == 2


# --------------------------------------------------------------------------------------------- caches of older versions


def without_digests(cache: Path) -> Path:
    """Makes the header of a cache one of the version before."""
    (path,) = files(cache, "json")
    header = json.loads(path.read_text())
    del header["digests"], header["digest"]
    path.write_text(json.dumps(header | {"digest": cache_module._digest(header)}))
    return path


def test_a_cache_of_an_older_version_is_checked_once_and_kept(tmp_path: Path) -> None:
    source = Source({3: "a.png"})
    before = open_cache(tmp_path, source)
    path = without_digests(tmp_path)
    opened = open_cache(tmp_path, source)
    assert source.decoded == 1 and opened.fingerprint == before.fingerprint
    assert bytes.fromhex(json.loads(path.read_text())["digests"]) == digests_of(np.delete(IMAGES, 3, 0)).tobytes()
    assert np.array_equal(opened.train.images, np.delete(IMAGES[:40], 3, 0))


@pytest.mark.parametrize("damage", [lambda path: change(path, HEADER + 1000), lambda path: cut(path, -1)])
def test_a_damaged_cache_of_an_older_version_is_decoded_again(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    source = Source()
    open_cache(tmp_path, source)
    without_digests(tmp_path)
    damage(images_file(tmp_path))
    assert np.array_equal(open_cache(tmp_path, source).train.images, IMAGES[:40]) and source.decoded == 2


def test_a_cache_of_an_older_version_that_cannot_be_written_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source()
    open_cache(tmp_path, source)
    path = without_digests(tmp_path)
    before = path.read_bytes()

    def refused(*_: Any) -> None:
        raise StorageError("a read-only disk")

    monkeypatch.setattr(cache_module, "write", refused)
    assert np.array_equal(open_cache(tmp_path, source).train.images, IMAGES[:40])
    assert source.decoded == 1 and path.read_bytes() == before


def test_a_file_of_the_cache_is_closed_with_its_data_set(tmp_path: Path) -> None:
    code = """
import gc, os, sys
from pathlib import Path
from tests.data.test_cache import Source, open_cache
cache = Path(sys.argv[1])
def count():
    return sum(os.readlink(f"/proc/self/fd/{fd}").endswith(".npy") for fd in os.listdir("/proc/self/fd")
               if os.path.islink(f"/proc/self/fd/{fd}"))
images = open_cache(cache, Source()).train.images[3:9]
assert count() == 1
del images
gc.collect()
assert count() == 0
left = open_cache(cache, Source())"""
    command = [sys.executable, "-W", "error", "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stderr) == (0, "")
