"""Resolution: accuracy at image sizes that a network was not trained at (Touvron et al. 2019, arXiv 1906.06423)."""

from __future__ import annotations

from functools import partial

import torch

from vitbench.errors import UserError
from vitbench.probes.distorted import Distort, accuracy_curve, at_least_one, patch_size, resized
from vitbench.probes.subject import Row, Subject

RATIOS = (0.5, 0.625, 0.75, 0.875, 1.0, 1.25, 1.5, 2.0)


def probe(subject: Subject, *, seed: int, size: int | None = None) -> list[Row]:
    """The test images are resized (bicubic, anti-aliased where they shrink), the network is as it was trained.

    `size` in pixels; null: eight from 1/2 to 2 times the training size, as far as they are whole numbers of a ViT's
    patches and the network takes them. The training size is always there, untouched. `area` is over log2 of the size.
    No detail is added above the training size: what is measured is how the network deals with another scale and, if it
    has tokens, another grid of them.

    What an encoding does there: `learned` is interpolated bicubically (anti-aliased where it shrinks); `sincos1d`,
    `sincos2d`, `rope`, `rope_mixed` and `alibi2d` are recomputed for the new grid, in patches; `relative_bias` is
    interpolated bicubically as Swin's is for another window, so that an offset keeps its share of the image
    (re-indexing would keep it in patches); the convolution of `cpe` slides over any grid. A network of one size only
    (timm's and torchvision's ViTs) has no curve, and the rows say so.
    """
    trained, patch = subject.images.shape[-1], patch_size(subject.model) or 1
    if size is None:
        around = {round(trained * ratio) for ratio in RATIOS}
        sizes = [side for side in around if side % patch == 0 and not refusal(subject, side)]
    else:
        at_least_one("probe.resolution.size", size)
        if size % patch:
            near = " or ".join(str(n) for n in (size - size % patch, size - size % patch + patch) if n)
            raise UserError(
                f"probe.resolution.size={size}: must be a whole number of patches of {patch} px; {near} works"
            )
        if why := refusal(subject, size):
            raise UserError(f"probe.resolution.size={size}: the network takes no images of that size ({why})")
        sizes = [size]
    levels: dict[float, list[Distort]] = {side: [partial(resized, size=side)] for side in sizes}
    levels[trained] = []
    return accuracy_curve(subject, "resolution@v1", levels, seed=seed, at_unit="px", reference=trained, octaves=True)


@torch.inference_mode()
def refusal(subject: Subject, size: int) -> str:
    """Why a network takes no images of a size, "" if it does; networks from outside say it in many ways."""
    if size == subject.images.shape[-1]:
        return ""
    try:
        subject.model(subject.normalise(resized(subject.images[:1], size)))
    except (AssertionError, RuntimeError, ValueError, UserError) as error:
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
    return ""
