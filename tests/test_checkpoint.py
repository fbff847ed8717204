from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from vitbench import checkpoint
from vitbench.errors import UserError


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(checkpoint.dump({"w": torch.arange(12.0).view(3, 4), "n": torch.tensor(7)}, {"step": 3}))
    return path


def test_what_was_written_is_read_back(saved: Path) -> None:
    tensors, about = checkpoint.load(saved)
    assert about == {"step": 3}
    assert torch.equal(tensors["w"], torch.arange(12.0).view(3, 4)) and tensors["n"] == 7


def test_channels_last_tensors_keep_their_values(tmp_path: Path) -> None:
    weight = torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last)
    (tmp_path / "w").write_bytes(checkpoint.dump({"w": weight}, {}))
    assert torch.equal(checkpoint.load(tmp_path / "w")[0]["w"], weight)


def test_every_flipped_bit_is_noticed(saved: Path) -> None:
    whole = saved.read_bytes()
    for place in range(len(whole)):
        saved.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(UserError):
            checkpoint.load(saved)


@pytest.mark.parametrize("keep", [0, 4, 0.5, -1])
def test_a_truncated_file_is_refused_in_one_line(saved: Path, keep: float) -> None:
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(keep if keep != 0.5 else len(whole) / 2)])
    with pytest.raises(UserError, match=r"damaged|not written by vitbench") as error:
        checkpoint.load(saved)
    assert "\n" not in str(error.value) and str(saved) in str(error.value)


def test_a_pickle_is_refused_and_not_executed(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "executed",))  # type: ignore[return-value]

    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UserError):
        checkpoint.load(path)
    assert not (tmp_path / "executed").exists()


def test_weights_of_another_model_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"weight is \(3, 9\) there and \(3, 2\) here"):
        checkpoint.fit(nn.Linear(2, 3), nn.Linear(9, 3).state_dict(), tmp_path / "other.safetensors")
