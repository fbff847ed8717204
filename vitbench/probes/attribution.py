"""Which parts of an image decide the predicted class? Attention rollout, Grad-CAM and integrated gradients each give a
map, and two curves test each map.

- `rollout` (Abnar and Zuidema 2020, arXiv 2005.00928) is the product over blocks of (A + I) / 2, where A is the mean of
  a block's heads. Its map is the class token's row, or the mean over rows where the mean of the tokens is classified.
  It does not depend on the class, and only ViTs have it. Where tokens are merged (`model.hierarchy`), each of the four
  counts for a quarter.
- `grad_cam` (Selvaraju et al. 2017, arXiv 1610.02391) takes the last map that the logit depends on, weights its
  channels by their mean gradient, sums them and sets negative sums to 0. With a class token, that map is the output of
  the last block but one, because the patches of the last block do not count. It is written here because captum's takes
  the tokens for channels; a test shows that the two agree on a ResNet.
- `integrated_gradients` (Sundararajan et al. 2017, arXiv 1703.01365) are captum's, in 32 steps from the mean colour to
  the image, summed over channels with their sign.
- `random` is the control: 3 random orders of an image's tiles.

Deletion and insertion (Petsiuk et al. 2018, arXiv 1806.07421) test the order of importance. For deletion, the image's
tiles are filled with the mean colour, the most important first. For insertion, they are put back, the most important
first, on an image blurred by a Gaussian as wide as a tile. The number is the area under the probability of the class
against the share of tiles. If the order is right, it is low for deletion and high for insertion. We differ from the
paper in two ways. We take tiles in place of pixels, so that a map of 8 x 8 positions, a map of single pixels and a
random order remove pieces of the same size (scattered pixels disturb a network more than holes). And tiles of equal
importance come in random order. Where a run rearranged the places of its images, all of this is about the rearranged
images.

`attribution.<method>@v1` has `deletion` and `insertion`, `deletion_curve` and `insertion_curve` by the share of tiles,
and `over_random`: by how much insertion - deletion exceeds that of random orders of the same images. At 0, the map is
no better than a random order.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vitbench.errors import NotInstalled
from vitbench.numbers import look
from vitbench.probes.distorted import at_least_one, generator, tiles_a_side
from vitbench.probes.subject import Row, Subject, make_row, ratio_row
from vitbench.probes.taps import POOLED, batch_size_for, grid_of, record

TITLES = {
    "rollout": "attention\nrollout",
    "grad_cam": "Grad-CAM",
    "integrated_gradients": "integrated\ngradients",
    "random": "random\norder",
}
STEPS = 32  # steps of integrated gradients
LEVELS = 16  # levels of a curve, besides 0
DRAWS = 3  # random orders of an image
IMAGES_DRAWN = 6  # images in the figure
WEIGHTS_AT_ONCE = 2**25  # so many attention weights are kept at a time, 128 MiB


class Curves(NamedTuple):
    """The probability of the class (M,LEVELS+1) while tiles are deleted or inserted, most important first."""

    deletion: Tensor
    insertion: Tensor

    def areas(self) -> tuple[Tensor, Tensor]:
        """The areas under both curves, in 0..1, (M,) each."""
        deleted, inserted = (torch.trapezoid(curve, dx=1 / LEVELS) for curve in self)
        return deleted, inserted


class Explained(NamedTuple):
    """The maps and curves of M images."""

    maps: dict[str, Tensor]  # (M,h,w), by method
    curves: dict[str, Curves]  # by method
    reasons: dict[str, str]  # why a method has neither map nor curves
    probabilities: Tensor  # (M,K), of the classes


def probe(subject: Subject, *, seed: int, count: int = 48) -> list[Row]:
    """Explains the first `count` images of the subject, with as many tiles a side as `occlusion` takes."""
    explained = explain(_first(subject, count), seed)
    control = explained.curves["random"]
    rows: list[Row] = []
    for method in TITLES:
        protocol = f"attribution.{method}@v1"
        if reason := explained.reasons.get(method):
            metrics = ("deletion", "insertion", "over_random")
            rows += [make_row(protocol, metric, math.nan, reason=reason) for metric in metrics]
            continue
        both_curves = explained.curves[method]
        for name, curve in both_curves._asdict().items():
            for k in range(LEVELS + 1):
                at = 100 * k / LEVELS
                rows.append(ratio_row(protocol, f"{name}_curve", curve[:, k], seed, at=at, at_unit="% of the tiles"))
        (deleted, inserted), (random_deleted, random_inserted) = both_curves.areas(), control.areas()
        rows.append(ratio_row(protocol, "deletion", deleted, seed))
        rows.append(ratio_row(protocol, "insertion", inserted, seed))
        if method != "random":
            gain = (inserted - deleted) - (random_inserted - random_deleted)
            rows.append(ratio_row(protocol, "over_random", gain, seed))
    return rows


def explain(subject: Subject, seed: int) -> Explained:
    """Explains all images of the subject by all methods that apply, for the class that the network predicts.

    Raises NotInstalled without captum.
    """
    try:
        import captum.attr  # noqa: F401
    except ImportError:
        raise NotInstalled("comes with an extra: pip install 'vitbench[captum]'") from None
    tiles = tiles_a_side(subject.images.shape[-1])
    one_image = subject.normalise(subject.images[:1])
    probabilities = torch.cat([_probabilities(subject, part) for part in subject.images.split(250)])
    predicted = probabilities.argmax(1)
    parts: dict[str, list[Tensor]] = {"rollout": [], "grad_cam": [], "integrated_gradients": []}
    reasons = {}
    batch_size = batch_size_for(subject.model, one_image)
    if hasattr(subject.model, "attention"):
        model: Any = subject.model
        with torch.no_grad():
            weights = sum(block_weights.numel() for block_weights in model.attention(one_image))
        batch_size = min(batch_size, max(1, WEIGHTS_AT_ONCE // weights))
    else:
        reasons["rollout"] = "the network has no attention weights to roll out"
    for images, classes in zip(subject.images.split(batch_size), predicted.split(batch_size), strict=True):
        inputs = subject.normalise(images)
        if "rollout" not in reasons:
            parts["rollout"].append(rollout(subject, inputs))
        cam = grad_cam(subject, inputs, classes)
        if cam is None:
            reasons["grad_cam"] = "no layer has a map that the logits depend on"
        else:
            parts["grad_cam"].append(cam)
        parts["integrated_gradients"].append(integrated_gradients(subject, inputs, classes, batch_size))
    random, M = generator(seed, 0, 5), len(subject.images)
    draws = [torch.rand(M, tiles, tiles, generator=random) for _ in range(DRAWS)]
    control = [curves(subject, scores, predicted, tiles, random) for scores in draws]
    maps = {method: torch.cat(batches) for method, batches in parts.items() if method not in reasons}
    method_curves = {method: curves(subject, scores, predicted, tiles, random) for method, scores in maps.items()}
    maps["random"] = draws[0]
    method_curves["random"] = Curves(*(torch.stack(kind).mean(0) for kind in zip(*control, strict=True)))
    return Explained(maps, method_curves, reasons, probabilities)


def _first(subject: Subject, count: int) -> Subject:
    """Returns the subject with its first images as the network gets them, because maps and tiles are about these."""
    at_least_one("probe.attribution.count", count)
    return subject._replace(images=subject.images[:count], labels=subject.labels[:count]).as_seen()


@torch.inference_mode()
def _probabilities(subject: Subject, images: Tensor) -> Tensor:
    return subject.model(subject.normalise(images)).softmax(1).double()


# -------------------------------------------------------------------------------------------------------------- maps


@torch.no_grad()
def rollout(subject: Subject, inputs: Tensor) -> Tensor:
    """Returns how much of each patch reaches, by attention alone, the feature that our ViT classifies, (B,h,w)."""
    model: Any = subject.model
    reached = rolled(model.attention(inputs))
    shares = reached[:, 0] if model.pool == "cls" else reached[:, model.prefix_tokens :].mean(1)
    if getattr(model, "dist_token", None) is not None:  # a second head reads this token; logits are the mean of both
        shares = (shares + reached[:, model.prefix_tokens - 1]) / 2
    shares = shares[:, model.prefix_tokens :]
    return shares.unflatten(1, (math.isqrt(shares.shape[1]),) * 2)


def rolled(weights: list[Tensor]) -> Tensor:
    """Computes the rollout (B,N,N) of attention weights (B,A,N,N), first block first; its rows sum to 1.

    Where tokens are merged on the way, it is (B,N/4,N).
    """
    N = weights[0].shape[-1]
    total = torch.eye(N, device=weights[0].device).expand(len(weights[0]), N, N)
    for block_weights in weights:
        if block_weights.shape[-1] != total.shape[1]:
            total = merged_rows(total)
        itself = torch.eye(block_weights.shape[-1], device=block_weights.device)
        total = (block_weights.mean(1) + itself) / 2 @ total
    return total


def merged_rows(total: Tensor) -> Tensor:
    """Merges the rows (B,N,..) of 2 x 2 tokens of a square grid into their means, (B,N/4,..)."""
    side = math.isqrt(total.shape[1])
    return total.unflatten(1, (side // 2, 2, side // 2, 2)).mean((2, 4)).flatten(1, 2)


def grad_cam(subject: Subject, inputs: Tensor, classes: Tensor) -> Tensor | None:
    """Computes Grad-CAM (B,h,w), 0 or more; None where no layer has a map that the logits depend on."""
    with torch.enable_grad(), record(subject.model) as features:
        logit = subject.model(inputs.clone().requires_grad_()).gather(1, classes[:, None]).sum()
    names = [name for name, value in features.items() if name != POOLED and value.ndim in (3, 4)]
    slopes = torch.autograd.grad(logit, [features[name] for name in names], allow_unused=True) if names else ()
    for name, slope in reversed([*zip(names, slopes, strict=True)]):
        if slope is None:
            continue
        maps, slope = grid_of(subject.model, name, features), grid_of(subject.model, name, {name: slope})
        if slope.any():
            return (slope.mean((2, 3), keepdim=True) * maps).sum(1).relu().detach()
    return None


def integrated_gradients(subject: Subject, inputs: Tensor, classes: Tensor, batch_size: int) -> Tensor:
    """Computes integrated gradients (B,H,W) with their sign; they sum to the logit minus that of the mean colour."""
    from captum.attr import IntegratedGradients

    options = {"target": classes, "n_steps": STEPS, "internal_batch_size": max(batch_size, len(inputs))}
    gradients = IntegratedGradients(subject.model).attribute(inputs.clone().requires_grad_(), **options)
    return gradients.sum(1).detach()


# ------------------------------------------------------------------------------------------------------------ curves


@torch.inference_mode()
def curves(subject: Subject, maps: Tensor, classes: Tensor, tiles: int, random: torch.Generator) -> Curves:
    """Follows the probability of `classes` (M,) while tiles are deleted and inserted in the order of maps (M,h,w)."""
    images, size = subject.images, subject.images.shape[-1]
    rank = ranks(tile_means(maps, tiles).flatten(1).cpu(), random).view(-1, 1, tiles, tiles)
    rank = F.interpolate(rank.float(), scale_factor=size // tiles).to(images.device)  # (M,1,H,W)
    fill = 255 * torch.tensor(subject.normalise.mean, device=images.device).view(-1, 1, 1)
    parts = []
    for batch, batch_rank, truth in zip(images.split(250), rank.split(250), classes.split(250), strict=True):
        pixels, blank = batch.float(), blurred(batch.float(), tiles)
        levels = []
        for k in range(LEVELS + 1):
            first = batch_rank < round(k * tiles * tiles / LEVELS)
            deleted, inserted = torch.where(first, fill, pixels), torch.where(first, pixels, blank)
            probabilities = [_probabilities(subject, changed) for changed in (deleted, inserted)]
            levels.append(torch.stack([values.gather(1, truth[:, None])[:, 0] for values in probabilities]))
        parts.append(torch.stack(levels, 2).cpu())  # (2,B,LEVELS+1)
    return Curves(*torch.cat(parts, 1))


def tile_means(maps: Tensor, tiles: int) -> Tensor:
    """Means of maps over tiles, (M,h,w) -> (M,tiles,tiles), interpolated where a map is coarser than the tiles."""
    if maps.shape[-1] < tiles:
        return F.interpolate(maps[:, None], size=(tiles, tiles), mode="bilinear")[:, 0]
    return F.adaptive_avg_pool2d(maps[:, None], tiles)[:, 0]


def ranks(scores: Tensor, random: torch.Generator) -> Tensor:
    """Returns the rank (M,T) of each tile by its score, 0 for the largest; equal scores are ranked at random."""
    shuffled = torch.rand(scores.shape, generator=random).argsort(1)
    order = shuffled.gather(1, scores.gather(1, shuffled).argsort(dim=1, descending=True, stable=True))
    return order.argsort(1)


def blurred(pixels: Tensor, tiles: int) -> Tensor:
    """Blurs floats (B,C,H,W) by a Gaussian whose standard deviation is the side of a tile; the border is mirrored."""
    from torchvision.transforms.v2.functional import gaussian_blur

    size = pixels.shape[-1]
    sigma = size / tiles
    reach = min(math.ceil(3 * sigma), size - 1)
    return gaussian_blur(pixels, [2 * reach + 1] * 2, [sigma] * 2)


# ------------------------------------------------------------------------------------------------------------ figure


def draw(subject: Subject, *, seed: int, ending: str = ".png") -> bytes:
    """Draws a row for each image, with its label and prediction, and a column for each method, with both areas."""
    from matplotlib.figure import Figure

    subject = _first(subject, IMAGES_DRAWN)
    explained = explain(subject, seed)
    methods = [method for method in TITLES if method in explained.maps]
    areas = {method: explained.curves[method].areas() for method in methods}
    images = subject.images.cpu()
    with look.figure_style():
        size = (1.0 + 1.25 * (1 + len(methods)), 0.9 + 1.42 * len(images))
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(len(images), 1 + len(methods), squeeze=False)
        for panel in panels.flat:
            panel.set(xticks=[], yticks=[])
            panel.grid(False)
            panel.spines[:].set_visible(False)
        for i, line in enumerate(panels):
            pixels = images[i].permute(1, 2, 0).expand(-1, -1, 3).numpy()
            line[0].imshow(pixels, interpolation="nearest")
            _name_row(line[0], subject, int(subject.labels[i]), explained.probabilities[i])
            for panel, method in zip(line[1:], methods, strict=True):
                _draw_map(panel, explained.maps[method][i].cpu(), pixels, method)
                deleted, inserted = (float(area[i]) for area in areas[method])
                panel.set_xlabel(f"del {deleted:.2f}  ins {inserted:.2f}", fontsize=7, labelpad=2)
        for panel, method in zip(panels[0], ["", *methods], strict=True):
            panel.set_title(TITLES.get(method, "image"), fontsize=9, fontweight="normal")
        figure.suptitle(f"Where {subject.name or 'the network'} looks", fontsize=10, fontweight="bold")
        text = (
            "Maps explain the class that the network says. Light places are important; in integrated gradients orange"
            " speaks for the class and purple against it. A map is right if the class's probability falls fast while"
            " tiles are deleted, the most important first, and rises fast while they are inserted. The area under the"
            " probability is del while they are deleted (low is right) and ins while they are inserted (high is right)."
            f" At the right are {DRAWS} random orders. A name in orange means that the network is wrong."
        )
        look.small_print(figure, look.wrapped(text, size[0] - 0.1, look.SMALL))
        return look.save_figure(figure, ending)


def _name_row(panel: Any, subject: Subject, label: int, probabilities: Tensor) -> None:
    """Writes an image's label and prediction beside it, in orange where the prediction is wrong."""
    names, predicted = subject.classes or tuple(map(str, range(subject.num_classes))), int(probabilities.argmax())
    text = f"{names[label]}\npredicted: {names[predicted]}\n({probabilities[predicted]:.2f})"
    colour = "black" if predicted == label else look.COLOURS[3]
    panel.set_ylabel(text, rotation=0, ha="right", va="center", fontsize=8, color=colour, labelpad=4)


def _draw_map(panel: Any, values: Tensor, pixels: Any, method: str) -> None:
    """Draws a map over the grey image; integrated gradients alone, orange for the class and purple against it."""
    if method == "integrated_gradients":
        most = float(values.abs().quantile(0.99)) or 1.0
        panel.imshow(values.numpy(), cmap="PuOr_r", vmin=-most, vmax=most, interpolation="nearest")
        return
    extent = (-0.5, pixels.shape[1] - 0.5, pixels.shape[0] - 0.5, -0.5)
    smooth = "nearest" if method == "random" else "bilinear"
    panel.imshow(pixels.mean(2), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    panel.imshow(values.numpy(), cmap="inferno", alpha=0.6, extent=extent, interpolation=smooth)
