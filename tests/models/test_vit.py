"""The ViT is the published one, shows its attention, and without an encoding is blind to order."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vitbench.errors import UserError
from vitbench.models.block import Block
from vitbench.models.build import build_model
from vitbench.models.vit import ViT
from vitbench.pe.menu import MENU as ENCODINGS


def shuffled(images: Tensor, patch: int, order: Tensor) -> Tensor:
    """The images (B,C,H,W) with their patches, counted row by row, in another order."""
    (B, C, H, W), h, w = images.shape, images.shape[2] // patch, images.shape[3] // patch
    patches = images.view(B, C, h, patch, w, patch).permute(2, 4, 0, 1, 3, 5).flatten(0, 1)  # (hw,B,C,patch,patch)
    return patches[order].unflatten(0, (h, w)).permute(2, 3, 0, 4, 1, 5).reshape(B, C, H, W)


def vit(pe: str = "none", seed: int = 0, **options: object) -> ViT:
    """A nano ViT in float64 whose weights are large enough for every part to matter."""
    torch.manual_seed(seed)
    model = build_model("vit", image_size=32, channels=3, num_classes=10, pe={"name": pe}, **options).double().eval()
    assert isinstance(model, ViT)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_without_encoding_no_order_of_the_patches_is_noticed(pool: str) -> None:
    model, images = vit(pool=pool), torch.randn(2, 3, 32, 32, dtype=torch.float64)
    logits = model(images)
    for seed in range(3):
        order = torch.randperm(64, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(model(shuffled(images, 4, order)), logits, rtol=0, atol=1e-10)
    for rows, columns in [(4, 0), (0, -8), (12, 20)]:
        torch.testing.assert_close(model(images.roll((rows, columns), (2, 3))), logits, rtol=0, atol=1e-10)
    assert not torch.allclose(model(images.roll(1, 3)), logits, atol=1e-3), "a roll within a patch must be noticed"


@pytest.mark.parametrize("pool", ["mean", "cls"])
@pytest.mark.parametrize("pe", sorted(set(ENCODINGS) - {"none"}))
def test_with_an_encoding_shuffled_patches_are_noticed(pe: str, pool: str) -> None:
    model, images = vit(pe, pool=pool), torch.randn(2, 3, 32, 32, dtype=torch.float64)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    assert (model(shuffled(images, 4, order)) - model(images)).abs().max() > 1e-4


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_cpe_whose_kernel_is_0_is_no_encoding_bit_for_bit(pool: str) -> None:
    model, bare, images = vit("cpe", pool=pool).float(), vit(pool=pool).float(), torch.randn(2, 3, 32, 40)
    bare.load_state_dict({name: value for name, value in model.state_dict().items() if not name.startswith("pe.")})
    assert not torch.equal(model(images), bare(images))
    for parameter in model.pe.parameters():
        torch.nn.init.zeros_(parameter)
    assert torch.equal(model(images), bare(images))


@pytest.mark.parametrize("pe", ENCODINGS)
@pytest.mark.parametrize("size", [32, 40])
def test_the_weights_shown_are_those_the_fused_kernel_used(pe: str, size: int) -> None:
    model, images = vit(pe, pool="cls"), torch.randn(2, 3, size, size, dtype=torch.float64)
    attention = model.attention(images)
    tokens, grid = model.embed(images)
    N = grid[0] * grid[1] + 1
    for block, weights in zip(model.blocks, attention, strict=True):
        assert weights.shape == (2, 4, N, N)
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, N, dtype=torch.float64))
        x = block.norm1(tokens)
        v = block.attn.inputs(x, model.pe, grid)[2]
        mixed = block.attn.proj((weights @ v).transpose(1, 2).flatten(2))
        torch.testing.assert_close(mixed, block.attn(x, model.pe, grid), rtol=0, atol=1e-10)
        tokens = block(tokens, model.pe, grid)


def test_it_is_timms_vision_transformer() -> None:
    """ViT-Ti/16 with class token and learned encoding, at its own and at another image size."""
    import timm

    torch.manual_seed(0)
    theirs = timm.create_model("vit_tiny_patch16_224", pretrained=False, dynamic_img_size=True).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)  # norms, biases and class token, too
    ours = build_model(
        "vit",
        image_size=224,
        channels=3,
        num_classes=1000,
        pe={"name": "learned"},
        patch_size=16,
        width=192,
        depth=12,
        heads=3,
        pool="cls",
    ).eval()
    renamed = {"pos_embed": "pe.table", "patch_embed.proj.weight": "patch_embed.weight"}
    renamed["patch_embed.proj.bias"] = "patch_embed.bias"
    ours.load_state_dict({renamed.get(key, key): value for key, value in theirs.state_dict().items()})
    with torch.no_grad():
        for height, width in [(224, 224), (160, 192)]:
            images = torch.randn(2, 3, height, width)
            torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=1e-5)


def test_drop_path_grows_with_depth_and_keeps_the_mean() -> None:
    model = vit(drop_path=0.3)
    assert [block.drop_path for block in model.blocks] == pytest.approx([0, 0.1, 0.2, 0.3])
    block = Block(width=8, heads=2, hidden=8, layer=0, drop_path=0.25)
    branch = torch.ones(20_000, 1, 1)
    assert torch.equal(block.eval().drop(branch), branch)
    torch.manual_seed(0)
    dropped = block.train().drop(branch)
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert dropped.mean().item() == pytest.approx(1, abs=0.02)


def test_an_image_that_is_no_whole_number_of_patches_is_refused_at_call_time() -> None:
    with pytest.raises(UserError, match=r"images of 32 x 30 px: must be multiples of model\.patch_size=4"):
        vit()(torch.randn(1, 3, 32, 30, dtype=torch.float64))
