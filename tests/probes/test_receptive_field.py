"""Fields that are known: of linear convolutions, of patches, of uniform attention, of branches that add nothing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from tests.probes.known import find, noise, subject, value
from vitbench.errors import DoesNotApply, UserError
from vitbench.models.build import build_model
from vitbench.probes import how_far
from vitbench.probes.receptive_field import draw, extents, fields, probe
from vitbench.probes.subject import Subject
from vitbench.probes.taps import from_middle


def subject_of(model: nn.Module, size: int = 32, channels: int = 3) -> Subject:
    return subject(model, noise(4, size, channels), torch.arange(4) % 5, 5)


def nano(name: str) -> nn.Module:
    torch.manual_seed(0)
    return build_model(name, image_size=32, channels=3, num_classes=5)


def ends(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def constant(layer: nn.Conv2d, value: float = 1.0) -> nn.Conv2d:
    nn.init.constant_(layer.weight, value)
    return layer


@pytest.mark.known_answer
@pytest.mark.parametrize("L, k", [(1, 3), (3, 3), (2, 5)])
def test_linear_convolutions_have_their_size_and_variance(L: int, k: int) -> None:
    convolutions = [constant(nn.Conv2d(1, 1, k, padding=k // 2, bias=False), 1 / k**2) for _ in range(L)]
    field = fields(subject_of(ends(*convolutions), 33, 1), 0, 2, 16)[str(L - 1)].after
    assert field is not None
    side = L * (k - 1) + 1
    seen = field > 0
    assert seen.sum() == side**2 and seen[16 - side // 2 : 17 + side // 2, 16 - side // 2 : 17 + side // 2].all()
    for axis in (from_middle(33)[:, None], from_middle(33)):
        assert (field * axis.square()).sum().item() == pytest.approx(L * (k**2 - 1) / 12)


@pytest.mark.known_answer
def test_a_uniform_field_has_its_closed_form() -> None:
    found = extents(torch.full((32, 32), 1 / 1024, dtype=torch.float64))
    assert found == pytest.approx({"radius": 12.2386, "of_uniform": 1, "half_mass": 24, "luo": 32}, abs=1e-3)


def test_four_patches_in_the_middle_are_looked_from_and_channels_do_not_cancel() -> None:
    patches = nn.Conv2d(3, 2, 4, stride=4, bias=False)
    patches.weight.data[0], patches.weight.data[1] = 1, -1
    field = fields(subject_of(ends(patches)), 0, 4, 2)["0"].after
    assert field is not None
    assert torch.allclose(field[12:20, 12:20], torch.tensor(1 / 64, dtype=torch.float64))
    assert extents(field)["half_mass"] == 6 and extents(field)["luo"] == 8


def test_uniform_attention_sees_everything_before_the_residual_sum() -> None:
    model = nano("vit")
    for block in model.blocks:  # type: ignore[union-attr]
        block.attn.qkv.weight.data[:128] = 0
    rows = probe(subject_of(model), seed=0, images=4, channels=4)
    stem = value(rows, "radius", layer="patch_embed")
    assert value(rows, "radius_before", layer="block1") == pytest.approx(12.24, rel=0.05)
    assert stem < value(rows, "radius", layer="block1") < 12 and stem == pytest.approx(3.06, rel=0.1)
    assert value(rows, "radius") == value(rows, "radius", layer="block4")


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_a_branch_that_adds_nothing_has_no_field_and_changes_none(name: str) -> None:
    """A ResNet makes its residual sums in place, and the branch must be seen as it was before."""
    model = nano(name)
    layer, previous = ("block1", "patch_embed") if name == "vit" else ("layer1.0", "stem")
    block = model.taps[layer]  # type: ignore[index]
    nn.init.zeros_(block.attn.proj.weight if name == "vit" else block.bn2.weight)
    rows = probe(subject_of(model), seed=0, images=4, channels=4)
    assert find(rows, "radius_before", layer=layer)["reason"] == "no pixel changes this layer"
    assert math.isnan(value(rows, "radius_before", layer=layer))
    assert value(rows, "half_mass", layer=layer) == value(rows, "half_mass", layer=previous)
    assert not [row for row in rows if row["metric"] == "radius_before" and row.get("layer") == previous]
    assert not any(module._forward_hooks for module in model.modules())


def test_the_seed_chooses_channels() -> None:
    model = subject_of(nano("resnet"))
    found = [value(probe(model, seed=seed, images=2, channels=2), "radius") for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_figures_are_drawn_of_one_network_and_of_two_side_by_side() -> None:
    both = {name: subject_of(nano(name)) for name in ("vit", "resnet")}
    assert draw(both["vit"], seed=0, images=1, channels=1).startswith(b"\x89PNG")
    assert how_far.draw(both, seed=0, images=1, channels=1).startswith(b"<?xml")


def test_a_vit_of_one_patch_has_no_fields_and_an_empty_panel_beside_others() -> None:
    one = subject_of(build_model("vit", image_size=32, channels=3, num_classes=5, patch_size=32))
    for ask in (probe, draw):
        with pytest.raises(DoesNotApply, match="none of its layers has more than one position"):
            ask(one, seed=0)
    assert how_far.draw({"vit": one}, seed=0).startswith(b"<?xml")


def test_a_slip_gets_one_line() -> None:
    class Dead(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            raise AssertionError("never here")

    with pytest.raises(UserError, match=r"^probe\.receptive_field\.images=0: must be 1 or more$"):
        probe(subject_of(Dead()), seed=0, images=0)
