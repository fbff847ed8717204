"""Shows what the first layer looks for: a CNN's kernels, and the principal components of a ViT's patch embedding
(Dosovitskiy et al. 2021, arXiv 2010.11929, figure 7, left).

The numbers are about the D filters w (C,k,k) of the first convolution that takes the image, which CNNs and ViTs have.
Kernels of 3 px and of 4 px cannot have the same frequencies, so compare a network with its untrained state
(checkpoint=init) before you compare it with another network.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vitbench.errors import DoesNotApply
from vitbench.models.local import RandomConv2d
from vitbench.numbers import look
from vitbench.probes.subject import Row, Subject, make_row

PROTOCOL = "filters@v1"
COMPONENTS = (1, 2, 4, 8, 16, 28)  # how many are counted; the paper draws 28
FREQUENCIES = 32  # along each axis of a filter's spectrum: zeros pad the filter to as many pixels


def probe(subject: Subject, *, seed: int) -> list[Row]:
    """Measures four numbers, without intervals because no image is used.

    - `variance_share` of the first k principal components, by k (`at`).
    - `effective_components`, (sum v)^2 / sum v^2 of the variances v: the equivalent number of components with equal
      variances.
    - `mean_frequency` in cycles per pixel: the radial frequency, weighted by power over all filters (white noise has
      0.38 at any size).
    - `colour_share`: the share of the energy that is in differences between channels (2/3 for three independent
      channels, undefined for one channel).

    Raises DoesNotApply where the network has no such convolution.
    """
    w = first_convolution(subject).weight.detach().double().cpu()
    variances = components(w)[1]
    shares = variances.cumsum(0) / variances.sum()
    rows: list[Row] = [
        make_row(PROTOCOL, "variance_share", shares[k - 1].item(), at=k, at_unit="principal components")
        for k in COMPONENTS
        if k <= len(shares)
    ]
    effective = variances.sum() ** 2 / variances.square().sum()
    colour_share = (w - w.mean(1, keepdim=True)).square().sum() / w.square().sum()
    one_channel = "the images have one channel" if w.shape[1] == 1 else ""
    rows.append(make_row(PROTOCOL, "effective_components", effective.item()))
    rows.append(make_row(PROTOCOL, "mean_frequency", mean_frequency(w).item()))
    return [*rows, make_row(PROTOCOL, "colour_share", colour_share.item(), reason=one_channel)]


def first_convolution(subject: Subject) -> nn.Conv2d:
    """Finds the first convolution that takes as many channels as the images have."""
    channels = subject.images.shape[1]
    for module in subject.model.modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == channels:
            if not has_neighbouring_taps(module):
                raise DoesNotApply("the taps of its first convolution are not next to each other")
            return module
    raise DoesNotApply("no convolution takes the image")


def has_neighbouring_taps(layer: nn.Module | None) -> bool:
    """Whether a layer is a convolution whose kernel is a picture."""
    return isinstance(layer, nn.Conv2d) and not isinstance(layer, RandomConv2d) and layer.dilation == (1, 1)


def components(w: Tensor) -> tuple[Tensor, Tensor]:
    """Computes the principal components of filters (D,C,k,k), as filters (n,C,k,k) of length 1, and variances (n,)."""
    flat = w.flatten(1)
    _, s, directions = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
    kept = s > s[0] * 1e-9
    # a component's largest weight is made positive, so that its sign does not depend on the solver
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    return (directions * largest.sign())[kept].unflatten(1, w.shape[1:]), s[kept].square() / max(1, len(w) - 1)


def mean_frequency(w: Tensor) -> Tensor:
    """Computes the mean radial frequency of filters (D,C,k,k), weighted by power, in cycles per pixel."""
    power = torch.fft.fft2(w, s=(FREQUENCIES, FREQUENCIES)).abs().square().sum((0, 1))
    frequency = torch.fft.fftfreq(FREQUENCIES, dtype=w.dtype)
    return (power * torch.hypot(frequency[:, None], frequency[None])).sum() / power.sum()


# -------------------------------------------------------------------------------------------------------------- figure


def draw(subject: Subject, *, seed: int, ending: str = ".png") -> bytes:
    """Draws the components of a patch embedding (a convolution whose stride is its width), or else the kernels."""
    layer = first_convolution(subject)
    w = layer.weight.detach().double().cpu()
    is_patch_embedding = layer.stride == layer.kernel_size
    with look.figure_style():
        return look.save_figure(_figure(w, is_patch_embedding), ending)


def _figure(w: Tensor, is_patch_embedding: bool) -> Any:
    from matplotlib.figure import Figure

    size = f"{w.shape[2]}x{w.shape[3]} px"
    if is_patch_embedding:
        filters, variances = components(w)
        shares = (variances / variances.sum()).tolist()
        filters = filters[: COMPONENTS[-1]]
        title = f"First {len(filters)} principal components of the patch embedding"
        note = f"Components of {len(w)} filters of {size}. Below each stands its share of their variance. "
    else:
        filters, shares = w[:64], None
        title = f"Kernels of the first convolution, {size}"
        note = f"All {len(w)} kernels. " if len(w) <= 64 else f"The first 64 of {len(w)} kernels. "
    columns = min(7 if is_patch_embedding else 8, len(filters))
    lines = -(-len(filters) // columns)
    width, height = max(3.6, 0.62 * columns + 0.2), 0.85 + (0.78 if is_patch_embedding else 0.62) * lines
    figure = Figure(figsize=(width, height), layout="constrained")
    for panel in figure.subplots(lines, columns, squeeze=False).flat:
        panel.set_axis_off()
    for i, (panel, weights) in enumerate(zip(figure.axes, filters, strict=False)):
        pixels = 0.5 + 0.5 * weights / weights.abs().max().clamp(min=1e-12)  # zero is grey
        if len(pixels) != 3:
            pixels = pixels.mean(0, keepdim=True).expand(3, -1, -1)
        panel.imshow(np.asarray(pixels.permute(1, 2, 0)), interpolation="nearest")
        if shares is not None:
            panel.set_title(f"{100 * shares[i]:.1f} %", fontsize=6.5, fontweight="normal", y=-0.32)
    figure.suptitle(title, fontsize=10, fontweight="bold")
    note += "Each has a scale of its own, and grey is zero."
    look.small_print(figure, look.wrapped(note, width - 0.1, look.SMALL))
    return figure
