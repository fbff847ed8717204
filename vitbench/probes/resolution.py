"""Resolution: accuracy at image sizes that a network was not trained at (Touvron et al. 2019, arXiv 1906.06423)."""

from __future__ import annotations

from functools import partial

import torch

from vitbench.errors import UserError
from vitbench.probes.distorted import Distort, accuracy_curve, at_least_one, patch_size, resized
from vitbench.probes.subject import Row, Subject

SIZE_FACTORS = (0.5, 0.625, 0.75, 0.875, 1.0, 1.25, 1.5, 2.0)  # as multiples of the training size


def probe(subject: Subject, *, seed: int, size: int | None = None) -> list[Row]:
    """Measures accuracy on test images that were resized (bicubic, anti-aliased where they shrink).

    The network stays as it was trained. `size` is in pixels. null takes eight sizes from 1/2 to 2 times the training
    size, without those that are no whole number of a ViT's patches or that the network does not take. The training size
    is always among them, with the untouched images. `area` is over log2 of the size. Above the training size no detail
    is added, so this measures how the network deals with another scale and, if it has tokens, with another grid.

    A position encoding is adapted to the new grid. `learned` is interpolated bicubically (anti-aliased where it
    shrinks). `sincos1d`, `sincos2d`, `rope` and `alibi2d` are computed for the new grid, in patches. `relative_bias` is
    interpolated bicubically, as Swin's is for another window, so that an offset keeps its share of the image
    (re-indexing would keep it in patches). A network that takes only one size (ViTs of timm and torchvision) has no
    curve, and its rows say so. Raises UserError for a `size` that the network does not take.
    """
    trained, patch = subject.images.shape[-1], patch_size(subject.model) or 1
    if size is None:
        candidates = {round(trained * factor) for factor in SIZE_FACTORS}
        sizes = [side for side in candidates if side % patch == 0 and not refusal(subject, side)]
    else:
        at_least_one("probe.resolution.size", size)
        if size % patch:
            below = size - size % patch
            nearest = f"{below} or {below + patch}" if below else str(patch)
            must = f"must be a whole number of patches of {patch} px; {nearest} works"
            raise UserError(f"probe.resolution.size={size}: {must}")
        if reason := refusal(subject, size):
            raise UserError(f"probe.resolution.size={size}: the network takes no images of that size ({reason})")
        sizes = [size]
    levels: dict[float, list[Distort]] = {side: [partial(resized, size=side)] for side in sizes}
    levels[trained] = []
    return accuracy_curve(subject, "resolution@v1", levels, seed=seed, at_unit="px", reference=trained, octaves=True)


@torch.inference_mode()
def refusal(subject: Subject, size: int) -> str:
    """Says why a network takes no images of a size; "" if it does. Networks from outside refuse by many exceptions."""
    if size == subject.images.shape[-1]:
        return ""
    try:
        subject.model(subject.normalise(resized(subject.images[:1], size)))
    except (AssertionError, RuntimeError, ValueError, UserError) as error:
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
    return ""
