"""The menu of models, and the sizes in which they are compared. Imports no torch.

A size pairs a ViT with a ResNet and a Mixer whose multiply-adds are within 10 % of the ViT's, for images of 32 px (3
channels, 10 classes, patches of 4 px, CIFAR stem). They are matched by the compute of one forward pass and not by their
parameters, because a ResNet uses each parameter at many places. At other image or patch sizes the costs differ more,
and the ratio is printed.

The numbers are counted by `vitbench.models.build.cost` with mean pooling and without position encoding; a test counts
them again. `base` has two published networks, ViT-S (Touvron et al. 2021, arXiv 2012.12877: width 384, depth 12, 6
heads) and ResNet-50 (He et al. 2016, arXiv 1512.03385). `small` has ResNet-18. `tiny` and `micro` have the paper's
CIFAR networks ResNet-56 and ResNet-20 (section 4.2), and `nano` has a ResNet-20 with 10, 20 and 40 channels in place of
16, 32 and 64. The other ViTs were chosen to match these. They have at least four heads, because encodings that differ
by head (ALiBi's slopes) have little effect with fewer. A Mixer has the width of the ViT, and the depth that matches its
cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vitbench.errors import UserError
from vitbench.menu import Choice, parameters

MENU: dict[str, Choice] = {
    "vit": Choice(
        "vitbench.models.vit:ViT",
        "vision transformer (Dosovitskiy et al. 2021, arXiv 2010.11929)",
        "vitbench.models.refusals:vit",
    ),
    "resnet": Choice(
        "vitbench.models.resnet:ResNet",
        "residual network (He et al. 2016, arXiv 1512.03385)",
        "vitbench.models.refusals:resnet",
    ),
    "mixer": Choice(
        "vitbench.models.mixer:Mixer",
        "MLP-Mixer (Tolstikhin et al. 2021, arXiv 2105.01601)",
        "vitbench.models.refusals:mixer",
    ),
    "timm": Choice(
        "vitbench.models.timm:Timm",
        "any network of timm by its name, model.arch=convnext_atto (docs/how-to/networks.md)",
        "vitbench.models.refusals:timm",
    ),
    "torchvision": Choice(
        "vitbench.models.torchvision:Torchvision",
        "any network of torchvision by its name, model.arch=mobilenet_v3_small (docs/how-to/networks.md)",
        "vitbench.models.refusals:torchvision",
    ),
}


def is_vit(model: str) -> bool:
    """Returns whether a model is a vision transformer, which is so if its class takes a position encoding, `pe`.

    It is False for a name that is not on the menu, such as that of a library whose networks are probed.
    """
    return model in MENU and "pe" in parameters(MENU[model].target)


def share_of_pairs(grid: tuple[int, int], window: int) -> float:
    """Returns the share of the pairs of patches of a grid (rows, columns) that attend to each other in `model.window`.

    For a window of 3 on 4 x 4 patches, it is 100 of 256 pairs, 39 %.
    """
    share = 1.0
    for side in grid:
        share *= sum(min(side, i + window // 2 + 1) - max(0, i - window // 2) for i in range(side)) / side**2
    return share


def check_encoding(model: str, pe: Mapping[str, Any] | None) -> None:
    """Refuses a position encoding, given by its name and options, for a model that takes none."""
    if pe is not None and not is_vit(model):
        raise UserError(f"{model} is not a ViT and takes no position encoding; drop pe={pe.get('name')}")


@dataclass(frozen=True)
class Size:
    """The options of a model in one size, and its cost at 32 px."""

    options: Mapping[str, Any]
    parameters: int
    multiply_adds: int


SIZES: dict[str, dict[str, Size]] = {
    "nano": {
        "vit": Size({"width": 64, "depth": 4, "heads": 4}, 203_850, 14_877_312),
        "resnet": Size({"depth": 20, "base_width": 10}, 105_940, 15_944_080),
        "mixer": Size({"width": 64, "depth": 6}, 229_130, 14_353_024),
    },
    "micro": {
        "vit": Size({"width": 96, "depth": 5, "heads": 6}, 565_066, 39_617_472),
        "resnet": Size({"depth": 20, "base_width": 16}, 269_722, 40_551_040),
        "mixer": Size({"width": 96, "depth": 7}, 571_802, 37_454_784),
    },
    "tiny": {
        "vit": Size({"width": 128, "depth": 9, "heads": 4}, 1_792_266, 123_077_888),
        "resnet": Size({"depth": 56, "base_width": 16}, 853_018, 125_485_696),
        "mixer": Size({"width": 128, "depth": 13}, 1_834_890, 123_077_888),
    },
    "small": {
        "vit": Size({"width": 256, "depth": 11, "heads": 4}, 8_702_986, 577_505_792),
        "resnet": Size({"depth": 18, "base_width": 64}, 11_173_962, 555_422_720),
        "mixer": Size({"width": 256, "depth": 15}, 8_163_146, 567_020_032),
    },
    "base": {
        "vit": Size({"width": 384, "depth": 12, "heads": 6}, 21_317_002, 1_397_886_720),
        "resnet": Size({"depth": 50, "base_width": 64}, 23_520_842, 1_297_829_888),
        "mixer": Size({"width": 384, "depth": 16}, 19_350_410, 1_360_137_984),
    },
}
