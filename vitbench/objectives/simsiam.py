"""SimSiam: learns without labels that two views of an image have the same features. For any network."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitbench.data.augment import Augment, crop_and_resize
from vitbench.data.loader import Normalise
from vitbench.errors import UserError
from vitbench.objectives.base import Objective


class SimSiam(Objective):
    """SimSiam (Chen and He 2021, arXiv 2011.10566, section 3). With z = projector(f(x)), p = predictor(z) of two views:

        L = 1/2 D(p1, stopgrad(z2)) + 1/2 D(p2, stopgrad(z1)),        D(p, z) = -cos(p, z)       (eq. 1-4)

    f(x) is the input of the model's head. The projector has two layers, as in the paper's CIFAR experiments (section
    4.8; three layers elsewhere). Both have batch norm and the width `width` (the paper: 2,048 for 2,048 features). The
    predictor has a hidden layer of a quarter of the width, with batch norm on this layer only. The optimizer is that of
    the run; the paper uses SGD.

    A view is made in these steps: the augmentation of `augment=`; a random crop of `area` to 1 of the image, enlarged
    to its size; for 4 images of 5, random factors from 1 - `colour` to 1 + `colour` for brightness, contrast and
    saturation; a share `grey` of the images becomes grey. These are the paper's views (section 3, after SimCLR) without
    hue and blur.
    """

    measures = ("spread",)

    def __init__(
        self, model: nn.Module, *, width: int = 256, area: float = 0.2, colour: float = 0.4, grey: float = 0.2
    ) -> None:
        super().__init__()
        self.area, self.colour, self.grey = area, colour, grey
        head: Any = model.taps["head"]  # type: ignore[index]
        if not isinstance(head, nn.Linear):
            raise UserError(
                "objective=simsiam: needs a network with a linear head, and the head of this network is another layer"
            )
        hidden = max(1, width // 4)
        self.projector = nn.Sequential(
            nn.Linear(head.in_features, width, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, width, bias=False),
            nn.BatchNorm1d(width),
        )
        self.predictor = nn.Sequential(
            nn.Linear(width, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, width)
        )
        self._features = torch.empty(0)

    def views(self, images: Tensor, labels: Tensor, augment: Augment, normalise: Normalise) -> tuple[Tensor, ...]:
        return tuple(normalise(self.view(augment.pixels(images))) for _ in range(2))

    def view(self, images: Tensor) -> Tensor:
        """Crops each image and changes its colours; uint8 (B,C,H,W) -> float 0..255."""
        B, device = len(images), images.device

        def uniform(low: float, high: float) -> Tensor:  # (B,)
            return low + (high - low) * torch.rand(B, device=device)

        views = crop_and_resize(images, self.area)
        strength = self.colour * (torch.rand(B, device=device) < 0.8)
        brightness, contrast, saturation = ((1 + strength * uniform(-1, 1)).view(-1, 1, 1, 1) for _ in range(3))
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
        """Returns `spread`, the standard deviation of normalised features times sqrt(width) (the paper's figure 2).

        It is 0 if the features have collapsed, and 1 if they are spread over the sphere.
        """
        z = F.normalize(self._features.float(), dim=1)
        return {"spread": z.std(0).mean().item() * math.sqrt(z.shape[1])}


def distance(p: Tensor, z: Tensor) -> Tensor:
    """Returns the negative cosine similarity. Only p gets gradients."""
    return -F.cosine_similarity(p.float(), z.detach().float(), dim=1).mean()
