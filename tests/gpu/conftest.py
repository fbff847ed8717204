"""Tests that need a GPU: `make test-gpu`. They are marked `gpu`, and `make test` leaves them out.

With VITBENCH_REHEARSE=1 they run on the CPU, where CUDA graphs are tapes (tests/tape.py). That shows that
the tests themselves are right, and nothing of a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.conftest import Output
from tests.tape import use_tapes
from vitbench.machine.distributed import WORLD_SIZE

REHEARSAL = os.environ.get("VITBENCH_REHEARSE") == "1"
DEVICE = "cpu" if REHEARSAL else "cuda"

Train = Callable[..., Path]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            item.add_marker(
                pytest.mark.filterwarnings("default")
            )  # what torch says of a GPU is read, and fails no test


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    if REHEARSAL:
        use_tapes(monkeypatch)
    elif not torch.cuda.is_available():
        pytest.skip("no GPU")
    assert WORLD_SIZE == 1


@pytest.fixture
def train(vitbench: Callable[..., Output], tmp_path: Path) -> Train:
    """`train("name", "model=vit")` trains a run on the GPU in float32, as it is typed, and returns its folder."""

    def call(name: str, *words: str) -> Path:
        typed = {word.partition("=")[0] for word in words}
        usual = {"machine.device": DEVICE, "machine.precision": "float32", "machine.compile": "false"}
        more = [f"{key}={value}" for key, value in usual.items() if key not in typed]
        before = {*(tmp_path / name).glob("*")}
        output = vitbench("train", *words, *more, f"runs={name}")
        assert output.code == 0, output.err
        made = {path for path in (tmp_path / name).glob("*") if path.is_dir()}
        (folder,) = made - before or made
        return folder

    return call
