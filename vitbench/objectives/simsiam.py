"""Two views of an image get the same features: learning without labels, for any network."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitbench.data.augment import Augment
from vitbench.data.loader import Normalise
from vitbench.objectives.base import Objective


class SimSiam(Objective):
    """Chen and He 2021, arXiv 2011.10566, section 3: with z = projector(f(x)) and p = predictor(z) of two views,

        L = 1/2 D(p1, stopgrad(z2)) + 1/2 D(p2, stopgrad(z1)),        D(p, z) = -cos(p, z)       (eq. 1-4)

    The projector has two layers, as in the paper's CIFAR experiments (section 4.8; three elsewhere), of `width` numbers
    (2,048 there, for features of 2,048), both with batch norm; the predictor narrows to a quarter, norm inside only.
    f gives what the model's head takes. The optimizer is the run's: the paper's is SGD.

    A view is what `augment=` does, flip included, then a crop of `area` to 1 of the image, drawn back to its size, and
    other colours: brightness, contrast and saturation by factors of 1 - `colour` to 1 + `colour` for 4 images of 5, and
    grey for a share `grey`. That is the paper's (section 3, after SimCLR) without hue and blur.
    """

    measures = ("spread",)

    def __init__(
        self, model: nn.Module, *, width: int = 256, area: float = 0.2, colour: float = 0.4, grey: float = 0.2
    ) -> None:
        super().__init__()
        self.area, self.colour, self.grey = area, colour, grey
        head: Any = model.taps["head"]  # type: ignore[index]
        narrow = max(1, width // 4)
        self.projector = nn.Sequential(
            nn.Linear(head.in_features, width, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, width, bias=False),
            nn.BatchNorm1d(width),
        )
        self.predictor = nn.Sequential(
            nn.Linear(width, narrow, bias=False), nn.BatchNorm1d(narrow), nn.ReLU(), nn.Linear(narrow, width)
        )
        self._features = torch.empty(0)

    def views(self, images: Tensor, labels: Tensor, augment: Augment, normalise: Normalise) -> tuple[Tensor, ...]:
        return tuple(normalise(self.drawn(augment.pixels(images))) for _ in range(2))

    def drawn(self, images: Tensor) -> Tensor:
        """A crop and other colours for each image; uint8 (B,C,H,W) -> float 0..255."""
        B, device = len(images), images.device

        def between(low: float, high: float) -> Tensor:  # (B,)
            return low + (high - low) * torch.rand(B, device=device)

        share, ratio = between(self.area, 1), between(-math.log(4 / 3), math.log(4 / 3)).exp()
        width, height = ((share * one).sqrt().clamp(max=1) for one in (ratio, 1 / ratio))  # of the image's
        place = torch.zeros(B, 2, 3, device=device)
        place[:, 0, 0], place[:, 0, 2] = width, (1 - width) * between(-1, 1)
        place[:, 1, 1], place[:, 1, 2] = height, (1 - height) * between(-1, 1)
        where = F.affine_grid(place, list(images.shape), align_corners=False)
        views = F.grid_sample(images.float(), where, padding_mode="border", align_corners=False)

        changed = self.colour * (torch.rand(B, device=device) < 0.8)
        brightness, contrast, saturation = ((1 + changed * between(-1, 1)).view(-1, 1, 1, 1) for _ in range(3))
        views = brightness * views
        mean = views.mean((1, 2, 3), keepdim=True)
        views = mean + contrast * (views - mean)
        grey = views.mean(1, keepdim=True)
        saturation = torch.where((torch.rand(B, device=device) < self.grey).view(-1, 1, 1, 1), 0, saturation)
        return (grey + saturation * (views - grey)).clamp(0, 255)

    def forward(self, model: Any, *views: Tensor) -> Tensor:
        z1, z2 = (self.projector(model.features(view)) for view in views)  # (B,width), batch norm over each view
        self._features = z1.detach()
        return 0.5 * (distance(self.predictor(z1), z2) + distance(self.predictor(z2), z1))

    def measured(self) -> dict[str, float]:
        """`spread`: deviation of the features of length 1, times sqrt(width): 1 all over the sphere, 0 collapsed (fig. 2)."""
        z = F.normalize(self._features.float(), dim=1)
        return {"spread": z.std(0).mean().item() * math.sqrt(z.shape[1])}


def distance(p: Tensor, z: Tensor) -> Tensor:
    """The negative cosine, which moves p alone."""
    return -F.cosine_similarity(p.float(), z.detach().float(), dim=1).mean()
