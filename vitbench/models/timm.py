"""Networks of timm (github.com/huggingface/pytorch-image-models): `model=timm model.arch=convnext_atto`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from torch import Tensor, nn

from vitbench.errors import UserError
from vitbench.models.library import Input, Network, of_channels, quiet

MAPS_LAST = ("VOLO", "VisionTransformerSAM")  # networks whose stages give (B,h,w,D), although timm does not say so
CLS_LATER = ("Cait", "ConVit")  # networks whose class token is not among the tokens of the first blocks


class Timm(Network):
    """A network of timm. `arch` decides its size; `drop_path` is the rate of the last block, if the network has it.

    Networks that are built for one image size (ViT, Swin, Mixer ...) are built for `image_size` and take no other.
    """

    library = "timm"

    def __init__(
        self,
        image_size: int,
        channels: int,
        num_classes: int,
        *,
        arch: str = "convnext_atto",
        drop_path: float = 0.0,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__(arch, image_size, channels, num_classes, mean, std)
        self.drop_path = drop_path or None  # timm leaves out what is None
        self.net = self._create(num_classes=num_classes)
        output = getattr(self.net, "output_fmt", "NCHW")
        kind = type(self.net).__name__
        if str(getattr(output, "value", output)) == "NHWC" or kind in MAPS_LAST:
            self.give_maps_channels_first()
        self.prefix_tokens = None if kind in CLS_LATER else getattr(self.net, "num_prefix_tokens", None)
        if any(isinstance(head, nn.ModuleList) for head in self.heads):
            raise UserError(f"{self.typed}: several of its layers give the logits together, which is not supported")
        if not all(any(True for _ in head.parameters()) for head in self.heads):
            raise UserError(f"{self.typed}: does not give one logit for each of {num_classes} classes")

    def _create(self, **given: Any) -> Any:
        """Creates a network. Arguments that its class does not take are left out, or refused if they were typed."""
        import timm

        given = {"in_chans": self.channels, "img_size": self.image_size, "drop_path_rate": self.drop_path, **given}
        while True:
            try:
                with quiet():
                    return timm.create_model(self.arch, **given)
            except TypeError as error:
                unknown = _unknown_words(error) & given.keys()
                if not unknown:
                    raise self.refused_images(error) from None
                if "drop_path_rate" in unknown and given["drop_path_rate"] is not None:
                    raise UserError(f"model.drop_path={self.drop_path}: {self.typed} takes none; drop it") from None
                given = {key: value for key, value in given.items() if key not in unknown}
            except (AssertionError, ValueError, ZeroDivisionError, IndexError) as error:
                if given.get("pretrained"):
                    raise
                raise self.refused_images(error) from None
            except RuntimeError as error:
                if given.get("pretrained"):
                    raise
                raise UserError(f"model.arch={self.arch}: {' '.join(str(error).split())[:160]}") from None

    @property
    def heads(self) -> tuple[nn.Module, ...]:
        head = self.net.get_classifier()
        return tuple(each for each in (head if isinstance(head, tuple) else (head,)) if each is not None)

    def stages(self) -> dict[str, nn.Module]:
        places = getattr(self.net, "feature_info", None) or []
        found: dict[str, nn.Module] = {}
        for place in getattr(places, "info", places):
            with suppress(AttributeError):  # some of these names are not modules
                found[place["module"]] = self.net.get_submodule(place["module"])
        if found:
            return found
        blocks = next((its for key in ("stages", "blocks", "layers") if (its := getattr(self.net, key, None))), None)
        named = blocks.named_children() if isinstance(blocks, nn.Module) else ()
        return {f"blocks.{name}": module for name, module in named}

    @staticmethod
    def expects(arch: str, channels: int) -> Input | None:
        from timm.models import get_pretrained_cfg

        try:
            its = get_pretrained_cfg(arch)
        except RuntimeError as error:  # the tag does not exist
            raise UserError(f"model.arch={arch}: {error}") from None
        if its is None or not its.has_weights:
            return None
        name = f"{arch.partition('.')[0]}.{its.tag}" if its.tag else arch
        return Input(name, its.input_size[-1], of_channels(its.mean, channels), of_channels(its.std, channels))

    def where_to_find(self) -> str:
        its = self.net.pretrained_cfg
        hub = its.get("hf_hub_id")
        return f"model.safetensors of https://huggingface.co/{hub}" if hub else str(its.get("url"))

    def pretrained(self) -> dict[str, Tensor]:
        own: dict[str, Tensor] = self._create(pretrained=True, drop_path_rate=None).state_dict()
        return own

    def converted(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        classifier = (self.net.pretrained_cfg or {}).get("classifier") or "head"
        weight = f"{classifier if isinstance(classifier, str) else classifier[0]}.weight"
        classes = len(tensors[weight]) if weight in tensors else 0
        its = {"state_dict": tensors, "num_classes": classes, "label_offset": 0, "custom_load": False}
        made = self._create(pretrained=True, num_classes=classes, pretrained_cfg_overlay=its, drop_path_rate=None)
        own: dict[str, Tensor] = made.state_dict()
        return own

    def layers_below_head(self) -> dict[int, int]:
        """Uses timm's own groups (`group_matcher`), like its `param_groups_layer_decay`."""
        if not hasattr(self.net, "group_matcher"):
            return super().layers_below_head()
        from timm.models import group_parameters

        layers = group_parameters(self.net, self.net.group_matcher(coarse=False), reverse=True)
        last = max(layers.values())
        return {id(parameter): last - layers[name] for name, parameter in self.net.named_parameters()}


def _unknown_words(error: TypeError) -> set[str]:
    """Returns the keyword arguments that a network does not take, by its error message, which has two forms in timm."""
    listed = re.search(r"unexpected keyword argument(?:\(s\))?:? (.+)", str(error))
    return set(re.findall(r"'(\w+)'", listed[1])) if listed else set()
