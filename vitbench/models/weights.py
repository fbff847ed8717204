"""Reads files of weights that others made: .safetensors, or what `torch.save` made of a state_dict. No code is run.

Whatever such a file holds, it costs at most a few times its size in memory, and what is no weights is one line.
"""

from __future__ import annotations

import argparse
import pickle
import pickletools
import textwrap
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitbench.errors import UserError
from vitbench.machine.disk import check_readable
from vitbench.numbers.words import printable

NESTED = ("state_dict", "model", "model_state_dict")  # where training scripts put a state_dict
PREFIX = "module."  # which DistributedDataParallel puts before every name
UNPACKED = 2  # how many times its size a file may hold at most
PICKLES = 4  # of a file of torch before 1.6: its number, its version, the machine's facts, and what was saved
# beside torch's own names, of which torch knows those that are harmless, a pickle may name these
PLAIN_NAMES = ("collections OrderedDict", "argparse Namespace", "builtins set", "__builtin__ set")


def read_state_dict(path: Path, typed: str) -> dict[str, Tensor]:
    """The tensors of a file by their names.

    UserError, in a line that begins with `typed`, for what is no file of weights, for tensors without values, and for
    values that are not finite. The settings that timm's training script keeps beside the weights, a plain
    `argparse.Namespace`, are read and dropped.
    """
    if path.suffix == ".safetensors":
        return read_safetensors(path, typed)[0]
    size = check_readable(path, f"{typed}: ")
    try:
        held = _refusal(path, size)
        content = None if held else _unpickled(path)
    except OSError as error:
        raise UserError(f"{typed}: cannot be read: {error.strerror or error}") from None
    except Exception:  # whatever torch raises for bytes that are no weights; its own words advise to let code run
        raise UserError(f"{typed}: is damaged or no file of weights") from None
    if held:
        raise UserError(f"{typed}: {held}")
    for key in NESTED:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise UserError(f"{typed}: is no state_dict, a dict of names and tensors")
    check_tensors(content, typed, size)
    return {name.removeprefix(PREFIX): value for name, value in content.items()}


def read_safetensors(path: Path, typed: str) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    """The tensors of a .safetensors file and its metadata; UserError as `read_state_dict`."""
    from safetensors import safe_open
    from safetensors.torch import load_file

    size = check_readable(path, f"{typed}: ")
    try:
        with path.open("rb") as file:
            pickled = file.read(4).startswith((b"\x80", b"PK\x03\x04"))
        if not pickled:
            with safe_open(path, framework="pt") as opened:
                metadata = opened.metadata() or {}
            tensors = load_file(path)
    except OSError as error:
        raise UserError(f"{typed}: cannot be read: {error.strerror or error}") from None
    except Exception:  # whatever the library raises for bytes that are no weights
        raise UserError(f"{typed}: is damaged or is no safetensors file") from None
    if pickled:
        raise UserError(f"{typed}: is a pickle, which can hold code and is not read; save its tensors as safetensors")
    check_tensors(tensors, typed, size)
    return tensors, metadata


def _refusal(path: Path, size: int) -> str | None:
    """Why a file is not unpickled, by its form and by the names in its pickles; None where it may be."""
    with path.open("rb") as file:
        begin = file.read(4)
        if begin[:1] == b"\x80":  # a plain pickle, or what torch before 1.6 saved
            file.seek(0)
            return next((held for held in (_names_refused(file) for _ in range(PICKLES)) if held), None)
    if begin != b"PK\x03\x04":
        return "is no file of weights"
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > UNPACKED * size:
            return f"an archive that unpacks to more than {UNPACKED} times its size"
        for entry in archive.infolist():
            if entry.filename.endswith(".pkl"):
                with archive.open(entry) as pickled:
                    if held := _names_refused(pickled):
                        return held
    return None


def _names_refused(pickled: Any) -> str | None:
    """Why the next pickle of an open file is refused: it names something other than tensors and plain containers.

    torch refuses most of it too, but makes a `bytearray` of as many bytes as a pickle asks for.
    """
    for opcode, argument, _ in pickletools.genops(pickled):
        named = str(argument) if opcode.name in ("GLOBAL", "INST") else ""
        if opcode.name in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):
            return "holds more than tensors, and code is not run"
        if named and named not in PLAIN_NAMES and not named.startswith(("torch ", "torch.")):
            shown = printable(named.replace(" ", "."))[:60]
            return f"holds more than tensors ({shown}), and code is not run; save its state_dict alone"
    return None


def _unpickled(path: Path) -> Any:
    with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True)


def check_tensors(tensors: Mapping[str, Tensor], typed: str, size: int) -> None:
    """UserError for tensors whose values a file of so many bytes cannot hold, and for values that are not finite.

    A mask may be infinite.
    """
    values = 0
    for name, tensor in tensors.items():
        shown = printable(name)[:80]
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise UserError(f"{typed}: {shown} is no plain tensor; save a state_dict of the network on the CPU")
        values += tensor.numel() * tensor.element_size()
        if values > UNPACKED * size:
            raise UserError(f"{typed}: its tensors have more than {UNPACKED} times as many values as there are in it")
        if tensor.is_floating_point() and not name.endswith("mask") and not _is_finite(tensor):
            raise UserError(f"{typed}: {shown} has values that are not finite; such a network gives no answer")


def check_kinds(needed: Mapping[str, Tensor], tensors: Mapping[str, Tensor], typed: str) -> None:
    """UserError where a file has integers, booleans or complex numbers for weights, which torch would convert."""
    for name, own in needed.items():
        if name in tensors and own.is_floating_point() and not tensors[name].is_floating_point():
            kind = str(tensors[name].dtype).removeprefix("torch.")
            raise UserError(f"{typed}: {printable(name)[:80]} is {kind} there, and a weight is a floating-point number")


def is_short(tensor: Tensor) -> bool:
    """Whether a tensor has floating-point numbers of less than 32 bits: no CPU interpolates them."""
    return tensor.is_floating_point() and tensor.element_size() < 4


def reason_of(error: Exception, width: int) -> str:
    """What a library says of weights that it could not fetch; never torch's advice to let a file run code."""
    words = str(error)
    if isinstance(error, pickle.UnpicklingError) or "weights_only" in words or "Weights only" in words:
        return "what lies there is damaged, or holds more than tensors, and code is not run"
    return textwrap.shorten(words, width, placeholder=" ...") or type(error).__name__


def _is_finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor.float() if tensor.element_size() == 1 else tensor).all())
