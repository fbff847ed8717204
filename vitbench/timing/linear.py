"""A network that costs next to nothing, so that data and loop are what is timed. The benchmark alone offers it."""

from __future__ import annotations

from torch import Tensor, nn

from vitbench.menu import Choice
from vitbench.models.menu import MENU

NAME = "linear"


class Linear(nn.Module):
    """One linear layer from pixels (B,C,H,W) to logits (B,K)."""

    channels_last = False

    def __init__(self, image_size: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(channels * image_size**2, num_classes)
        self.taps = {"head": self.head}

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(images.flatten(1))
        return logits


def offer() -> None:
    """Puts the network on the menu of models, in this process alone."""
    MENU[NAME] = Choice(f"{__name__}:Linear", "a linear layer, to time what is not the network")
