"""Images that come a batch at a time equal those in memory to the last bit, and take the memory of batches only."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import TINY
from tests.training.test_train import Cli, assert_same_run, cut_run, folder
from vitbench.data import stream as stream_module
from vitbench.data.loader import Loader, Normalise
from vitbench.data.share import Share
from vitbench.data.split import Dataset, Split
from vitbench.data.stored import HEADER, ImageFile, Stored, digests_of
from vitbench.data.stream import Stream

CPU = torch.device("cpu")
IMAGES = np.random.default_rng(0).integers(0, 256, (60, 3, 8, 8), np.uint8)


@pytest.fixture(params=["an array", "a file", "a file read ahead"])
def images(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The last 50 of the images."""
    if request.param == "an array":
        return IMAGES[10:]
    if request.param == "a file read ahead":
        monkeypatch.setattr(stream_module, "LARGE_IMAGE", 0)
    (tmp_path / "images").write_bytes(bytes(HEADER) + IMAGES.tobytes())
    return Stored(ImageFile(tmp_path / "images", IMAGES.shape, digests_of(IMAGES)), range(60))[10:]


def test_slices_parts_and_the_whole_are_those_of_a_tensor(images: np.ndarray) -> None:
    indices = np.random.default_rng(1).permutation(50)[:40]
    streamed, resident = Stream(images, indices, CPU), torch.from_numpy(IMAGES[10:][indices])
    assert streamed.shape == resident.shape and len(streamed) == 40 and torch.equal(streamed.whole(), resident)
    for part in (slice(None), slice(5, 27), slice(39, None), slice(40, None)):
        for batch, expected in zip(streamed[part].split(7), resident[part].split(7), strict=True):
            assert torch.equal(batch, expected)
    measured, expected = Normalise.of(streamed), Normalise.of(resident)
    assert (measured.mean, measured.std) == (expected.mean, expected.std)


@pytest.mark.parametrize("steps", [range(30), range(29, -1, -1), (7, 8, 9, 3, 3, 4, 20, 5)])
def test_the_order_of_steps_changes_no_batch(images: np.ndarray, steps: range | tuple[int, ...]) -> None:
    labels = torch.arange(50)
    streamed = Loader(Stream(images, np.arange(50), CPU), labels, 16, seed=0)
    for step in steps:
        batch, batch_labels = streamed.take(*streamed.batch(step))
        whole = Loader(torch.from_numpy(IMAGES[10:]), labels, 16, seed=0)
        expected, expected_labels = whole.take(*whole.batch(step))
        assert torch.equal(batch, expected) and torch.equal(batch_labels, expected_labels)


def test_a_streamed_run_that_was_cut_ends_with_the_bits_of_a_resident_one(
    vitbench: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["augment=light"]
    assert vitbench("train", *TINY, *words, "runs=resident", "machine.images=memory").code == 0
    words += ["runs=streamed", "machine.images=cache"]
    cut_run(vitbench, monkeypatch, *words)
    output = vitbench("train", *TINY, *words)
    assert output.code == 0 and "machine.images" not in output.err, output.err
    assert_same_run(folder(tmp_path / "resident"), folder(tmp_path / "streamed"))
    assert folder(tmp_path / "resident").name == folder(tmp_path / "streamed").name


def test_without_room_images_are_streamed_and_the_user_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    split = Split(IMAGES, np.arange(60) % 4, ("a", "b", "c", "d"))
    share = Share(Dataset(split, split, ""), np.arange(50), np.arange(50, 60), "auto")
    monkeypatch.setattr("vitbench.data.share.free_bytes", lambda device: 4 * IMAGES[:40].nbytes // 2)
    (train, _), (held_out, labels) = share.train(CPU), share.validation(CPU) or (None, None)
    assert isinstance(train, Stream) and isinstance(held_out, torch.Tensor)
    assert torch.equal(held_out, torch.from_numpy(IMAGES[50:])) and labels.tolist() == [2, 3, 0, 1, 2, 3, 0, 1, 2, 3]
    assert capsys.readouterr().err.count("machine.images=cache") == 1
    for setting, images_type in (("memory", torch.Tensor), ("cache", Stream)):
        assert isinstance(share._replace(images=setting).train(CPU)[0], images_type)


CHILD = """
import json, os, resource, sys
import numpy as np, torch
from pathlib import Path
from vitbench.data.loader import Loader, Normalise
from vitbench.data.share import Share
from vitbench.data.split import Dataset, Split
from vitbench.data.stored import ImageFile, Stored, digests_of
from vitbench.data.stream import Stream
from vitbench.training.evaluate import evaluate

def used(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key)) * 1024

M, LIMIT = 60_000, int(sys.argv[2])
digests = digests_of(np.zeros((1, 3, 32, 32), np.uint8)).repeat(M, 0)
digests[0] = digests_of(np.full((1, 3, 32, 32), 255, np.uint8))
images = Stored(ImageFile(Path(sys.argv[1]), (M, 3, 32, 32), digests), range(M))
split = Split(images, np.arange(M) % 10, tuple("abcdefghij"))
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10))
before = used("RssAnon")
resource.setrlimit(resource.RLIMIT_DATA, (used("VmData") + LIMIT, resource.RLIM_INFINITY))
share, cpu = Share(Dataset(split, split, ""), np.arange(M), np.arange(0), "auto"), torch.device("cpu")
train, labels = share.train(cpu)
normalise = Normalise.of(train)
loader = Loader(train, labels, 128, 0)
for step in range(-(-M // 128)):
    model(normalise(loader.take(*loader.batch(step))[0])).sum().backward()
evaluate(model, *share.test(cpu), normalise)
print(json.dumps([isinstance(train, Stream), normalise.mean, used("RssAnon") - before]))
try:
    share._replace(images="memory").train(cpu)
except (RuntimeError, MemoryError) as error:
    print(json.dumps("alloc" in str(error)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_set_larger_than_the_memory_allowed_takes_only_batches_of_it(tmp_path: Path) -> None:
    pixels, limit = 60_000 * 3072, 96 << 20  # 184 MB, most of it a hole in the file
    with open(tmp_path / "images", "wb") as file:
        file.write(bytes(HEADER) + bytes([255]) * 3072)
        file.truncate(HEADER + pixels)
    command = [sys.executable, "-W", "error", "-c", CHILD, str(tmp_path / "images"), str(limit)]
    child = subprocess.run(command, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    (streamed, mean, grown), refused = map(json.loads, child.stdout.splitlines())
    assert streamed and mean == pytest.approx([1 / 60_000] * 3)
    assert grown < 64 << 20, f"{grown / 2**20:.0f} MiB"
    assert refused, "the limit did not hold"
