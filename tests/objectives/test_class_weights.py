"""`optim.class_weights=balanced`: images of rare classes count more in the loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.conftest import TINY, Output
from vitbench.objectives.classify import Classify, balanced_weights

Cli = Callable[..., Output]

LABELS = torch.tensor([0, 0, 0, 0, 0, 1, 2, 2])
LOGITS = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))


def loss_of(objective: Classify, labels: torch.Tensor, logits: torch.Tensor = LOGITS) -> torch.Tensor:
    return objective(lambda given: given, logits, labels)  # type: ignore[no-any-return]


def test_every_class_has_the_same_weight_in_all_and_an_image_1_in_the_mean() -> None:
    weights = balanced_weights(LABELS, 3)
    assert weights.tolist() == pytest.approx([8 / 15, 8 / 3, 8 / 6])
    assert (weights * torch.bincount(LABELS)).tolist() == pytest.approx([8 / 3] * 3)
    assert weights[LABELS].mean().item() == pytest.approx(1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_parts_of_a_batch_add_up_to_the_whole(smoothing: float) -> None:
    objective = Classify(smoothing, balanced_weights(LABELS, 3))
    parts = [loss_of(objective, LABELS[part], LOGITS[part]) for part in (slice(0, 4), slice(4, 8))]
    torch.testing.assert_close(sum(parts) / 2, loss_of(objective, LABELS))


def test_equal_classes_have_the_loss_of_no_weights() -> None:
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    objective = Classify(0.1, balanced_weights(labels, 3))
    torch.testing.assert_close(loss_of(objective, labels, LOGITS[:6]), loss_of(Classify(0.1, None), labels, LOGITS[:6]))


def test_an_image_that_two_classes_share_has_the_weight_of_each_for_its_share() -> None:
    objective = Classify(0.0, balanced_weights(LABELS, 3))
    ones = F.one_hot(LABELS, 3).float()
    torch.testing.assert_close(loss_of(objective, ones), loss_of(objective, LABELS))
    mixed = 0.3 * ones + 0.7 * ones.roll(1, 0)
    shared = 0.3 * loss_of(objective, ones) + 0.7 * loss_of(objective, ones.roll(1, 0))
    torch.testing.assert_close(loss_of(objective, mixed), shared)


def test_weights_are_no_part_of_a_saved_state() -> None:
    assert not Classify(0.0, balanced_weights(LABELS, 3)).state_dict()


def test_a_run_with_weights_is_another_run_and_takes_mixed_images(vitbench: Cli, tmp_path: Path) -> None:
    for words in ([], ["optim.class_weights=none"], ["optim.class_weights=balanced", "augment.mixup=0.5"]):
        assert vitbench("train", *TINY, "augment=none", *words).code == 0
    folders = sorted((tmp_path / "runs").iterdir())
    assert len(folders) == 2
    weights = [np.fromfile(folder / "checkpoint.safetensors", np.uint8) for folder in folders]
    assert not np.array_equal(*weights)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["optim.class_weights=balanced", "objective=simsiam"], "objective=simsiam learns no classes; drop it"),
        (["optim.class_weights=balanced", "data.online=true"], "draws each class equally often"),
        (["optim.class_weights=balance"], "optim.class_weights=balance: did you mean balanced?"),
    ],
)
def test_weights_of_what_has_no_rare_classes_are_refused_in_one_line(
    vitbench: Cli, words: list[str], said: str
) -> None:
    output = vitbench("train", *words)
    assert output.code == 2 and said in output.err and output.err.count("\n") == 1
