"""What a residual network takes for granted, taken away a setting at a time: each is what its name says."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.layers import BlurPool2d, LayerNorm2d
from torch import Tensor, nn

from vitbench.data.loader import Normalise
from vitbench.errors import UserError
from vitbench.models.build import build_model, cost
from vitbench.models.convolutions import Blur, ChannelNorm, Convolutions
from vitbench.models.ladders import LADDERS
from vitbench.models.local import PADDINGS, LocallyConnected2d, RandomConv2d
from vitbench.probes.equivariance import probe
from vitbench.probes.subject import Subject
from vitbench.training.optim import parameter_groups

RUNGS = [rung.options for rung in LADDERS["resnet"].values()]
EVERY_RUNG = pytest.mark.parametrize("options", RUNGS, ids=str)
SMALL = {"size": "nano", "base_width": 4}


def resnet(image_size: int = 16, seed: int = 0, **options: Any) -> Any:
    torch.manual_seed(seed)
    return build_model("resnet", image_size=image_size, channels=3, num_classes=5, **SMALL | options).eval()


def images(side: int = 16, count: int = 2) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def by_tap(weight: Tensor) -> Tensor:
    """The kernels of a convolution (D,C,k,k) as a locally connected layer has them, (D, k k C)."""
    return weight.permute(0, 2, 3, 1).flatten(1)


def random_conv(side: int = 8) -> RandomConv2d:
    torch.manual_seed(0)
    layer = Convolutions(reach="random").conv(3, 4, 3, side)
    assert isinstance(layer, RandomConv2d)
    return layer


# ------------------------------------------------------------------------------------------------------------- sharing


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("reach", ["near", "spread", "random"])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (1, 1), (1, 2), (4, 4), (7, 2)])
def test_a_locally_connected_layer_with_one_kernel_everywhere_is_the_convolution(
    padding: str, reach: str, kernel: int, stride: int
) -> None:
    torch.manual_seed(0)
    shared = Convolutions(reach=reach, padding=padding).conv(3, 5, kernel, 16, stride)
    torch.manual_seed(0)  # random taps come first, so they are the same
    local = Convolutions(False, reach, padding).conv(3, 5, kernel, 16, stride)
    assert isinstance(local, LocallyConnected2d)
    with torch.no_grad():
        local.weight.copy_(by_tap(shared.get_parameter("weight")))
        torch.testing.assert_close(local(images()), shared(images()), rtol=1e-6, atol=1e-6)


def test_a_whole_network_without_sharing_is_the_network_when_its_kernels_are_equal() -> None:
    whole, without = resnet(), resnet(sharing=False)
    state = {name: by_tap(value) if value.ndim == 4 else value for name, value in whole.state_dict().items()}
    for name, value in without.state_dict().items():
        value.copy_(state[name])
    torch.testing.assert_close(without(images()), whole(images()), rtol=1e-5, atol=1e-5)


def test_a_kernel_without_sharing_learns_from_its_own_place_alone() -> None:
    local = Convolutions(sharing=False).conv(3, 4, 3, 6)
    assert isinstance(local, LocallyConnected2d)
    local(images(6))[:, :, 2, 3].square().sum().backward()
    assert local.weight.grad is not None
    assert local.weight.grad.flatten(1).any(1).nonzero().flatten().tolist() == [2 * 6 + 3]


# --------------------------------------------------------------------------------------------------------------- reach


def test_spread_taps_lie_a_third_of_the_map_apart() -> None:
    layer = Convolutions(reach="spread", padding="circular").conv(3, 4, 3, 12)
    x = torch.zeros(1, 3, 12, 12)
    x[:, :, 5, 5] = 1
    reached = layer(x).abs().sum((0, 1)).nonzero()
    assert {tuple(place) for place in reached.tolist()} == {(y, x) for y in (1, 5, 9) for x in (1, 5, 9)}


def test_random_taps_at_the_places_of_near_ones_are_the_circular_convolution() -> None:
    layer = random_conv()
    layer.taps.offsets = torch.tensor([(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)])
    expected = F.conv2d(F.pad(images(8), (1, 1, 1, 1), mode="circular"), layer.weight)
    torch.testing.assert_close(layer(images(8)), expected, rtol=1e-5, atol=1e-5)


def test_random_taps_give_up_locality_and_not_equivariance() -> None:
    layer, x = random_conv(), images(8)
    moved = layer(x.roll((3, -2), (2, 3)))
    torch.testing.assert_close(moved, layer(x).roll((3, -2), (2, 3)), rtol=1e-5, atol=1e-5)


def test_random_taps_are_distinct_drawn_a_layer_from_the_seed_and_saved_with_the_weights() -> None:
    def offsets(model: nn.Module) -> list[list[list[int]]]:
        return [m.taps.offsets.tolist() for m in model.modules() if isinstance(m, RandomConv2d)]

    drawn = offsets(resnet(reach="random"))
    assert len(drawn) == 19  # every 3x3 convolution of a ResNet-20
    assert all(len({tuple(offset) for offset in layer}) == 9 for layer in drawn)
    assert len({str(layer) for layer in drawn}) == 19
    assert offsets(resnet(reach="random")) == drawn != offsets(resnet(reach="random", seed=1))
    other = resnet(reach="random", seed=1)
    other.load_state_dict(resnet(reach="random").state_dict())
    assert offsets(other) == drawn


def test_a_map_with_fewer_places_than_taps_has_some_twice() -> None:
    layer = random_conv(side=2)
    assert len({tuple(offset) for offset in layer.taps.offsets.tolist()}) == 4


# ------------------------------------------------------------------------------------------ hierarchy, padding, halving


def errors(side: int = 16, **options: Any) -> dict[tuple[str, ...], float]:
    """The equivariance errors of circular shifts of an untrained network, by metric, and by metric and layer."""
    pixels = torch.randint(256, (24, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    normalise = Normalise([0.5] * 3, [0.25] * 3, torch.device("cpu"))
    subject = Subject(resnet(side, **options), pixels, torch.zeros(24, dtype=torch.int64), normalise, 5)
    rows = [row for row in probe(subject, seed=0) if row["protocol"] == "equivariance.circular@v1"]
    return {(row["metric"], *([row["layer"]] if "layer" in row else [])): row["value"] for row in rows}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"downsample": "max"},
        {"downsample": "blur"},
        {"norm": "layer"},
        {"reach": "random"},
        {"reach": "spread"},
        {"stem": "imagenet", "side": 32},
        {"stem": "imagenet", "side": 32, "downsample": "blur"},
        {"hierarchy": False, "stem": "patch"},
    ],
    ids=str,
)
def test_with_circular_padding_a_shift_by_whole_strides_moves_every_map(options: dict[str, Any]) -> None:
    found = errors(padding="circular", **options)
    assert max(value for (metric, *_), value in found.items() if metric == "on_lattice") < 1e-5
    assert found["invariance",] < 1e-5


def test_without_hierarchy_a_circular_network_moves_with_every_shift() -> None:
    found = errors(padding="circular", hierarchy=False)
    assert found["on_lattice",] < 1e-5
    assert found["invariance",] < 1e-5
    assert math.isnan(found["off_lattice",])  # no shift is off its lattice of one pixel


def test_zero_padding_kernels_of_each_place_and_a_flat_head_tell_places_apart() -> None:
    circular = {"padding": "circular", "hierarchy": False}
    assert errors(hierarchy=False)["on_lattice",] > 0.05
    assert errors(**circular, sharing=False)["on_lattice",] > 0.5
    flat = errors(**circular, pool="flatten")
    assert flat["on_lattice",] < 1e-5 and flat["invariance",] > 0.5


def test_a_blur_aliases_less_than_a_stride() -> None:
    of_stride, of_blur = (errors(padding="circular", downsample=kind) for kind in ("stride", "blur"))
    assert of_blur["off_lattice",] < of_stride["off_lattice",]


def test_a_blur_is_the_published_one_and_removes_the_finest_pattern() -> None:
    torch.testing.assert_close(Blur("reflect")(images()), BlurPool2d(3)(images()), rtol=1e-6, atol=1e-6)
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    board = (2 * ((rows + columns) % 2) - 1).float().expand(1, 1, 8, 8)
    assert not Blur("circular")(board).any()
    assert board[:, :, ::2, ::2].abs().all()  # where a stride sees a constant of -1


def test_the_norm_of_channels_is_the_published_one() -> None:
    torch.testing.assert_close(ChannelNorm(3)(images()), LayerNorm2d(3)(images()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("stem", "side", "width"), [("cifar", 16, 4), ("patch", 4, 16)])
def test_without_hierarchy_maps_and_channels_stay_as_the_stem_made_them(stem: str, side: int, width: int) -> None:
    model, shapes = resnet(hierarchy=False, stem=stem), []
    for tap in model.taps.values():
        tap.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape)))
    model(images())
    assert {*shapes[:-1]} == {(2, width, side, side)}


# ------------------------------------------------------------------------------------------------------------ all rungs


@pytest.mark.parametrize("name", LADDERS["resnet"])
def test_a_rung_costs_what_the_list_of_models_says_and_at_most_a_tenth_more_than_the_whole(name: str) -> None:
    rung, whole = LADDERS["resnet"][name], LADDERS["resnet"][""]
    shape: dict[str, Any] = {"image_size": 32, "channels": 3, "num_classes": 10}
    assert cost("resnet", **shape, **rung.options) == (rung.parameters, rung.multiply_adds)
    exact = not {"hierarchy", "pool"} & {*rung.options}
    assert rung.multiply_adds == whole.multiply_adds if exact else rung.multiply_adds <= 1.1 * whole.multiply_adds


@EVERY_RUNG
def test_kernels_of_every_rung_are_drawn_and_decayed_as_those_of_the_whole(options: dict[str, Any]) -> None:
    """He et al. 2015, fan-out: a deviation of sqrt(2 / (D k k)), whatever the layer is called."""
    model = resnet(base_width=16, **{key: value for key, value in options.items() if key != "base_width"})
    decayed = {id(p) for p in parameter_groups(model, 0.05)[0]["params"]}
    for name, parameter in model.named_parameters():
        norm_or_bias = parameter.ndim == 1
        assert (id(parameter) in decayed) != norm_or_bias, name
        if norm_or_bias or name.startswith("fc"):
            continue
        layer = model.get_submodule(name.rpartition(".")[0])
        taps = 16 if name == "conv1.weight" and options.get("stem") == "patch" else 9
        channels = parameter.shape[-2] if isinstance(layer, LocallyConnected2d) else parameter.shape[0]
        assert parameter.std().item() == pytest.approx(math.sqrt(2 / (channels * taps)), rel=0.12), name


@pytest.mark.parametrize("options", [{"sharing": False}, {"pool": "flatten"}], ids=str)
def test_what_knows_each_place_refuses_another_size(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(f"model.{key}={str(v).lower()}" for key, v in options.items())):
        resnet(**options)(images(24))


@pytest.mark.parametrize(("side", "size", "ratio"), [(32, "nano", 1.05), (96, "nano", 0.79), (96, "small", 1.02)])
def test_patches_without_hierarchy_cost_about_what_the_whole_costs(side: int, size: str, ratio: float) -> None:
    shape: dict[str, Any] = {"image_size": side, "channels": 3, "num_classes": 10, "size": size}
    patches = cost("resnet", **shape, hierarchy=False, stem="patch")[1]
    assert patches / cost("resnet", **shape)[1] == pytest.approx(ratio, abs=0.01)


def test_an_image_of_another_size_must_be_a_whole_number_of_patches() -> None:
    with pytest.raises(UserError, match=r"18 x 18 px: model.stem=patch needs multiples of 4 px"):
        resnet(stem="patch")(images(18))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"depth": 18, "base_width": 4}, "model.depth=18 model.base_width=4: must be 8 or more"),
        (
            {"padding": "circular", "stem": "imagenet", "image_size": 2},
            "model.padding=circular: needs maps of at least 3 x 3, and a map of this network is 2 x 2; "
            "model.padding=zero works",
        ),
        (
            {"hierarchy": False, "downsample": "blur"},
            "model.downsample=blur model.hierarchy=false: no map is halved; drop one of them",
        ),
        ({"reach": "far"}, "model.reach=far: choices: near, random, spread"),
        ({"padding": "zeros"}, "model.padding=zeros: did you mean zero? choices: circular, reflect, zero"),
        ({"downsample": "pool"}, "model.downsample=pool: choices: blur, max, stride"),
        ({"pool": "cls"}, "model.pool=cls: choices: flatten, mean"),
        ({"norm": "group"}, "model.norm=group: choices: batch, layer"),
        (
            {"stem": "patch", "image_size": 18},
            "data.image_size=18 model.stem=patch: must be a multiple of 4; 16 or 20 works",
        ),
        (
            {"padding": "reflect", "image_size": 4},
            "model.padding=reflect: needs maps of at least 2 x 2, and a map of this network is 1 x 1; "
            "model.padding=zero works",
        ),
    ],
)
def test_a_slip_gets_one_line(options: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as error:
        resnet(**options)
    assert str(error.value) == line
