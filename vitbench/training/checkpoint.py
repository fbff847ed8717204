"""Tensors in one safetensors file that knows its own SHA-256: a flipped bit is noticed, and nothing in it is code."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vitbench.errors import UserError
from vitbench.machine.distributed import led


def to_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> bytes:
    """The bytes of a file with the tensors and, as JSON, the metadata."""
    from safetensors.torch import save

    cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(metadata, sort_keys=True)
    # one key, because safetensors writes several in random order and equal runs should give equal bytes
    return save(cpu, {"vitbench": f"{digest(cpu, text)} {text}"})


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the metadata of a file that `dump` made; UserError says what is wrong with any other."""
    from safetensors import SafetensorError
    from safetensors.torch import load as parse

    try:
        blob = path.read_bytes()
        tensors = parse(blob)
        header = json.loads(blob[8 : 8 + struct.unpack("<Q", blob[:8])[0]]).get("__metadata__", {})
        expected, _, text = header["vitbench"].partition(" ")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except KeyError:
        raise UserError(f"{path} was not written by vitbench (it has no checksum)") from None
    except (SafetensorError, ValueError, struct.error, MemoryError):
        raise UserError(f"{path} is damaged or is not a safetensors file") from None
    if digest(tensors, text) != expected:
        raise UserError(f"{path} is damaged: its SHA-256 differs from the one it was written with")
    return tensors, json.loads(text)


def weights_of(run: str, path: Path) -> dict[str, Tensor]:
    """The tensors of a run's file; UserError where another run's weights lie there."""
    tensors, about = load_tensors(path)
    if about.get("run") != run:
        raise UserError(f"{path} holds the weights of another run, {about.get('run')}")
    # what DeiT's second head was called here once, and is in timm
    return {re.sub(r"^head_dist\.", "head.dist.", name): tensor for name, tensor in tensors.items()}


def digest(tensors: Mapping[str, Tensor], text: str = "") -> str:
    """Names, types, shapes and values, in whatever order they come."""
    seen = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        seen.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        seen.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return seen.hexdigest()


def fit_tensors(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Loads weights into a model, or says in one line what does not fit."""
    check_fit(model, tensors, path)
    model.load_state_dict(dict(tensors))


def check_fit(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """What `fit` refuses, without loading the rest."""
    own = model.state_dict()
    missing, unknown = own.keys() - tensors.keys(), tensors.keys() - own.keys()
    other = [name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape]
    if missing or unknown or other:
        example = sorted(other or missing or unknown)[0]
        found = tuple(tensors[example].shape) if example in tensors else "nothing"
        wanted = tuple(own[example].shape) if example in own else "nothing"
        count = len(missing) + len(unknown) + len(other)
        raise UserError(
            f"{path} is from another model: {example} is {found} there and {wanted} here ({count} of {len(own)} tensors"
            " do not fit)"
        )


# ------------------------------------------------------------------------------------------------ a training's state


def gather(
    about: Mapping[str, Any],
    *,
    model: nn.Module,
    objective: nn.Module,
    optimizer: Optimizer,
    averaged: nn.Module | None,
    losses: Tensor,
) -> bytes:
    """The file that resuming needs. Random numbers are no part of it: each step draws its own from (seed, step)."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"objective.{name}": value for name, value in objective.state_dict().items()}
    for place, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{place}.{name}": value for name, value in values.items() if value is not None}
    if averaged is not None:
        tensors |= {f"averaged.{name}": value for name, value in averaged.state_dict().items()}
    return to_bytes(tensors | {"losses": losses}, about)


def restore(
    path: Path,
    run: str,
    *,
    model: nn.Module,
    objective: nn.Module,
    optimizer: Optimizer,
    averaged: nn.Module | None,
    losses: Tensor,
) -> dict[str, Any]:
    """The reverse of `gather`, into objects freshly built from the same settings; returns what it was about.

    UserError where a part is not theirs; all of them are then as they were.
    """
    tensors, about = led(load_tensors, path)
    if about.get("run") != run:
        raise UserError(f"{path} is the state of another run, {about.get('run')}")
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "objective": {}, "optimizer": {}, "averaged": {}, "losses": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = value
    modules = {"model": model, "objective": objective} | ({} if averaged is None else {"averaged": averaged})
    for part, module in modules.items():
        check_fit(module, parts[part], path)
    order = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    places = {str(place): parameter for place, parameter in enumerate(order)}
    for name, value in parts["optimizer"].items():
        place = name.partition(".")[0]
        if place not in places or (value.dim() and value.shape != places[place].shape):
            raise UserError(f"{path} is from another optimizer: no parameter here takes {name}")
    if "" not in parts["losses"]:
        raise UserError(f"{path} is no whole state: it has no losses")
    for part, module in modules.items():
        module.load_state_dict(parts[part])
    for name, value in parts["optimizer"].items():
        place, _, key = name.partition(".")
        parameter = places[place]
        # fused optimizers read memory in the parameter's own order, channels-last for convolutions
        like = parameter if value.shape == parameter.shape else torch.empty_like(value, device=parameter.device)
        optimizer.state[parameter][key] = torch.empty_like(like).copy_(value)
    if parts["losses"][""].shape == losses.shape:  # else eval_every was changed since
        losses.copy_(parts["losses"][""])
    return about
