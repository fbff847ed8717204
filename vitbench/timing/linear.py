"""A network that costs almost nothing, so that only data and loop are timed. Only the benchmark has it on its menu."""

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
    """Adds the network to the menu of models, in this process only."""
    MENU[NAME] = Choice(f"{__name__}:Linear", "a linear layer, to time all but the network")
