"""Measures how far attention looks: the mean distance in the image, for every head of a ViT (Dosovitskiy et al. 2021,
arXiv 2010.11929, appendix D.7 and figure 11).

A head gives key j the weight a_ij for query i; d_ij is the distance between the centres of their patches:

    distance = mean over queries i and images of  sum_j a_ij d_ij / sum_j a_ij     i and j over patches

Prefix tokens are dropped as queries and as keys. Each row of weights then lacks their share, and is divided by the sum
that is left. `distance_raw` is not divided, so it is shorter the more a head looks at its class token. Uniform
attention over 8 x 8 patches of 4 px has a distance of 16.55 px, and of 12.38 px for the four central queries. The
weights are computed from the model's own queries and keys (`Attention.weights`), because the fused kernel with which it
trains returns none.

We compared this with sayakpaul/probing-vits (notebooks/mean-attention-distance-1k) on the weights of two trained nano
ViTs (learned, rope) and 100 images. The 16 heads of each agree to a relative 2e-8 (15.5 to 19.8 px). That code drops a
class token without renormalising, which is our `distance_raw` (to 3e-8); `distance` is 1.8 % longer on an untrained ViT
with a class token. The authors describe the same mean of distances weighted by attention
(google-research/vision_transformer, issue 162).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vitbench.errors import DoesNotApply
from vitbench.models.vit import ViT
from vitbench.numbers import look
from vitbench.probes.distorted import Array, bootstrap
from vitbench.probes.subject import Row, Subject, make_row
from vitbench.probes.taps import NUMBERS_KEPT, middle_positions

PROTOCOL = "attention_distance@v1"


class Distances(NamedTuple):
    """Distances in pixels for every image, block and head (M,L,A), and those of uniform attention."""

    renormalised: Array
    raw: Array
    central: Array  # renormalised, only for the queries in the middle
    uniform: Array  # uniform attention over the tokens of each block (L,)
    uniform_central: Array  # the same, only for the queries in the middle (L,)


def probe(subject: Subject, *, seed: int) -> list[Row]:
    """Measures every head, the smallest, median and mean head of each block and of all blocks, and uniform attention.

    Intervals are bootstraps over images, drawn with the seed. Where tokens are merged (`model.hierarchy`), uniform
    attention is over each block's own tokens, and the rows `uniform` are those of the first block.
    """
    measured = distances(subject)
    of_uniform = measured.renormalised / measured.uniform[:, None]
    rows: list[Row] = []
    for metric, values, unit in (
        ("distance", measured.renormalised, 1.0),
        ("distance_raw", measured.raw, 1.0),
        ("share_of_width", measured.renormalised, subject.images.shape[-1]),
        ("of_uniform", of_uniform, 1.0),
        ("distance_central", measured.central, 1.0),
    ):
        rows += _rows_by_head(metric, values, unit, seed)
    rows += _rows_by_block("smallest_head", measured.renormalised, lambda heads: heads.min(1), seed)
    rows += _rows_by_block("median_head", measured.renormalised, lambda heads: np.median(heads, 1), seed)
    rows += _rows_by_block("mean", measured.renormalised, lambda heads: heads.mean(1), seed)
    rows += _rows_by_block("mean_central", measured.central, lambda heads: heads.mean(1), seed)
    rows += _rows_by_block("smallest_head_of_uniform", of_uniform, lambda heads: heads.min(1), seed)[-1:]
    rows += _rows_by_block("mean_of_uniform", of_uniform, lambda heads: heads.mean(1), seed)[-1:]
    rows.append(make_row(PROTOCOL, "uniform", measured.uniform[0]))
    return [*rows, make_row(PROTOCOL, "uniform_central", measured.uniform_central[0])]


def _rows_by_head(metric: str, values: Array, unit: float, seed: int) -> list[Row]:
    """Makes a row for each head: the mean over images of `values` (M,L,A), divided by the unit."""
    M, L, A = values.shape
    value, low, high = (part / unit for part in bootstrap(values.reshape(M, L * A), lambda means: means, seed))
    rows = []
    for i, (block, head) in enumerate(np.ndindex(L, A)):
        where: dict[str, Any] = {"layer": f"block{block + 1}", "at": head + 1, "at_unit": "head"}
        rows.append(make_row(PROTOCOL, metric, value[i], low[i], high[i], **where))
    return rows


def _rows_by_block(metric: str, values: Array, statistic: Callable[[Array], Array], seed: int) -> list[Row]:
    """Makes a row for each block and one for all: a statistic over heads of the mean over images of `values` (M,L,A).

    The statistic maps (R,heads) of R resamples to (R,).
    """
    M, L, A = values.shape

    def over_heads(means: Array) -> Array:  # (R,L*A) -> (R,L+1)
        blocks = means.reshape(len(means), L, A)
        return np.stack([*(statistic(blocks[:, block]) for block in range(L)), statistic(means)], 1)

    value, low, high = bootstrap(values.reshape(M, L * A), over_heads, seed)
    layers: list[dict[str, Any]] = [*({"layer": f"block{block + 1}"} for block in range(L)), {}]
    return [make_row(PROTOCOL, metric, value[i], low[i], high[i], **layer) for i, layer in enumerate(layers)]


@torch.no_grad()
def distances(subject: Subject) -> Distances:
    """Measures all images, in batches for which the weights of all blocks take about 64 MiB.

    Raises DoesNotApply where the network has no readable attention, or only one patch.
    """
    model = subject.model
    if not isinstance(model, ViT):
        raise DoesNotApply("it has no attention that can be read")
    height, width = subject.images.shape[-2:]
    device, prefix = subject.images.device, model.prefix_tokens
    between, middle = [], []  # of each block's tokens
    for patch in model.patch_sizes:
        h, w = height // patch, width // patch
        if h * w == 1:
            raise DoesNotApply("it has only one patch, which has no other to look at")
        between.append(apart(h, w, patch).to(device))
        middle.append(torch.tensor([row * w + column for row, column in middle_positions(h, w)], device=device))
    heads = sum(block.attn.heads for block in model.blocks)  # type: ignore[union-attr,misc]
    batch_size = max(1, NUMBERS_KEPT // (heads * (len(between[0]) + prefix) ** 2))
    parts = []
    for images in subject.images.split(batch_size):
        blocks = [
            distances_of_weights(weights[..., prefix:, prefix:], *place)
            for weights, *place in zip(model.attention(subject.normalise(images)), between, middle, strict=True)
        ]
        parts.append(torch.stack(blocks, 2).cpu())  # (3,B,L,A)
    renormalised, raw, central = torch.cat(parts, 1).double().numpy()
    uniform = np.array([one.mean().item() for one in between])
    uniform_central = np.array([one[queries].mean().item() for one, queries in zip(between, middle, strict=True)])
    return Distances(renormalised, raw, central, uniform, uniform_central)


def apart(height: int, width: int, patch: int) -> Tensor:
    """Returns the distances in pixels between the centres of all patches, (N,N)."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([y.flatten(), x.flatten()], 1).double()
    return (patch * torch.cdist(places, places, compute_mode="donot_use_mm_for_euclid_dist")).float()


def distances_of_weights(weights: Tensor, between: Tensor, middle: Tensor) -> Tensor:
    """Returns mean distances (3,B,A): renormalised, raw, and renormalised only for the middle queries.

    `weights` is the attention between patches (B,A,N,N), with a row for each query; rows may sum to less than 1.
    """
    raw = torch.einsum("baqk,qk->baq", weights, between)
    renormalised = raw / weights.sum(-1).clamp(min=torch.finfo(raw.dtype).tiny)
    return torch.stack([renormalised.mean(-1), raw.mean(-1), renormalised[..., middle].mean(-1)])


# -------------------------------------------------------------------------------------------------------------- figure


def draw(subject: Subject, *, seed: int, ending: str = ".svg") -> bytes:
    """Draws distance against depth, a dot for each head, as in figure 11 of the paper."""
    measured = distances(subject)
    with look.figure_style():
        return look.save_figure(_figure(measured, subject), ending)


def _figure(measured: Distances, subject: Subject) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    heads, width = measured.renormalised.mean(0), subject.images.shape[-1]  # (L,A)
    blocks, uniform = np.arange(1, len(heads) + 1), measured.uniform[0]
    figure = Figure(figsize=(4.8, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.axhline(
        uniform,
        color="0.45",
        linewidth=0.9,
        linestyle=(0, (2, 2)),
        zorder=1,
        label="attention that looks everywhere alike",
    )
    axes.plot(blocks, np.median(heads, 1), color=look.colour(0), linewidth=1.2, label="median head")
    dots: dict[str, Any] = {"s": 16, "color": look.colour(0), "alpha": 0.55, "linewidths": 0, "zorder": 3}
    for block, block_heads in zip(blocks, heads, strict=True):
        label = "a head" if block == 1 else None
        axes.scatter(np.full(len(block_heads), block), block_heads, label=label, **dots)
    axes.set(xlabel="block", ylabel="mean attention distance (px)", title="How far attention looks")
    axes.set_ylim(0, 1.08 * max(uniform, float(np.max(heads))))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    to_share, to_pixels = (lambda px: np.divide(px, width)), (lambda share: np.multiply(share, width))
    shares = axes.secondary_yaxis("right", functions=(to_share, to_pixels))
    shares.set_ylabel("share of the image's width")
    axes.legend(loc="lower right", frameon=False)
    look.small_print(
        figure,
        f"Means over {len(subject.images):,} test images of {width} px and all places from which attention looks.",
    )
    return figure
