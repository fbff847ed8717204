"""What the first layer looks for: a CNN's kernels, and the principal components of a ViT's patch embedding (Dosovitskiy et
al. 2021, arXiv 2010.11929, figure 7, left).

Numbers are of the bank of D filters w (C,k,k), the weights of the first convolution that takes the image; both
families have one. Kernels of 3 px and of 4 px cannot have the same frequencies: compare networks with their untrained
selves (checkpoint=init) before one with the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vitbench.errors import DoesNotApply
from vitbench.numbers import look
from vitbench.probes.subject import Row, Subject, make_row

PROTOCOL = "filters@v1"
COMPONENTS = (1, 2, 4, 8, 16, 28)  # the paper draws 28
FREQUENCIES = 32  # of a filter's spectrum along an axis: it is padded with zeros to as many pixels


def probe(subject: Subject, *, seed: int) -> list[Row]:
    """`variance_share` of the first k principal components (`at`); `effective_components`, (sum v)^2 / sum v^2 of the
    variances v: how many components would do if all were alike; `mean_frequency` in cycles per pixel, the mean of the
    radial frequency weighted by power over all filters (white noise has 0.38, whatever its size); `colour_share`,
    the energy in what differs between channels, of all energy (2/3 where three channels are independent; undefined
    for one channel).
    """
    w = first_convolution(subject).weight.detach().double().cpu()
    variances = components(w)[1]
    shares = variances.cumsum(0) / variances.sum()
    rows: list[Row] = [
        make_row(PROTOCOL, "variance_share", shares[k - 1].item(), at=k, at_unit="principal components")
        for k in COMPONENTS
        if k <= len(shares)
    ]
    colour = (w - w.mean(1, keepdim=True)).square().sum() / w.square().sum()
    scalars = {
        "effective_components": variances.sum() ** 2 / variances.square().sum(),
        "mean_frequency": mean_frequency(w),
    }
    rows += [make_row(PROTOCOL, name, value.item()) for name, value in scalars.items()]
    grey = "the images have one channel" if w.shape[1] == 1 else ""
    return [*rows, make_row(PROTOCOL, "colour_share", colour.item(), reason=grey)]


def first_convolution(subject: Subject) -> nn.Conv2d:
    channels = subject.images.shape[1]
    for module in subject.model.modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == channels:
            return module
    raise DoesNotApply("no convolution takes the image")


def components(w: Tensor) -> tuple[Tensor, Tensor]:
    """Principal components of filters (D,C,k,k), themselves filters (n,C,k,k) of length 1, and their variances (n,)."""
    flat = w.flatten(1)
    _, s, directions = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
    kept = s > s[0] * 1e-9
    largest = directions.gather(
        1, directions.abs().argmax(1, keepdim=True)
    )  # so that signs do not depend on the solver
    return (directions * largest.sign())[kept].unflatten(1, w.shape[1:]), s[kept].square() / max(1, len(w) - 1)


def mean_frequency(w: Tensor) -> Tensor:
    """Of filters (D,C,k,k), in cycles per pixel."""
    power = torch.fft.fft2(w, s=(FREQUENCIES, FREQUENCIES)).abs().square().sum((0, 1))
    along = torch.fft.fftfreq(FREQUENCIES, dtype=w.dtype)
    return (power * torch.hypot(along[:, None], along[None])).sum() / power.sum()


def draw(subject: Subject, *, seed: int, ending: str = ".png") -> bytes:
    """Components of a patch embedding (a convolution whose stride is its width), kernels of any other, as pictures."""
    layer = first_convolution(subject)
    w = layer.weight.detach().double().cpu()
    patches = layer.stride == layer.kernel_size
    with look.figure_style():
        return look.save_figure(_figure(w, patches), ending)


def _figure(w: Tensor, patches: bool) -> Any:
    from matplotlib.figure import Figure

    if patches:
        shown, variances = components(w)
        shares = (variances / variances.sum()).tolist()
        shown = shown[: COMPONENTS[-1]]
        title = f"First {len(shown)} principal components of the patch embedding"
        note = f"{len(w)} filters of {w.shape[2]}x{w.shape[3]} px; below each its share of their variance. "
    else:
        shown, shares = w[:64], None
        title = f"Kernels of the first convolution, {w.shape[2]}x{w.shape[3]} px"
        note = "All of them. " if len(w) <= 64 else f"The first 64 of {len(w)}. "
    columns = min(7 if patches else 8, len(shown))
    lines = -(-len(shown) // columns)
    made = Figure(
        figsize=(max(3.6, 0.62 * columns + 0.2), 0.85 + (0.78 if patches else 0.62) * lines), layout="constrained"
    )
    panels = made.subplots(lines, columns, squeeze=False).flat
    for panel in panels:
        panel.set_axis_off()
    for i, (panel, one) in enumerate(zip(made.axes, shown, strict=False)):
        picture = 0.5 + 0.5 * one / one.abs().max().clamp(min=1e-12)  # zero is grey
        if len(picture) != 3:
            picture = picture.mean(0, keepdim=True).expand(3, -1, -1)
        panel.imshow(np.asarray(picture.permute(1, 2, 0)), interpolation="nearest")
        if shares is not None:
            panel.set_title(f"{100 * shares[i]:.1f} %", fontsize=6.5, fontweight="normal", y=-0.32)
    made.suptitle(title, fontsize=10, fontweight="bold")
    look.small_print(made, note + "Grey is zero, each on its own scale.")
    return made
