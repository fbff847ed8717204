"""Networks whose equivariance is known: convolutions, patch embeddings, transformers without positions, noise."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitbench.data.loader import Normalise
from vitbench.errors import UserError
from vitbench.models.build import build_model
from vitbench.probes.equivariance import move, probe
from vitbench.probes.shift import translate
from vitbench.probes.subject import Subject


class Layer(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.forward = function  # type: ignore[method-assign]


class Net(nn.Module):
    """A network of layers, each a tap, with global average pooling and a linear head."""

    def __init__(self, width: int, **layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(layers)
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers.values():
            x = layer(x)
        return self.head(x.mean((2, 3)))

    @property
    def taps(self) -> dict[str, nn.Module]:
        return {**self.layers, "head": self.head}


def conv(inputs: int, width: int, stride: int = 1, padding_mode: str = "circular") -> nn.Module:
    return nn.Conv2d(inputs, width, 3, stride, padding=1, padding_mode=padding_mode)


def errors(model: nn.Module, images: int = 40, seed: int = 0, **options: object) -> dict[tuple[str, ...], float]:
    """The values by (mode, metric), and those of layers by (mode, metric, layer)."""
    rows = probe(subject(model, images), seed=seed, **options)  # type: ignore[arg-type]
    return {
        (row["protocol"][13:-3], row["metric"], *([row["layer"]] if "layer" in row else [])): row["value"]
        for row in rows
    }


def subject(model: nn.Module, images: int = 40) -> Subject:
    pixels = torch.randint(256, (images, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    normalise = Normalise([0.5] * 3, [0.25] * 3, torch.device("cpu"))
    return Subject(model.eval(), pixels, torch.arange(images) % 5, normalise, 5)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.known_answer
def test_a_circular_convolution_commutes_with_every_roll() -> None:
    found = errors(Net(8, conv1=conv(3, 8), relu=nn.ReLU(), conv2=conv(8, 8)))
    assert all(value < 1e-5 for (mode, kind, *_), value in found.items() if mode == "circular" and kind == "on_lattice")
    assert found["circular", "invariance"] < 1e-5 and found["circular", "logits"] < 1e-5
    assert math.isnan(found["circular", "off_lattice", "conv1"])  # a layer of stride 1 has no shift off the lattice


def test_with_stride_two_it_commutes_with_even_rolls_only() -> None:
    found = errors(Net(8, conv1=conv(3, 8), strided=conv(8, 8, stride=2)))
    assert found["circular", "on_lattice", "strided"] < 1e-5 and found["circular", "invariance"] < 1e-5
    assert found["circular", "off_lattice", "strided"] > 0.5 and found["circular", "invariance_off_lattice"] > 0.1
    assert math.isnan(found["circular", "off_lattice", "conv1"])


def test_a_bare_patch_embedding_commutes_with_shifts_by_whole_patches() -> None:
    found = errors(Net(8, patch_embed=nn.Conv2d(3, 8, 4, stride=4)))
    assert found["circular", "on_lattice", "patch_embed"] < 1e-6
    assert found["crop", "on_lattice", "patch_embed"] < 1e-6
    assert found["circular", "off_lattice", "patch_embed"] > 1 < found["crop", "off_lattice", "patch_embed"]


@pytest.mark.parametrize("pe, exact", [("none", True), ("learned", False), ("rope", False)])
def test_a_vit_without_positions_is_unmoved_by_rolls_of_whole_patches(pe: str, exact: bool) -> None:
    """Rotary positions are relative, but know where the image ends: a roll is no translation for them."""
    model = build_model("vit", image_size=16, channels=3, num_classes=5, depth=2, width=32, pe={"name": pe})
    if pe == "learned":
        nn.init.normal_(model.pe.table)
    found = errors(model)
    for name in ("block1", "block2", "norm", "pooled", "head"):
        assert (found["circular", "on_lattice", name] < 1e-5) == exact
    assert found["circular", "off_lattice", "norm"] > 0.3


@pytest.mark.known_answer
@pytest.mark.parametrize("mode", ["circular", "crop"])
def test_features_that_have_nothing_to_do_with_each_other_give_root_two(mode: str) -> None:
    noise = Layer(lambda x: torch.randn(len(x), 8, 8, 8))
    found = errors(Net(8, noise=noise), images=200)
    assert found[mode, "on_lattice", "noise"] == pytest.approx(math.sqrt(2), rel=0.03)
    assert found[mode, "invariance"] == pytest.approx(math.sqrt(2), rel=0.15)


def test_zero_padding_breaks_it_in_the_border_band_only() -> None:
    """Two 3x3 convolutions see 2 positions far, so a band at the border errs, and where the roll has brought it."""
    model = nn.Sequential(conv(3, 8, padding_mode="zeros"), nn.ReLU(), conv(8, 8, padding_mode="zeros")).double()
    images, by = torch.randn(4, 3, 16, 16, dtype=torch.float64), torch.tensor([[3, 1], [-1, 2], [5, 5], [2, -4]])
    with torch.no_grad():
        expected, inside = move(model(images), by, "circular")
        error = (model(translate(images, by, "circular")) - expected).abs().amax(1)
    band = torch.ones(4, 1, 16, 16)
    band[:, :, 2:-2, 2:-2] = 0
    touched = ((band + translate(band, by, "circular"))[:, 0] > 0) & inside
    assert (error[~touched] < 1e-12).all() and (error[touched] > 1e-3).float().mean() > 0.95


def test_tied_weights_make_a_locally_connected_layer_a_convolution() -> None:
    """A layer with weights for each position is as equivariant as a convolution if they are equal, else not at all."""
    same = torch.randn(8, 27, 1).expand(8, 27, 256)

    def local(weights: Tensor) -> nn.Module:
        def forward(x: Tensor) -> Tensor:
            patches = F.unfold(F.pad(x, (1, 1, 1, 1), mode="circular"), 3)  # (B,27,256)
            return torch.einsum("dkn,bkn->bdn", weights, patches).unflatten(2, (16, 16))

        return Layer(forward)

    x = torch.randn(2, 3, 16, 16)
    convolved = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="circular"), same[:, :, 0].view(8, 3, 3, 3))
    assert torch.allclose(local(same)(x), convolved, atol=1e-4)
    assert errors(Net(8, local=local(same)))["circular", "on_lattice"] < 1e-5
    untied = errors(Net(8, local=local(torch.randn(8, 27, 256))))
    assert untied["circular", "on_lattice"] == pytest.approx(math.sqrt(2), rel=0.1)


def test_what_is_the_same_for_every_image_has_no_error_and_says_so() -> None:
    rows = probe(subject(Net(8, flat=Layer(lambda x: torch.ones(len(x), 8, 8, 8)))), seed=0)
    flat = [row for row in rows if row.get("layer") == "flat"]
    assert len(flat) == 4 and all(math.isnan(row["value"]) for row in flat)
    assert {row["reason"] for row in flat} == {"the same for every image"}


def test_maps_are_moved_by_fractions_of_a_position() -> None:
    wave = torch.cos(2 * math.pi * (torch.arange(8) / 8)).expand(1, 1, 8, 8).contiguous()
    moved, _ = move(wave, torch.tensor([[0.0, 0.25]]), "circular", "fourier")
    assert torch.allclose(moved[0, 0, 0], torch.cos(2 * math.pi * (torch.arange(8) - 0.25) / 8), atol=1e-6)
    maps, by = torch.randn(2, 3, 8, 8), torch.tensor([[2.0, -3.0], [-1.5, 0.0]])
    rolled, inside = move(maps, by, "circular")
    assert torch.equal(rolled[0], maps[0].roll((2, -3), (1, 2))) and inside.all()
    assert torch.allclose(rolled[1], (maps[1].roll(-1, 1) + maps[1].roll(-2, 1)) / 2)
    cropped, inside = move(maps, by, "crop")
    assert torch.equal(cropped[0, :, 2:, :5], maps[0, :, :6, 3:])
    assert inside[0].sum() == 6 * 5 and inside[1].sum() == 6 * 8 and not inside[1, 6:].any()


def test_the_whole_network_has_its_last_map_pooled_feature_and_logits_with_an_interval() -> None:
    model = build_model("resnet", image_size=16, channels=3, num_classes=5)
    rows = probe(subject(model), seed=0)
    scalars = {row["metric"]: row for row in rows if "layer" not in row and "circular" in row["protocol"]}
    of_layer = {(row["metric"], row["layer"]): row for row in rows if "layer" in row and "circular" in row["protocol"]}
    assert scalars["on_lattice"]["value"] == of_layer["on_lattice", "layer3.2"]["value"]
    assert scalars["invariance"]["value"] == of_layer["on_lattice", "pooled"]["value"]
    assert scalars["logits_off_lattice"]["value"] == of_layer["off_lattice", "head"]["value"]
    assert all(row["low"] < row["value"] < row["high"] for row in scalars.values())


def test_the_seed_decides_the_shifts_and_nothing_else() -> None:
    net = Net(8, strided=conv(3, 8, stride=2))
    found = [errors(net, seed=seed) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    "options, line",
    [
        ({"max_shift": 16}, "probe.equivariance.max_shift=16: must be 1 to 15 pixels, for images of 16 px"),
        (
            {"resample": "bilinaer"},
            "probe.equivariance.resample=bilinaer: did you mean bilinear? choices: bilinear, fourier",
        ),
    ],
)
def test_a_slip_gets_one_line(options: dict, line: str) -> None:
    with pytest.raises(UserError) as error:
        errors(Net(8, conv=conv(3, 8)), **options)
    assert str(error.value) == line


def test_a_lattice_as_large_as_the_image_says_that_nothing_lies_on_it() -> None:
    net = Net(8, strided=nn.Conv2d(3, 8, 8, stride=8))
    rows = probe(subject(net), seed=0, max_shift=4)
    on = [row for row in rows if row["metric"] == "on_lattice"]
    assert on and all(row["reason"] == "no possible shift lies on the lattice of 8 px" for row in on)
