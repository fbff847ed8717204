"""The residual network (He et al. 2016, arXiv 1512.03385), for ImageNet (18, 34, 50) and for CIFAR (20, 32, 56).

Weights of torchvision's `resnet18`, `resnet34` and `resnet50` fit: every parameter has the same name and shape. Where
that is not the paper's network: the stride of a bottleneck lies in its 3x3 convolution ("v1.5", Goyal et al. 2017).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vitbench.errors import UserError, did_you_mean
from vitbench.models.menu import SIZES

STEMS = ("auto", "cifar", "imagenet")
# The blocks of each stage. A CIFAR network of depth 6n+2 has three stages of n blocks of two convolutions.
DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 20: (3, 3, 3), 32: (5, 5, 5), 56: (9, 9, 9)}


class BasicBlock(nn.Module):
    """The block has two 3x3 convolutions, and a way around them."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        around = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.bn2(self.conv2(x))
        return F.relu(x.add_(around), inplace=True)


class Bottleneck(nn.Module):
    """The block has a 1x1 convolution down to a quarter of the channels, a 3x3, a 1x1 up again, and a way around."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        around = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        x = self.bn3(self.conv3(x))
        return F.relu(x.add_(around), inplace=True)


class Subsample(nn.Module):
    """The paper's shortcut A takes every stride-th pixel; new channels are 0 and come last, as in fb.resnet.torch."""

    def __init__(self, new_channels: int, stride: int) -> None:
        super().__init__()
        self.new_channels = new_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))


class ResNet(nn.Module):
    """A residual network; images of other sizes than `image_size` may come at call time.

    `size` gives depth and base width (`vitbench ls models`); a `depth` set by hand brings the paper's base width, 64,
    or 16 for the CIFAR depths. `base_width` is the channels of the first stage, doubled in every later one. `stem` is
    `imagenet` (7x7 with stride 2, max-pooling with stride 2), `cifar` (3x3, stride 1, no pooling; the paper's section
    4.2), or `auto`: cifar up to 64 px, where the other would leave maps of 1 or 2 pixels. Any depth takes either stem.
    Shortcuts that change shape are projections (the paper's option B) in the ImageNet depths and have no weights
    (option A) in the CIFAR depths, as in the paper.

    Weights begin as in torchvision: convolutions by He et al. 2015 (arXiv 1502.01852), fan-out; norms at 1 and 0; the
    head by torch's default.
    """

    channels_last = True  # Its convolutions are fastest in this memory layout.

    def __init__(
        self,
        image_size: int,
        channels: int,
        num_classes: int,
        *,
        size: str = "nano",
        depth: int | None = None,
        base_width: int | None = None,
        stem: str = "auto",
    ) -> None:
        super().__init__()
        if size not in SIZES:
            raise UserError(f"model.size={size}: {did_you_mean(size, SIZES)}")
        preset = SIZES[size]["resnet"].options
        if depth is None:
            depth = preset["depth"]
            base_width = preset["base_width"] if base_width is None else base_width
        if depth not in DEPTHS:
            raise UserError(f"model.depth={depth}: must be one of {', '.join(map(str, sorted(DEPTHS)))}")
        for_cifar = len(DEPTHS[depth]) == 3
        if base_width is None:
            base_width = 16 if for_cifar else 64
        if base_width < 1:
            raise UserError(f"model.base_width={base_width}: must be greater than 0")
        if stem not in STEMS:
            raise UserError(f"model.stem={stem}: {did_you_mean(stem, STEMS)}")
        if stem == "auto":
            stem = "cifar" if image_size <= 64 else "imagenet"

        if stem == "cifar":
            self.conv1 = nn.Conv2d(channels, base_width, 3, padding=1, bias=False)
            self.maxpool: nn.Module = nn.Identity()
        else:
            self.conv1 = nn.Conv2d(channels, base_width, 7, stride=2, padding=3, bias=False)
            self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(base_width)

        block: type[BasicBlock | Bottleneck] = Bottleneck if depth == 50 else BasicBlock
        inputs = base_width
        self.stages = []  # Torchvision calls them layer1, layer2 and so on.
        for index, blocks in enumerate(DEPTHS[depth]):
            width = base_width * 2**index
            outputs = width * block.expansion
            layer = nn.Sequential()
            for position in range(blocks):
                stride = 2 if index > 0 and position == 0 else 1
                shortcut: nn.Module | None = None
                if for_cifar and stride > 1:
                    shortcut = Subsample(outputs - inputs, stride)
                elif stride > 1 or inputs != outputs:
                    projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
                    shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))
                layer.append(block(inputs, width, stride, shortcut))
                inputs = outputs
            self.stages.append(f"layer{index + 1}")
            self.add_module(self.stages[-1], layer)
        self.fc = nn.Linear(inputs, num_classes)

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.features(images))  # (B,K)

    def features(self, images: Tensor) -> Tensor:
        """Gives what the head takes, (B,D)."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(images)), inplace=True))  # (B,D,h,w)
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
        return x.mean((2, 3))

    @property
    def taps(self) -> dict[str, nn.Module]:
        """Says where to look, in depth order: the outputs are maps (B,D,h,w), then logits (B,K)."""
        blocks = {
            f"{stage}.{position}": block
            for stage in self.stages
            for position, block in self.get_submodule(stage).named_children()
        }
        return {"stem": self.maxpool, **blocks, "head": self.fc}
