"""Networks of torchvision (github.com/pytorch/vision): `model=torchvision model.arch=mobilenet_v3_small`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from vitbench.models.library import Input, Network, of_channels, quiet

AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")  # second classifiers, which only torchvision's own recipes train
# The modules that hold the blocks in several families of networks; the first one that exists is used.
BLOCKS = ("encoder.layers", "features", "trunk_output", "blocks", "layers")
SIZED = {"vit_": "image_size", "maxvit": "input_size"}  # the networks that are built for one size, and its argument


class Torchvision(Network):
    """A network of torchvision. These networks take colour images; grey images become three equal channels.

    GoogLeNet and Inception have no auxiliary classifiers here. They expect ImageNet's normalisation.
    """

    library = "torchvision"

    def __init__(
        self,
        image_size: int,
        channels: int,
        num_classes: int,
        *,
        arch: str = "mobilenet_v3_small",
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__(arch, image_size, channels, num_classes, mean, std)
        self.net = self._create(num_classes)
        if arch.startswith("swin"):
            self.give_maps_channels_first()
        self.prefix_tokens = 1 if arch.startswith("vit_") else None

    def _create(self, classes: int) -> Any:
        from torchvision.models import get_model

        given: dict[str, Any] = {"num_classes": classes}
        if self.arch in ("googlenet", "inception_v3"):
            given |= {"aux_logits": False, "transform_input": True, "init_weights": True}
        for beginning, key in SIZED.items():
            if self.arch.startswith(beginning):
                given[key] = (self.image_size,) * 2 if key == "input_size" else self.image_size
        try:
            with quiet():
                return get_model(self.arch, weights=None, **given)
        except (AssertionError, ValueError, RuntimeError) as error:
            raise self.refused_images(error) from None

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images if self.channels == 3 else images.expand(-1, 3, -1, -1))

    @property
    def heads(self) -> tuple[nn.Module, ...]:
        classify = [
            module
            for module in self.net.modules()
            if (isinstance(module, nn.Linear) and module.out_features == self.num_classes)
            or (isinstance(module, nn.Conv2d) and module.out_channels == self.num_classes)
        ]
        return tuple(classify[-1:])

    def stages(self) -> dict[str, nn.Module]:
        modules = dict(self.net.named_modules())
        within = next((key for key in BLOCKS if key in modules), "")
        children = (modules[within] if within else self.net).named_children()
        blocks = {f"{within}.{name}".lstrip("."): module for name, module in children}
        head = self.heads[0]
        return {
            name: module
            for name, module in blocks.items()
            if any(True for _ in module.parameters()) and all(each is not head for each in module.modules())
        }

    @staticmethod
    def expects(arch: str, channels: int) -> Input | None:
        weights = _weights(arch)
        preset = weights.transforms()
        numbers = [of_channels(its, channels) for its in (preset.mean, preset.std)]
        return Input(f"{arch} {weights.name}", preset.crop_size[0], *numbers)

    def where_to_find(self) -> str:
        return str(_weights(self.arch).url)

    def pretrained(self) -> dict[str, Tensor]:
        tensors = _weights(self.arch).get_state_dict(progress=False, check_hash=True, weights_only=True)
        return self.converted(tensors)

    def converted(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        kept = {name: value for name, value in tensors.items() if not name.startswith(AUXILIARY)}
        if self.arch.startswith("densenet"):  # torchvision's files have the names of its early versions
            old = r"^(.*denselayer\d+\.(?:norm|relu|conv))\.((?:[12])\.(?:weight|bias|running_mean|running_var))$"
            kept = {re.sub(old, r"\1\2", name): value for name, value in kept.items()}
        if self.arch.startswith("vit_"):
            from torchvision.models.vision_transformer import interpolate_embeddings

            kept = dict(interpolate_embeddings(self.image_size, self.net.patch_size, kept))
        return kept


def _weights(arch: str) -> Any:
    """Returns torchvision's default weights of a network. Every network has some."""
    from torchvision.models import get_model_weights

    return get_model_weights(arch).DEFAULT
