"""Draws a figure that explains equivariance: one image on two paths, layer then shift and shift then layer.

    vitbench probe run=vit-rope-shapes-f1-s0-3fa9c1d2 probe=equivariance file=two_paths.svg

It shows both paths and their difference for a convolution, a pooling layer, a strided convolution, a patch embedding
and an attention block. Shifts and the padding of the convolutions are circular, so that only strides and positions can
make a difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitbench.models.build import build_model
from vitbench.models.resnet import ResNet
from vitbench.models.vit import ViT
from vitbench.numbers import look
from vitbench.pe.base import PositionEncoding
from vitbench.probes.equivariance import move
from vitbench.probes.filters import has_neighbouring_taps
from vitbench.probes.shift import translate
from vitbench.probes.subject import Subject
from vitbench.probes.taps import grid_of, record


class Layer(NamedTuple):
    """A layer of the figure, and how it maps images."""

    name: str
    weights: str  # "of this network", "random", or "" without weights
    maps: Callable[[Tensor], Tensor]  # normalised (B,C,H,W) -> (B,D,h,w)


class Paths(NamedTuple):
    """The output of one layer for one image on both paths, (D,h,w) each, and its equivariance error on this image."""

    shifted_after: Tensor
    shifted_before: Tensor
    error: float


@torch.no_grad()
def draw(subject: Subject, *, seed: int, ending: str = ".svg") -> bytes:
    """Draws the figure of the subject's first image.

    Layers that the network does not have (a CNN's patch embedding, a ViT's convolution) have random weights, drawn with
    the seed. So has the convolution of a CNN that has another layer instead (`model.sharing=false` and the like).
    """
    image = subject.images[:1]
    layers, patch = five_layers(subject, seed)
    off, on = two_shifts(patch, image.shape[-1])
    shifted = {shift: translate(image, torch.tensor([[0, shift]]), "circular")[0].cpu() for shift in (off, on)}
    lines = [(layer, walk(subject, layer, off), walk(subject, layer, on)) for layer in layers]
    with look.figure_style():
        return look.save_figure(_figure(image[0].cpu(), shifted, lines), ending)


def walk(subject: Subject, layer: Layer, shift: int) -> Paths:
    """Takes the first image along both paths, shifted to the right by whole pixels."""
    image, offset = subject.images[:1], torch.tensor([[0, shift]])
    still = layer.maps(subject.normalise(image))
    before = layer.maps(subject.normalise(translate(image, offset, "circular")))
    after, _ = move(still, offset * (still.shape[-1] / image.shape[-1]), "circular")
    spread = (still - still.mean((2, 3), keepdim=True)).norm()
    return Paths(after[0].cpu(), before[0].cpu(), ((before - after).norm() / spread).item())


def two_shifts(patch: int, width: int) -> tuple[int, int]:
    """Returns two shifts in pixels: one that no stride divides, and the next one, which is by whole patches and about a
    quarter of the width."""
    step = patch if patch % 2 == 0 else 2 * patch
    on = step * max(1, round(width / 4 / step))
    return on - 1, on


def five_layers(subject: Subject, seed: int) -> tuple[list[Layer], int]:
    """Makes the layers of the figure, from the subject's network where it has them, and returns the patch size."""
    channels, size = subject.images.shape[1], subject.images.shape[-1]

    def own_or_random(kind: type[nn.Module], name: str, **options: object) -> tuple[nn.Module, str]:
        first: Any = getattr(subject.model, "conv1", None)
        slides = has_neighbouring_taps(first) and first.stride < first.kernel_size  # and cuts no patches
        if isinstance(subject.model, kind) and (slides or kind is ViT):
            return subject.model, "of this network"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = build_model(name, image_size=size, channels=channels, num_classes=subject.num_classes, **options)  # type: ignore[arg-type]
        return model.to(subject.images.device).eval(), "random"

    cnn, cnn_weights = own_or_random(ResNet, "resnet")
    vit, vit_weights = own_or_random(ViT, "vit", patch_size=_dividing_patch(size), pe={"name": "sincos2d"})
    assert isinstance(cnn, ResNet) and isinstance(vit, ViT)
    convolution = cnn.conv1
    assert isinstance(convolution, nn.Conv2d)
    side, patch = convolution.kernel_size[0], vit.patch_size

    def convolve(images: Tensor, stride: int) -> Tensor:
        return F.conv2d(F.pad(images, (side // 2,) * 4, mode="circular"), convolution.weight, stride=stride)

    def attend(images: Tensor) -> Tensor:
        with record(vit, ["block1"]) as features:
            vit(images)
        return grid_of(vit, "block1", features)

    embedding = "patch embedding" if isinstance(vit.patch_embed, nn.Conv2d) else "convolutions for patches"
    positions = "no" if type(vit.pe) is PositionEncoding else "with"
    layers = [
        Layer(f"convolution\n{side}x{side}", cnn_weights, lambda x: convolve(x, 1)),
        Layer("max pooling\n2x2, stride 2", "", lambda x: F.max_pool2d(x, 2)),
        Layer(f"convolution\n{side}x{side}, stride 2", cnn_weights, lambda x: convolve(x, 2)),
        Layer(f"{embedding}\n{patch}x{patch}", vit_weights, vit.patch_embed),
        Layer(f"attention block,\n{positions} positions", vit_weights, attend),
    ]
    return layers, patch


def _dividing_patch(size: int) -> int:
    """Returns a patch size that divides the image: 4 px at 32 px, in proportion elsewhere; 1 px for a prime side."""
    return min((p for p in range(2, size // 2 + 1) if size % p == 0), key=lambda p: abs(p - size / 8), default=1)


def _figure(image: Tensor, shifted: dict[int, Tensor], lines: list[tuple[Layer, Paths, Paths]]) -> Any:
    """Draws the image and its two shifts at the top, and below them a row of panels for each layer."""
    from matplotlib.figure import Figure

    off, on = shifted
    figure = Figure(figsize=(6.3, 8.6), layout="constrained")
    panels = figure.subplots(len(lines) + 1, 4)
    for panel in panels.flat:
        panel.set(xticks=[], yticks=[])
        panel.grid(False)
        for spine in panel.spines.values():
            spine.set(visible=True, linewidth=0.5, color="0.6")
    top = {"the image": image, f"shifted by {off} px": shifted[off], "": None, f"shifted by {on} px": shifted[on]}
    for panel, (title, pixels) in zip(panels[0], top.items(), strict=True):
        if pixels is None:
            panel.set_axis_off()
            continue
        panel.imshow(pixels.permute(1, 2, 0).expand(-1, -1, 3).numpy(), interpolation="nearest")
        panel.set_title(title, fontsize=9, fontweight="normal")
    for (layer, off_paths, on_paths), line in zip(lines, panels[1:], strict=True):
        _draw_line(line, layer, off_paths, on_paths)
    titles = ("layer, then shift", "shift, then layer", f"difference, {off} px", f"difference, {on} px")
    for panel, title in zip(panels[1], titles, strict=True):
        panel.set_title(title, fontsize=9)
    random = ", ".join(" ".join(layer.name.split()) for layer, *_ in lines if layer.weights == "random")
    text = (
        f"The first two columns show one channel on both paths, for the shift by {off} px; what leaves at the right"
        f" enters at the left. {on} px are whole strides and patches. {off} px are not, so there the map is moved by a"
        " fraction of its positions (bilinearly). The error is that of all channels: 0 where both paths agree, 1.41"
        " where they have nothing in common." + (f" These layers have random weights: {random}." if random else "")
    )
    look.small_print(figure, look.wrapped(text, figure.get_figwidth() - 0.1, look.SMALL))
    return figure


def _draw_line(panels: Any, layer: Layer, off: Paths, on: Paths) -> None:
    """Draws one channel on both paths in grey, for the shift that is not a whole patch, and then the difference of the
    paths for both shifts in two colours, all on the same scale."""
    channel = int(off.shifted_after.flatten(1).std(1, correction=0).argmax())
    after, before = off.shifted_after[channel], off.shifted_before[channel]
    low, high = (float(torch.stack([after, before]).quantile(q)) for q in (0.01, 0.99))
    half = (high - low) / 2
    greys: Any = {"cmap": "gray", "vmin": low, "vmax": high, "interpolation": "nearest"}
    colours: Any = {"cmap": "PuOr", "vmin": -half, "vmax": half, "interpolation": "nearest"}
    panels[0].imshow(after.numpy(), **greys)
    panels[1].imshow(before.numpy(), **greys)
    for panel, paths in ((panels[2], off), (panels[3], on)):
        panel.imshow((paths.shifted_before[channel] - paths.shifted_after[channel]).numpy(), **colours)
        error = f"error {paths.error:.2f}" if math.isfinite(paths.error) else "one position"
        panel.set_xlabel("no difference" if paths.error < 1e-5 else error, fontsize=8, labelpad=2)
    panels[0].set_xlabel(f"{after.shape[0]}x{after.shape[1]}", fontsize=8, labelpad=2)
    panels[0].set_ylabel(layer.name, rotation=0, ha="right", va="center", fontsize=9, labelpad=8)
