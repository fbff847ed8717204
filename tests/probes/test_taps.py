from __future__ import annotations

import pytest
import torch

from vitbench.models.build import build_model
from vitbench.probes.taps import grid_of, record

IMAGES = torch.randn(2, 3, 32, 32)


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_tokens_become_the_grid_of_patches_and_prefix_tokens_are_dropped(pool: str) -> None:
    model = build_model("vit", image_size=32, channels=3, num_classes=10, pool=pool).eval()
    with record(model) as features:
        logits = model(IMAGES)
    assert list(features) == ["patch_embed", "block1", "block2", "block3", "block4", "norm", "pooled", "head"]
    assert features["pooled"].shape == (2, 64) and torch.equal(features["head"], logits)
    grid = grid_of(model, "block2", features)
    assert grid.shape == (2, 64, 8, 8)
    assert torch.equal(grid[:, :, 3, 5], features["block2"][:, (pool == "cls") + 3 * 8 + 5])


def test_the_maps_of_a_resnet_are_grids_already() -> None:
    model = build_model("resnet", image_size=32, channels=3, num_classes=10).eval()
    with record(model) as features:
        model(IMAGES)
    shapes = [grid_of(model, name, features).shape[1:] for name in ("stem", "layer2.0", "layer3.2")]
    assert shapes == [(10, 32, 32), (20, 16, 16), (40, 8, 8)]


def test_hooks_are_gone_after_the_with_even_when_it_fails() -> None:
    model = build_model("vit", image_size=32, channels=3, num_classes=10)
    with pytest.raises(ValueError, match="blok1: no tap"), record(model, ["blok1"]):
        raise AssertionError("never here")
    with pytest.raises(RuntimeError), record(model, ["norm"]) as features:
        raise RuntimeError
    model(IMAGES)
    assert not features and not any(module._forward_hooks for module in model.modules())


def test_a_network_that_names_no_taps_shows_its_children() -> None:
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 2)
    )
    with record(model) as features:
        logits = model(IMAGES)
    assert list(features) == ["0", "1", "2", "pooled", "3"]
    assert features["pooled"].shape == (2, 4) and torch.equal(features["3"], logits)
