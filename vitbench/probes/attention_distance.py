"""How far attention looks: its mean distance in the image, of every head (Dosovitskiy et al. 2021, arXiv 2010.11929,
appendix D.7 and figure 11).

A head of a block gives query i the weight a_ij for key j; d_ij is the distance of the centres of their patches:

    distance = mean over queries i and images of  sum_j a_ij d_ij / sum_j a_ij     i and j over patches

Prefix tokens are dropped as queries and as keys. Their share of the weight is then missing, so each row is divided by what
is left; `distance_raw` does not, and is shorter by as much as a head looks at its class token. Uniform attention over
8 x 8 patches of 4 px is 16.55 px, over the keys of the four central queries 12.38 px. Weights are computed from the
model's own queries and keys (`Attention.weights`): the fused kernel that trains and answers shows none.

Compared with sayakpaul/probing-vits (notebooks/mean-attention-distance-1k), run on the weights of two trained nano ViTs
(learned, rope) and 100 images: the 16 heads of each agree to 2e-8, relatively (15.5 to 19.8 px). With a class token, which
it drops without renormalising, it gives our `distance_raw` (to 3e-8); `distance` is 1.8 % longer on an untrained one.
The authors describe the same mean of distances weighted by attention (google-research/vision_transformer, issue 162).
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
from vitbench.probes.taps import central

PROTOCOL = "attention_distance@v1"


class Distances(NamedTuple):
    """In pixels, of every image, block and head: (M,L,A) each."""

    renormalised: Array
    raw: Array
    central: Array  # renormalised, of the queries in the middle alone
    uniform: float  # what uniform attention has, itself included
    uniform_central: float


def probe(subject: Subject, *, seed: int) -> list[Row]:
    """Distances by block and head, the smallest and the median head of each block and of all; images are resampled for
    the intervals, with the seed."""
    found = distances(subject)
    width = subject.images.shape[-1]
    rows: list[Row] = []

    def add(metric: str, of: Array, statistic: Callable[[Array], Array], layers: bool = True) -> None:
        """A statistic of the heads, of each block and of all heads; (M,L,A) are the distances that it is of."""
        M, L, A = of.shape
        places = [*range(L), None] if layers else [None]

        def each(means: Array) -> Array:  # (R,L*A) -> (R,places)
            heads = means.reshape(len(means), L, A)
            return np.stack([statistic(heads.reshape(len(means), -1) if i is None else heads[:, i]) for i in places], 1)

        value, low, high = bootstrap(of.reshape(M, L * A), each, seed)
        for n, place in enumerate(places):
            layer = {} if place is None else {"layer": f"block{place + 1}"}
            rows.append(make_row(PROTOCOL, metric, value[n], low[n], high[n], **layer))

    for metric, of, unit in (
        ("distance", found.renormalised, 1.0),
        ("distance_raw", found.raw, 1.0),
        ("share_of_width", found.renormalised, width),
        ("of_uniform", found.renormalised, found.uniform),
        ("distance_central", found.central, 1.0),
    ):
        M, L, A = of.shape
        value, low, high = (
            part.reshape(L, A) / unit for part in bootstrap(of.reshape(M, -1), lambda means: means, seed)
        )
        rows += [
            make_row(
                PROTOCOL, metric, value[i, a], low[i, a], high[i, a], layer=f"block{i + 1}", at=a + 1, at_unit="head"
            )
            for i in range(L)
            for a in range(A)
        ]
    add("smallest_head", found.renormalised, lambda heads: heads.min(1))
    add("median_head", found.renormalised, lambda heads: np.median(heads, 1))
    add("mean", found.renormalised, lambda heads: heads.mean(1))
    add("mean_central", found.central, lambda heads: heads.mean(1))
    add("smallest_head_of_uniform", found.renormalised / found.uniform, lambda heads: heads.min(1), layers=False)
    add("mean_of_uniform", found.renormalised / found.uniform, lambda heads: heads.mean(1), layers=False)
    for metric, level in {"uniform": found.uniform, "uniform_central": found.uniform_central}.items():
        rows.append(make_row(PROTOCOL, metric, level))
    return rows


@torch.no_grad()
def distances(subject: Subject) -> Distances:
    """Of every image, batched so that the weights of all blocks take about 64 MiB."""
    model = subject.model
    if not isinstance(model, ViT):
        raise DoesNotApply("it has no attention that can be read")
    height, width = (side // model.patch_size for side in subject.images.shape[-2:])
    if height * width == 1:
        raise DoesNotApply("its one patch has no other to look at")
    between = apart(height, width, model.patch_size).to(subject.images.device)
    middle = torch.tensor([row * width + column for row, column in central(height, width)], device=between.device)
    heads = sum(block.attn.heads for block in model.blocks)  # type: ignore[union-attr,misc]
    step = max(1, 2**24 // (heads * (len(between) + model.prefix_tokens) ** 2))
    parts = []
    for images in subject.images.split(step):
        blocks = [
            of_weights(weights[..., model.prefix_tokens :, model.prefix_tokens :], between, middle)
            for weights in model.attention(subject.normalise(images))
        ]
        parts.append(torch.stack(blocks, 2).cpu())  # (3,b,L,A)
    renormalised, raw, of_middle = torch.cat(parts, 1).double().numpy()
    return Distances(renormalised, raw, of_middle, between.mean().item(), between[middle].mean().item())


def apart(height: int, width: int, patch: int) -> Tensor:
    """Distances in pixels between the centres of patches, (N,N)."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([y.flatten(), x.flatten()], 1).double()
    return (patch * torch.cdist(places, places, compute_mode="donot_use_mm_for_euclid_dist")).float()


def of_weights(weights: Tensor, between: Tensor, middle: Tensor) -> Tensor:
    """Attention between patches (B,A,N,N), a row per query, whose rows may sum to less than 1: distances renormalised,
    raw, and renormalised of the middle queries, (3,B,A)."""
    raw = torch.einsum("baqk,qk->baq", weights, between)
    renormalised = raw / weights.sum(-1).clamp(min=torch.finfo(raw.dtype).tiny)
    return torch.stack([renormalised.mean(-1), raw.mean(-1), renormalised[..., middle].mean(-1)])


def draw(subject: Subject, *, seed: int, ending: str = ".svg") -> bytes:
    """Distance against depth, a dot a head, as in figure 11 of the paper."""
    found = distances(subject)
    with look.figure_style():
        return look.save_figure(_figure(found, subject), ending)


def _figure(found: Distances, subject: Subject) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    heads, width = found.renormalised.mean(0), subject.images.shape[-1]  # (L,A)
    blocks = np.arange(1, len(heads) + 1)
    made = Figure(figsize=(4.8, 3.5), layout="constrained")
    axes = made.subplots()
    axes.axhline(found.uniform, color="0.45", linewidth=0.9, linestyle=(0, (2, 2)), zorder=1, label="uniform attention")
    axes.plot(blocks, np.median(heads, 1), color=look.colour(0), linewidth=1.2, label="median head")
    for block, of_block in zip(blocks, heads, strict=True):
        axes.scatter(
            np.full(len(of_block), block),
            of_block,
            s=16,
            color=look.colour(0),
            alpha=0.55,
            linewidths=0,
            zorder=3,
            label="a head" if block == 1 else None,
        )
    axes.set(
        xlabel="block",
        ylabel="mean attention distance (px)",
        title="How far attention looks",
        ylim=(0, 1.08 * max(found.uniform, float(np.max(heads)))),
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    shares = axes.secondary_yaxis(
        "right", functions=(lambda px: np.divide(px, width), lambda share: np.multiply(share, width))
    )
    shares.set_ylabel("share of the image's width")
    axes.legend(loc="lower right", frameon=False)
    look.small_print(made, f"{len(subject.images):,} test images of {width} px; mean over queries and images.")
    return made
