"""Makes networks of timm and torchvision behave like our models: taps, features, weight decay and pretrained weights.

`timm.py` and `torchvision.py` know how each library builds a network and loads weights. In our files, the names of
weights have the prefix `net.`; messages show the library's own names.
"""

from __future__ import annotations

import io
import logging
import textwrap
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vitbench.errors import UserError
from vitbench.models.families import check_arch, is_cnn
from vitbench.models.weights import reason_of

MOST_TAPS = 16  # a network with more blocks is observed at this many, evenly spaced, with the first and the last
NET = "net."  # the prefix of the library's tensors in our files
# The errors that networks raise for images of a size that they do not take.
TOO_FEW = (RuntimeError, AssertionError, ValueError, TypeError, IndexError, KeyError, ZeroDivisionError)


class Input(NamedTuple):
    """The input that a pretrained network expects: its size in pixels, and the normalisation of values from 0 to 1."""

    name: str  # name of the weights, such as convnext_atto.d2_in1k
    image_size: int
    mean: list[float]
    std: list[float]


class Network(nn.Module):
    """A network of a library, built by the library's subclass. Some networks take other image sizes, and some do not.

    If `mean` and `std` are given, images are normalised by them; otherwise training decides.
    """

    library = ""
    prefix_tokens: int | None = None  # None: all tokens that do not fit into the largest square grid

    def __init__(self, arch: str, image_size: int, channels: int, num_classes: int, mean: Any, std: Any) -> None:
        super().__init__()
        self.typed = f"model={self.library} model.arch={arch}"
        check_arch(self.library, arch, f"model.arch={arch}")
        self.arch, self.image_size, self.channels, self.num_classes = arch, image_size, channels, num_classes
        self.normalised_by = [_numbers(f"model.{key}", its, channels) for key, its in (("mean", mean), ("std", std))]
        self.channels_last = is_cnn(arch)  # the fastest memory layout of convolutions
        self._maps: dict[str, nn.Module] = {}  # modules that are observed in place of stages with maps (B,h,w,D)

    # ----------------------------------------------------------------------------------- what each library says itself

    net: Any

    @property
    def heads(self) -> tuple[nn.Module, ...]:
        """The layers that give the logits; distilled networks have two."""
        raise NotImplementedError

    def stages(self) -> dict[str, nn.Module]:
        """Returns the modules before the head that are worth observing, in depth order, by the library's own names."""
        raise NotImplementedError

    @staticmethod
    def expects(arch: str, channels: int) -> Input | None:
        """Returns the input that the library's pretrained weights of an architecture expect; None if there are none."""
        raise NotImplementedError

    def where_to_find(self) -> str:
        """Returns where people can find the file of the pretrained weights."""
        raise NotImplementedError

    def pretrained(self) -> dict[str, Tensor]:
        """Returns the library's pretrained weights with their own head, for this image size and these channels."""
        raise NotImplementedError

    def converted(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Converts weights in the library's format to this image size and these channels; their classes may differ."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------------ as models of ours

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images)
        return logits

    def features(self, images: Tensor) -> Tensor:
        """Returns the input of the head, (B,D)."""
        met: list[Tensor] = []
        handle = self.heads[0].register_forward_pre_hook(lambda module, inputs: met.append(inputs[0]))
        try:
            self(images)
        finally:
            handle.remove()
        given = met[0]
        if isinstance(self.heads[0], nn.Linear):  # (B,D), or (B,...,D) if the network pools after the head
            return given.flatten(1, -2).mean(1) if given.ndim > 2 else given
        return given.flatten(2).mean(2) if given.ndim == 4 else given.flatten(1)

    @property
    def taps(self) -> dict[str, nn.Module]:
        """The modules to observe in depth order: stages or blocks by the library's names, then the head.

        If there are more than MOST_TAPS blocks, evenly spaced ones are taken.
        """
        stages = [*self.stages().items()]
        step = max(1, (len(stages) - 1) / (MOST_TAPS - 1))
        kept = stages if len(stages) <= MOST_TAPS else [stages[round(step * i)] for i in range(MOST_TAPS)]
        return {**{name: self._maps.get(name, module) for name, module in kept}, "head": self.heads[0]}

    def give_maps_channels_first(self) -> None:
        """Makes taps give (B,D,h,w) although stages give (B,h,w,D): outputs pass through a module that keeps them."""
        for name, module in self.stages().items():
            self._maps[name] = nn.Identity()
            module.register_forward_hook(partial(_through, self._maps[name]))

    @property
    def patch_embed(self) -> nn.Module:
        its: nn.Module = self.net.patch_embed
        return its

    def decayed(self) -> set[int]:
        """Returns the ids of the parameters that decay, by the usual rule (timm's `param_groups_weight_decay`).

        These are all parameters but biases, vectors, scalars and those that `no_weight_decay()` names.
        """
        left_out = set(self.net.no_weight_decay()) if hasattr(self.net, "no_weight_decay") else set()
        named = self.net.named_parameters()
        return {id(p) for name, p in named if p.ndim > 1 and not name.endswith(".bias") and name not in left_out}

    def layers_below_head(self) -> dict[int, int]:
        """Returns, by the id of each parameter, how many layers it lies below the head, for `optim.layer_decay`."""
        raise UserError(f"optim.layer_decay: {self.typed} does not tell the order of its layers; drop it")

    @property
    def own_input(self) -> Input | None:
        """The input that the library's pretrained weights of this network expect; None if there are none."""
        return self.expects(self.arch, self.channels)

    def check_images(self) -> None:
        """Raises UserError if the network does not take images of its size, or if its outputs are not logits."""
        side, random = self.image_size, torch.get_rng_state()
        try:
            with torch.inference_mode():
                logits = self.eval()(torch.zeros(2, self.channels, side, side))
        except TOO_FEW as error:
            raise self.refused_images(error) from None
        finally:
            torch.set_rng_state(random)
        if not isinstance(logits, Tensor) or logits.shape != (2, self.num_classes):
            raise UserError(f"{self.typed}: does not give one logit for each of {self.num_classes} classes")

    def refused_images(self, error: Exception) -> UserError:
        side = f"{self.image_size} px"
        return UserError(
            f"{self.typed}: takes no images of {side} with {self.channels} channels ({_short(error, 100)}); "
            "set data.image_size to another size"
        )


def _through(watched: nn.Module, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    """Passes a map (B,h,w,D) through `watched` as (B,D,h,w), and returns it as (B,h,w,D)."""
    if output.ndim != 4:
        return output
    seen: Tensor = watched(output.permute(0, 3, 1, 2))
    return seen.permute(0, 2, 3, 1)


def _numbers(key: str, typed: Any, channels: int) -> list[float] | None:
    """Returns the numbers typed as model.mean or model.std. UserError unless there is one for each channel."""
    if typed is None:
        return None
    least = "above 0" if key == "model.std" else "0"
    if len(typed) != channels or not all(0 <= number <= 1 for number in typed) or (least != "0" and 0 in typed):
        shown = f"[{','.join(f'{number:g}' for number in typed)}]"
        raise UserError(f"{key}={shown}: must be {channels} numbers, one for each channel of the images, {least} to 1")
    return [float(number) for number in typed]


def of_channels(numbers: Any, channels: int) -> list[float]:
    """Returns numbers for each channel of colour images; for images with another number of channels, their mean."""
    values = [float(number) for number in numbers]
    return values if len(values) == channels else [sum(values) / len(values)] * channels


def _short(error: Exception, width: int) -> str:
    return textwrap.shorten(str(error), width, placeholder=" ...") or type(error).__name__


@contextmanager
def quiet() -> Iterator[None]:
    """Silences the warnings, logs and download messages of libraries."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def fetched_pretrained(model: Network) -> dict[str, Tensor]:
    """Returns the library's pretrained weights. If they cannot be downloaded, a UserError names the file to bring."""
    own = model.own_input
    if own is None:
        raise UserError(f"init=pretrained: {model.library} has no pretrained weights of {model.arch}; drop init")
    try:
        with quiet():
            return model.pretrained()
    except Exception as error:  # a library's download may raise anything
        raise UserError(
            f"init=pretrained: {model.library} could not fetch the weights of {own.name} "
            f"({reason_of(error, 120)}); bring their file to this machine, {model.where_to_find()}, and type init=FILE"
        ) from None


def adapted(model: Network, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Adapts the tensors of a file in the library's format to the network; the head keeps the file's classes.

    If all tensors but the head fit, they are returned unchanged. Otherwise the library converts them (older names,
    another image size or number of channels). If this fails, they are returned unchanged, and the caller reports what
    does not fit.
    """
    own = model.net.state_dict()
    heads = head_prefixes(model)
    tensors = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    body = {name for name in own if not f"{NET}{name}".startswith(heads)}
    if (
        all(name in tensors and tensors[name].shape == own[name].shape for name in body)
        and tensors.keys() <= own.keys()
    ):
        return dict(tensors)
    try:
        with quiet():
            return model.converted(dict(tensors))
    except UserError:
        raise
    except Exception:  # a library may raise anything for tensors of other networks
        return dict(tensors)


def head_prefixes(model: Any) -> tuple[str, ...]:
    """Returns the prefixes of the names in a model's head, or in all heads of a library's network."""
    heads = model.heads if isinstance(model, Network) else (model.taps["head"],)
    return tuple(f"{name}." for name, module in model.named_modules() if any(module is head for head in heads))
