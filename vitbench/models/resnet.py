"""The residual network (He et al. 2016, arXiv 1512.03385), for ImageNet (18, 34, 50) and for CIFAR (20, 32, 56).

Weights of torchvision's `resnet18`, `resnet34` and `resnet50` fit: every parameter has the same name and shape. We
differ from the paper as torchvision does: the stride of a bottleneck is in its 3x3 convolution ("v1.5", Goyal et al.
2017). Each spatial inductive bias of the network can be removed by a setting (docs/explanation/ladders.md).
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
PATCH = 4  # side of a patch of stem=patch, in pixels
LARGEST_FOR_CIFAR = 64  # in pixels; with stem=auto, larger images get the stem of ImageNet
# The number of blocks in each stage. A CIFAR network of depth 6n+2 has three stages of n blocks with two convolutions.
DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 20: (3, 3, 3), 32: (5, 5, 5), 56: (9, 9, 9)}


class BasicBlock(nn.Module):
    """A block with two 3x3 convolutions and a shortcut. `side` is the side of the input map."""

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
    """A block with a 1x1 convolution to a quarter of the channels, a 3x3, a 1x1 back, and a shortcut."""

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
    """The paper's shortcut A: it takes every stride-th pixel and appends channels of 0, as in fb.resnet.torch."""

    def __init__(self, new_channels: int, stride: int) -> None:
        super().__init__()
        self.new_channels = new_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))


class ResNet(nn.Module):
    """A residual network. It also takes images of other sizes than `image_size`, unless `sharing` or `pool` forbid it.

    `size` gives depth and base width (`vitbench ls models`). If `depth` is set, the base width is the paper's, 64, or
    16 for the CIFAR depths. `base_width` is the number of channels of the first stage; each later stage doubles it.
    `stem` is `imagenet` (7x7 with stride 2, max-pooling with stride 2), `cifar` (3x3, stride 1, no pooling; the paper's
    section 4.2), or `auto`: cifar up to 64 px, where the ImageNet stem would leave maps of 1 or 2 pixels. Every depth
    works with both stems. As in the paper, shortcuts that change the shape are projections (option B) in the ImageNet
    depths, and have no weights (option A) in the CIFAR depths.

    `sharing`, `reach`, `padding`, `downsample` and `norm` are the inductive biases of all its layers, also of the stem
    and the shortcuts (`Convolutions`). With `hierarchy=False`, all stages keep the map of the stem and the channels of
    the first stage, at about equal cost. The further stem `patch`, 4x4 pixels with stride 4, removes locality within
    patches. Without hierarchy it has four times the channels, because its maps are smaller than those of a CIFAR stem.
    With `pool=flatten` the head has weights for each place; with `mean` it averages over places.

    Weights are initialised as in torchvision: convolutions by He et al. 2015 (arXiv 1502.01852), fan-out; norms by 1
    and 0; the head by torch's default.
    """

    channels_last = True  # convolutions are fastest in this memory layout

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
            base_width *= PATCH  # for larger images, stem=imagenet has a stride of 4 in all, too
        self.is_of_patches = stem == "patch"
        side = self._make_stem(make, stem, image_size, channels, base_width)

        for_cifar = len(DEPTHS[depth]) == 3
        block: type[BasicBlock | Bottleneck] = Bottleneck if depth == 50 else BasicBlock
        inputs = base_width
        self.stages = []  # torchvision's names are layer1, layer2 and so on
        for index, blocks in enumerate(DEPTHS[depth]):
            width = base_width * 2**index if hierarchy else base_width
            outputs = width * block.expansion
            layer = nn.Sequential()
            for position in range(blocks):
                stride = 2 if hierarchy and index > 0 and position == 0 else 1
                # If a layer halves the map before the block, the shortcut has stride 1.
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
            raise UserError(f"data.image_size={side} model.stem=patch: must be a multiple of {PATCH}; {sizes} works")
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
        """Returns the input of the head, (B,D)."""
        height, width = images.shape[2:]
        if self.is_of_patches and (height % PATCH or width % PATCH):
            raise UserError(f"images of {height} x {width} px: model.stem=patch needs multiples of {PATCH} px")
        x = self.maxpool(F.relu(self.bn1(self.conv1(images)), inplace=True))  # (B,D,h,w)
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
        if self.pool == "mean":
            return x.mean((2, 3))
        if x.shape[2:] != (self.side, self.side):
            raise UserError(
                f"images of {height} x {width} px: model.pool=flatten takes only the size that it was built for, "
                f"{self.image_size} x {self.image_size} px"
            )
        return x.flatten(1)

    @property
    def taps(self) -> dict[str, nn.Module]:
        """The modules to observe in depth order; their outputs are maps (B,D,h,w), then logits (B,K)."""
        blocks = {
            f"{stage}.{position}": block
            for stage in self.stages
            for position, block in self.get_submodule(stage).named_children()
        }
        return {"stem": self.maxpool, **blocks, "head": self.fc}


def _shape(size: str, depth: int | None, base_width: int | None) -> tuple[int, int]:
    """Returns depth and base width: those that are set, else those of the size, else the paper's for this depth."""
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
    if depth in (18, 34) and base_width < 8:  # on a CPU, the gradient of torch's strided 1x1 convolution crashes
        raise UserError(f"model.depth={depth} model.base_width={base_width}: must be 8 or more")
    return depth, base_width
