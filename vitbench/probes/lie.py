"""How fast do the answers change when the image begins to move? The local equivariance error (LEE) of Gruver et al.
(ICLR 2023, arXiv 2210.02984): L f(x) = d/dt at t = 0 of rho_out(-t) f(rho_in(t) x).

    lee@v1           translation, the mean over both axes; t is in pixels
    lee.rotation@v1  rotation about the centre; t is in radians
    lee.scaling@v1   magnification about the centre; t is the logarithm of the factor
    lee.gruver@v1, lee.gruver.rotation@v1, lee.gruver.scaling@v1   the same, measured as in the authors' code

f is the softmax p of the logits z, whose rho_out is the identity, and C the number of classes. Each protocol has

    squared  mean over images of |L p|^2 / C
    abs      mean over images and classes of |dp_c / dt|, which the authors' code prints
    logit    mean of |L z| over mean of |z - mean z|, because saturated probabilities look equivariant

*Ours.* The derivative of the moving image is minus velocity times gradient. The gradient is the central difference,
with the image reflected at its border. `torch.func.jvp` carries it through the network. Moving the image by 0.01 px in
both directions gives the same (by cubic interpolation, whose derivative is that difference).

*The authors'.* The image is resampled bilinearly, which has a kink at t = 0. Its gradient there is the difference to
the left or to the right neighbour; the rounding of the sampling grid decides which, pixel by pixel. Their t is in units
of the normalised grid, [-1, 1] from the centre of the first pixel to that of the last (`align_corners=True`). For
translation, a value times 2 / (W - 1) is per pixel, and `squared` must be multiplied by the square of that.

`attribution`, a row for each layer (of `lee@v1`), says which layers make the answers change. Let a_l be the output of
tap l as a map, L_l = d/dt of rho(-t) a_l(rho(t) x), which is the jvp minus the motion of the map itself, and s random
signs. Then

    c_l = <d(s.p) / d a_l, L_l> - <d(s.p) / d a_(l-1), L_(l-1)>        attribution = mean over images of E_s c_l^2 / C

where c_l is, by the product rule, what the part of the network from tap l - 1 to tap l adds to s.L p; the sum over l is
s.L p. The parts may cancel, so attributions need not sum to `squared`. A position encoding that is added to the patches
counts for the first block. A distillation token, which is read beside the pooled feature, counts for the head. The
authors attribute to each leaf module, with normally distributed s.

We compared this with the reference code, ngruver/lie-deriv `lee/lie_derivs.py`, on a trained ViT and a trained ResNet
for 32 px (50 images each, softmax, both translations, rotation and scale). `lee.gruver` has the same derivatives, each
to 2e-6 of their length, which is the precision of float32. They differentiate backwards twice, and we differentiate
forwards once. `lee` is smaller: its `abs` per pixel is 0.41 of theirs for the ViT and 0.23 for the ResNet. A difference
to one neighbour is the central difference plus or minus half of the second difference. So their image is not only moved
but also sharpened, and the networks react more to that than to the motion (differences to the left neighbour everywhere
give as much as differences to the right neighbour everywhere).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vitbench.errors import UserError
from vitbench.probes.shift import reflected
from vitbench.probes.subject import Row, Subject, ratio_row
from vitbench.probes.taps import batch_size_for, from_middle, prefix_of, record, to_grid

Motion = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # (x, y) from the centre -> velocity of the point there

RIGHT: Motion = lambda x, y: (torch.ones_like(x), torch.zeros_like(y))  # noqa: E731
DOWN: Motion = lambda x, y: (torch.zeros_like(x), torch.ones_like(y))  # noqa: E731
MOTIONS: dict[str, tuple[Motion, ...]] = {  # by the protocol's suffix; a protocol is the mean over its motions
    "": (RIGHT, DOWN),
    ".rotation": (lambda x, y: (-y, x),),
    ".scaling": (lambda x, y: (x, y),),
}


def probe(subject: Subject, *, seed: int, draws: int = 1, gruver: bool = False) -> list[Row]:
    """Measures the three motions, and with `gruver` also as the authors' code does.

    `draws` is the number of random sign vectors for each image in the attribution; 0 leaves the attribution out. The
    probe costs as much as 16 forwards for each image, 3 more for each draw, and 16 more for `gruver`.
    """
    if draws < 0:
        raise UserError(f"probe.lie.draws={draws}: must be 0 (no attribution) or more")
    model, rearranged = subject.model, subject.normalise.rearranged  # images move before they are rearranged
    random = torch.Generator().manual_seed(seed)
    logits: list[Tensor] = []
    slopes: dict[str, list[Tensor]] = {}  # for each protocol and batch, d logits / dt (A,B,K) for A motions
    squares: dict[str, list[Tensor]] = {}  # for each tap and batch, c^2 / C (B,)
    with forward_mode():
        for images in subject.images.split(batch_size_for(model, subject.normalise(subject.images[:1])) // 2 or 1):
            still = subject.normalise.values(images)
            batch = rearranged(still)
            for suffix, motions in MOTIONS.items():
                moved = [derivative(model, batch, rearranged(moving(still, motion))) for motion in motions]
                slopes.setdefault(f"lee{suffix}", []).append(torch.stack([slope for _, slope, _ in moved]).cpu())
                if suffix == "":
                    logits.append(moved[0][0].cpu())
                    attributed = attribution(model, batch, [tangents for _, _, tangents in moved], draws, random)
                    for tap, square in attributed.items():
                        squares.setdefault(tap, []).append(square.cpu())
                if gruver:
                    tangents = [rearranged(moving_bilinearly(still, motion)) for motion in motions]
                    moved = [derivative(model, batch, tangent) for tangent in tangents]
                    slope_of_motions = torch.stack([slope for _, slope, _ in moved]).cpu()
                    slopes.setdefault(f"lee.gruver{suffix}", []).append(slope_of_motions)
    z = torch.cat(logits).double()  # in float32, logits that are equal for all images could have a spread
    rows = []
    for protocol, batches in slopes.items():
        rows += _rows(f"{protocol}@v1", z, torch.cat(batches, 1).double(), seed)
    for tap, batches in squares.items():
        rows.append(ratio_row("lee@v1", "attribution", torch.cat(batches), seed, reason="not finite", layer=tap))
    return rows


def _rows(protocol: str, z: Tensor, slope: Tensor, seed: int) -> list[Row]:
    """Makes the three rows of a protocol from logits (M,K) and their derivatives along A motions (A,M,K)."""
    p_slope, spread = softmax_slope(z, slope), (z - z.mean(0)).norm(dim=-1)
    reason = "not finite" if spread.any() else "the logits are the same for every image"
    return [
        ratio_row(protocol, "squared", p_slope.square().mean(-1).mean(0), seed, reason="not finite"),
        ratio_row(protocol, "abs", p_slope.abs().mean(-1).mean(0), seed, reason="not finite"),
        ratio_row(protocol, "logit", slope.norm(dim=-1).mean(0), seed, spread, reason),
    ]


# --------------------------------------------------------------------------------------------------- differentiation


@contextmanager
def forward_mode() -> Iterator[None]:
    """Turns off fused attention and torch's fast path of transformers, which have no forward-mode derivatives."""
    with warnings.catch_warnings():
        # torch 2.15 scripts its decompositions when they are first used, which is here, and warns about it
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.func.jvp(torch.sin, (torch.zeros(()),), (torch.ones(()),))
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


@torch.no_grad()
def derivative(model: nn.Module, batch: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Computes the logits (B,K), and their derivative and that of every tap along the tangent (B,C,H,W)."""

    def outputs(x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        with record(model) as features:
            z = model(x)
        return z, dict(features)

    outputs_and_slopes: Any = torch.func.jvp(outputs, (batch,), (tangent,))
    (z, _), (slope, tap_slopes) = outputs_and_slopes
    return z, slope, tap_slopes


def softmax_slope(z: Tensor, slope: Tensor) -> Tensor:
    """Returns the derivative of softmax(z), given that of z."""
    p = z.softmax(-1)
    return p * (slope - (p * slope).sum(-1, keepdim=True))


def attribution(
    model: nn.Module, batch: Tensor, tangents: list[dict[str, Tensor]], draws: int, random: torch.Generator
) -> dict[str, Tensor]:
    """Computes c^2 / C of each tap (B,), averaged over draws of signs and the translations that gave `tangents`."""
    squares: dict[str, Tensor] = {}
    for _ in range(draws):
        for name, part in parts_of(model, batch, tangents, random).items():
            square = part.square().mean(0) / draws
            squares[name] = squares[name] + square if name in squares else square
    return squares


def parts_of(
    model: nn.Module, batch: Tensor, tangents: list[dict[str, Tensor]], random: torch.Generator
) -> dict[str, Tensor]:
    """Computes c / sqrt(C) of each tap (A,B), for one draw of signs s and each of A motions. The sum over taps is
    s.L p / sqrt(C)."""
    batch = batch.detach().requires_grad_()
    with torch.enable_grad(), record(model) as features:
        p = model(batch).softmax(-1)
    signs = 2.0 * torch.randint(2, p.shape, generator=random).to(p) - 1
    gradients = torch.autograd.grad((signs * p).sum(), list(features.values()))
    size = (batch.shape[-2], batch.shape[-1])
    parts: dict[str, Tensor] = {}
    last_product = torch.zeros(len(tangents), len(batch), device=batch.device)
    for (name, output), gradient in zip(features.items(), gradients, strict=True):
        products = []
        for motion, tangent in zip(MOTIONS[""], tangents, strict=True):
            rate = tangent[name] - motion_of_output(model, output.detach(), motion, size)  # L_l
            products.append((gradient * rate).flatten(1).sum(1))
        product = torch.stack(products)
        parts[name], last_product = (product - last_product) / math.sqrt(p.shape[1]), product
    return parts


# ------------------------------------------------------------------------------------------------------ moving images


def moving(images: Tensor, motion: Motion, size: tuple[int, int] | None = None) -> Tensor:
    """Computes d/dt of moving maps (B,D,h,w): minus velocity times central difference, reflected at the border.

    `size` is the size of the image, where the map is coarser, because the velocity is in pixels of the image.
    """
    h, w = images.shape[-2:]
    H, W = size or (h, w)
    y = from_middle(h, images.dtype, images.device) * (H / h)
    x = from_middle(w, images.dtype, images.device) * (W / w)
    vx, vy = motion(x.expand(h, w), y[:, None].expand(h, w))
    dx, dy = (_difference(images, axis) for axis in (-1, -2))
    return -(vx * (w / W) * dx + vy * (h / H) * dy)


def motion_of_output(model: nn.Module, output: Tensor, motion: Motion, size: tuple[int, int]) -> Tensor:
    """Computes d/dt of a tap's output that moves with the image. Outputs without a grid and prefix tokens stay."""
    if output.ndim == 4:
        return moving(output, motion, size)
    if output.ndim != 3:
        return torch.zeros_like(output)
    prefix = prefix_of(model, output)
    patches = moving(to_grid(output, prefix), motion, size).flatten(2).transpose(1, 2)
    return torch.cat([torch.zeros_like(output[:, :prefix]), patches], 1)


def _difference(maps: Tensor, axis: int) -> Tensor:
    """Computes the central difference. It is 0 at the border, where reflection makes both neighbours equal."""
    n = maps.shape[axis]
    difference = torch.zeros_like(maps)
    if n > 2:
        inner = (maps.narrow(axis, 2, n - 2) - maps.narrow(axis, 0, n - 2)) / 2
        difference.narrow(axis, 1, n - 2).copy_(inner)
    return difference


def moving_bilinearly(images: Tensor, motion: Motion) -> Tensor:
    """Computes d/dt of moving images as autograd finds it through the authors' resampling, with t in units of their
    grid.

    Its sign is also that of the grid, the opposite of ours. In float32, rounding puts each sample slightly to the left
    or to the right of its pixel, and the slope is the difference to that neighbour.
    """
    H, W = images.shape[-2:]
    still = torch.eye(2, 3, device=images.device)[None]
    grid = F.affine_grid(still, [1, 1, H, W], align_corners=True)[0].float()  # (H,W,2) in -1..1
    vx, vy = motion(grid[..., 0], grid[..., 1])
    (x, x0), (y, y0) = (_cell(grid[..., i], n) for i, n in enumerate((W, H)))
    x1, y1 = reflected(x0 + 1, W), reflected(y0 + 1, H)
    x0, y0 = reflected(x0, W), reflected(y0, H)
    a, b, c, d = images[..., y0, x0], images[..., y0, x1], images[..., y1, x0], images[..., y1, x1]
    dx = (1 - y) * (b - a) + y * (d - c)
    dy = (1 - x) * (c - a) + x * (d - b)
    return vx * dx * ((W - 1) / 2) + vy * dy * ((H - 1) / 2)


def _cell(places: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Returns where a place in -1..1 is between two of n pixels, as a share, and the first of the two."""
    pixels = ((places + 1) / 2) * (n - 1)
    return pixels - pixels.floor(), pixels.floor().long()
