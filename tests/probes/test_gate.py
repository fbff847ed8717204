"""Gates whose numbers are known: those that are set by hand, and those before training."""

from __future__ import annotations

import math

import pytest
import torch

from tests.probes.known import find, noise, subject, value
from vitbench.errors import DoesNotApply
from vitbench.models.build import build_model
from vitbench.models.gate import GatedAttention
from vitbench.probes.gate import probe
from vitbench.probes.subject import Subject


def gated(**options: object) -> Subject:
    model = build_model("vit", image_size=16, channels=3, num_classes=5, depth=2, **options)  # type: ignore[arg-type]
    return subject(model, noise(2, 16), torch.zeros(2), 5)


@pytest.mark.known_answer
def test_every_gate_begins_at_the_sigmoid_of_one() -> None:
    rows = probe(gated(gate=True), seed=0)
    assert len(rows) == 2 * 4 + 3 * 3
    assert [row["value"] for row in rows] == pytest.approx([1 / (1 + math.exp(-1))] * len(rows), abs=1e-6)


@pytest.mark.known_answer
def test_a_head_set_by_hand_is_the_one_that_is_shown() -> None:
    network = gated(gate=True)
    first, second = [module for module in network.model.modules() if isinstance(module, GatedAttention)]
    with torch.no_grad():
        first.gate.copy_(torch.tensor([-100.0, 0, 0, 100]))
        second.gate.fill_(math.log(3))  # 3/4
    rows = probe(network, seed=0)
    heads = [value(rows, "share", at=head, layer="block1", at_unit="head") for head in (1, 2, 3, 4)]
    assert heads == pytest.approx([0, 0.5, 0.5, 1])
    assert (value(rows, "smallest_head"), value(rows, "largest_head"), value(rows, "mean")) == pytest.approx(
        (0, 1, 0.625)
    )
    assert find(rows, "mean", layer="block2")["value"] == pytest.approx(0.75)


def test_a_vit_without_gates_has_nothing_to_show() -> None:
    with pytest.raises(DoesNotApply, match=r"it has no gates; train a ViT with model\.gate=true"):
        probe(gated(), seed=0)
