from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vitbench.data import cache as cache_module
from vitbench.data.cache import Contents, Rows, cached
from vitbench.data.split import Dataset
from vitbench.errors import DataError, StorageError

IMAGES = np.random.default_rng(0).integers(0, 256, (60, 3, 8, 8), np.uint8)
LABELS = np.arange(60) % 4
CLASSES = ("no", "1.10", "null", "é")


class Source:
    """Forty training and twenty test images; counts how often it is decoded."""

    def __init__(self, broken: dict[int, str] | None = None) -> None:
        self.decoded, self.broken = 0, broken or {}

    def __call__(self, rows: Rows) -> Contents:
        self.decoded += 1
        rows.allocate(60, 3, 8)
        for first in (20, 0, 40):  # rows may be written in any order
            rows.write(first, IMAGES[first : first + 20])
        return Contents(LABELS[:40], LABELS[40:], CLASSES, self.broken)


def open_cache(folder: Path, source: Source, identity: Any = "a", **options: bool) -> Dataset:
    return cached(folder, "set", identity, source, **options)


def files(folder: Path, ending: str) -> list[Path]:
    return sorted(folder.glob(f"*.{ending}"))


def test_images_are_decoded_once_and_come_back_as_they_were(tmp_path: Path) -> None:
    source = Source()
    first, second = (open_cache(tmp_path, source) for _ in range(2))
    assert source.decoded == 1
    for dataset in (first, second):
        assert np.array_equal(dataset.train.images, IMAGES[:40]) and np.array_equal(dataset.test.images, IMAGES[40:])
        assert np.array_equal(dataset.train.labels, LABELS[:40]) and np.array_equal(dataset.test.labels, LABELS[40:])
        assert dataset.classes == CLASSES
    assert first.fingerprint == second.fingerprint
    assert np.array_equal(np.load(files(tmp_path, "npy")[0]), IMAGES)  # any tool can read the file


def test_what_is_done_to_the_images_stays_out_of_the_cache(tmp_path: Path) -> None:
    images: Any = open_cache(tmp_path, Source()).train.images
    images[np.arange(40)][:] = 0  # indices give a copy
    with pytest.raises(TypeError, match="item assignment"):
        images[:] = 0
    assert np.array_equal(open_cache(tmp_path, Source()).train.images, IMAGES[:40])


def test_another_identity_is_another_file(tmp_path: Path) -> None:
    source = Source()
    fingerprints = {open_cache(tmp_path, source, identity).fingerprint for identity in ("a", "b", ["a"], {"a": 1})}
    assert source.decoded == len(files(tmp_path, "npy")) == 4
    assert len(fingerprints) == 1  # a fingerprint names the pixels, not where they came from


def cut(path: Path, size: int) -> None:
    """Cuts a file to a size; a negative one counts from its end."""
    os.truncate(path, size if size >= 0 else path.stat().st_size + size)


def flip(path: Path, offset: int) -> None:
    """Flips a bit of one byte."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: cut(path, 0),
    "4 bytes": lambda path: cut(path, 4),
    "half": lambda path: cut(path, path.stat().st_size // 2),
    "a byte short": lambda path: cut(path, -1),
    "first byte": lambda path: flip(path, 0),
    "in the header": lambda path: flip(path, 60),
    "in the middle": lambda path: flip(path, path.stat().st_size // 2),
    "last byte": lambda path: flip(path, -1),
    "too long": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "an archive": lambda path: path.write_bytes(b"PK\x03\x04" + bytes(path.stat().st_size - 4)),
    "a list": lambda path: path.write_text("[]"),
    "a number": lambda path: path.write_text("1"),
    "another object": lambda path: path.write_text(json.dumps({"digest": "", "shape": [1]})),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("ending", ["npy", "json"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_noticed_and_decoded_again(damage: str, ending: str, tmp_path: Path) -> None:
    source = Source()
    fingerprint = open_cache(tmp_path, source).fingerprint
    DAMAGE[damage](files(tmp_path, ending)[0])
    again = open_cache(tmp_path, source)
    assert source.decoded == 2 and again.fingerprint == fingerprint
    assert np.array_equal(again.train.images, IMAGES[:40]) and again.test.labels.tolist() == LABELS[40:].tolist()


# --- broken files ----------------------------------------------------------------------------------------------------


def test_broken_files_are_all_named_and_skipping_them_does_not_decode_again(tmp_path: Path) -> None:
    source = Source({3: "a.png (cut)", 7: "b.png (empty)", 45: "c.png (text)"})
    with pytest.raises(DataError) as error:
        open_cache(tmp_path, source, skip_broken=False)
    assert str(error.value).startswith("3 broken files: a.png (cut), b.png (empty), c.png (text); ")
    dataset = open_cache(tmp_path, source, skip_broken=True)
    assert source.decoded == 1
    assert dataset.warnings == ("skipped 3 broken files: a.png (cut), b.png (empty), c.png (text)",)
    assert np.array_equal(dataset.train.images, np.delete(IMAGES[:40], [3, 7], axis=0))
    assert np.array_equal(dataset.test.images, np.delete(IMAGES[40:], 5, axis=0))
    assert dataset.train.labels.tolist() == np.delete(LABELS[:40], [3, 7]).tolist()


def test_of_many_broken_files_the_rest_is_in_a_file_that_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        open_cache(tmp_path, Source({row: f"{row}.png" for row in range(8, 30)}), skip_broken=False)
    (header,) = files(tmp_path, "json")
    assert f"27.png and 2 more, all in {header};" in str(error.value) and "\n" not in str(error.value)
    assert json.loads(header.read_text())["broken"][-1] == "29.png"


def test_a_class_without_a_whole_image_is_an_error(tmp_path: Path) -> None:
    broken = {int(row): f"{row}.png" for row in np.flatnonzero(LABELS == 1) if row >= 40}
    with pytest.raises(DataError, match=r"no test images are left of 1 class: 1\.10 after 5 broken files: 41\.png"):
        open_cache(tmp_path, Source(broken))
    assert not files(tmp_path, "npy")


# --- disks -----------------------------------------------------------------------------------------------------------


def nothing_half_left(folder: Path) -> bool:
    return {path.suffix for path in folder.iterdir()} <= {".lock"}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_a_full_or_failing_disk_is_one_line_and_leaves_nothing(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> int:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as broken_disk, pytest.raises(StorageError) as error:
        broken_disk.setattr(os, "pwrite", fail)
        open_cache(tmp_path, Source())
    assert str(error.value) == f"data.cache={tmp_path}: {os.strerror(code)}" and error.value.exit_code == 4
    assert nothing_half_left(tmp_path)
    assert len(open_cache(tmp_path, Source()).train) == 40  # there is room again


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_disk_that_fails_later_leaves_nothing_that_would_be_read(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as broken_disk, pytest.raises(StorageError, match="Input/output error"):
        broken_disk.setattr(os, step, fail)
        open_cache(tmp_path, Source())
    assert nothing_half_left(tmp_path)


def test_writes_that_stop_short_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: pwrite(file, data[:1000], offset))
    assert np.array_equal(open_cache(tmp_path, Source({3: "a.png"})).test.images, IMAGES[40:])


def test_too_little_room_is_said_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(StorageError, match=f"data.cache={tmp_path}: 60 decoded images of 8 px need"):
        open_cache(tmp_path, Source())
    assert nothing_half_left(tmp_path)


@pytest.mark.parametrize("below", ["", "inner/cache"])
def test_a_file_where_the_cache_should_be_is_one_line(below: str, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    folder = tmp_path / "taken" / below
    with pytest.raises(StorageError) as error:
        open_cache(folder, Source())
    assert str(error.value).startswith(f"data.cache={folder}: ") and "\n" not in str(error.value)


def test_a_bug_in_a_source_keeps_its_traceback_and_leaves_nothing(tmp_path: Path) -> None:
    def source(rows: Rows) -> Contents:
        rows.allocate(60, 3, 8)
        raise KeyError("ours")

    with pytest.raises(KeyError):
        cached(tmp_path, "set", "a", source)
    assert nothing_half_left(tmp_path)


# --- processes -------------------------------------------------------------------------------------------------------


def test_two_processes_that_start_at_once_decode_once_and_both_get_the_images(tmp_path: Path) -> None:
    code = """
import sys, time
import numpy as np
from pathlib import Path
from tests.data.test_cache import Source, open_cache

class Slow(Source):
    def __call__(self, rows):
        open(sys.argv[1] + "/decoded", "a").write("x")
        time.sleep(1)
        return super().__call__(rows)

dataset = open_cache(Path(sys.argv[1], "cache"), Slow())
print(dataset.fingerprint, len(dataset.train), int(np.asarray(dataset.test.images).sum()))"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    root = Path(__file__).parents[2]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, cwd=root, **pipes) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0] and outputs[0][0].split()[1:] == ["40", str(IMAGES[40:].sum())]
    assert (tmp_path / "decoded").read_text() == "x"
    assert len(files(tmp_path / "cache", "npy")) == 1 and not files(tmp_path / "cache", "part")


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    open_cache(tmp_path, Source())
    (images,) = files(tmp_path, "npy")
    images.unlink()
    images.with_suffix(".123.npy.part").write_bytes(b"half")
    open_cache(tmp_path, Source())
    assert not files(tmp_path, "part")
