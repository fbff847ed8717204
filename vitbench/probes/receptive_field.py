"""Effective receptive fields: which pixels a unit in the middle of each layer depends on (Luo et al. 2016, arXiv
1701.04128; Raghu et al. 2021, arXiv 2108.08810, figure 6), for every family of networks.

    G(p) = mean over images and channels c of  sum_rgb | d f_c(middle) / d x_p |,     divided by its sum

f is the output of a layer and x the normalised image. The absolute value is taken for each channel before averaging, so
that channels do not cancel. A grid with even sides has four positions in the middle; the images use them in turn, so
that G is centred in the image. A block has two fields: that of its output, and (`_before`) that of the branch that
mixes positions, before it is added to the residual stream. This branch is the attention of a ViT's block, the mixing of
tokens in a Mixer's block, and all convolutions of a ResNet's block.

We compared this with DingXiaoH/RepLKNet-pytorch, erf/visualize_erf.py (`get_input_grad`), on the last maps of a trained
nano ViT and ResNet and 32 images. The ViT has radius 10.99 there and 10.93 here, the ResNet 8.62 and 8.47; luo is 31.8
and 32.0, 27.3 and 29.7; half_mass is equal (22, 16). The maps correlate by only 0.59 and 0.82, for three reasons. That
code takes one position, at the right and below of the middle. It adds the channels up before it differentiates, so that
they may cancel. And it keeps only positive derivatives of positive units.
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
from vitbench.models.block import Block
from vitbench.models.mixer import MixerBlock
from vitbench.models.resnet import BasicBlock, Bottleneck
from vitbench.numbers import look
from vitbench.probes.distorted import at_least_one
from vitbench.probes.subject import Row, Subject, make_row
from vitbench.probes.taps import batch_size_for, from_middle, grid_of, middle_positions, taps_of

PROTOCOL = "receptive_field@v1"
POINTWISE = ("norm", "head")  # taps that see no more pixels than the layer before them
LUO = 1 - 0.9545  # the share of the peak above which Luo et al. count a pixel
MAPS_DRAWN = 10  # a row of the figure has at most so many maps


class Field(NamedTuple):
    """The fields of one layer, (H,W) each, which sum to 1."""

    after: Tensor | None  # the field of its output; None where it is 0 everywhere
    before: Tensor | None  # the field of its branch; None where it is 0 everywhere, or there is no branch
    has_branch: bool


def probe(subject: Subject, *, seed: int, images: int = 32, channels: int = 16) -> list[Row]:
    """Measures the extent of both fields of every layer with a grid; rows without `layer` are about the last layer.

    `radius` is the mean distance from the image's middle in pixels, sum_p G(p) |p - middle|: 12.24 for a uniform field
    of 32 px. It has the same unit as the attention distance of the four central queries. `of_uniform` is the radius
    over that of a uniform field. `half_mass` is the side in pixels of the smallest centred square that holds half of G,
    and `luo` is the square root of the number of pixels above 4.55 % of the peak (Luo's size).

    A field takes `channels` backward passes, so only the first `images` test images are used. With 64 images in place
    of 32, the radius of no output of a trained nano ViT and ResNet changed by more than 0.25 px; with other channels,
    by no more than 0.12 px. The seed chooses the channels. Raises DoesNotApply where no layer has a grid.
    """
    layer_fields = fields(subject, seed, images, channels)
    rows: list[Row] = []
    last = list(layer_fields)[-1]
    for layer in [*layer_fields, None]:
        field = layer_fields[layer or last]
        where: dict[str, Any] = {} if layer is None else {"layer": layer}
        for suffix, density in (("", field.after), ("_before", field.before)):
            if suffix and not field.has_branch:
                continue
            for metric, value in extents(density).items():
                reason = "no pixel changes this layer" if density is None else ""
                rows.append(make_row(PROTOCOL, f"{metric}{suffix}", value, reason=reason, **where))
    return rows


def extents(field: Tensor | None) -> dict[str, float]:
    """Measures in four ways how far a field (H,W) of sum 1 reaches."""
    if field is None:
        return dict.fromkeys(("radius", "of_uniform", "half_mass", "luo"), math.nan)
    y, x = from_middle(field.shape[0])[:, None], from_middle(field.shape[1])
    distance = torch.hypot(y, x)
    side = 2 * torch.maximum(y.abs(), x.abs()) + 1  # the side of the centred square on whose edge a pixel is
    sides, order = side.flatten().sort()
    mass = field.flatten()[order].cumsum(0)
    radius = (field * distance).sum().item()
    return {
        "radius": radius,
        "of_uniform": radius / distance.mean().item(),
        "half_mass": next(s for s in sides.unique().tolist() if mass[sides <= s][-1] >= 0.5 - 1e-9),
        "luo": math.sqrt((field > LUO * field.max()).sum().item()),
    }


@lru_cache(maxsize=1)  # the figure shows the same fields as the rows
def fields(subject: Subject, seed: int, images: int, channels: int) -> dict[str, Field]:
    """Computes the fields of every layer with a grid, in depth order. Raises DoesNotApply where no layer has one."""
    at_least_one("probe.receptive_field.images", images)
    at_least_one("probe.receptive_field.channels", channels)
    model, pixels = subject.model, subject.images[:images]
    taps = {name: module for name, module in taps_of(model).items() if name not in POINTWISE}
    branches = {name: branch for name, module in taps.items() if (branch := branch_of(module)) is not None}
    # a key has the name of a tap, and whether its branch is meant
    modules = {(name, True): branch for name, branch in branches.items()}
    modules |= {(name, False): module for name, module in taps.items()}
    sums: dict[tuple[str, bool], Tensor] = {}
    # the graph of a backward pass takes more memory than the taps alone
    batch_size = max(1, batch_size_for(model, subject.normalise(pixels[:1])) // 4)
    for start in range(0, len(pixels), batch_size):
        batch = subject.normalise(pixels[start : start + batch_size]).detach().requires_grad_()
        with watch(modules) as outputs:
            model(batch)
        for key, output in outputs.items():
            try:
                grid = grid_of(model, key[0], {key[0]: output})
            except ValueError:  # the output is a vector
                continue
            if grid.shape[2] * grid.shape[3] > 1:
                sums[key] = sums.get(key, 0) + _sum_of_gradients(grid, batch, start, channels, seed)
    layer_fields = {
        name: Field(_share(sums[name, False]), _share(sums.get((name, True))), (name, True) in sums)
        for name in taps
        if (name, False) in sums
    }
    if not layer_fields:
        raise DoesNotApply("none of its layers has more than one position")
    return layer_fields


def _sum_of_gradients(grid: Tensor, batch: Tensor, start: int, channels: int, seed: int) -> Tensor:
    """Sums absolute gradients over the images of a batch and channels, (H,W).

    The images use the middle positions in turn; `start` is the number of the first image.
    """
    middle = middle_positions(grid.shape[2], grid.shape[3])
    each = torch.arange(len(batch))
    rows, columns = torch.tensor([middle[(start + i) % len(middle)] for i in range(len(batch))]).unbind(1)
    random = torch.Generator().manual_seed(seed)
    total = torch.zeros(batch.shape[2:], dtype=torch.float64)
    for channel in torch.randperm(grid.shape[1], generator=random)[:channels].tolist():
        # in evaluation mode a unit depends only on its own image, so one sum gives the gradients of all images
        units = grid[each, channel, rows, columns].sum()
        if not units.requires_grad:
            continue
        (gradient,) = torch.autograd.grad(units, batch, retain_graph=True, materialize_grads=True)
        total += gradient.abs().sum((0, 1)).double().cpu()
    return total


def _share(total: Tensor | None) -> Tensor | None:
    return total / total.sum() if total is not None and total.sum() > 0 else None


def branch_of(module: nn.Module) -> nn.Module | None:
    """Returns the module of a residual block that mixes positions and is added to the block's input; None for other
    modules."""
    if isinstance(module, Block):
        return module.attn
    if isinstance(module, MixerBlock):
        return module.mixing
    if isinstance(module, Bottleneck):
        return module.bn3
    return module.bn2 if isinstance(module, BasicBlock) else None


@contextmanager
def watch(modules: dict[tuple[str, bool], nn.Module]) -> Iterator[dict[tuple[str, bool], Tensor]]:
    """Records the outputs of modules. The next module gets a copy, which residual sums may overwrite in place."""
    outputs: dict[tuple[str, bool], Tensor] = {}

    def keep(key: tuple[str, bool], output: Any) -> Any:
        if not isinstance(output, Tensor):
            return output
        outputs[key] = output
        return output.clone()

    handles = [
        module.register_forward_hook(lambda module, inputs, output, key=key: keep(key, output))
        for key, module in modules.items()
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


# -------------------------------------------------------------------------------------------------------------- figure


def draw(subject: Subject, *, seed: int, ending: str = ".png", images: int = 32, channels: int = 16) -> bytes:
    """Draws the fields against depth: above of each layer's output, below of its branch before the residual sum."""
    layer_fields = fields(subject, seed, images, channels)
    with look.figure_style():
        return look.save_figure(_figure(layer_fields, min(images, len(subject.images)), channels), ending)


def _figure(layer_fields: dict[str, Field], images: int, channels: int) -> Any:
    from matplotlib.figure import Figure

    names = list(layer_fields)
    if len(names) > MAPS_DRAWN:
        names = [names[round(i * (len(names) - 1) / (MAPS_DRAWN - 1))] for i in range(MAPS_DRAWN)]
    lines = 1 + any(field.has_branch for field in layer_fields.values())
    figure = Figure(figsize=(max(4.2, 0.95 * len(names) + 0.5), 0.95 + 1.12 * lines), layout="constrained")
    panels = figure.subplots(lines, len(names), squeeze=False)
    for column, name in enumerate(names):
        panels[0, column].set_title(name, fontsize=8, fontweight="normal")
        for panel, field in zip(panels[:, column], (layer_fields[name].after, layer_fields[name].before), strict=False):
            panel.set(xticks=[], yticks=[])
            panel.grid(False)
            if field is None:
                panel.set_axis_off()
                continue
            for spine in panel.spines.values():
                spine.set(visible=True, linewidth=0.5, color="0.6")
            panel.imshow((field / field.max()).sqrt().numpy(), cmap="magma", vmin=0, vmax=1, interpolation="nearest")
            panel.set_xlabel(f"{extents(field)['radius']:.1f} px", fontsize=8, labelpad=2)
    panels[0, 0].set_ylabel("output", fontsize=8)
    if lines == 2:
        first = next(i for i, name in enumerate(names) if layer_fields[name].has_branch)
        panels[1, first].set_ylabel("before the sum", fontsize=8)
    figure.suptitle("Effective receptive fields", fontsize=10, fontweight="bold")
    H, W = next(field.after.shape for field in layer_fields.values() if field.after is not None)
    note = (
        f"Each map shows how much the pixels of an image ({W} x {H} px) change a unit in its middle, as the square"
        " root of their share of the peak. Below it stands their mean distance from the middle."
        f" Means over {images} test images and {channels} channels of each layer."
    )
    look.small_print(figure, look.wrapped(note, figure.get_figwidth() - 0.1, look.SMALL))
    return figure
