"""Where does the network say that it looks, and does it? Attention rollout, Grad-CAM and integrated gradients of the class
that it says, each with the curves that check it.

- `rollout` (Abnar and Zuidema 2020, arXiv 2005.00928): the product over blocks of (A + I) / 2, A the mean of a block's
  heads; of the class token's row, or the mean over rows where the tokens' mean is classified. It knows no class. ViTs
  only.
- `grad_cam` (Selvaraju et al. 2017, arXiv 1610.02391): the last map that the logit depends on, its channels weighted by
  their mean gradient, what is negative cut. With a class token that is the block before the last: after it, patches no
  longer count. Written here, as captum's takes the tokens for channels; on a ResNet the two agree (a test).
- `integrated_gradients` (Sundararajan et al. 2017, arXiv 1703.01365): by `captum`, 32 steps from the mean colour to the
  image, summed over channels, with their sign.
- `random`: the control, 3 random orders an image.

Deletion and insertion (Petsiuk et al. 2018, arXiv 1806.07421): the image's tiles are filled with the mean colour, most
important first, or come back first on an image blurred by a Gaussian as wide as a tile; the number is the area under
the probability of the class against the share of tiles, low for deletion and high for insertion where the order is
right. Where we differ: tiles in place of pixels, so that a map of 8 x 8 positions, one of single pixels and a random
order take away pieces of one size (salt and pepper is harder than holes); the order of ties is random.

`attribution.<method>@v1`: `deletion` and `insertion`, and `over_random`, how much (insertion - deletion) is above that
of the random orders of the same images: at 0 the picture says nothing about the network. `deletion_curve`,
`insertion_curve`: by the share of tiles.
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
STEPS = 32  # of integrated gradients
LEVELS = 16  # of a curve
DRAWS = 3  # random orders
SHOWN = 6  # images of the figure
ATTENTION = 2**25  # attention weights at a time, 128 MiB


class Curves(NamedTuple):
    """The probability of the class (M,LEVELS+1) while tiles go and come, most important first."""

    deletion: Tensor
    insertion: Tensor

    def areas(self) -> tuple[Tensor, Tensor]:
        """(M,) each, of 0..1."""
        deleted, inserted = (torch.trapezoid(curve, dx=1 / LEVELS) for curve in self)
        return deleted, inserted


def probe(subject: Subject, *, seed: int, count: int = 48, grid: int | None = None) -> list[Row]:
    """`count` images are explained, the first of the subject's; `grid` is tiles a side (null: as in `occlusion`)."""
    found, why, _ = explain(_first(subject, count), seed, grid)
    control = found["random"][1]
    rows: list[Row] = []
    for method in TITLES:
        protocol = f"attribution.{method}@v1"
        if method in why:
            rows += [
                make_row(protocol, metric, math.nan, reason=why[method])
                for metric in ("deletion", "insertion", "over_random")
            ]
            continue
        curves = found[method][1]
        for name, curve in curves._asdict().items():
            for k in range(LEVELS + 1):
                at = 100 * k / LEVELS
                rows.append(ratio_row(protocol, f"{name}_curve", curve[:, k], seed, at=at, at_unit="% of the tiles"))
        (deleted, inserted), (least, most) = curves.areas(), control.areas()
        rows.append(ratio_row(protocol, "deletion", deleted, seed))
        rows.append(ratio_row(protocol, "insertion", inserted, seed))
        if method != "random":
            gain = (inserted - deleted) - (most - least)
            rows.append(ratio_row(protocol, "over_random", gain, seed))
    return rows


def explain(
    subject: Subject, seed: int, grid: int | None
) -> tuple[dict[str, tuple[Tensor, Curves]], dict[str, str], Tensor]:
    """By method the maps (M,h,w) and their curves; why a method has none; and the probability (M,K) of each class."""
    try:
        import captum.attr  # noqa: F401
    except ImportError:
        raise NotInstalled("comes with an extra: pip install 'vitbench[captum]'") from None
    tiles = tiles_a_side(subject.images.shape[-1], "probe.attribution.grid", grid)
    one = subject.normalise(subject.images[:1])
    said = torch.cat([_probabilities(subject, part) for part in subject.images.split(250)])
    maps: dict[str, list[Tensor]] = {"rollout": [], "grad_cam": [], "integrated_gradients": []}
    why = {}
    if not hasattr(subject.model, "attention"):
        why["rollout"] = "the network has no attention weights to roll out"
    step = batch_size_for(subject.model, one)
    if "rollout" not in why:
        model: Any = subject.model
        with torch.no_grad():
            step = min(step, max(1, ATTENTION // sum(weights.numel() for weights in model.attention(one))))
    for images, classes in zip(subject.images.split(step), said.argmax(1).split(step), strict=True):
        inputs = subject.normalise(images)
        if "rollout" not in why:
            maps["rollout"].append(rollout(subject, inputs))
        cam = grad_cam(subject, inputs, classes)
        if cam is None:
            why["grad_cam"] = "no layer has a map that the logits depend on"
        else:
            maps["grad_cam"].append(cam)
        maps["integrated_gradients"].append(integrated_gradients(subject, inputs, classes, step))
    random, M = generator(seed, 0, 5), len(subject.images)
    draws = [torch.rand(M, tiles, tiles, generator=random) for _ in range(DRAWS)]
    control = [curves(subject, draw, said.argmax(1), tiles, random) for draw in draws]
    mean = Curves(*(torch.stack(those).mean(0) for those in zip(*control, strict=True)))
    found = {name: torch.cat(parts) for name, parts in maps.items() if name not in why}
    made = {name: (its, curves(subject, its, said.argmax(1), tiles, random)) for name, its in found.items()}
    return {**made, "random": (draws[0], mean)}, why, said


def _first(subject: Subject, count: int) -> Subject:
    at_least_one("probe.attribution.count", count)
    return subject._replace(images=subject.images[:count], labels=subject.labels[:count])


@torch.inference_mode()
def _probabilities(subject: Subject, images: Tensor) -> Tensor:
    return subject.model(subject.normalise(images)).softmax(1).double()


# -------------------------------------------------------------------------------------------------------------- maps


@torch.no_grad()
def rollout(subject: Subject, inputs: Tensor) -> Tensor:
    """(B,h,w) of our ViTs: how much of each patch reaches what is classified, by attention alone."""
    model: Any = subject.model
    reached = rolled(model.attention(inputs))
    found = reached[:, 0] if model.pool == "cls" else reached[:, model.prefix_tokens :].mean(1)
    if getattr(model, "dist_token", None) is not None:  # which a second head reads; answers are the mean of both
        found = (found + reached[:, model.prefix_tokens - 1]) / 2
    found = found[:, model.prefix_tokens :]
    return found.unflatten(1, (math.isqrt(found.shape[1]),) * 2)


def rolled(weights: list[Tensor]) -> Tensor:
    """The rows (B,N,N) of the rollout of attention weights (B,A,N,N), first block first; rows sum to 1."""
    N = weights[0].shape[-1]
    total = torch.eye(N, device=weights[0].device).expand(len(weights[0]), N, N)
    for layer in weights:
        total = (layer.mean(1) + torch.eye(N, device=layer.device)) / 2 @ total
    return total


def grad_cam(subject: Subject, inputs: Tensor, classes: Tensor) -> Tensor | None:
    """(B,h,w), 0 or more; None where no layer has a map that the logits depend on."""
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


def integrated_gradients(subject: Subject, inputs: Tensor, classes: Tensor, step: int) -> Tensor:
    """(B,H,W), with their sign; they sum to the logit less that of the mean colour."""
    from captum.attr import IntegratedGradients

    method = IntegratedGradients(subject.model)
    found = method.attribute(
        inputs.clone().requires_grad_(), target=classes, n_steps=STEPS, internal_batch_size=max(step, len(inputs))
    )
    return found.sum(1).detach()


# ------------------------------------------------------------------------------------------------------------ curves


@torch.inference_mode()
def curves(subject: Subject, maps: Tensor, classes: Tensor, tiles: int, random: torch.Generator) -> Curves:
    """What becomes of the probability of `classes` (M,) while tiles are deleted and inserted as maps (M,h,w) say."""
    images, size = subject.images, subject.images.shape[-1]
    rank = ranks(to_tiles(maps, tiles).flatten(1).cpu(), random).view(-1, 1, tiles, tiles)
    rank = F.interpolate(rank.float(), scale_factor=size // tiles).to(images.device)  # (M,1,H,W)
    fill = 255 * torch.tensor(subject.normalise.mean, device=images.device).view(-1, 1, 1)
    parts = []
    for some, order, these in zip(images.split(250), rank.split(250), classes.split(250), strict=True):
        pixels, blank = some.float(), blurred(some.float(), tiles)
        levels = []
        for k in range(LEVELS + 1):
            taken = order < round(k * tiles * tiles / LEVELS)
            shown = (torch.where(taken, fill, pixels), torch.where(taken, pixels, blank))
            levels.append(torch.stack([_probabilities(subject, one).gather(1, these[:, None])[:, 0] for one in shown]))
        parts.append(torch.stack(levels, 2).cpu())  # (2,B,LEVELS+1)
    return Curves(*torch.cat(parts, 1))


def to_tiles(maps: Tensor, tiles: int) -> Tensor:
    """(M,h,w) -> (M,tiles,tiles): means of what lies in a tile, interpolated where a map is coarser than the tiles."""
    if maps.shape[-1] < tiles:
        return F.interpolate(maps[:, None], size=(tiles, tiles), mode="bilinear")[:, 0]
    return F.adaptive_avg_pool2d(maps[:, None], tiles)[:, 0]


def ranks(scores: Tensor, random: torch.Generator) -> Tensor:
    """The place (M,T) of each tile in the order of its score, the largest first; ties fall at random."""
    shuffled = torch.rand(scores.shape, generator=random).argsort(1)
    order = shuffled.gather(1, scores.gather(1, shuffled).argsort(dim=1, descending=True, stable=True))
    return order.argsort(1)


def blurred(pixels: Tensor, tiles: int) -> Tensor:
    """Floats (B,C,H,W) under a Gaussian whose deviation is a tile; the border is mirrored."""
    from torchvision.transforms.v2.functional import gaussian_blur

    size = pixels.shape[-1]
    sigma = size / tiles
    reach = min(math.ceil(3 * sigma), size - 1)
    return gaussian_blur(pixels, [2 * reach + 1] * 2, [sigma] * 2)


# ------------------------------------------------------------------------------------------------------------ figure


def draw(subject: Subject, *, seed: int, grid: int | None = None, ending: str = ".png") -> bytes:
    """An image a row, with its label and what the network says; a method a column, with the areas of both curves."""
    from matplotlib.figure import Figure

    subject = _first(subject, SHOWN)
    found, _, said = explain(subject, seed, grid)
    names = subject.classes or tuple(map(str, range(subject.num_classes)))
    methods = [method for method in TITLES if method in found]
    images = subject.images.cpu()
    with look.figure_style():
        made = Figure(figsize=(1.0 + 1.25 * (1 + len(methods)), 0.9 + 1.42 * len(images)), layout="constrained")
        panels = made.subplots(len(images), 1 + len(methods), squeeze=False)
        for panel in panels.flat:
            panel.set(xticks=[], yticks=[])
            panel.grid(False)
            panel.spines[:].set_visible(False)
        for i, line in enumerate(panels):
            picture = images[i].permute(1, 2, 0).expand(-1, -1, 3).numpy()
            best = int(said[i].argmax())
            line[0].imshow(picture, interpolation="nearest")
            truth = names[int(subject.labels[i])]
            line[0].set_ylabel(
                f"{truth}\nsays {names[best]}\n({said[i, best]:.2f})",
                rotation=0,
                ha="right",
                va="center",
                fontsize=8,
                color="black" if best == int(subject.labels[i]) else "#D55E00",
                labelpad=4,
            )
            for panel, method in zip(line[1:], methods, strict=True):
                maps, its = found[method]
                _show(panel, maps[i].cpu(), picture, method)
                deleted, inserted = (float(area[i]) for area in its.areas())
                panel.set_xlabel(f"del {deleted:.2f}  ins {inserted:.2f}", fontsize=7, labelpad=2)
        for panel, method in zip(panels[0], ["", *methods], strict=True):
            panel.set_title(TITLES.get(method, "image"), fontsize=9, fontweight="normal")
        made.suptitle(f"Where {subject.name or 'the network'} looks", fontsize=10, fontweight="bold")
        text = (
            "Of the class that the network says. del, ins: area under its probability while tiles are deleted (low"
            f" is\nright) and inserted (high is right), most important first; of {DRAWS} random orders at the right."
            " Light: important;\nintegrated gradients: orange for the class, purple against it. A name in orange: the"
            " network is wrong."
        )
        look.small_print(made, text)
        return look.save_figure(made, ending)


def _show(panel: Any, its: Tensor, picture: Any, method: str) -> None:
    """A map over the image in grey; what has a sign alone, orange for the class and purple against it."""
    side = (-0.5, picture.shape[1] - 0.5, picture.shape[0] - 0.5, -0.5)
    if method == "integrated_gradients":
        most = float(its.abs().quantile(0.99)) or 1.0
        panel.imshow(its.numpy(), cmap="PuOr_r", vmin=-most, vmax=most, interpolation="nearest")
        return
    panel.imshow(picture.mean(2), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    smooth = "nearest" if method == "random" else "bilinear"
    panel.imshow(its.numpy(), cmap="inferno", alpha=0.6, extent=side, interpolation=smooth)
