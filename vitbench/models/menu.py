"""The menu of models, and the sizes in which a ViT and a ResNet can be compared. Imports no torch.

A size pairs a ViT with a ResNet of the same multiply-adds, within 10 %, for images of 32 px (3 channels, 10 classes,
patches of 4 px, CIFAR stem): the compute of one forward is what they have in common, not the parameters, of which
the ResNets reuse each many times. At other image or patch sizes the pairs drift apart, and the ratio is printed.

The numbers are counted by `vitbench.models.build.cost`, with mean pooling and no position encoding; a test
recounts them. `base` are two published networks, ViT-S (Touvron et al. 2021, arXiv 2012.12877: width 384, depth 12,
6 heads) and ResNet-50 (He et al. 2016, arXiv 1512.03385); `small` has ResNet-18, `tiny` and `micro` the paper's
CIFAR networks ResNet-56 and ResNet-20 (its section 4.2), `nano` a ResNet-20 of 10, 20 and 40 channels in place of
16, 32 and 64. The other ViTs were chosen to match these; they
have four heads or more, because encodings that differ by head (ALiBi's slopes) say little with fewer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vitbench.errors import UserError
from vitbench.menu import Choice, parameters

MENU: dict[str, Choice] = {
    "vit": Choice("vitbench.models.vit:ViT", "vision transformer (Dosovitskiy et al. 2021, arXiv 2010.11929)"),
    "resnet": Choice(
        "vitbench.models.resnet:ResNet",
        "residual network (He et al. 2016, arXiv 1512.03385)",
        "vitbench.models.refusals:resnet",
    ),
}


def is_vit(model: str) -> bool:
    """Whether a name of the menu is that of a vision transformer: its class takes a position encoding, `pe`.

    A name that is not on the menu, such as that of a library whose networks are probed, is none.
    """
    return model in MENU and "pe" in parameters(MENU[model].target)


def check_encoding(model: str, pe: Mapping[str, Any] | None) -> None:
    """Refuses a position encoding for a model that takes none; `pe` is its name and options."""
    if pe is not None and not is_vit(model):
        raise UserError(f"{model} is not a ViT and takes no position encoding; drop pe={pe.get('name')}")


@dataclass(frozen=True)
class Size:
    """A model in one size has these options, and costs this at 32 px."""

    options: Mapping[str, int]
    parameters: int
    multiply_adds: int


SIZES: dict[str, dict[str, Size]] = {
    "nano": {
        "vit": Size({"width": 64, "depth": 4, "heads": 4}, 203_850, 14_877_312),
        "resnet": Size({"depth": 20, "base_width": 10}, 105_940, 15_944_080),
    },
    "micro": {
        "vit": Size({"width": 96, "depth": 5, "heads": 6}, 565_066, 39_617_472),
        "resnet": Size({"depth": 20, "base_width": 16}, 269_722, 40_551_040),
    },
    "tiny": {
        "vit": Size({"width": 128, "depth": 9, "heads": 4}, 1_792_266, 123_077_888),
        "resnet": Size({"depth": 56, "base_width": 16}, 853_018, 125_485_696),
    },
    "small": {
        "vit": Size({"width": 256, "depth": 11, "heads": 4}, 8_702_986, 577_505_792),
        "resnet": Size({"depth": 18, "base_width": 64}, 11_173_962, 555_422_720),
    },
    "base": {
        "vit": Size({"width": 384, "depth": 12, "heads": 6}, 21_317_002, 1_397_886_720),
        "resnet": Size({"depth": 50, "base_width": 64}, 23_520_842, 1_297_829_888),
    },
}
