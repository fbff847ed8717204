"""Derivatives along a motion, against a motion of a hundredth of a pixel, and on networks known in closed form."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitbench.data.loader import Normalise
from vitbench.errors import UserError
from vitbench.models.build import build_model
from vitbench.probes import lie
from vitbench.probes.equivariance import probe as equivariance
from vitbench.probes.subject import Subject
from vitbench.probes.taps import from_middle

IMAGES = torch.randint(256, (24, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def subject(model: nn.Module) -> Subject:
    return Subject(model.eval(), IMAGES, torch.arange(24) % 5, Normalise([0.5] * 3, [0.25] * 3, IMAGES.device), 5)


def vit(**options: Any) -> nn.Module:
    return build_model(
        "vit", image_size=16, channels=3, num_classes=5, depth=2, width=32, pe={"name": "learned"}, **options
    )


def cubic(images: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Samples images (B,C,H,W) at the pixels x and y (H,W), reflected at the border, by Catmull and Rom's cubic.

    Its slope at a pixel is the central difference.
    """

    def weights(t: Tensor) -> Tensor:
        rows = (-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3)
        return torch.stack(rows) / 2

    n = images.shape[-1]
    steps = torch.arange(-1, 3).view(4, 1, 1)
    columns, rows = (n - 1 - (n - 1 - (at.floor().long() + steps).abs()).abs() for at in (x, y))
    wx, wy = weights(x - x.floor()), weights(y - y.floor())
    return sum(wy[i] * wx[j] * images[..., rows[i], columns[j]] for i in range(4) for j in range(4))  # type: ignore[return-value]


MOVES = {  # a motion, and the source of what lies at (x, y) from the centre after a motion by t
    "right": (lie.RIGHT, lambda x, y, t: (x - t, y)),
    "down": (lie.DOWN, lambda x, y, t: (x, y - t)),
    "rotation": (
        lie.MOTIONS[".rotation"][0],
        lambda x, y, t: (x * math.cos(t) + y * math.sin(t), y * math.cos(t) - x * math.sin(t)),
    ),
    "scaling": (lie.MOTIONS[".scaling"][0], lambda x, y, t: (x * math.exp(-t), y * math.exp(-t))),
}


@pytest.mark.parametrize("name", MOVES)
def test_it_is_what_moving_the_picture_by_a_hundredth_of_a_pixel_does(name: str) -> None:
    motion, source = MOVES[name]
    model, images = vit().double().eval(), F.avg_pool2d(torch.randn(6, 3, 18, 18, dtype=torch.float64), 3, 1)
    places = from_middle(16)
    x, y = places.expand(16, 16), places[:, None].expand(16, 16)

    def moved(t: float) -> Tensor:
        with torch.no_grad():
            return model(cubic(images, *(at + 7.5 for at in source(x, y, t)))).softmax(-1)

    t = 0.01 if motion in lie.MOTIONS[""] else 0.01 / 8  # of a pixel, at the border
    expected = (moved(t) - moved(-t)) / (2 * t)
    with lie.forward_mode():
        z, slope, _ = lie.derivative(model, images, lie.moving(images, motion))
    found = lie.softmax_slope(z, slope)
    assert (found - expected).norm() < 0.01 * expected.norm()


def test_a_pixel_of_a_ramp_changes_by_its_slope() -> None:
    """One grey value a pixel is (16 - 1) / 2 of them a unit of the authors' grid, whose sign is the opposite."""
    ramp = torch.arange(16.0).expand(1, 1, 16, 16).contiguous()
    ours, theirs = lie.moving(ramp, lie.RIGHT), lie.moving_bilinearly(ramp, lie.RIGHT)
    assert torch.equal(ours[..., 1:-1], torch.full((1, 1, 16, 14), -1.0)) and not ours[..., [0, -1]].any()
    assert torch.allclose(theirs[..., 1:-1], torch.full((1, 1, 16, 14), 7.5))
    assert not lie.moving(ramp, lie.DOWN).any()


def test_the_authors_slope_is_the_difference_to_one_neighbour_or_the_other() -> None:
    x = torch.randn(1, 1, 16, 16)
    left, right = (x.diff(dim=-1)[..., side] * 7.5 for side in (slice(0, 14), slice(1, 15)))
    slope = lie.moving_bilinearly(x, lie.RIGHT)[..., 1:-1]
    is_left, is_right = ((slope - side).abs() < 1e-3 for side in (left, right))
    assert (is_left | is_right).float().mean() > 0.99 and is_left.any() and is_right.any()


@pytest.mark.known_answer
def test_the_numbers_of_a_linear_network_have_a_closed_form() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5))
    found = {
        (row["protocol"], row["metric"]): row["value"]
        for row in lie.probe(subject(model), seed=0)
        if "layer" not in row
    }
    x = subject(model).normalise(IMAGES)
    with torch.no_grad():
        z = model(x)
        slopes = torch.stack([model(lie.moving(x, motion)) - model[1].bias for motion in (lie.RIGHT, lie.DOWN)])
    p = z.softmax(1)
    jacobian = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    of_softmax = torch.einsum("bij,abj->abi", jacobian, slopes)
    assert found["lee@v1", "abs"] == pytest.approx(of_softmax.abs().mean().item(), rel=1e-4)
    assert found["lee@v1", "squared"] == pytest.approx(of_softmax.square().sum(-1).mean().item() / 5, rel=1e-4)
    expected = slopes.norm(dim=-1).mean() / (z - z.mean(0)).norm(dim=-1).mean()
    assert found["lee@v1", "logit"] == pytest.approx(expected.item(), rel=1e-4)
    assert {protocol for protocol, _ in found} == {"lee@v1", "lee.rotation@v1", "lee.scaling@v1"}


@pytest.mark.parametrize("distill_token", [False, True])
@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_what_the_layers_add_sums_to_the_whole(pool: str, distill_token: bool) -> None:
    model = vit(pool=pool, distill_token=distill_token).double().eval()
    images = torch.randn(6, 3, 16, 16, dtype=torch.float64)
    with lie.forward_mode():
        found = [lie.derivative(model, images, lie.moving(images, motion)) for motion in (lie.RIGHT, lie.DOWN)]
        parts = lie.parts_of(model, images, [tangents for _, _, tangents in found], torch.Generator().manual_seed(3))
    signs = 2.0 * torch.randint(2, (6, 5), generator=torch.Generator().manual_seed(3)) - 1
    whole = torch.stack([(signs * lie.softmax_slope(z, slope)).sum(1) for z, slope, _ in found])
    assert torch.allclose(sum(parts.values()), whole / math.sqrt(5))  # type: ignore[arg-type]
    if not distill_token:  # the head reads this token too; without it, it sees the pooled feature alone and no map
        assert torch.allclose(parts["head"], torch.zeros(2, 6, dtype=torch.float64))


def test_a_layer_that_moves_with_the_picture_adds_nothing() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 4, stride=4), nn.GELU(), nn.Flatten(), nn.Linear(128, 5))
    found = {row["layer"]: row["value"] for row in lie.probe(subject(model), seed=0, draws=4) if "layer" in row}
    assert found["0"] < 1e-9 * found["1"]
    assert found["1"] > 1e-6 < found["2"] and found["4"] < 1e-9 * found["1"]


def test_a_constant_network_moves_nowhere_and_has_no_logit_error() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5))
    nn.init.zeros_(model[1].weight)
    rows = {row["metric"]: row for row in lie.probe(subject(model), seed=0, draws=0) if row["protocol"] == "lee@v1"}
    assert rows["squared"]["value"] == rows["abs"]["value"] == 0
    assert math.isnan(rows["logit"]["value"]) and rows["logit"]["reason"] == "the logits are the same for every image"


def test_a_transformer_of_torchvision_is_measured_layer_by_layer() -> None:
    from torchvision.models import VisionTransformer

    model = VisionTransformer(16, 4, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=5)
    nn.init.normal_(model.heads.head.weight)
    layers = ["conv_proj", "encoder", "pooled", "heads"]
    assert [row["layer"] for row in lie.probe(subject(model), seed=0) if "layer" in row] == layers
    rows = [row for row in equivariance(subject(model), seed=0) if row["metric"] == "on_lattice" and "layer" in row]
    assert [row["layer"] for row in rows] == 2 * layers
    assert rows[0]["value"] < 1e-6 < rows[1]["value"]


def test_the_authors_form_is_measured_where_it_is_asked_for_and_the_seed_decides_the_attribution_alone() -> None:
    model = vit()
    first, second = (lie.probe(subject(model), seed=seed, gruver=seed == 1) for seed in (0, 1))
    protocols = [row["protocol"] for row in second]
    assert {"lee.gruver@v1", "lee.gruver.rotation@v1", "lee.gruver.scaling@v1"} < {*protocols}
    values = [{(r["protocol"], r["metric"], r.get("layer")): r["value"] for r in rows} for rows in (first, second)]
    same = {key for key in values[0] if values[0][key] == values[1][key]}
    assert {key for key in values[0] if key[2] is None} == same


def test_a_slip_gets_one_line() -> None:
    with pytest.raises(UserError, match=r"^probe.lie.draws=-1: must be 0 \(no attribution\) or more$"):
        lie.probe(subject(vit()), seed=0, draws=-1)
