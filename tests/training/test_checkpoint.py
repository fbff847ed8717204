from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from vitbench.errors import UserError
from vitbench.training import checkpoint


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(checkpoint.to_bytes({"w": torch.arange(12.0).view(3, 4), "n": torch.tensor(7)}, {"step": 3}))
    return path


def test_what_was_written_is_read_back(saved: Path) -> None:
    tensors, about = checkpoint.load_tensors(saved)
    assert about == {"step": 3}
    assert torch.equal(tensors["w"], torch.arange(12.0).view(3, 4)) and tensors["n"] == 7


def test_channels_last_tensors_keep_their_values(tmp_path: Path) -> None:
    weight = torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last)
    (tmp_path / "w").write_bytes(checkpoint.to_bytes({"w": weight}, {}))
    assert torch.equal(checkpoint.load_tensors(tmp_path / "w")[0]["w"], weight)


def test_every_flipped_bit_is_noticed(saved: Path) -> None:
    whole = saved.read_bytes()
    for place in range(len(whole)):
        saved.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(UserError):
            checkpoint.load_tensors(saved)


@pytest.mark.parametrize("keep", [0, 4, 0.5, -1])
def test_a_truncated_file_is_refused_in_one_line(saved: Path, keep: float) -> None:
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(keep if keep != 0.5 else len(whole) / 2)])
    with pytest.raises(UserError, match=r"damaged|not written by vitbench") as error:
        checkpoint.load_tensors(saved)
    assert "\n" not in str(error.value) and str(saved) in str(error.value)


def test_a_pickle_is_refused_and_not_executed(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "executed",))  # type: ignore[return-value]

    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UserError):
        checkpoint.load_tensors(path)
    assert not (tmp_path / "executed").exists()


def test_weights_of_another_model_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"weight is \(3, 9\) there and \(3, 2\) here"):
        checkpoint.fit_tensors(nn.Linear(2, 3), nn.Linear(9, 3).state_dict(), tmp_path / "other.safetensors")


ABOUT = {"run": "r", "step": 3, "train_seconds": 1.5, "every": 1, "data": "abc", "commit": None}


def parts() -> dict[str, Any]:
    """The parts of a state after one step of training."""
    model, objective = nn.Linear(2, 3), nn.Linear(3, 1)
    optimizer = torch.optim.SGD([*model.parameters(), *objective.parameters()], lr=0.1, momentum=0.9)
    objective(model(torch.ones(1, 2))).backward()
    optimizer.step()
    averaged = torch.optim.swa_utils.AveragedModel(model)
    return {
        "model": model,
        "objective": objective,
        "optimizer": optimizer,
        "averaged": averaged,
        "losses": torch.ones(4),
    }


def test_a_state_is_put_back_into_every_part(tmp_path: Path) -> None:
    path, before, after = tmp_path / "state", parts(), parts()
    path.write_bytes(checkpoint.gather(ABOUT, **before))
    assert checkpoint.restore(path, "r", **after) == ABOUT | {"has_losses": True}
    assert checkpoint.gather({}, **after) == checkpoint.gather({}, **before)


@pytest.mark.parametrize("lines", [b"", b"step,lr\n1,0.1\n"])
def test_a_state_holds_the_lines_of_metrics_or_that_there_were_none(tmp_path: Path, lines: bytes) -> None:
    path = tmp_path / "state"
    path.write_bytes(checkpoint.gather(ABOUT, metrics=lines, **parts()))
    assert checkpoint.restore(path, "r", **parts())["metrics"] == lines
    path.write_bytes(checkpoint.gather(ABOUT, **parts()))
    assert "metrics" not in checkpoint.restore(path, "r", **parts())


def test_a_state_that_lacks_the_losses_of_some_steps_says_so_and_gives_none(tmp_path: Path) -> None:
    path, after = tmp_path / "state", parts()
    path.write_bytes(checkpoint.gather(ABOUT, **parts() | {"losses": torch.full((2,), 7.0)}))
    assert not checkpoint.restore(path, "r", **after)["has_losses"]
    assert after["losses"].tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"objective.weight": torch.ones(1, 7)}, r"is from another model: weight is \(1, 7\) there and \(1, 3\) here"),
        ({"averaged.module.bias": None}, "is from another model: module.bias is nothing there"),
        (
            {"optimizer.9.momentum_buffer": torch.ones(3)},
            "is from another optimizer: 9.momentum_buffer fits no parameter of this one",
        ),
        (
            {"optimizer.0.momentum_buffer": torch.ones(3)},
            "is from another optimizer: 0.momentum_buffer fits no parameter of this one",
        ),
        ({"losses": None}, "is not a complete state: it has no losses"),
    ],
)
def test_a_state_that_does_not_fit_leaves_every_part_as_it_was(
    tmp_path: Path, changed: dict[str, Any], line: str
) -> None:
    path, after = tmp_path / "state", parts()
    path.write_bytes(checkpoint.gather(ABOUT, **parts()))
    tensors, about = checkpoint.load_tensors(path)
    path.write_bytes(checkpoint.to_bytes({k: v for k, v in (tensors | changed).items() if v is not None}, about))
    before = checkpoint.gather({}, **after)
    with pytest.raises(UserError, match=line):
        checkpoint.restore(path, "r", **after)
    assert checkpoint.gather({}, **after) == before


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"step": 10**9}, "is not a state of this run: it is of step 1,000,000,000, and the run has 4 steps"),
        ({"step": 10**400}, "is not a complete state: step is 1000"),
        ({"step": -1}, "is not a complete state: step is -1; it must be from 0"),
        ({"step": [3]}, r"is not a complete state: step is \[3\]; it must be a whole number"),
        ({"train_seconds": 1e308}, "is not a complete state: train_seconds is 1e\\+308"),
        ({"every": 0}, "is not a complete state: every is 0"),
        ({"run": None}, "is not a complete state: run is None"),
        ({"run": "s"}, "is the state of another run, s"),
    ],
)
def test_a_state_with_an_absurd_step_is_one_line_and_changes_nothing(
    tmp_path: Path, changed: dict[str, Any], line: str
) -> None:
    path, after = tmp_path / "state", parts()
    path.write_bytes(checkpoint.gather(ABOUT | changed, **parts()))
    before = checkpoint.gather({}, **after)
    with pytest.raises(UserError, match=line) as error:
        checkpoint.restore(path, "r", **after)
    assert checkpoint.gather({}, **after) == before and "\n" not in str(error.value)


@pytest.mark.parametrize("about", ["[1, 2]", "{", '"x"', "[" * 100_000])
def test_a_file_that_says_no_json_object_of_itself_is_refused(tmp_path: Path, about: str) -> None:
    from safetensors.torch import save

    tensors = {"w": torch.ones(2)}
    path = tmp_path / "w.safetensors"
    path.write_bytes(save(tensors, {"vitbench": f"{checkpoint.digest(tensors, about)} {about}"}))
    with pytest.raises(UserError, match="was not written by vitbench"):
        checkpoint.load_tensors(path)
