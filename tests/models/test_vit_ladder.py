"""Each rung from a ViT to a CNN is the published layer, costs what a ViT costs, and does what it says."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.models.test_contracts import RUNGS
from vitbench.errors import UserError
from vitbench.models.block import MLP
from vitbench.models.build import build_model, cost
from vitbench.models.convolutions import ChannelNorm
from vitbench.models.gate import GatedAttention, Offsets, offsets_of_heads
from vitbench.models.ladders import LADDERS
from vitbench.models.menu import share_of_pairs
from vitbench.models.merge import Merge
from vitbench.models.stem import ConvStem
from vitbench.models.vit import ViT
from vitbench.models.window import Window
from vitbench.objectives.build import build_objective
from vitbench.pe.base import Geometry, PositionEncoding
from vitbench.pe.menu import MENU as ENCODINGS
from vitbench.settings.check import check
from vitbench.settings.compose import as_settings, compose
from vitbench.training.optim import depths_below_head, parameter_groups

SMALL = {"width": 16, "depth": 2, "heads": 4}
EVERY_RUNG = pytest.mark.parametrize("rung", RUNGS.values(), ids=RUNGS)


def vit(pe: str = "none", image_size: int = 16, **options: Any) -> ViT:
    torch.manual_seed(0)
    shape = {"image_size": image_size, "channels": 3, "num_classes": 5}
    model = build_model("vit", **shape, pe={"name": pe}, **SMALL | options).double().eval()
    assert isinstance(model, ViT)
    return model


def images(side: int = 16) -> Tensor:
    return torch.randn(2, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def geometry(side: int, heads: int = 4, width: int = 16, prefix_tokens: int = 0) -> Geometry:
    return Geometry((side, side), width, heads, 1, prefix_tokens)


# ------------------------------------------------------------------------------------------------------------- windows


@pytest.mark.parametrize("pe", ENCODINGS)
def test_a_window_that_reaches_every_corner_is_full_attention_and_a_smaller_one_is_not(pe: str) -> None:
    full, widest, narrow = (vit(pe, window=window) for window in (None, 7, 5))  # of 4 x 4 patches
    assert widest.state_dict().keys() == full.state_dict().keys()
    with torch.no_grad():
        torch.testing.assert_close(widest(images()), full(images()), rtol=0, atol=1e-6)
        assert (narrow(images()) - full(images())).abs().max() > 1e-6


@pytest.mark.parametrize("pe", ["none", "relative_bias", "rope"])
@pytest.mark.parametrize("side", [16, 24])
def test_windowed_attention_is_full_attention_renormalised_over_the_neighbours(pe: str, side: int) -> None:
    model, h = vit(pe, pool="cls", window=3), side // 4
    tokens, grid = model.embed(images(side))
    attention = model.blocks[0].attn
    windowed = attention.weights(tokens, model.pe, grid)
    attention.window = None
    seen = torch.ones(1 + h * h, 1 + h * h, dtype=torch.bool)
    row, column = torch.arange(h * h) // h, torch.arange(h * h) % h
    seen[1:, 1:] = ((row[:, None] - row).abs() <= 1) & ((column[:, None] - column).abs() <= 1)
    expected = attention.weights(tokens, model.pe, grid) * seen
    torch.testing.assert_close(windowed, expected / expected.sum(-1, keepdim=True), rtol=0, atol=1e-12)
    assert torch.equal(windowed > 0, seen.expand_as(windowed))  # the class token sees all, and all see it


@pytest.mark.parametrize(
    ("grid", "window", "pairs"), [((4, 4), 3, 100), ((4, 4), 7, 256), ((8, 8), 3, 484), ((2, 6), 3, 64)]
)
def test_the_share_of_pairs_is_that_of_the_mask(grid: tuple[int, int], window: int, pairs: int) -> None:
    mask = Window(Geometry(grid, 16, 4, 1, 0), window).mask
    assert (mask == 0).sum() == pairs
    assert share_of_pairs(grid, window) == pytest.approx(pairs / mask.numel())


# ------------------------------------------------------------------------------------------------- stem and convolution


@pytest.mark.parametrize("patch_size", [2, 4, 8, 16])
def test_a_stem_halves_the_image_until_a_pixel_is_a_patch(patch_size: int) -> None:
    stem = ConvStem(3, 64, patch_size)
    *convolutions, last = [layer for layer in stem if isinstance(layer, nn.Conv2d)]
    assert [layer.kernel_size for layer in convolutions] == [(3, 3)] * int(math.log2(patch_size))
    assert all(layer.stride == (2, 2) and layer.bias is None for layer in convolutions)
    widths = [layer.out_channels for layer in convolutions]
    assert widths[-1] == 32 and all(wider == 2 * narrower for narrower, wider in pairwise(widths))
    assert (last.kernel_size, last.out_channels) == ((1, 1), 64)
    assert [type(layer) for layer in stem][:3] == [nn.Conv2d, ChannelNorm, nn.ReLU]
    assert stem(torch.randn(2, 3, 32, 48)).shape == (2, 64, 32 // patch_size, 48 // patch_size)


def test_the_stem_is_what_its_layers_are_in_a_row() -> None:
    torch.manual_seed(0)
    stem, pixels = ConvStem(3, 8, 2).double(), images()
    first, norm, _, last = stem
    maps = F.conv2d(pixels, first.weight, stride=2, padding=1)
    mean, variance = maps.mean(1, keepdim=True), maps.var(1, keepdim=True, correction=0)
    maps = ((maps - mean) / (variance + 1e-6).sqrt()).relu()
    expected = torch.einsum("bchw,dc->bdhw", maps, last.weight[:, :, 0, 0]) + last.bias[:, None, None]
    torch.testing.assert_close(stem(pixels), expected, rtol=0, atol=1e-12)
    assert torch.equal(norm.weight, torch.ones(4, dtype=torch.float64))


def test_the_convolution_of_an_mlp_follows_its_activation_and_leaves_the_class_token_alone() -> None:
    torch.manual_seed(0)
    mlp, plain = MLP(8, 12, conv=True).double(), MLP(8, 12).double()
    plain.load_state_dict({key: value for key, value in mlp.state_dict().items() if not key.startswith("conv")})
    tokens = torch.randn(2, 1 + 4 * 5, 8, dtype=torch.float64)
    mixed = mlp(tokens, (4, 5))
    assert mlp.conv is not None
    hidden = F.pad(F.gelu(mlp.fc1(tokens[:, 1:])).unflatten(1, (4, 5)), (0, 0, 1, 1, 1, 1))  # zeros around the grid
    kernel = mlp.conv.weight[:, 0].permute(1, 2, 0)  # (3,3,hidden): a kernel for every channel
    near = sum(kernel[i, j] * hidden[:, i : i + 4, j : j + 5] for i in range(3) for j in range(3)) + mlp.conv.bias
    torch.testing.assert_close(mixed[:, 1:], mlp.fc2(F.gelu(near)).flatten(1, 2), rtol=0, atol=1e-12)
    torch.testing.assert_close(mixed[:, :1], plain(tokens[:, :1]), rtol=0, atol=1e-12)


# ----------------------------------------------------------------------------------------------------------- hierarchy


def test_merging_is_swins_patch_merging() -> None:
    from functools import partial

    from timm.models.swin_transformer import PatchMerging

    torch.manual_seed(0)
    theirs = PatchMerging(16, norm_layer=partial(nn.LayerNorm, eps=1e-6))
    nn.init.normal_(theirs.norm.weight)
    ours = Merge(16, PositionEncoding(geometry(4)))
    ours.load_state_dict(theirs.state_dict())
    tokens = torch.randn(2, 6 * 8, 16)
    expected = theirs(tokens.unflatten(1, (6, 8))).flatten(1, 2)
    torch.testing.assert_close(ours(tokens, (3, 4)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("depth", [2, 5])
def test_half_of_the_blocks_see_a_quarter_of_the_tokens_at_twice_the_width(depth: int) -> None:
    model, seen = vit(hierarchy=True, depth=depth), []
    for block in model.blocks:
        block.register_forward_hook(lambda block, inputs, output: seen.append(tuple(output.shape[1:])))
    assert model.features(images()).shape == (2, 32)
    before = depth // 2
    assert seen == [(16, 16)] * before + [(4, 32)] * (depth - before)
    assert model.patch_sizes == [4] * before + [8] * (depth - before)
    assert [w.shape[1:] for w in model.attention(images())] == [(4, N, N) for N, _ in seen[:depth]]


@pytest.mark.parametrize("pe", ENCODINGS)
def test_the_later_blocks_have_an_encoding_of_their_grid_where_blocks_meet_one(pe: str) -> None:
    model = vit(pe, image_size=32, hierarchy=True)
    own = model.merged_pe
    assert own is not None and (own.geometry.grid, own.geometry.width, own.geometry.depth) == ((4, 4), 32, 1)
    in_blocks = {"relative_bias", "rope", "rope_mixed", "alibi2d", "cpe"}
    assert (type(own) is type(model.pe)) == (pe in in_blocks or pe == "none")
    assert own.acts_in_blocks() == (pe in in_blocks)
    assert type(own) is PositionEncoding or pe in in_blocks


@pytest.mark.parametrize("pe", ["rope", "relative_bias", "cpe"])
def test_the_later_blocks_notice_where_a_merged_patch_lies(pe: str) -> None:
    """Without an encoding of its own, the merging block would make of moved patches what it made of them before."""
    model = vit(pe, image_size=32, hierarchy=True)
    with torch.no_grad():
        for parameter in [*model.merged_pe.parameters()]:  # type: ignore[union-attr]
            parameter.add_(torch.randn_like(parameter))
    tokens = torch.randn(1, 64, 16, dtype=torch.float64)
    place = model.place_of(1, (8, 8))
    shuffled = tokens.unflatten(1, (4, 2, 4, 2)).roll(1, 3).flatten(1, 4)  # whole merged patches, one to the right
    moved = model.blocks[1](tokens, *place).unflatten(1, (4, 4)).roll(1, 2).flatten(1, 2)
    assert (model.blocks[1](shuffled, *place) - moved).abs().max() > 1e-4


# ---------------------------------------------------------------------------------------------------------------- gate


def gated(width: int, heads: int, side: int) -> GatedAttention:
    attention = GatedAttention(width, heads, 0, Offsets(geometry(side, heads, width)))
    attention.init_weights()
    return attention


@pytest.mark.parametrize(("heads", "trained"), [(4, False), (4, True), (9, False)])
def test_gated_attention_is_convits_from_the_first_weights_on(heads: int, trained: bool) -> None:
    from timm.models.convit import GPSA

    torch.manual_seed(0)
    width, side = 8 * heads, 6
    theirs, ours = GPSA(width, heads, qkv_bias=True), gated(width, heads, side)
    theirs.local_init()
    torch.testing.assert_close(ours.positions.weight, theirs.pos_proj.weight)
    torch.testing.assert_close(ours.qkv.weight[2 * width :], theirs.v.weight)
    assert torch.equal(ours.gate, theirs.gating_param)
    if trained:
        for parameter in theirs.parameters():
            nn.init.normal_(parameter, std=0.3)
    ours.qkv.weight.data = torch.cat([theirs.qk.weight, theirs.v.weight])
    ours.qkv.bias.data = torch.cat([theirs.qk.bias, theirs.v.bias])
    ours.proj.load_state_dict(theirs.proj.state_dict())
    ours.positions.weight.data, ours.gate.data = theirs.pos_proj.weight.data, theirs.gating_param.data
    tokens, place = torch.randn(2, side * side, width), (PositionEncoding(geometry(side)), (side, side))
    torch.testing.assert_close(ours(tokens, *place), theirs(tokens), rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.weights(tokens, *place), theirs.get_attention(tokens), rtol=0, atol=1e-5)


def test_with_closed_gates_and_all_locality_nine_heads_are_a_3x3_convolution() -> None:
    torch.manual_seed(0)
    attention, (h, w) = gated(36, 9, 5).double(), (5, 7)
    with torch.no_grad():
        attention.gate.fill_(100)
        attention.positions.weight.mul_(100)
        attention.qkv.bias.zero_()
    tokens = torch.randn(2, h * w, 36, dtype=torch.float64)
    mixed = attention(tokens, PositionEncoding(geometry(5)), (h, w)).unflatten(1, (h, w))
    kernel = torch.zeros(36, 36, 3, 3, dtype=torch.float64)
    for head, (x, y) in enumerate(offsets_of_heads(9)):  # a head has four channels of the values, which are the tokens
        kernel[:, 4 * head : 4 * head + 4, int(y) + 1, int(x) + 1] = attention.proj.weight[:, 4 * head : 4 * head + 4]
    maps = tokens.unflatten(1, (h, w)).permute(0, 3, 1, 2)
    expected = F.conv2d(maps, kernel, attention.proj.bias).permute(0, 2, 3, 1)  # away from the border
    torch.testing.assert_close(mixed[:, 1:-1, 1:-1], expected, rtol=0, atol=1e-10)


def test_heads_that_make_no_square_take_the_nearest_places_of_a_larger_one() -> None:
    assert offsets_of_heads(4) == [(-0.5, -0.5), (-0.5, 0.5), (0.5, -0.5), (0.5, 0.5)]
    assert offsets_of_heads(1) == [(0, 0)]
    six = offsets_of_heads(6)
    assert len(set(six)) == 6 and {(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)} < set(six)


# --------------------------------------------------------------------------------------------------------- all of them


@pytest.mark.parametrize("name", LADDERS["vit"])
def test_what_the_ladder_says_of_a_rungs_cost_is_counted(name: str) -> None:
    rung = LADDERS["vit"][name]
    counted = cost("vit", image_size=32, channels=3, num_classes=10, **rung.options)
    assert counted == (rung.parameters, rung.multiply_adds)


@pytest.mark.parametrize(("size", "patch_size"), [(16, 2), (16, 4), (16, 8), (32, 4), (32, 8)])
@EVERY_RUNG
def test_a_rung_costs_what_the_vit_costs(rung: dict[str, Any], size: int, patch_size: int) -> None:
    shape = {"image_size": size, "channels": 3, "num_classes": 10, "patch_size": patch_size}
    assert 0.9 < cost("vit", **shape, **rung)[1] / cost("vit", **shape)[1] < 1.1


@EVERY_RUNG
def test_weights_of_every_new_layer_are_decayed_and_gates_are_not(rung: dict[str, Any]) -> None:
    model = build_model("vit", image_size=32, channels=3, num_classes=10, **rung)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, others = ({names[id(p)] for p in group["params"]} for group in parameter_groups(model, 0.05))
    matrices = {name for name, parameter in model.named_parameters() if parameter.ndim > 1}
    assert decayed == matrices and {name for name in names.values() if name.endswith("gate")} <= others


@EVERY_RUNG
def test_weights_begin_as_those_that_they_replace(rung: dict[str, Any]) -> None:
    """LeCun-normal convolutions, Xavier-uniform matrices, no bias; gated values and places are checked above."""
    torch.manual_seed(0)
    model = build_model("vit", image_size=32, channels=3, num_classes=10, size="tiny", **rung)
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.std().item() * module.weight[0].numel() ** 0.5 == pytest.approx(1, abs=0.15), name
        elif isinstance(module, nn.Linear) and not name.endswith(("qkv", "positions", "head")):
            bound = math.sqrt(6 / sum(module.weight.shape))
            assert 0.98 * bound < module.weight.abs().max().item() <= bound, name
        if (bias := getattr(module, "bias", None)) is not None and not isinstance(bias, Callable):  # type: ignore[arg-type]
            assert not bias.any(), name


@EVERY_RUNG
@pytest.mark.filterwarnings("ignore")
def test_a_rung_is_compiled_as_one_graph(rung: dict[str, Any]) -> None:
    model = vit("relative_bias", **rung)
    torch.compiler.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=False)
    torch.testing.assert_close(compiled(images()), model(images()), rtol=0, atol=1e-10)


@pytest.mark.parametrize("rung", [{"stem": "conv"}, {"window": 3}, {"conv": True}], ids=lambda rung: str(*rung))
def test_prefix_tokens_go_with_stem_window_and_convolution(rung: dict[str, Any]) -> None:
    model = vit("relative_bias", pool="cls", distill_token=True, **rung)
    assert model(images()).shape == (2, 5)
    assert [logits.shape for logits in model.train()(images())] == [(2, 5)] * 2


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"window": 4}, "model.window=4: must be an odd number of patches, 3 or more and at most 16,384"),
        ({"window": 1}, "model.window=1: must be an odd number of patches, 3 or more and at most 16,384"),
        ({"stem": "convs"}, "model.stem=convs: did you mean conv? choices: conv, patch"),
        (
            {"stem": "conv", "patch_size": 6},
            "model.patch_size=6 model.stem=conv: must be a power of 2, such as 4, because each convolution of the stem "
            "halves the image",
        ),
        (
            {"hierarchy": True, "depth": 1},
            "model.depth=1 model.hierarchy=true: must be 2 or more, half before the merging",
        ),
        (
            {"hierarchy": True, "pool": "cls"},
            "model.pool=cls: model.hierarchy=true merges patches 2 x 2, and such a token has no position; add "
            "model.pool=mean",
        ),
        (
            {"gate": True, "distill_token": True},
            "model.distill_token=true: model.gate=true attends by position on the grid, and such a token has no "
            "position; "
            "add model.distill_token=false",
        ),
    ],
)
def test_a_rung_that_makes_no_network_is_refused_before_anything_runs(options: dict[str, Any], line: str) -> None:
    words = [f"model.{key}={str(value).lower() if value is True else value}" for key, value in options.items()]
    with pytest.raises(UserError) as typed:
        check(as_settings(compose(words)))
    with pytest.raises(UserError) as built:
        build_model("vit", image_size=24, channels=3, num_classes=5, **options)
    assert str(typed.value) == str(built.value) == line


def test_an_odd_grid_cannot_be_merged_when_the_network_is_built_or_called() -> None:
    line = (
        "data.image_size=28 model.patch_size=4: an image has 7 x 7 patches, and model.hierarchy=true merges them 2 x 2"
    )
    with pytest.raises(UserError) as built:
        vit(image_size=28, hierarchy=True)
    assert str(built.value) == line + "; data.image_size=32 works"
    with pytest.raises(UserError, match=r"images of 20 x 20 px have 5 x 5 patches, and model\.hierarchy=true merges"):
        vit(hierarchy=True)(images(20))


@EVERY_RUNG
def test_hidden_patches_go_with_no_rung(rung: dict[str, Any]) -> None:
    words = [f"model.{key}={str(value).lower() if value is True else value}" for key, value in rung.items()]
    with pytest.raises(
        UserError, match=r"^objective=mae model\.\w+=\w+: mae shows the network only some of an image's patches"
    ):
        check(as_settings(compose(["objective=mae", *words])))
    with pytest.raises(UserError, match=r"^objective=mae: "):
        build_objective("mae", vit(**rung), label_smoothing=0.0, teacher=None, distill={})


def test_merging_learns_as_slowly_as_the_block_that_it_belongs_to() -> None:
    model = vit(hierarchy=True, depth=4)
    below = {name: depths_below_head(model)[id(parameter)] for name, parameter in model.named_parameters()}
    assert below["blocks.2.merge.reduction.weight"] == below["blocks.2.attn.qkv.weight"] == 2
