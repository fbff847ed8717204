"""The teaching figure of equivariance: one picture on two paths, layer then shift and shift then layer, and their
difference, for a convolution, a pooling layer, a strided convolution, a patch embedding and an attention block.

    vitbench probe run=vit-rope-shapes-f1-s0-3fa9c1d2 probe=equivariance file=two_paths.svg

Shifts are circular and so is the padding of the convolutions, so that strides and positions alone make a difference.
"""

from __future__ import annotations

import math
import textwrap
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
from vitbench.probes.shift import translate
from vitbench.probes.subject import Subject
from vitbench.probes.taps import grid_of, record


class Layer(NamedTuple):
    name: str
    weights: str  # where they are from
    maps: Callable[[Tensor], Tensor]  # images (B,C,H,W) -> (B,D,h,w)


class Paths(NamedTuple):
    """One layer and one shift: both paths, (D,h,w) each, and the equivariance error of this picture."""

    shifted_after: Tensor
    shifted_before: Tensor
    error: float


@torch.no_grad()
def draw(subject: Subject, *, seed: int, ending: str = ".svg") -> bytes:
    """The figure of the first image, as a file's bytes. What the network has not, a CNN's patch embedding or a ViT's
    convolution, has random weights, drawn with the seed."""
    image = subject.images[:1]
    rows, patch = layers(subject, seed)
    off, on = two_shifts(patch, image.shape[-1])
    moved = {by: translate(image, torch.tensor([[0, by]]), "circular")[0].cpu() for by in (off, on)}
    found = [(layer, walk(subject, layer, off), walk(subject, layer, on)) for layer in rows]
    with look.figure_style():
        return look.save_figure(_figure(image[0].cpu(), moved, found), ending)


def walk(subject: Subject, layer: Layer, by: int) -> Paths:
    """The first image on both paths, shifted to the right by whole pixels."""
    image, by_x = subject.images[:1], torch.tensor([[0, by]])
    still = layer.maps(subject.normalise(image))
    before = layer.maps(subject.normalise(translate(image, by_x, "circular")))
    after, _ = move(still, by_x * (still.shape[-1] / image.shape[-1]), "circular")
    spread = (still - still.mean((2, 3), keepdim=True)).norm()
    return Paths(after[0].cpu(), before[0].cpu(), ((before - after).norm() / spread).item())


def two_shifts(patch: int, width: int) -> tuple[int, int]:
    """In pixels: one that no stride divides, and the next one, by whole patches, about a quarter of the width."""
    step = patch if patch % 2 == 0 else 2 * patch
    on = step * max(1, round(width / 4 / step))
    return on - 1, on


def layers(subject: Subject, seed: int) -> tuple[list[Layer], int]:
    """The five, and the patch size."""
    channels, size = subject.images.shape[1], subject.images.shape[-1]

    def own_or_random(kind: type[nn.Module], name: str, **options: object) -> tuple[nn.Module, str]:
        if isinstance(subject.model, kind):
            return subject.model, "of this network"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = build_model(name, image_size=size, channels=channels, num_classes=subject.num_classes, **options)  # type: ignore[arg-type]
        return model.to(subject.images.device).eval(), "random"

    cnn, of_cnn = own_or_random(ResNet, "resnet")
    vit, of_vit = own_or_random(ViT, "vit", patch_size=_patch(size), pe={"name": "sincos2d"})
    assert isinstance(cnn, ResNet) and isinstance(vit, ViT)

    def convolve(images: Tensor, stride: int) -> Tensor:
        edge = cnn.conv1.kernel_size[0] // 2
        return F.conv2d(F.pad(images, (edge,) * 4, mode="circular"), cnn.conv1.weight, stride=stride)

    def attend(images: Tensor) -> Tensor:
        with record(vit, ["block1"]) as features:
            vit(images)
        return grid_of(vit, "block1", features)

    side = cnn.conv1.kernel_size[0]
    rows = [
        Layer(f"convolution\n{side}x{side}", of_cnn, lambda x: convolve(x, 1)),
        Layer("max pooling\n2x2, stride 2", "", lambda x: F.max_pool2d(x, 2)),
        Layer(f"convolution\n{side}x{side}, stride 2", of_cnn, lambda x: convolve(x, 2)),
        Layer(f"patch embedding\n{vit.patch_size}x{vit.patch_size}", of_vit, vit.patch_embed),
        Layer(f"attention block,\n{'no' if type(vit.pe) is PositionEncoding else 'with'} positions", of_vit, attend),
    ]
    return rows, vit.patch_size


def _patch(size: int) -> int:
    """A patch that divides the image: 4 px at 32, in proportion elsewhere; 1 px where the side is prime."""
    return min((p for p in range(2, size // 2 + 1) if size % p == 0), key=lambda p: abs(p - size / 8), default=1)


def _figure(picture: Tensor, moved: dict[int, Tensor], rows: list[tuple[Layer, Paths, Paths]]) -> Any:
    """Top row: the picture and its two shifts. Below, a layer a row: one channel of both paths in greys, and their
    difference in two colours, on the scale of the channel."""
    from matplotlib.figure import Figure

    off, on = moved
    made = Figure(figsize=(6.3, 8.6), layout="constrained")
    panels = made.subplots(len(rows) + 1, 4)
    for panel in panels.flat:
        panel.set(xticks=[], yticks=[])
        panel.grid(False)
        for spine in panel.spines.values():
            spine.set(visible=True, linewidth=0.5, color="0.6")
    for column, (text, image) in enumerate(
        {"the picture": picture, f"shifted by {off} px": moved[off], "": None, f"shifted by {on} px": moved[on]}.items()
    ):
        if image is None:
            panels[0, column].set_axis_off()
            continue
        panels[0, column].imshow(image.permute(1, 2, 0).expand(-1, -1, 3).numpy(), interpolation="nearest")
        panels[0, column].set_title(text, fontsize=9, fontweight="normal")
    for (layer, far, near), line in zip(rows, panels[1:], strict=True):
        channel = int(far.shifted_after.flatten(1).std(1, correction=0).argmax())
        a, b = far.shifted_after[channel], far.shifted_before[channel]
        low, high = (float(torch.stack([a, b]).quantile(q)) for q in (0.01, 0.99))
        greys: Any = {"cmap": "gray", "vmin": low, "vmax": high, "interpolation": "nearest"}
        half = (high - low) / 2
        colours: Any = {"cmap": "PuOr", "vmin": -half, "vmax": half, "interpolation": "nearest"}
        line[0].imshow(a.numpy(), **greys)
        line[1].imshow(b.numpy(), **greys)
        line[2].imshow((b - a).numpy(), **colours)
        line[3].imshow((near.shifted_before[channel] - near.shifted_after[channel]).numpy(), **colours)
        for panel, error in ((line[2], far.error), (line[3], near.error)):
            text = "no difference" if error < 1e-5 else f"error {error:.2f}" if math.isfinite(error) else "one position"
            panel.set_xlabel(text, fontsize=8, labelpad=2)
        h, w = a.shape
        line[0].set_xlabel(f"{h}x{w}", fontsize=8, labelpad=2)
        line[0].set_ylabel(layer.name, rotation=0, ha="right", va="center", fontsize=9, labelpad=8)
    titles = ("layer, then shift", "shift, then layer", f"difference, {off} px", f"difference, {on} px")
    for panel, text in zip(panels[1], titles, strict=True):
        panel.set_title(text, fontsize=9)
    random = ", ".join(" ".join(layer.name.split()) for layer, *_ in rows if layer.weights == "random")
    text = (
        f"What leaves at the right enters at the left. {on} px are whole strides and patches, {off} px are not, and the"
        f" map is moved by a fraction of its positions (bilinearly); the first two columns are of {off} px. Error: of"
        " all channels, 0 where both paths agree, 1.41 where they have nothing in common."
        + (f" Random weights: {random}." if random else "")
    )
    look.small_print(made, "\n".join(textwrap.wrap(text, 125)))
    return made
