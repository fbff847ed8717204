"""Reads and writes tensors in safetensors files that contain their own SHA-256.

So a flipped bit is noticed, and reading a file never executes code.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypedDict

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vitbench.errors import UserError
from vitbench.machine.disk import read_file, storage
from vitbench.machine.distributed import led
from vitbench.menu import FROM_1
from vitbench.models.weights import check_kinds
from vitbench.numbers.words import printable
from vitbench.runs.fields import fault_of
from vitbench.runs.record import Count, Seconds


def to_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> bytes:
    """Returns the bytes of a safetensors file with these tensors and, as JSON, this metadata."""
    from safetensors.torch import save

    cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(metadata, sort_keys=True)
    # All metadata is under one key, because safetensors writes several keys in random order, and equal runs should give
    # equal bytes.
    return save(cpu, {"vitbench": f"{digest(cpu, text)} {text}"})


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns the tensors and the metadata of a file that `to_bytes` made. Raises UserError for any other file."""
    from safetensors import SafetensorError
    from safetensors.torch import load as parse

    try:
        blob = read_file(path, sys.maxsize)
        tensors = parse(blob)
        header = json.loads(blob[8 : 8 + struct.unpack("<Q", blob[:8])[0]]).get("__metadata__", {})
        expected, _, text = header["vitbench"].partition(" ")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except KeyError:
        raise UserError(f"{path} was not written by vitbench (it has no checksum)") from None
    except (SafetensorError, ValueError, TypeError, AttributeError, RecursionError, struct.error, MemoryError):
        raise UserError(f"{path} is damaged or is not a safetensors file") from None
    if digest(tensors, text) != expected:
        raise UserError(f"{path} is damaged: its SHA-256 differs from the one it was written with")
    try:
        return tensors, dict(json.loads(text))
    except (ValueError, TypeError, RecursionError):
        raise UserError(f"{path} was not written by vitbench (its metadata is not a JSON object)") from None


def weights_of(run: str, path: Path) -> dict[str, Tensor]:
    """Returns the tensors of a file of weights. Raises UserError if the file belongs to another run than `run`."""
    tensors, about = load_tensors(path)
    if about.get("run") != run:
        raise UserError(f"{path} holds the weights of another run, {about.get('run')}")
    # Files of old versions have DeiT's second head under the name that it has in timm.
    return {re.sub(r"^head_dist\.", "head.dist.", name): tensor for name, tensor in tensors.items()}


def set_damaged_aside(run: str, paths: Iterable[Path]) -> list[str]:
    """Renames the weight files of a run that are damaged or belong to another run; returns a line about each.

    Nobody reads them under the new name, and the record of the run, which is written later, does not list them.
    """
    told = []
    for path in paths:
        try:
            weights_of(run, path)
        except UserError as error:
            aside = path.with_name(f"{path.name}.damaged")
            with storage(aside):
                os.replace(path, aside)
            told.append(f"{error}; it was renamed to {aside.name}")
    return told


def digest(tensors: Mapping[str, Tensor], text: str = "") -> str:
    """Returns the SHA-256 of the text and of the tensors' names, types, shapes and values, in any order of tensors."""
    sha256 = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        sha256.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha256.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha256.hexdigest()


def fit_tensors(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Loads weights into a model. If a tensor does not fit, it raises UserError and loads none."""
    check_fit(model, tensors, path)
    model.load_state_dict(dict(tensors))


def check_fit(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raises UserError unless the tensors are exactly those of the model, by name and shape."""
    own = model.state_dict()
    missing, unknown = own.keys() - tensors.keys(), tensors.keys() - own.keys()
    reshaped = [name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape]
    if missing or unknown or reshaped:
        example = sorted(reshaped or missing or unknown)[0]
        there, here = (tuple(those[example].shape) if example in those else "nothing" for those in (tensors, own))
        count = len(missing) + len(unknown) + len(reshaped)
        raise UserError(
            f"{path} is from another model: {printable(example)[:80]} is {there} there and {here} here "
            f"({count} of {len(own)} tensors do not fit)"
        )
    check_kinds(own, tensors, str(path))


# ---------------------------------------------------------------------------------------------- the state of a training


class About(TypedDict):
    """The metadata of a saved state."""

    run: str  # the id of its run
    step: Count  # number of steps that are done
    train_seconds: Seconds
    every: Annotated[int, FROM_1]  # steps between two evaluations
    data: str  # the fingerprint of the images
    commit: str | None  # of the code


def gather(
    about: Mapping[str, Any],
    *,
    model: nn.Module,
    objective: nn.Module,
    optimizer: Optimizer,
    averaged: nn.Module | None,
    losses: Tensor,
    metrics: bytes | None = None,
) -> bytes:
    """Returns the bytes of a saved state. It has no state of random generators, because (seed, step) seeds each step.

    `metrics` is the content of metrics.csv. It is stored here because that file has no checksum of its own.
    """
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"objective.{name}": value for name, value in objective.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items() if value is not None}
    if averaged is not None:
        tensors |= {f"averaged.{name}": value for name, value in averaged.state_dict().items()}
    if metrics is not None:
        empty = torch.empty(0, dtype=torch.uint8)
        tensors["metrics"] = torch.frombuffer(bytearray(metrics), dtype=torch.uint8) if metrics else empty
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
    """Loads a state that `gather` made into objects that were built from the same settings; returns its metadata.

    The metadata gets two more keys: `has_losses` says whether `losses` now holds the loss of every earlier step, and
    `metrics` is the content of metrics.csv, if the state has it. Raises UserError if the state belongs to another run
    or a tensor does not fit; then no object has changed.
    """
    tensors, about = led(load_tensors, path)
    if fault := fault_of(About, about):
        raise UserError(f"{path} is not a complete state: {fault}")
    if about["run"] != run:
        raise UserError(f"{path} is the state of another run, {about['run']}")
    if about["step"] > len(losses):
        raise UserError(
            f"{path} is not a state of this run: it is of step {about['step']:,}, and the run has {len(losses):,} steps"
        )
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "objective": {}, "optimizer": {}, "averaged": {}, "losses": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = value
    modules = {"model": model, "objective": objective} | ({} if averaged is None else {"averaged": averaged})
    for part, module in modules.items():
        check_fit(module, parts[part], path)
    order = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    by_index = {str(index): parameter for index, parameter in enumerate(order)}
    for name, value in parts["optimizer"].items():
        index = name.partition(".")[0]
        if index not in by_index or (value.dim() and value.shape != by_index[index].shape):
            raise UserError(f"{path} is from another optimizer: {name} fits no parameter of this one")
    for name, kind in (("losses", torch.float32), ("metrics", torch.uint8)):
        if (kept := tensors.get(name)) is None and name == "losses":
            raise UserError(f"{path} is not a complete state: it has no losses")
        if kept is not None and (kept.dim() != 1 or kept.dtype != kind):
            raise UserError(f"{path} is not a complete state: its {name} are {kept.dtype} of shape {tuple(kept.shape)}")
    for part, module in modules.items():
        module.load_state_dict(parts[part])
    for name, value in parts["optimizer"].items():
        index, _, key = name.partition(".")
        parameter = by_index[index]
        # Fused optimizers expect their state in the memory layout of the parameter, which can be channels-last.
        like = parameter if value.shape == parameter.shape else torch.empty_like(value, device=parameter.device)
        optimizer.state[parameter][key] = torch.empty_like(like).copy_(value)
    saved, step = parts["losses"][""], about["step"]
    has_losses = len(saved) >= step  # states of old versions have only the losses since the last evaluation
    if has_losses:
        losses[:step] = saved[:step]
    lines = {"metrics": tensors["metrics"].numpy().tobytes()} if "metrics" in tensors else {}
    return about | lines | {"has_losses": has_losses}
