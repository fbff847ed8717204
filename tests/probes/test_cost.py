from __future__ import annotations

import pytest
import torch
from torch import nn

from vitbench.data.loader import Normalise
from vitbench.models.build import build_model, cost
from vitbench.probes.cost import probe
from vitbench.probes.subject import Row, Subject

SMALL = {"width": 16, "depth": 1, "heads": 2, "image_size": 16, "channels": 3, "num_classes": 4}


@pytest.fixture(autouse=True)
def short_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitbench.probes.cost.WINDOW_SECONDS", 0.0)


def measured(model: nn.Module, size: int = 16) -> list[Row]:
    images = torch.zeros(2, 3, size, size, dtype=torch.uint8)
    subject = Subject(model.eval(), images, torch.zeros(2).long(), Normalise([0.5] * 3, [0.2] * 3, images.device), 4)
    return probe(subject, seed=0, batch=2, sizes=(1.0, 2.0), batches=(1, 2))


@pytest.mark.parametrize("distill_token", [False, True])
def test_costs_are_those_of_the_record_and_the_weights_stay(distill_token: bool) -> None:
    model = build_model("vit", **SMALL, distill_token=distill_token)
    before = [parameter.clone() for parameter in model.parameters()]
    rows = measured(model)
    found = {row["metric"]: row["value"] for row in rows if row["protocol"] == "cost@v1"}
    assert (found["parameters"], found["multiply_adds"]) == cost("vit", **SMALL, distill_token=distill_token)
    assert found["tokens"] == 16 and found["peak_memory"] > 4 * 3 * found["parameters"] / 2
    assert min(found["inference_images_per_second"], found["training_images_per_second"]) > 0
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)) and not model.training


@pytest.mark.known_answer
def test_attention_takes_its_share_by_the_square_of_the_tokens() -> None:
    rows = measured(build_model("vit", **SMALL))
    share = {row["at"]: row["value"] for row in rows if row["metric"] == "attention_share" and "at" in row}
    adds = {row["at"]: row["value"] for row in rows if row["metric"] == "multiply_adds" and "at" in row}
    products = {size: 2 * (size // 4) ** 4 * 16 for size in (16, 32)}  # q k and weights v take N N D each
    assert all(round(share[size] * adds[size]) == products[size] for size in products)


def test_tokens_are_counted_in_timms_vits_too() -> None:
    import timm

    sizes = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "num_heads": 2, "num_classes": 4}
    rows = measured(timm.create_model("vit_tiny_patch16_224", depth=1, **sizes))
    assert [row["value"] for row in rows if row["metric"] == "tokens" and "at" not in row] == [4]


class Fixed(nn.Module):
    """A network that takes images of one size only."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 16 * 16, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(images.flatten(1))


def test_a_size_that_the_network_does_not_take_is_said() -> None:
    rows = measured(Fixed())
    (refused,) = [row for row in rows if "reason" in row]
    assert refused["at"] == 32 and "does not take 2 images of 32 px" in refused["reason"]
