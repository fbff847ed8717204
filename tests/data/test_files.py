"""Images decoded whenever they are needed equal those of the cache to the last bit, and no worker outlives a run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.data.test_imagefolder import decoded_paths, draw, opened, refused, root  # noqa: F401
from tests.training.test_train import Cli, assert_same_run, folder
from vitbench.data import files as files_module
from vitbench.data.split import Dataset
from vitbench.data.stream import Stream
from vitbench.errors import DataError, StorageError
from vitbench.machine.provenance import cores


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is decoded in this process."""
    monkeypatch.setattr(files_module, "cores", lambda: 1)


def pixels(dataset: Dataset) -> np.ndarray:
    """The images of both splits, read through a Stream."""
    splits, cpu = (dataset.train, dataset.test), torch.device("cpu")
    return np.concatenate([Stream(split.images, np.arange(len(split)), cpu).whole() for split in splits])


@pytest.mark.usefixtures("one_core")
@pytest.mark.parametrize("options", [{}, {"image_size": 5}, {"skip_broken": True}])
def test_they_are_the_images_of_the_cache(root: Path, options: dict[str, Any]) -> None:  # noqa: F811
    if options.get("skip_broken"):
        (root / "train" / "cat" / "1.png").write_bytes(b"no image")
        (root / "train" / "dog" / "1.png").write_bytes((root / "test" / "cat" / "1.png").read_bytes())
    decoded = opened(root, files=True, **options)
    assert not list((root.parent / "cache").glob("*.npy"))
    cached = opened(root, **options)
    assert np.array_equal(pixels(decoded), pixels(cached))
    assert decoded.fingerprint == cached.fingerprint and decoded.warnings == cached.warnings
    assert np.array_equal(decoded.train.labels, cached.train.labels)
    assert decoded.test.image_size == cached.test.image_size


def test_broken_files_end_it_with_the_same_words(root: Path) -> None:  # noqa: F811
    (root / "train" / "cat" / "1.png").write_bytes(b"no image")
    assert refused(root, files=True) == refused(root)


@pytest.mark.usefixtures("one_core")
def test_the_index_is_made_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    opened(root, files=True)
    decoded = decoded_paths(monkeypatch)
    dataset = opened(root, files=True)
    assert not decoded
    dataset.train.images.prefetch(np.array([4, 0]))(np.empty((2, 3, 8, 8), np.uint8))
    assert [path[len(str(root)) :] for path in decoded] == ["/train/dog/1.png", "/train/cat/0.png"]


def test_without_room_in_the_cache_it_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr("vitbench.data.cache.shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(StorageError, match=r"to a folder on another disk, or type machine\.images=files, which"):
        opened(root)
    assert len(opened(root, files=True).train) == 6


@pytest.mark.usefixtures("one_core")
@pytest.mark.parametrize("change", ["another image", "cut", "gone"])
def test_a_file_that_changes_meanwhile_ends_the_run(root: Path, change: str) -> None:  # noqa: F811
    dataset, path = opened(root, files=True), root / "test" / "dog" / "1.png"
    if change == "another image":
        draw(path)
    elif change == "cut":
        path.write_bytes(path.read_bytes()[:-30])
    else:
        path.unlink()
    with pytest.raises(DataError, match=r"dog/1\.png"):
        pixels(dataset)


def test_a_run_on_files_has_the_bits_of_one_in_memory(vitbench: Cli, root: Path, tmp_path: Path) -> None:  # noqa: F811
    words = ["data=imagefolder", f"data.root={root}", "data.val_fraction=0.3", "optim.steps=3", "eval_every=2"]
    words += ["model.patch_size=2", "machine.threads=1"]
    words.append("optim.batch_size=20")  # more than a worker decodes at a time
    for place in ("memory", "files"):
        output = vitbench("train", *words, f"machine.images={place}", f"runs={place}")
        assert output.code == 0, output.err
    assert_same_run(folder(tmp_path / "memory"), folder(tmp_path / "files"))


def test_drawn_images_have_no_files(vitbench: Cli) -> None:
    output = vitbench("train", "data=shapes", "machine.images=files")
    assert output.code == 2 and output.err.startswith("vitbench: machine.images=files: is for data=imagefolder"), (
        output.err
    )


PARENT = """
import sys, numpy as np
from pathlib import Path
from vitbench.data.imagefolder import load
if __name__ == "__main__":
    images = load(root=Path(sys.argv[1]), cache=Path(sys.argv[2]), workers=1, files=True).train.images
    images.prefetch(np.arange(6))(np.empty(images.shape, np.uint8))
    print(*images.pool._executor._processes, flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
@pytest.mark.skipif(cores() < 2, reason="with one core there are no workers")
def test_processes_end_with_a_parent_that_is_killed_and_not_before(root: Path) -> None:  # noqa: F811
    command = [sys.executable, "-c", PARENT, str(root), str(root.parent / "cache")]
    parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    workers = [int(word) for word in parent.stdout.readline().split()]
    assert workers
    for worker in workers:
        os.kill(worker, signal.SIGTERM)  # SLURM sends it to all processes of a job
    time.sleep(1)
    assert all(Path(f"/proc/{worker}").exists() for worker in workers)
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{worker}").exists() for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
