"""The residual network (He et al. 2016, arXiv 1512.03385), for ImageNet (18, 34, 50) and for CIFAR (20, 32, 56).

Weights of torchvision's `resnet18`, `resnet34` and `resnet50` fit: every parameter has the same name and shape. Where
that is not the paper's network: the stride of a bottleneck lies in its 3x3 convolution ("v1.5", Goyal et al. 2017).
What the network takes for granted about places can be taken away, a setting each (docs/explanation/ladders.md).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vitbench.errors import UserError, check_choice
from vitbench.models.convolutions import DOWNSAMPLES, NORMS, REACHES, Convolutions
from vitbench.models.local import PADDINGS
from vitbench.models.menu import SIZES

STEMS = ("auto", "cifar", "imagenet", "patch")
POOLS = ("mean", "flatten")
PATCH = 4  # pixels, of stem=patch
LARGEST_FOR_CIFAR = 64  # pixels; larger images have the stem of ImageNet
# The blocks of each stage. A CIFAR network of depth 6n+2 has three stages of n blocks of two convolutions.
DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 20: (3, 3, 3), 32: (5, 5, 5), 56: (9, 9, 9)}


class BasicBlock(nn.Module):
    """The block has two 3x3 convolutions, and a way around them. `side` is that of the map that comes in."""

    expansion = 1

    def __init__(
        self, make: Convolutions, inputs: int, width: int, side: int, stride: int, shortcut: nn.Module | None
    ) -> None:
        super().__init__()
        self.halve = make.halve() if stride == 2 else None
        if self.halve:
            side, stride = -(-side // 2), 1
        self.conv1 = make.conv(inputs, width, 3, side, stride)
        self.bn1 = make.normalise(width)
        self.conv2 = make.conv(width, width, 3, -(-side // stride))
        self.bn2 = make.normalise(width)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        x = self.halve(x) if self.halve else x
        around = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.bn2(self.conv2(x))
        return F.relu(x.add_(around), inplace=True)


class Bottleneck(nn.Module):
    """The block has a 1x1 convolution down to a quarter of the channels, a 3x3, a 1x1 up again, and a way around."""

    expansion = 4

    def __init__(
        self, make: Convolutions, inputs: int, width: int, side: int, stride: int, shortcut: nn.Module | None
    ) -> None:
        super().__init__()
        self.halve = make.halve() if stride == 2 else None
        if self.halve:
            side, stride = -(-side // 2), 1
        self.conv1 = make.conv(inputs, width, 1, side)
        self.bn1 = make.normalise(width)
        self.conv2 = make.conv(width, width, 3, side, stride)
        self.bn2 = make.normalise(width)
        self.conv3 = make.conv(width, width * self.expansion, 1, -(-side // stride))
        self.bn3 = make.normalise(width * self.expansion)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        x = self.halve(x) if self.halve else x
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

    `sharing`, `reach`, `padding`, `downsample` and `norm` say what its layers take for granted (`Convolutions`), in
    every convolution, the stem's and the shortcuts' too. `hierarchy=False` leaves the maps of all stages as large as
    the stem made them, and their channels as many as the first stage has, at about equal cost. Beside the stems above
    there is `patch`, 4x4 pixels with stride 4, which takes locality inside patches too: without hierarchy, four times
    the channels make up for maps that are smaller than those of a CIFAR stem.
    `pool=flatten` has a head that knows the place of each feature, where the mean forgets it.

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
        sharing: bool = True,
        reach: str = "near",
        hierarchy: bool = True,
        padding: str = "zero",
        downsample: str = "stride",
        pool: str = "mean",
        norm: str = "batch",
    ) -> None:
        super().__init__()
        depth, base_width = _shape(size, depth, base_width)
        for key, value, choices in [
            ("stem", stem, STEMS),
            ("reach", reach, REACHES),
            ("padding", padding, PADDINGS),
            ("downsample", downsample, DOWNSAMPLES),
            ("pool", pool, POOLS),
            ("norm", norm, NORMS),
        ]:
            check_choice(f"model.{key}", value, choices)
        make = Convolutions(sharing, reach, padding, downsample, norm)
        if stem == "auto":
            stem = "cifar" if image_size <= LARGEST_FOR_CIFAR else "imagenet"
        if downsample != "stride" and not hierarchy and stem != "imagenet":
            raise UserError(f"model.downsample={downsample} model.hierarchy=false: no map is halved; drop one of them")
        if stem == "patch" and not hierarchy and image_size <= LARGEST_FOR_CIFAR:
            base_width *= PATCH  # above that the usual stem has the stride of patches, too
        self.is_of_patches = stem == "patch"
        side = self._make_stem(make, stem, image_size, channels, base_width)

        for_cifar = len(DEPTHS[depth]) == 3
        block: type[BasicBlock | Bottleneck] = Bottleneck if depth == 50 else BasicBlock
        inputs = base_width
        self.stages = []  # Torchvision calls them layer1, layer2 and so on.
        for index, blocks in enumerate(DEPTHS[depth]):
            width = base_width * 2**index if hierarchy else base_width
            outputs = width * block.expansion
            layer = nn.Sequential()
            for position in range(blocks):
                stride = 2 if hierarchy and index > 0 and position == 0 else 1
                # what halves the map before the block leaves nothing for a shortcut to halve
                own_stride = stride if downsample == "stride" else 1
                shortcut: nn.Module | None = None
                if for_cifar and stride > 1:
                    shortcut = Subsample(outputs - inputs, own_stride)
                elif stride > 1 or inputs != outputs:
                    projection = make.conv(inputs, outputs, 1, -(-side * own_stride // stride), own_stride)
                    shortcut = nn.Sequential(projection, make.normalise(outputs))
                layer.append(block(make, inputs, width, side, stride, shortcut))
                inputs, side = outputs, -(-side // stride)
            self.stages.append(f"layer{index + 1}")
            self.add_module(self.stages[-1], layer)
        self.pool, self.image_size, self.side = pool, image_size, side
        self.fc = nn.Linear(inputs * side**2 if pool == "flatten" else inputs, num_classes)

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def _make_stem(self, make: Convolutions, stem: str, side: int, channels: int, width: int) -> int:
        """Makes the stem, which takes images of `side` x `side`; returns the side of its map."""
        self.maxpool: nn.Module = nn.Identity()
        if stem == "patch" and side % PATCH:
            sizes = f"{side - side % PATCH} or {side - side % PATCH + PATCH}" if side > PATCH else PATCH
            raise UserError(f"data.image_size={side} model.stem=patch: must be divisible by {PATCH}; {sizes} works")
        if stem == "cifar":
            self.conv1 = make.conv(channels, width, 3, side)
        elif stem == "patch":
            self.conv1 = make.conv(channels, width, PATCH, side, PATCH)
            side //= PATCH
        else:
            self.conv1 = make.conv(channels, width, 7, side, 2)
            side = -(-side // 2)
            self.maxpool = make.pool()
            side = -(-side // 2)
        self.bn1 = make.normalise(width)
        return side

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.features(images))  # (B,K)

    def features(self, images: Tensor) -> Tensor:
        """Gives what the head takes, (B,D)."""
        height, width = images.shape[2:]
        if self.is_of_patches and (height % PATCH or width % PATCH):
            raise UserError(
                f"images of {height} x {width} px are no whole number of patches of model.stem=patch, {PATCH}"
            )
        x = self.maxpool(F.relu(self.bn1(self.conv1(images)), inplace=True))  # (B,D,h,w)
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
        if self.pool == "mean":
            return x.mean((2, 3))
        if x.shape[2:] != (self.side, self.side):
            raise UserError(
                f"images of {height} x {width} px: model.pool=flatten was built for {self.image_size} x"
                f" {self.image_size} px and takes no others"
            )
        return x.flatten(1)

    @property
    def taps(self) -> dict[str, nn.Module]:
        """Says where to look, in depth order: the outputs are maps (B,D,h,w), then logits (B,K)."""
        blocks = {
            f"{stage}.{position}": block
            for stage in self.stages
            for position, block in self.get_submodule(stage).named_children()
        }
        return {"stem": self.maxpool, **blocks, "head": self.fc}


def _shape(size: str, depth: int | None, base_width: int | None) -> tuple[int, int]:
    """Depth and base width: those that were set, else the size's, else the paper's for that depth."""
    check_choice("model.size", size, SIZES)
    preset = SIZES[size]["resnet"].options
    if depth is None:
        depth = preset["depth"]
        base_width = preset["base_width"] if base_width is None else base_width
    if depth not in DEPTHS:
        raise UserError(f"model.depth={depth}: must be one of {', '.join(map(str, sorted(DEPTHS)))}")
    if base_width is None:
        base_width = 16 if len(DEPTHS[depth]) == 3 else 64
    if base_width < 1:
        raise UserError(f"model.base_width={base_width}: must be greater than 0")
    if depth in (18, 34) and base_width < 8:  # the gradient of torch's 1x1 convolution with stride crashes on a CPU
        raise UserError(f"model.depth={depth} model.base_width={base_width}: must be 8 or more")
    return depth, base_width
