"""Which positions does a position encoding make similar? The similarity of every pair is computed as by Dosovitskiy et
al. (2021, arXiv 2010.11929, figure 7, centre).

| encoding | similarity of positions i and j |
|---|---|
| learned, sincos1d, sincos2d (a table) | cosine of rows i and j |
| relative_bias, alibi2d (a bias) | the number added to the score of query i and key j, a map per block and head |
| rope (a rotation) | cosine between one constant vector turned at i and the same turned at j |
| rope_mixed (rotations of each block and head) | the same, a map per block and head |

Prefix tokens are left out. Where patches are merged (`model.hierarchy`), the bias or rotation of the later blocks has
maps on their own grid; the figure shows only the blocks before. An encoding that does several of these has several
maps. Where an encoding depends on the image (cpe), positions alone have no similarity, and the probe does not apply.

sayakpaul/probing-vits (notebooks/visualizing-positional-embeddings) shows dot products. Divided by the lengths of both
rows, they equal our cosines to 1e-15, on a learned table of a trained nano ViT. Its rows have lengths between 0.24 and
0.56, so the pictures differ (correlation 0.95); the paper's figure shows cosines.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vitbench.errors import DoesNotApply
from vitbench.models.vit import ViT
from vitbench.numbers import look
from vitbench.numbers.setting_words import CHOICES
from vitbench.pe.base import PositionEncoding
from vitbench.pe.menu import MENU
from vitbench.probes.attention_distance import apart
from vitbench.probes.subject import Row, Subject

PROTOCOL = "pe_similarity@v1"
Array = NDArray[np.float64]
SHOWN = 8  # the figure has at most so many maps a side


class Map(NamedTuple):
    """The similarities of all pairs of positions, (N,N), of one block and head or of all."""

    similarity: Array
    block: int | None = None  # counted from 1; None: all blocks have the same
    head: int | None = None  # counted from 1; None: all heads have the same
    is_bias: bool = False  # whether it is added to the scores; otherwise it is a cosine


def probe(subject: Subject, *, seed: int) -> list[Row]:
    """Measures four numbers of each map: by block (`layer`) and head (`at`) where these have maps of their own, and
    their means over all maps.

    `spearman` is the rank correlation of similarity with minus the distance, over pairs of different positions: it is 1
    where nearer always means more similar. `row_excess` says by how much two patches in the same row, two or more
    apart, are more similar than two patches at the same distance in different rows and columns (interpolated linearly
    between distances); `column_excess` likewise. Both are in units of the similarity, and 0 where only distance
    decides. `decay_length` is the distance in pixels at which the mean similarity has fallen to 1/e, on a scale from 1
    at distance 0 to 0 at its mean over all pairs. No image is used, so the numbers have no interval. Raises
    DoesNotApply where the network has no position encoding, or it tells positions nothing.
    """
    model = vit_of(subject)
    patch, grid = model.patch_size, grid_of_images(subject, model)
    if min(grid) < 2:
        raise DoesNotApply(f"its grid of {grid[0]} x {grid[1]} patches has too few positions")
    found = maps(model.pe, grid)
    of_each = [numbers(each.similarity, grid, patch) for each in found]
    if later := _maps_after_merging(model, grid):
        found += later
        of_each += [numbers(each.similarity, (grid[0] // 2, grid[1] // 2), 2 * patch) for each in later]
    rows: list[Row] = []
    for metric in of_each[0]:
        values = [numbers_[metric] for numbers_ in of_each]
        rows += [
            {
                "protocol": PROTOCOL,
                "metric": metric,
                "layer": f"block{each.block}",
                "at": each.head,
                "at_unit": "head",
                **_value(value),
            }
            for each, value in zip(found, values, strict=True)
            if each.block is not None
        ]
        defined = [value for value in values if not math.isnan(value)]
        rows.append(
            {"protocol": PROTOCOL, "metric": metric, **_value(sum(defined) / len(defined) if defined else math.nan)}
        )
    return rows


def _maps_after_merging(model: ViT, grid: tuple[int, int]) -> list[Map]:
    """Returns the maps of the later blocks' encoding on the merged grid; nothing where these blocks have none."""
    pe, merged = model.merged_pe, (grid[0] // 2, grid[1] // 2)
    if pe is None or not pe.acts_in_blocks() or min(merged) < 2:
        return []
    before = model.pe.geometry.depth
    return [each if each.block is None else each._replace(block=each.block + before) for each in maps(pe, merged)]


def _value(value: float) -> Row:
    reason = "positions are not more similar to themselves than to others, or not less similar to far ones"
    return {"value": value, **({"reason": reason} if math.isnan(value) else {})}


def vit_of(subject: Subject) -> ViT:
    if not isinstance(subject.model, ViT):
        raise DoesNotApply("it has no position encoding")
    return subject.model


def grid_of_images(subject: Subject, model: ViT) -> tuple[int, int]:
    height, width = subject.images.shape[-2:]
    return height // model.patch_size, width // model.patch_size


@torch.no_grad()
def maps(pe: PositionEncoding, grid: tuple[int, int]) -> list[Map]:
    """Computes maps from the encoding's hooks. Raises DoesNotApply where they say nothing about pairs of positions."""
    if pe.depends_on_image:
        raise DoesNotApply("its position encoding depends on the image, so positions alone have no similarity")
    geometry, N = pe.geometry, grid[0] * grid[1]
    prefix, device = geometry.prefix_tokens, next((t.device for t in [*pe.parameters(), *pe.buffers()]), None)
    found: list[Map] = []
    table = pe.embed(torch.zeros(1, prefix + N, geometry.width, device=device), grid)[0, prefix:].double()  # (N,D)
    if table.any():
        found.append(Map(_cosines(table)))
    constant = torch.ones(1, geometry.heads, prefix + N, geometry.width // geometry.heads, device=device)
    layers = range(geometry.depth)
    turned = torch.cat([pe.rotate(constant, constant, grid, layer)[0] for layer in layers])[:, :, prefix:].double()
    if (turned == turned[0, 0]).all():  # (L,A,N,E), alike in all L layers and A heads
        if (turned != 1).any():
            found.append(Map(_cosines(turned[0, 0])))
    else:
        for block, of_heads in enumerate(turned, start=1):
            found += [Map(_cosines(of_head), block, head) for head, of_head in enumerate(of_heads, start=1)]
    for layer in layers:
        if (bias := pe.bias(grid, layer)) is not None:
            of_heads = bias[:, prefix:, prefix:].double().cpu()
            found += [Map(of_head.numpy(), layer + 1, head, True) for head, of_head in enumerate(of_heads, start=1)]
    if not found:
        raise DoesNotApply("pe=none tells the tokens nothing about positions")
    return found


def _cosines(vectors: Tensor) -> Array:
    """Computes the cosine (N,N) of every pair of rows of (N,D)."""
    unit = F.normalize(vectors, dim=1)
    return (unit @ unit.T).cpu().numpy()


# ------------------------------------------------------------------------------------------------------------ numbers


def numbers(similarity: Array, grid: tuple[int, int], patch: int = 1) -> dict[str, float]:
    """Computes the numbers of a map (N,N). Distances are in patches; only the decay length is in pixels."""
    from scipy.stats import spearmanr

    distance = apart(*grid, 1).double().numpy().round(6)  # (N,N)
    two = ~np.eye(len(distance), dtype=bool)
    varies = np.ptp(similarity[two]) > 1e-12
    return {
        "spearman": float(spearmanr(similarity[two], -distance[two]).statistic) if varies else math.nan,
        **excess(similarity, distance, grid),
        "decay_length": patch * decay_length(similarity, distance),
    }


def excess(similarity: Array, distance: Array, grid: tuple[int, int]) -> dict[str, float]:
    """Compares pairs in the same row (column) with pairs in different rows and columns at the same distances."""
    row, column = np.divmod(np.arange(len(distance)), grid[1])
    one_row, one_column = row[:, None] == row, column[:, None] == column
    at, oblique = by_distance(similarity, distance, ~one_row & ~one_column)
    return {
        name: float((similarity[pairs] - np.interp(distance[pairs], at, oblique)).mean()) if pairs.any() else math.nan
        for name, pairs in {
            "row_excess": one_row & (distance > 1.5),
            "column_excess": one_column & (distance > 1.5),
        }.items()
    }


def decay_length(similarity: Array, distance: Array) -> float:
    at, mean = by_distance(similarity, distance, np.ones_like(distance, dtype=bool))
    floor = similarity[distance > 0].mean()
    if not mean[0] > floor:
        return math.nan
    left = (mean - floor) / (mean[0] - floor)  # 1 at distance 0
    below = np.flatnonzero(left <= 1 / math.e)
    if not len(below):
        return math.nan
    j = below[0]
    share = (left[j - 1] - 1 / math.e) / (left[j - 1] - left[j])
    return float(at[j - 1] + share * (at[j] - at[j - 1]))


def by_distance(similarity: Array, distance: Array, pairs: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Returns the distances that occur, ascending, and the mean similarity at each."""
    at, place = np.unique(distance[pairs], return_inverse=True)
    return at, np.bincount(place, similarity[pairs]) / np.bincount(place)


# ------------------------------------------------------------------------------------------------------------ picture


def draw(subject: Subject, *, seed: int, ending: str = ".png") -> bytes:
    """Draws a map for each position, as in the paper. Where blocks and heads differ, draws one by offset for each."""
    model = vit_of(subject)
    grid = grid_of_images(subject, model)
    found = maps(model.pe, grid)
    its_class = type(model.pe).__name__
    name = next(
        (CHOICES["pe"][pe] for pe, choice in MENU.items() if choice.target.endswith(f":{its_class}")), its_class
    )
    with look.figure_style():
        made = _positions(found[0], grid, name) if found[0].block is None else _offsets(found, grid, name)
        return look.save_figure(made, ending)


def _positions(found: Map, grid: tuple[int, int], name: str) -> Any:
    """Draws SHOWN x SHOWN small maps with gaps: each shows the similarity of one position to all others."""
    from matplotlib.figure import Figure

    h, w = grid
    rows, columns = (
        sorted({round(i * (side - 1) / (min(side, SHOWN) - 1)) for i in range(min(side, SHOWN))}) if side > 1 else [0]
        for side in grid
    )
    gap = max(1, round(max(h, w) / 8))
    whole = np.full((len(rows) * (h + gap) - gap, len(columns) * (w + gap) - gap), np.nan)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            one = found.similarity[row * w + column].reshape(h, w)
            whole[i * (h + gap) : i * (h + gap) + h, j * (w + gap) : j * (w + gap) + w] = one
    made = Figure(figsize=(4.6, 4.1 * max(1, len(rows) / len(columns))), layout="constrained")
    axes = made.subplots()
    shown = axes.imshow(whole, cmap="viridis", vmin=-1, vmax=1, interpolation="nearest")
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0)
    axes.set_xticks([j * (w + gap) + (w - 1) / 2 for j in range(len(columns))], [str(c + 1) for c in columns])
    axes.set_yticks([i * (h + gap) + (h - 1) / 2 for i in range(len(rows))], [str(r + 1) for r in rows])
    axes.set(xlabel="column of the patch", ylabel="row of the patch", title=f"How alike positions are ({name})")
    made.colorbar(shown, ax=axes, shrink=0.8, label="similarity (cosine)")
    return made


def _offsets(found: list[Map], grid: tuple[int, int], name: str) -> Any:
    """Draws similarities by the offset of the key from the query: a row for each block, a column for each head."""
    from matplotlib.figure import Figure

    tables = {(each.block, each.head): by_offset(each.similarity, grid) for each in found}
    blocks, heads = max(b for b, _ in tables if b), max(h for _, h in tables if h)
    if all(np.array_equal(tables[block, head], tables[1, head]) for block, head in tables if block and head):
        blocks = 1  # all blocks have the same maps
    low, high = (float(extreme(list(tables.values()))) for extreme in (np.min, np.max))
    made = Figure(figsize=(0.5 + 1.15 * heads + 0.9, 0.6 + 1.2 * blocks), layout="constrained")
    panels = made.subplots(blocks, heads, squeeze=False)
    h, w = grid
    for block in range(1, blocks + 1):
        for head in range(1, heads + 1):
            panel = panels[block - 1, head - 1]
            shown = panel.imshow(
                tables[block, head],
                cmap="viridis",
                vmin=low,
                vmax=high,
                interpolation="nearest",
                extent=(-w + 0.5, w - 0.5, h - 0.5, -h + 0.5),
            )
            panel.grid(False)
            panel.set(
                xticks=[-w + 1, 0, w - 1] if block == blocks else [], yticks=[-h + 1, 0, h - 1] if head == 1 else []
            )
            panel.tick_params(labelsize=7)
            if block == 1:
                panel.set_title(f"head {head}", fontsize=8, fontweight="normal")
        panels[block - 1, 0].set_ylabel(f"block {block}" if blocks > 1 else "all blocks", fontsize=8)
    what, unit = ("Bias", "added to the score") if found[0].is_bias else ("Rotation", "cosine")
    made.suptitle(f"{what} by the offset of the key, in patches ({name})", fontsize=10, fontweight="bold")
    made.colorbar(shown, ax=panels, shrink=0.8, label=unit)
    return made


def by_offset(similarity: Array, grid: tuple[int, int]) -> Array:
    """Averages over all pairs whose second position has the same offset (rows, columns) from the first, (2h-1,2w-1)."""
    h, w = grid
    row, column = np.divmod(np.arange(h * w), w)
    place = (row[None] - row[:, None] + h - 1) * (2 * w - 1) + (column[None] - column[:, None] + w - 1)  # (N,N)
    size = (2 * h - 1) * (2 * w - 1)
    total = np.bincount(place.ravel(), similarity.ravel(), size) / np.bincount(place.ravel(), minlength=size)
    return np.asarray(total.reshape(2 * h - 1, 2 * w - 1))
