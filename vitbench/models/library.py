"""Networks of timm and torchvision as models like ours: taps, features, cost, weight decay and pretrained weights.

`timm.py` and `torchvision.py` say how each library builds a network and loads weights. Its weights are below `net.` in
our files; names in lines for people are the library's own.
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

MOST_TAPS = 16  # a network with more blocks is observed at so many of them, evenly spaced, the last among them
NET = "net."  # what the names of the library's tensors begin with in ours
TOO_FEW = (RuntimeError, AssertionError, ValueError, TypeError, IndexError, KeyError, ZeroDivisionError)  # of an image


class Input(NamedTuple):
    """What a pretrained network expects: pixels a side, and the normalisation of each channel, in 0..1."""

    name: str  # of the weights, such as convnext_atto.d2_in1k
    image_size: int
    mean: list[float]
    std: list[float]


class Network(nn.Module):
    """A network of a library; a subclass for each builds it. Whether it takes other image sizes depends on it.

    `mean` and `std` are what images are normalised by where they are typed, and else decided in training.
    """

    library = ""
    prefix_tokens: int | None = None  # None: what the largest square of tokens leaves

    def __init__(self, arch: str, image_size: int, channels: int, num_classes: int, mean: Any, std: Any) -> None:
        super().__init__()
        self.typed = f"model={self.library} model.arch={arch}"
        check_arch(self.library, arch, f"model.arch={arch}")
        self.arch, self.image_size, self.channels, self.num_classes = arch, image_size, channels, num_classes
        self.normalised_by = [_numbers(f"model.{key}", its, channels) for key, its in (("mean", mean), ("std", std))]
        self.channels_last = is_cnn(arch)  # the fastest memory layout of convolutions
        self._maps: dict[str, nn.Module] = {}  # what is observed in place of stages that give maps (B,h,w,D)

    # ----------------------------------------------------------------------------------- what each library says itself

    net: Any

    @property
    def heads(self) -> tuple[nn.Module, ...]:
        """The layers that give a number for each class; distilled networks have two."""
        raise NotImplementedError

    def stages(self) -> dict[str, nn.Module]:
        """The places worth observing before the head, in depth order, by the library's own names."""
        raise NotImplementedError

    @staticmethod
    def expects(arch: str, channels: int) -> Input | None:
        """What the library's pretrained weights of an architecture expect; None where it has none."""
        raise NotImplementedError

    def where_to_find(self) -> str:
        """Says where people find the file of the pretrained weights."""
        raise NotImplementedError

    def pretrained(self) -> dict[str, Tensor]:
        """The library's pretrained weights, for this size and these channels, with the head they were trained with."""
        raise NotImplementedError

    def converted(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights in the library's format, of other classes perhaps, for this size and these channels."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------------ as models of ours

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images)
        return logits

    def features(self, images: Tensor) -> Tensor:
        """Gives what the head takes, (B,D)."""
        met: list[Tensor] = []
        handle = self.heads[0].register_forward_pre_hook(lambda module, inputs: met.append(inputs[0]))
        try:
            self(images)
        finally:
            handle.remove()
        given = met[0]
        if isinstance(self.heads[0], nn.Linear):  # (B,D), or the last axis of what is pooled after the head
            return given.flatten(1, -2).mean(1) if given.ndim > 2 else given
        return given.flatten(2).mean(2) if given.ndim == 4 else given.flatten(1)

    @property
    def taps(self) -> dict[str, nn.Module]:
        """Says where to look, in depth order: stages or blocks by the library's names, then the head.

        Of MOST_TAPS blocks or more, evenly spaced ones.
        """
        stages = [*self.stages().items()]
        step = max(1, (len(stages) - 1) / (MOST_TAPS - 1))
        kept = stages if len(stages) <= MOST_TAPS else [stages[round(step * i)] for i in range(MOST_TAPS)]
        return {**{name: self._maps.get(name, module) for name, module in kept}, "head": self.heads[0]}

    def give_maps_channels_first(self) -> None:
        """Lets taps give (B,D,h,w) where stages give (B,h,w,D): each leads through a module that changes nothing."""
        for name, module in self.stages().items():
            self._maps[name] = nn.Identity()
            module.register_forward_hook(partial(_through, self._maps[name]))

    @property
    def patch_embed(self) -> nn.Module:
        its: nn.Module = self.net.patch_embed
        return its

    def decayed(self) -> set[int]:
        """The ids of the parameters that weight decay is for, by the field's usual rule (timm's
        `param_groups_weight_decay`): all but biases, vectors and scalars, and what `no_weight_decay()` names.
        """
        left_out = set(self.net.no_weight_decay()) if hasattr(self.net, "no_weight_decay") else set()
        named = self.net.named_parameters()
        return {id(p) for name, p in named if p.ndim > 1 and not name.endswith(".bias") and name not in left_out}

    def layers_below_head(self) -> dict[int, int]:
        """By the id of each parameter, how many layers it lies below the head, for `optim.layer_decay`."""
        raise UserError(f"optim.layer_decay: {self.typed} does not say which layer lies above which; drop it")

    @property
    def own_input(self) -> Input | None:
        """What the library's pretrained weights of this network expect; None where it has none."""
        return self.expects(self.arch, self.channels)

    def check_images(self) -> None:
        """Refuses, in one line, images of a size that the network does not take, and outputs that are no logits."""
        side, random = self.image_size, torch.get_rng_state()
        try:
            with torch.inference_mode():
                logits = self.eval()(torch.zeros(2, self.channels, side, side))
        except TOO_FEW as error:
            raise self.refused_images(error) from None
        finally:
            torch.set_rng_state(random)
        if not isinstance(logits, Tensor) or logits.shape != (2, self.num_classes):
            raise UserError(f"{self.typed}: does not give a number for each of {self.num_classes} classes")

    def refused_images(self, error: Exception) -> UserError:
        side = f"{self.image_size} px"
        return UserError(
            f"{self.typed}: takes no images of {side} with {self.channels} channels ({_short(error, 100)}); "
            "data.image_size=N gives others"
        )


def _through(watched: nn.Module, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    """A map (B,h,w,D) as it was, after `watched` has seen it as (B,D,h,w)."""
    if output.ndim != 4:
        return output
    seen: Tensor = watched(output.permute(0, 3, 1, 2))
    return seen.permute(0, 2, 3, 1)


def _numbers(key: str, typed: Any, channels: int) -> list[float] | None:
    """What was typed as model.mean or model.std; UserError where it is not a number for each channel."""
    if typed is None:
        return None
    least = "above 0" if key == "model.std" else "0"
    if len(typed) != channels or not all(0 <= number <= 1 for number in typed) or (least != "0" and 0 in typed):
        shown = f"[{','.join(f'{number:g}' for number in typed)}]"
        raise UserError(f"{key}={shown}: must be {channels} numbers, one a channel of the images, {least} to 1")
    return [float(number) for number in typed]


def of_channels(numbers: Any, channels: int) -> list[float]:
    """The numbers of a colour image's channels for images of so many: of grey ones the mean."""
    values = [float(number) for number in numbers]
    return values if len(values) == channels else [sum(values) / len(values)] * channels


def _short(error: Exception, width: int) -> str:
    return textwrap.shorten(str(error), width, placeholder=" ...") or type(error).__name__


@contextmanager
def quiet() -> Iterator[None]:
    """Lets libraries warn, log and print retries of downloads into nothing."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def fetched_pretrained(model: Network) -> dict[str, Tensor]:
    """The library's pretrained weights of a network; UserError, which names the file to bring, without access."""
    own = model.own_input
    if own is None:
        raise UserError(f"init=pretrained: {model.library} has no pretrained weights of {model.arch}")
    try:
        with quiet():
            return model.pretrained()
    except Exception as error:  # whatever a library's downloads raise
        raise UserError(
            f"init=pretrained: {model.library} could not fetch the weights of {own.name} "
            f"({reason_of(error, 120)}); bring the file of them to this machine, {model.where_to_find()}, and give it "
            "as init=FILE"
        ) from None


def adapted(model: Network, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a file in the library's format as the network takes them, with the head of the file's own classes.

    A file that fits in all but the head is taken as it is; others are converted as the library does (older names,
    another image size or number of channels). Where that fails they are returned as they are, so that the caller tells
    what does not fit.
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
    except Exception:  # whatever a library raises for tensors of other networks
        return dict(tensors)


def head_prefixes(model: Any) -> tuple[str, ...]:
    """What the names of a model's head begin with: of `taps["head"]`, and of all heads of a library's network."""
    heads = model.heads if isinstance(model, Network) else (model.taps["head"],)
    return tuple(f"{name}." for name, module in model.named_modules() if any(module is head for head in heads))
