"""Effective receptive fields: which pixels a unit in the middle of each layer answers to (Luo et al. 2016, arXiv
1701.04128; Raghu et al. 2021, arXiv 2108.08810, figure 6), for every family of networks.

    G(p) = mean over images and K channels c of  sum_rgb | d f_c(middle) / d x_p |,     divided by its sum

f is the output of a layer, x the normalised image; the absolute value is taken for each channel, before anything is
averaged, so that channels do not cancel. On grids of even sides there are four positions in the middle: images look
from each of them in turn, and G is centred in the image. Of a block two fields are taken: of its output, and (`_before`)
of the branch with which it looks around itself before that is added to the residual stream: the attention of a ViT's
block, all convolutions of a ResNet's.

Compared with DingXiaoH/RepLKNet-pytorch, erf/visualize_erf.py (`get_input_grad`), on the last maps of a trained nano ViT
and ResNet and 32 images: radius 10.99 there and 10.93 here, 8.62 and 8.47; luo 31.8 and 32.0, 27.3 and 29.7; half_mass
equal (22, 16). The maps correlate with 0.59 and 0.82 only: it looks from one position, right and below of the middle;
it adds the channels up before it differentiates, so that they may cancel; and it keeps positive derivatives of positive
units alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vitbench.errors import DoesNotApply
from vitbench.models.resnet import BasicBlock, Bottleneck
from vitbench.models.vit import Block
from vitbench.numbers import look
from vitbench.probes.distorted import at_least_one
from vitbench.probes.subject import Row, Subject, make_row
from vitbench.probes.taps import batch_size_for, from_middle, grid_of, middle_positions, taps_of

PROTOCOL = "receptive_field@v1"
POINTWISE = ("norm", "head")  # taps that look no further than the layer before them
LUO = 1 - 0.9545  # of the peak: two deviations of a Gaussian
COLUMNS = 10  # maps in a row of the figure


class Field(NamedTuple):
    """Of one layer, (H,W) each, of sum 1; None where it is 0 everywhere, or there is no branch."""

    after: Tensor | None
    before: Tensor | None
    has_branch: bool


def probe(subject: Subject, *, seed: int, images: int = 32, channels: int = 16) -> list[Row]:
    """Three numbers of each map, of every layer with a grid, in pixels, and without `layer` those of the last one.

    `radius` is the mean distance from the image's middle, sum_p G(p) |p - middle|: 12.24 for a uniform field of 32 px,
    and in one unit with the attention distance of the four central queries. `half_mass` is the side of the smallest
    centred square that holds half of G, `luo` the square root of the number of pixels above 4.55 % of the peak (Luo's
    size). `of_uniform` is the radius against that of a uniform field.

    A map is `channels` backward passes, so only the first `images` of the test images are used. With 64 in place of 32
    no output of a trained nano ViT and ResNet changed its radius by more than 0.25 px, with other channels by 0.12 px.
    The seed chooses the channels.
    """
    found = fields(subject, seed, images, channels)
    rows: list[Row] = []
    last = list(found)[-1]
    for layer in [*found, None]:
        field = found[layer or last]
        where: dict[str, Any] = {} if layer is None else {"layer": layer}
        for suffix, at in (("", field.after), ("_before", field.before)):
            if suffix and not field.has_branch:
                continue
            for metric, value in numbers(at).items():
                reason = "no pixel changes this layer" if at is None else ""
                rows.append(make_row(PROTOCOL, f"{metric}{suffix}", value, reason=reason, **where))
    return rows


def numbers(field: Tensor | None) -> dict[str, float]:
    """What a map (H,W) of sum 1 comes down to."""
    if field is None:
        return dict.fromkeys(("radius", "of_uniform", "half_mass", "luo"), math.nan)
    y, x = from_middle(field.shape[0])[:, None], from_middle(field.shape[1])
    distance = torch.hypot(y, x)
    side = 2 * torch.maximum(y.abs(), x.abs()) + 1  # of the centred square on whose edge a pixel lies
    sides, order = side.flatten().sort()
    mass = field.flatten()[order].cumsum(0)
    radius = (field * distance).sum().item()
    return {
        "radius": radius,
        "of_uniform": radius / distance.mean().item(),
        "half_mass": next(s for s in sides.unique().tolist() if mass[sides <= s][-1] >= 0.5 - 1e-9),
        "luo": math.sqrt((field > LUO * field.max()).sum().item()),
    }


@lru_cache(maxsize=1)  # the figure shows what the rows were made of
def fields(subject: Subject, seed: int, images: int, channels: int) -> dict[str, Field]:
    """Of every layer with a grid, in depth order; DoesNotApply where none has one."""
    for option, value in {"images": images, "channels": channels}.items():
        at_least_one(f"probe.receptive_field.{option}", value)
    model, chosen = subject.model, subject.images[:images]
    places = {name: module for name, module in taps_of(model).items() if name not in POINTWISE}
    branches = {name: branch for name, module in places.items() if (branch := branch_of(module)) is not None}
    sums: dict[tuple[str, bool], Tensor] = {}
    step = max(
        1, batch_size_for(model, subject.normalise(chosen[:1])) // 4
    )  # the graph is kept, which is more than the taps
    for start in range(0, len(chosen), step):
        batch = subject.normalise(chosen[start : start + step]).detach().requires_grad_()
        with watch(
            {(name, True): branch for name, branch in branches.items()}
            | {(name, False): module for name, module in places.items()}
        ) as seen:
            model(batch)
        for key, output in seen.items():
            try:
                grid = grid_of(model, key[0], {key[0]: output})
            except ValueError:  # a vector
                continue
            if grid.shape[2] * grid.shape[3] > 1:
                sums[key] = sums.get(key, 0) + _sum_of_gradients(grid, batch, start, channels, seed)
    found = {
        name: Field(_share(sums[name, False]), _share(sums.get((name, True))), (name, True) in sums)
        for name in places
        if (name, False) in sums
    }
    if not found:
        raise DoesNotApply("none of its layers has more than one position")
    return found


def _sum_of_gradients(grid: Tensor, batch: Tensor, start: int, channels: int, seed: int) -> Tensor:
    """(H,W): over images and channels; image i looks from the i-th of the middle positions, and begins again."""
    middle = middle_positions(grid.shape[2], grid.shape[3])
    each = torch.arange(len(batch))
    rows, columns = torch.tensor([middle[(start + i) % len(middle)] for i in range(len(batch))]).unbind(1)
    random = torch.Generator().manual_seed(seed)
    total = torch.zeros(batch.shape[2:], dtype=torch.float64)
    for channel in torch.randperm(grid.shape[1], generator=random)[:channels].tolist():
        units = grid[each, channel, rows, columns].sum()  # images do not meet in evaluation mode
        if not units.requires_grad:
            continue
        (gradient,) = torch.autograd.grad(units, batch, retain_graph=True, materialize_grads=True)
        total += gradient.abs().sum((0, 1)).double().cpu()
    return total


def _share(total: Tensor | None) -> Tensor | None:
    return total / total.sum() if total is not None and total.sum() > 0 else None


def branch_of(module: nn.Module) -> nn.Module | None:
    """What a residual block adds to its input, where it looks around; None of other modules."""
    if isinstance(module, Block):
        return module.attn
    if isinstance(module, Bottleneck):
        return module.bn3
    return module.bn2 if isinstance(module, BasicBlock) else None


@contextmanager
def watch(places: dict[tuple[str, bool], nn.Module]) -> Iterator[dict[tuple[str, bool], Tensor]]:
    """The outputs of modules as they were: what follows gets a copy, which it may overwrite (residual sums do)."""
    seen: dict[tuple[str, bool], Tensor] = {}

    def keep(key: tuple[str, bool], output: Any) -> Any:
        if not isinstance(output, Tensor):
            return output
        seen[key] = output
        return output.clone()

    handles = [
        module.register_forward_hook(lambda module, inputs, output, key=key: keep(key, output))
        for key, module in places.items()
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


# ------------------------------------------------------------------------------------------------------------ picture


def draw(subject: Subject, *, seed: int, ending: str = ".png", images: int = 32, channels: int = 16) -> bytes:
    """The maps against depth: of each layer's output, and below of its branch before the residual sum."""
    found = fields(subject, seed, images, channels)
    with look.figure_style():
        return look.save_figure(_figure(found, min(images, len(subject.images)), channels), ending)


def _figure(found: dict[str, Field], images: int, channels: int) -> Any:
    from matplotlib.figure import Figure

    names = list(found)
    if len(names) > COLUMNS:
        names = [names[round(i * (len(names) - 1) / (COLUMNS - 1))] for i in range(COLUMNS)]
    lines = 1 + any(field.has_branch for field in found.values())
    made = Figure(figsize=(max(4.2, 0.95 * len(names) + 0.5), 0.75 + 1.12 * lines), layout="constrained")
    panels = made.subplots(lines, len(names), squeeze=False)
    for column, name in enumerate(names):
        panels[0, column].set_title(name, fontsize=8, fontweight="normal")
        for panel, field in zip(panels[:, column], (found[name].after, found[name].before), strict=False):
            panel.set(xticks=[], yticks=[])
            panel.grid(False)
            if field is None:
                panel.set_axis_off()
                continue
            for spine in panel.spines.values():
                spine.set(visible=True, linewidth=0.5, color="0.6")
            panel.imshow((field / field.max()).sqrt().numpy(), cmap="magma", vmin=0, vmax=1, interpolation="nearest")
            panel.set_xlabel(f"{numbers(field)['radius']:.1f} px", fontsize=8, labelpad=2)
    panels[0, 0].set_ylabel("output", fontsize=8)
    if lines == 2:
        first = next(i for i, name in enumerate(names) if found[name].has_branch)
        panels[1, first].set_ylabel("before the sum", fontsize=8)
    made.suptitle("Effective receptive fields", fontsize=10, fontweight="bold")
    H, W = next(field.after.shape for field in found.values() if field.after is not None)
    look.small_print(
        made,
        f"Of a unit in the middle, in the image of {W} x {H} px; below each its radius. Square root\n"
        f"of the share of the peak; {images} test images, {channels} channels a layer.",
    )
    return made
