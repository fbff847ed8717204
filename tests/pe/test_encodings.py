"""Each encoding is the formula of its paper, leaves the prefix tokens as it says, and fits another grid."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from vitbench.menu import look_up
from vitbench.pe.alibi2d import slopes
from vitbench.pe.base import Geometry, PositionEncoding
from vitbench.pe.menu import MENU

GRID, OTHER = (3, 5), (4, 7)  # not square, so that a swapped axis shows


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def encoding(name: str, *, prefix: int = 0, heads: int = 2, **options: Any) -> PositionEncoding:
    return look_up("pe", name, MENU)(Geometry(GRID, 16, heads, 3, prefix), **options)


def places(grid: tuple[int, int]) -> list[tuple[int, int]]:
    return [(row, column) for row in range(grid[0]) for column in range(grid[1])]


def added(pe: PositionEncoding, grid: tuple[int, int]) -> Tensor:
    """What an encoding adds to the tokens, (N,D)."""
    return pe.embed(torch.zeros(1, grid[0] * grid[1] + pe.geometry.prefix_tokens, 16), grid)[0]


def assert_only_the_offset_matters(scores: Tensor, grid: tuple[int, int]) -> None:
    """(A,N,N): moving query and key by a row or a column together changes nothing."""
    s = scores.unflatten(2, grid).unflatten(1, grid)  # (A,h,w,h,w)
    torch.testing.assert_close(s[:, 1:, :, 1:, :], s[:, :-1, :, :-1, :], rtol=0, atol=1e-12)
    torch.testing.assert_close(s[:, :, 1:, :, 1:], s[:, :, :-1, :, :-1], rtol=0, atol=1e-12)
    assert s[0, 0, 0].flatten().unique().numel() > grid[1], "and the offset does matter"


@pytest.mark.parametrize("name", MENU)
@pytest.mark.parametrize("prefix", [0, 1])
def test_hooks_keep_shapes_on_the_training_grid_and_on_another(name: str, prefix: int) -> None:
    pe = encoding(name, prefix=prefix)
    for grid in (GRID, OTHER):
        N = prefix + grid[0] * grid[1]
        assert pe.embed(torch.randn(2, N, 16), grid).shape == (2, N, 16)
        for layer in range(3):
            q, k = pe.rotate(torch.randn(2, 2, N, 8), torch.randn(2, 2, N, 8), grid, layer)
            assert q.shape == k.shape == (2, 2, N, 8)
            bias = pe.bias(grid, layer)
            assert bias is None or bias.shape == (2, N, N)
            assert pe.between(torch.randn(2, N, 16), grid, layer).shape == (2, N, 16)


@pytest.mark.parametrize("name", MENU)
def test_fixed_tables_are_not_in_the_checkpoint(name: str) -> None:
    pe = encoding(name, prefix=1)
    assert set(pe.state_dict()) == {name for name, _ in pe.named_parameters()}


@pytest.mark.parametrize("name", MENU)
@pytest.mark.parametrize("grid", [GRID, OTHER])
def test_an_encoding_says_whether_it_depends_on_the_image(name: str, grid: tuple[int, int]) -> None:
    """What is added to tokens is the same for all of them, or else depends on the image."""
    pe = encoding(name, prefix=1)
    one, other = torch.randn(2, 1, 1 + grid[0] * grid[1], 16)
    told = [[pe.embed(x, grid) - x, *(pe.between(x, grid, layer) - x for layer in range(3))] for x in (one, other)]
    assert pe.depends_on_image is not all(torch.allclose(*pair) for pair in zip(*told, strict=True))


@pytest.mark.parametrize("name", ["sincos1d", "sincos2d"])
def test_prefix_tokens_get_no_fixed_waves(name: str) -> None:
    waves = added(encoding(name, prefix=2), GRID)
    assert not waves[:2].any()
    assert torch.equal(waves[2:], added(encoding(name), GRID))


@pytest.mark.parametrize("grid", [GRID, OTHER])
def test_sincos1d_is_the_transformers_formula(grid: tuple[int, int]) -> None:
    waves = added(encoding("sincos1d", theta=100.0), grid)
    for p in range(grid[0] * grid[1]):
        for i in range(8):
            angle = p / 100.0 ** (2 * i / 16)
            assert waves[p, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-12)
            assert waves[p, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-12)


@pytest.mark.parametrize("grid", [GRID, OTHER])
def test_sincos2d_is_the_plain_vits_formula(grid: tuple[int, int]) -> None:
    waves = added(encoding("sincos2d"), grid)
    for n, (row, column) in enumerate(places(grid)):
        for i in range(4):
            w = 10_000.0 ** -(i / 3)
            expected = [math.sin(column * w), math.cos(column * w), math.sin(row * w), math.cos(row * w)]
            assert waves[n, i::4].tolist() == pytest.approx(expected, abs=1e-12)


def test_learned_returns_its_own_table_on_the_training_grid() -> None:
    pe = encoding("learned", prefix=1)
    assert pe.resized(GRID) is pe.table
    assert torch.equal(added(pe, GRID), pe.table[0])


@pytest.mark.parametrize("grid", [OTHER, (2, 2), (6, 10)])
def test_learned_is_interpolated_as_in_timm(grid: tuple[int, int]) -> None:
    from timm.layers import resample_abs_pos_embed

    pe = encoding("learned", prefix=1).float()
    expected = resample_abs_pos_embed(pe.table, list(grid), old_size=list(GRID), num_prefix_tokens=1)
    torch.testing.assert_close(pe.resized(grid), expected)
    assert torch.equal(pe.resized(grid)[:, :1], pe.table[:, :1]), "the class token's position stays"


@pytest.mark.parametrize("name", ["rope", "rope_mixed"])
@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("grid", [GRID, OTHER])
def test_scores_of_a_rotation_depend_only_on_the_offset(name: str, layer: int, grid: tuple[int, int]) -> None:
    pe = encoding(name)
    vector = torch.randn(2, 1, 2, 1, 8).expand(2, 1, 2, grid[0] * grid[1], 8)  # the same query and key everywhere
    q, k = pe.rotate(vector[0], vector[1], grid, layer)
    assert_only_the_offset_matters((q @ k.transpose(-2, -1))[0], grid)


def test_rope_is_rope_vits_rotation_of_complex_numbers() -> None:
    """arXiv 2403.13298, axial: a pair turns by exp(i theta_t p), half of the pairs with x, half with y."""
    pe, x = encoding("rope", heads=1), torch.randn(1, 1, 15, 16)
    turned, _ = pe.rotate(x, x, GRID, 0)
    for n, (row, column) in enumerate(places(GRID)):
        for t in range(8):
            angle = (column if t < 4 else row) * 100.0 ** -(t % 4 / 4)
            pair = torch.complex(x[0, 0, n, t], x[0, 0, n, t + 8]) * torch.exp(torch.tensor(1j * angle))
            expected = [pair.real.item(), pair.imag.item()]
            assert [turned[0, 0, n, t].item(), turned[0, 0, n, t + 8].item()] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", ["rope", "rope_mixed"])
def test_a_rotation_turns_no_prefix_token_and_changes_no_length(name: str) -> None:
    pe, q = encoding(name, prefix=1), torch.randn(2, 2, 16, 8)
    turned, _ = pe.rotate(q, q, GRID, 1)
    assert torch.equal(turned[:, :, 0], q[:, :, 0])
    assert not torch.equal(turned[:, :, 2:], q[:, :, 2:])
    torch.testing.assert_close(turned.norm(dim=-1), q.norm(dim=-1))


@pytest.mark.parametrize("name", ["rope", "rope_mixed"])
def test_a_rotation_keeps_the_type_of_queries_under_autocast(name: str) -> None:
    q = torch.randn(1, 2, 15, 8, dtype=torch.bfloat16)
    assert encoding(name).rotate(q, q, GRID, 0)[0].dtype == torch.bfloat16


@pytest.mark.parametrize("grid", [GRID, OTHER])
def test_rope_mixed_with_axial_frequencies_is_rope(grid: tuple[int, int]) -> None:
    mixed, axial, q = encoding("rope_mixed", prefix=1), encoding("rope", prefix=1), torch.randn(2, 2, 36, 8)
    q = q[:, :, : 1 + grid[0] * grid[1]]
    w = 100.0 ** -(torch.arange(2) / 2)
    with torch.no_grad():
        mixed.frequencies.zero_()
        mixed.frequencies[:, :, 0, :2] = w  # of x, in the first half of the pairs
        mixed.frequencies[:, :, 1, 2:] = w  # of y, in the other
    for mine, its in zip(mixed.rotate(q, -q, grid, 1), axial.rotate(q, -q, grid, 1), strict=True):
        torch.testing.assert_close(mine, its, rtol=0, atol=1e-12)


def test_rope_mixed_begins_with_axial_frequencies_turned_by_an_angle_of_each_layer_and_head() -> None:
    """As timm's and the authors' do: (u, v) have length theta^(-i / (E/4)), and the halves are at right angles."""
    u, v = encoding("rope_mixed", theta=7.0).frequencies.detach().unbind(2)  # (3,2,4) each
    torch.testing.assert_close(torch.hypot(u, v), (7.0 ** -(torch.arange(2) / 2)).repeat(2).expand(3, 2, 4))
    angle = torch.atan2(v, u)
    torch.testing.assert_close(angle[..., 0], angle[..., 1])
    torch.testing.assert_close((angle[..., 2:] - angle[..., :2]) % (2 * math.pi), torch.full((3, 2, 2), math.pi / 2))
    assert angle[..., 0].unique().numel() == 6
    torch.manual_seed(1)
    assert not torch.equal(encoding("rope_mixed", theta=7.0).frequencies[:, :, 0], u), "the seed decides"


def test_each_layer_of_rope_mixed_learns_frequencies_of_its_own() -> None:
    pe, q = encoding("rope_mixed"), torch.randn(2, 1, 2, 15, 8)
    for layer in range(3):
        pe.zero_grad()
        turned, keys = pe.rotate(q[0], q[1], GRID, layer)
        (turned @ keys.transpose(-2, -1)).square().sum().backward()
        assert [bool(g.all()) for g in pe.frequencies.grad] == [at == layer for at in range(3)]
        assert not pe.frequencies.grad[torch.arange(3) != layer].any()


def test_relative_bias_looks_up_the_offset_of_key_and_query() -> None:
    pe = encoding("relative_bias")
    for layer in range(3):
        bias = pe.bias(GRID, layer)
        for i, (row, column) in enumerate(places(GRID)):
            for j, (key_row, key_column) in enumerate(places(GRID)):
                entry = pe.table[layer, :, key_row - row + GRID[0] - 1, key_column - column + GRID[1] - 1]
                assert torch.equal(bias[:, i, j], entry)


def test_relative_bias_is_interpolated_to_another_grid() -> None:
    pe = encoding("relative_bias")
    bias = pe.bias(OTHER, 0)
    assert_only_the_offset_matters(bias, OTHER)
    torch.testing.assert_close(bias[:, 0, 0], pe.table[0, :, 2, 4])  # the offset (0, 0) stays itself
    with torch.no_grad():
        pe.table.fill_(0.5)
    torch.testing.assert_close(pe.bias(OTHER, 0), torch.full((2, 28, 28), 0.5))


def test_relative_bias_gives_prefix_tokens_three_numbers_of_their_own() -> None:
    pe = encoding("relative_bias", prefix=2)
    bias = pe.bias(GRID, 1)
    to_patch, from_patch, among = pe.prefix[1].unbind(1)  # a number a head
    assert torch.equal(bias[:, :2, 2:], to_patch[:, None, None].expand(2, 2, 15))
    assert torch.equal(bias[:, 2:, :2], from_patch[:, None, None].expand(2, 15, 2))
    assert torch.equal(bias[:, :2, :2], among[:, None, None].expand(2, 2, 2))


@pytest.mark.parametrize("grid", [GRID, OTHER])
def test_alibi2d_is_minus_slope_times_distance(grid: tuple[int, int]) -> None:
    bias = encoding("alibi2d").bias(grid, 0)
    for head, slope in enumerate([2**-4, 2**-8]):
        for i, here in enumerate(places(grid)):
            for j, there in enumerate(places(grid)):
                assert bias[head, i, j].item() == pytest.approx(-slope * math.dist(here, there), abs=1e-12)


def test_alibi2d_slopes_are_the_papers() -> None:
    assert slopes(8) == [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]
    assert slopes(16) == pytest.approx([2 ** -(i / 2) for i in range(1, 17)])
    assert slopes(6) == [1 / 4, 1 / 16, 1 / 64, 1 / 256, 1 / 2, 1 / 8]


def test_alibi2d_puts_prefix_tokens_at_no_distance() -> None:
    bias = encoding("alibi2d", prefix=1).bias(GRID, 0)
    assert not bias[:, 0].any() and not bias[:, :, 0].any()
    assert torch.equal(bias[:, 1:, 1:], encoding("alibi2d").bias(GRID, 0))


def test_cpe_is_a_convolution_of_each_channel_after_the_first_block_only() -> None:
    pe, tokens = encoding("cpe", prefix=1), torch.randn(2, 16, 16)
    assert pe.embed(tokens, GRID) is tokens and pe.between(tokens, GRID, 1) is tokens
    told = pe.between(tokens, GRID, 0)
    assert torch.equal(told[:, 0], tokens[:, 0]), "the prefix token passes"
    maps, kernel = tokens[:, 1:].transpose(1, 2).unflatten(2, GRID), pe.conv.weight[:, 0]
    for n, (row, column) in enumerate(places(GRID)):
        expected = tokens[:, 1 + n] + pe.conv.bias
        for y in range(max(0, row - 1), min(GRID[0], row + 2)):
            for x in range(max(0, column - 1), min(GRID[1], column + 2)):
                expected = expected + kernel[:, y - row + 1, x - column + 1] * maps[:, :, y, x]
        torch.testing.assert_close(told[:, 1 + n], expected)


def test_cpe_moves_with_whole_patches_but_for_the_border() -> None:
    pe, grid = encoding("cpe"), (8, 9)
    maps = torch.randn(1, 16, *grid)
    still, moved = (
        pe.between(one.flatten(2).transpose(1, 2), grid, 0).transpose(1, 2).unflatten(2, grid)
        for one in (maps, maps.roll((2, -3), (2, 3)))
    )
    expected = still.roll((2, -3), (2, 3))
    torch.testing.assert_close(moved[..., 3:-1, 1:-4], expected[..., 3:-1, 1:-4], rtol=0, atol=1e-12)
    assert (moved - expected).abs().amax((0, 1))[0].min() > 1e-3, "at the border, zeros are seen"


def test_cpe_tells_tokens_that_are_all_alike_how_near_the_border_they_are() -> None:
    told = encoding("cpe").between(torch.ones(1, 35, 16), (5, 7), 0)[0].unflatten(0, (5, 7))
    inner = told[1:-1, 1:-1].flatten(0, 1)
    torch.testing.assert_close(inner, inner[:1].expand_as(inner))
    assert told[[0, 0, 0, 2, 2, 4, 4, 4], [0, 3, 6, 0, 6, 0, 3, 6]].unique(dim=0).shape[0] == 8
