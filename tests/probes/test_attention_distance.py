"""Attention whose distance is known: uniform, on itself, shifted.

tests/models/test_vit.py shows for every encoding that the weights are those of the fused kernel.
"""

from __future__ import annotations

import math

import pytest
import torch

from tests.probes.known import noise, subject, value
from vitbench.errors import DoesNotApply
from vitbench.models.build import build_model
from vitbench.probes.attention_distance import apart, distances, distances_of_weights, draw, probe
from vitbench.probes.subject import Subject
from vitbench.probes.taps import middle_positions


def vit(pool: str = "mean", pe: str = "none", uniform: bool = True) -> Subject:
    """A nano ViT of 8x8 patches of 4 px whose queries and keys are 0, so that it attends to all tokens alike."""
    torch.manual_seed(0)
    model = build_model("vit", image_size=32, channels=3, num_classes=5, pool=pool, pe={"name": pe})
    for block in model.blocks:  # type: ignore[union-attr]
        if uniform:
            block.attn.qkv.weight.data[:128] = 0
    return subject(model, noise(6, 32), torch.arange(6) % 5, 5)


def mean_distances(weights: torch.Tensor, side: int) -> list[float]:
    middle = torch.tensor([row * side + column for row, column in middle_positions(side, side)])
    return distances_of_weights(weights[None, None], apart(side, side, 4), middle).flatten().tolist()


@pytest.mark.known_answer
def test_uniform_attention_has_its_closed_form_and_attention_to_oneself_has_none() -> None:
    assert mean_distances(torch.full((64, 64), 1 / 64), 8) == pytest.approx([16.546, 16.546, 12.376], abs=1e-3)
    assert mean_distances(torch.eye(64), 8) == [0, 0, 0]


@pytest.mark.known_answer
def test_shifted_attention_looks_as_far_as_the_shift() -> None:
    """On 9x9 patches two down and one to the left; queries whose target lies outside look at themselves."""
    weights = torch.zeros(9, 9, 9, 9)
    for row in range(9):
        for column in range(9):
            inside = row + 2 < 9 and column >= 1
            weights[row, column, row + 2 * inside, column - inside] = 1
    far = 4 * math.hypot(2, 1)
    assert mean_distances(weights.view(81, 81), 9) == pytest.approx([far * 7 * 8 / 81] * 2 + [far])


def test_what_a_class_token_takes_is_missing_from_the_raw_distance_alone() -> None:
    rows = probe(vit(pool="cls"), seed=0)
    assert value(rows, "distance", 1, layer="block2") == pytest.approx(16.546, abs=1e-3)
    assert value(rows, "distance_raw", 1, layer="block2") == pytest.approx(16.546 * 64 / 65, abs=1e-3)


def test_the_whole_network_has_its_most_local_and_its_median_head() -> None:
    rows = probe(vit(), seed=0)
    for metric, expected in {
        "smallest_head": 16.546,
        "median_head": 16.546,
        "mean": 16.546,
        "mean_central": 12.376,
        "mean_of_uniform": 1,
        "uniform": 16.546,
        "uniform_central": 12.376,
    }.items():
        assert value(rows, metric) == pytest.approx(expected, abs=1e-3)
    assert value(rows, "share_of_width", 3, layer="block1") == pytest.approx(16.546 / 32, abs=1e-4)
    trained = vit(pe="alibi2d", uniform=False)
    rows, found = probe(trained, seed=0), distances(trained).renormalised.mean(0)
    assert value(rows, "smallest_head") == pytest.approx(found.min())
    assert value(rows, "smallest_head") < value(rows, "median_head")
    assert value(rows, "smallest_head", layer="block3") == pytest.approx(found[2].min())
    assert value(rows, "distance", 4, layer="block3") == pytest.approx(found[2, 3])
    scalars = [row for row in rows if "layer" not in row and not row["metric"].startswith("uniform")]
    assert all(row["low"] <= row["value"] <= row["high"] for row in scalars)


def test_the_figure_is_drawn_and_a_resnet_has_no_attention() -> None:
    assert draw(vit(), seed=0).startswith(b"<?xml")
    model = build_model("resnet", image_size=32, channels=3, num_classes=5)
    with pytest.raises(DoesNotApply, match="no attention"):
        probe(subject(model, noise(2, 32), torch.zeros(2), 5), seed=0)
