"""Reads files of weights from other programs: .safetensors, or a state_dict that `torch.save` wrote.

No code in them is executed. Whatever such a file holds, reading it takes at most a few times its size in memory, and a
file that holds no weights is refused in one line.
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

NESTED = ("state_dict", "model", "model_state_dict")  # the keys under which training scripts put a state_dict
PREFIX = "module."  # the prefix that DistributedDataParallel adds to every name
UNPACKED = 2  # a file may hold at most this many times its size
PICKLES = 4  # pickles in a file of torch before 1.6: magic number, version, system information, and the content
# The names that a pickle may contain besides torch's own; torch itself allows only harmless ones of its own.
PLAIN_NAMES = ("collections OrderedDict", "argparse Namespace", "builtins set", "__builtin__ set")


def read_state_dict(path: Path, typed: str) -> dict[str, Tensor]:
    """Returns the tensors of a file by their names.

    Raises UserError, in a line that begins with `typed`, if the file holds no weights, if a tensor has no values, or if
    values are not finite. timm's training script stores its settings beside the weights, in an `argparse.Namespace`,
    which is read and dropped.
    """
    if path.suffix == ".safetensors":
        return read_safetensors(path, typed)[0]
    size = check_readable(path, f"{typed}: ")
    try:
        held = _refusal(path, size)
        content = None if held else _unpickled(path)
    except OSError as error:
        raise UserError(f"{typed}: cannot be read: {error.strerror or error}") from None
    except Exception:  # torch may raise anything for other files; its own message advises to allow code execution
        raise UserError(f"{typed}: is damaged or not a file of weights") from None
    if held:
        raise UserError(f"{typed}: {held}")
    for key in NESTED:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise UserError(f"{typed}: is not a state_dict, which is a dict of names and tensors")
    check_tensors(content, typed, size)
    return {name.removeprefix(PREFIX): value for name, value in content.items()}


def read_safetensors(path: Path, typed: str) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    """Returns the tensors of a .safetensors file and its metadata. Raises UserError like `read_state_dict`."""
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
    except Exception:  # the library may raise anything for other files
        raise UserError(f"{typed}: is damaged or not a safetensors file") from None
    if pickled:
        raise UserError(f"{typed}: is a pickle, which can hold code and is not read; save its tensors as safetensors")
    check_tensors(tensors, typed, size)
    return tensors, metadata


def _refusal(path: Path, size: int) -> str | None:
    """Returns why a file must not be unpickled, by its form and the names in its pickles; None if it may be."""
    with path.open("rb") as file:
        begin = file.read(4)
        if begin[:1] == b"\x80":  # a plain pickle, or a file of torch before 1.6
            file.seek(0)
            return next((held for held in (_names_refused(file) for _ in range(PICKLES)) if held), None)
    if begin != b"PK\x03\x04":
        return "is not a file of weights"
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > UNPACKED * size:
            return f"is an archive that unpacks to more than {UNPACKED} times its size"
        for entry in archive.infolist():
            if entry.filename.endswith(".pkl"):
                with archive.open(entry) as pickled:
                    if held := _names_refused(pickled):
                        return held
    return None


def _names_refused(pickled: Any) -> str | None:
    """Returns why the next pickle of an open file is refused: it holds more than tensors and plain containers.

    torch refuses most of these, too, but it allocates a `bytearray` of any size that a pickle asks for.
    """
    for opcode, argument, _ in pickletools.genops(pickled):
        named = str(argument) if opcode.name in ("GLOBAL", "INST") else ""
        if opcode.name in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):
            return "holds more than tensors, which could run code; save its state_dict alone"
        if named and named not in PLAIN_NAMES and not named.startswith(("torch ", "torch.")):
            shown = printable(named.replace(" ", "."))[:60]
            return f"holds more than tensors ({shown}), which could run code; save its state_dict alone"
    return None


def _unpickled(path: Path) -> Any:
    with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True)


def check_tensors(tensors: Mapping[str, Tensor], typed: str, size: int) -> None:
    """Raises UserError for tensors with more values than a file of `size` bytes can hold, or with values not finite.

    The values of a mask may be infinite.
    """
    values = 0
    for name, tensor in tensors.items():
        shown = printable(name)[:80]
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise UserError(f"{typed}: {shown} is not a plain tensor; save a state_dict of the network on the CPU")
        values += tensor.numel() * tensor.element_size()
        if values > UNPACKED * size:
            raise UserError(f"{typed}: its tensors claim more than {UNPACKED} times as many bytes as the file has")
        if tensor.is_floating_point() and not name.endswith("mask") and not _is_finite(tensor):
            raise UserError(f"{typed}: {shown} has values that are not finite, so the network cannot be used")


def check_kinds(needed: Mapping[str, Tensor], tensors: Mapping[str, Tensor], typed: str) -> None:
    """Raises UserError if a file has integers, booleans or complex numbers for weights, which torch would convert."""
    for name, own in needed.items():
        if name in tensors and own.is_floating_point() and not tensors[name].is_floating_point():
            kind = str(tensors[name].dtype).removeprefix("torch.")
            raise UserError(f"{typed}: {printable(name)[:80]} is {kind} there, but weights are floating-point numbers")


def is_short(tensor: Tensor) -> bool:
    """Returns whether a tensor has floating-point numbers of less than 32 bits, which a CPU cannot interpolate."""
    return tensor.is_floating_point() and tensor.element_size() < 4


def reason_of(error: Exception, width: int) -> str:
    """Returns why a library could not fetch weights, without torch's advice to allow the execution of code."""
    words = str(error)
    if isinstance(error, pickle.UnpicklingError) or "weights_only" in words or "Weights only" in words:
        return "the file is damaged, or holds more than tensors, which could run code"
    return textwrap.shorten(words, width, placeholder=" ...") or type(error).__name__


def _is_finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor.float() if tensor.element_size() == 1 else tensor).all())
