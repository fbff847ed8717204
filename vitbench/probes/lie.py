"""How fast do the answers change when the picture begins to move? The local equivariance error (LEE) of Gruver et al.
(ICLR 2023, arXiv 2210.02984): L f(x) = d/dt at t = 0 of rho_out(-t) f(rho_in(t) x).

    lee@v1           translation, the mean over both axes; t in pixels
    lee.rotation@v1  t in radians, about the centre
    lee.scaling@v1   t the logarithm of the magnification, about the centre
    lee.gruver@v1, lee.gruver.rotation@v1, lee.gruver.scaling@v1   the same as the authors' code measures it

f is the softmax, whose rho_out is the identity. Of each:

    squared  mean over images of |L p|^2 / C, C the number of classes
    abs      mean over images and classes of |dp_c / dt|, what the authors' code prints
    logit    mean of |L z| over mean of |z - mean z|, z the logits: saturated probabilities look equivariant

*Ours.* The derivative of the moving image is minus velocity times gradient, its gradient the central difference, the
image reflected at its border; `torch.func.jvp` carries it through the network, and moving the image by 0.01 px (cubic
interpolation, whose derivative is that difference) and back gives the same. *The authors'* image is resampled
bilinearly, which has a kink at t = 0: its gradient there is the difference to the left or to the right neighbour, as the
rounding of the sampling grid decides pixel by pixel. t is in units of the normalised grid, [-1, 1] from the centre of the
first pixel to that of the last (`align_corners=True`); for translation, times 2 / (W - 1) is per pixel, squared for
`squared`.

`attribution`, a row of each layer (of `lee@v1`): what makes the answers move. With a_l the output of tap l as a map,
L_l = d/dt of rho(-t) a_l(rho(t) x), which is the jvp minus the motion of the map itself, and z random signs,

    c_l = <d(z.p) / d a_l, L_l> - <d(z.p) / d a_(l-1), L_(l-1)>        attribution = mean over images of E_z c_l^2 / C

is by the product rule what the part of the network from tap l - 1 to tap l adds to z.L p, and sums to it over l. What
layers add may cancel, so attributions need not sum to `squared`. A position encoding added to the patches counts for
the first block; a distillation token, which is read beside the pooled feature, for the head. The authors attribute to
each leaf module, with normal z.

Compared with the reference code, ngruver/lie-deriv `lee/lie_derivs.py`, on a trained ViT and a trained ResNet of 32 px
(50 images each, softmax, both translations, rotation and scale): `lee.gruver` has the same derivatives, each to 2e-6 of
their length, which is float32. It differentiates twice backwards where we go forwards once. Ours, `lee`, is smaller: its
`abs` per pixel is 0.41 of theirs for the ViT and 0.23 for the ResNet. A difference to one neighbour is the central one
and half of the second difference: besides moving, their image is sharpened, and the networks answer to that more than
to the motion (differences to the left neighbour everywhere give as much as those to the right everywhere).
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

Motion = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # the velocity of the points at (x, y) from the centre

RIGHT: Motion = lambda x, y: (torch.ones_like(x), torch.zeros_like(y))  # noqa: E731
DOWN: Motion = lambda x, y: (torch.zeros_like(x), torch.ones_like(y))  # noqa: E731
MOTIONS: dict[str, tuple[Motion, ...]] = {  # of each protocol, the mean over them
    "": (RIGHT, DOWN),
    ".rotation": (lambda x, y: (-y, x),),
    ".scaling": (lambda x, y: (x, y),),
}


def probe(subject: Subject, *, seed: int, draws: int = 1, gruver: bool = False) -> list[Row]:
    """`draws` random vectors an image for the attribution (0: none); `gruver` measures as the authors do too.

    Costs as much as 16 forwards an image, 3 more for each draw, and 16 more for `gruver`.
    """
    if draws < 0:
        raise UserError(f"probe.lie.draws={draws}: must be 0 (no attribution) or more")
    model = subject.model
    random = torch.Generator().manual_seed(seed)
    logits: list[Tensor] = []
    slopes: dict[str, list[Tensor]] = {}  # of each protocol and batch: d logits / dt, (A,B,K) for A motions
    added: dict[str, list[Tensor]] = {}  # of each tap and batch: c^2 / C, (B,)
    with forward_mode():
        for part in subject.images.split(batch_size_for(model, subject.normalise(subject.images[:1])) // 2 or 1):
            batch = subject.normalise(part)
            for name, motions in MOTIONS.items():
                found = [derivative(model, batch, moving(batch, motion)) for motion in motions]
                slopes.setdefault(f"lee{name}", []).append(torch.stack([slope for _, slope, _ in found]).cpu())
                if name == "":
                    logits.append(found[0][0].cpu())
                    squares = attribution(model, batch, [tangents for _, _, tangents in found], draws, random)
                    for tap, square in squares.items():
                        added.setdefault(tap, []).append(square.cpu())
                if gruver:
                    found = [derivative(model, batch, moving_bilinearly(batch, motion)) for motion in motions]
                    slopes.setdefault(f"lee.gruver{name}", []).append(
                        torch.stack([slope for _, slope, _ in found]).cpu()
                    )
    z = torch.cat(logits).double()  # so that equal logits have no spread
    rows = []
    for protocol, parts in slopes.items():
        rows += _rows(f"{protocol}@v1", z, torch.cat(parts, 1).double(), seed)
    for tap, parts in added.items():
        rows.append(ratio_row("lee@v1", "attribution", torch.cat(parts), seed, reason="not finite", layer=tap))
    return rows


def _rows(protocol: str, z: Tensor, slope: Tensor, seed: int) -> list[Row]:
    """The three numbers of a protocol: logits (M,K) and their derivatives along A motions (A,M,K)."""
    of_softmax, spread = softmax_slope(z, slope), (z - z.mean(0)).norm(dim=-1)
    why = "not finite" if spread.any() else "the logits are the same for every image"
    return [
        ratio_row(protocol, "squared", of_softmax.square().mean(-1).mean(0), seed, reason="not finite"),
        ratio_row(protocol, "abs", of_softmax.abs().mean(-1).mean(0), seed, reason="not finite"),
        ratio_row(protocol, "logit", slope.norm(dim=-1).mean(0), seed, spread, why),
    ]


# --------------------------------------------------------------------------------------------------- differentiation


@contextmanager
def forward_mode() -> Iterator[None]:
    """Forward-mode derivatives work here: neither fused attention nor torch's fast path of transformers has them."""
    with (
        warnings.catch_warnings()
    ):  # torch 2.15 scripts its own decompositions when they are first used, and warns of it
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.func.jvp(torch.sin, (torch.zeros(()),), (torch.ones(()),))
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@torch.no_grad()
def derivative(model: nn.Module, batch: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Logits (B,K), their derivative along the tangent (B,C,H,W), and that of every tap."""

    def outputs(x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        with record(model) as features:
            z = model(x)
        return z, dict(features)

    found: Any = torch.func.jvp(outputs, (batch,), (tangent,))
    (z, _), (slope, slopes) = found
    return z, slope, slopes


def softmax_slope(z: Tensor, slope: Tensor) -> Tensor:
    """The derivative of the softmax of z, from that of z."""
    p = z.softmax(-1)
    return p * (slope - (p * slope).sum(-1, keepdim=True))


def attribution(
    model: nn.Module, batch: Tensor, tangents: list[dict[str, Tensor]], draws: int, random: torch.Generator
) -> dict[str, Tensor]:
    """Of each tap c^2 / C (B,), the mean over draws of z and over the motions of translation, whose tangents those are."""
    squares: dict[str, Tensor] = {}
    for _ in range(draws):
        for name, part in parts_of(model, batch, tangents, random).items():
            square = part.square().mean(0) / draws
            squares[name] = squares[name] + square if name in squares else square
    return squares


def parts_of(
    model: nn.Module, batch: Tensor, tangents: list[dict[str, Tensor]], random: torch.Generator
) -> dict[str, Tensor]:
    """Of each tap c / sqrt(C) (A,B), for one draw of z and each of A motions; the sum over taps is z.L p / sqrt(C)."""
    batch = batch.detach().requires_grad_()
    with torch.enable_grad(), record(model) as features:
        p = model(batch).softmax(-1)
    signs = 2.0 * torch.randint(2, p.shape, generator=random).to(p) - 1
    gradients = torch.autograd.grad((signs * p).sum(), list(features.values()))
    size = (batch.shape[-2], batch.shape[-1])
    parts: dict[str, Tensor] = {}
    before = torch.zeros(len(tangents), len(batch), device=batch.device)
    for (name, output), gradient in zip(features.items(), gradients, strict=True):
        rates = [
            tangent[name] - of_map(model, output.detach(), motion, size)
            for motion, tangent in zip(MOTIONS[""], tangents, strict=True)
        ]
        after = torch.stack([(gradient * rate).flatten(1).sum(1) for rate in rates])
        parts[name], before = (after - before) / math.sqrt(p.shape[1]), after
    return parts


# ---------------------------------------------------------------------------------------------------- moving pictures


def moving(images: Tensor, motion: Motion, size: tuple[int, int] | None = None) -> Tensor:
    """d/dt of maps (B,D,h,w) that move: minus velocity times central difference, reflected at the border.

    `size` is the image's in pixels, in which the velocity is given, where the map is coarser.
    """
    h, w = images.shape[-2:]
    H, W = size or (h, w)
    y, x = (from_middle(n, images.dtype, images.device) * (whole / n) for n, whole in ((h, H), (w, W)))
    vx, vy = motion(x.expand(h, w), y[:, None].expand(h, w))
    dx, dy = (_difference(images, axis) for axis in (-1, -2))
    return -(vx * (w / W) * dx + vy * (h / H) * dy)


def of_map(model: nn.Module, output: Tensor, motion: Motion, size: tuple[int, int]) -> Tensor:
    """How a tap's output would change if it moved with the image: not at all where it has no grid, as prefix tokens."""
    if output.ndim == 4:
        return moving(output, motion, size)
    if output.ndim != 3:
        return torch.zeros_like(output)
    prefix = prefix_of(model, output)
    patches = moving(to_grid(output, prefix), motion, size).flatten(2).transpose(1, 2)
    return torch.cat([torch.zeros_like(output[:, :prefix]), patches], 1)


def _difference(maps: Tensor, axis: int) -> Tensor:
    """Central; 0 at the border, where the reflected neighbours are one."""
    n = maps.shape[axis]
    difference = torch.zeros_like(maps)
    if n > 2:
        inner = (maps.narrow(axis, 2, n - 2) - maps.narrow(axis, 0, n - 2)) / 2
        difference.narrow(axis, 1, n - 2).copy_(inner)
    return difference


def moving_bilinearly(images: Tensor, motion: Motion) -> Tensor:
    """The same as autograd of the authors' resampling has it, t in units of the normalised grid (and of its sign).

    Where a pixel falls on the grid of float32 is, after rounding, a hair left or right of itself, and the left or the
    right difference is its slope.
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
    """Where in its cell of pixels a place in -1..1 lies, and the cell's first pixel."""
    pixels = ((places + 1) / 2) * (n - 1)
    return pixels - pixels.floor(), pixels.floor().long()
