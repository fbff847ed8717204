"""Reads files of weights that others made: .safetensors, or what `torch.save` made of a state_dict. No code is run."""

from __future__ import annotations

import argparse
import pickle
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from vitbench.errors import UserError

NESTED = ("state_dict", "model", "model_state_dict")  # where training scripts put a state_dict
PREFIX = "module."  # which DistributedDataParallel puts before every name


def read_state_dict(path: Path, typed: str) -> dict[str, Tensor]:
    """The tensors of a file by their names; an archive may at most double in memory.

    UserError, in a line that begins with `typed`, for what is no file of weights. The settings that timm's training
    script keeps beside the weights, a plain `argparse.Namespace`, are read and dropped.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > 2 * path.stat().st_size:
                    raise UserError(f"{typed}: an archive that unpacks to more than twice its size")
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, EOFError, RuntimeError, ValueError, KeyError, OSError) as error:
        reason = (
            "holds more than tensors, and code is not run"
            if isinstance(error, pickle.UnpicklingError)
            else "is damaged or no file of weights"
        )
        raise UserError(f"{typed}: {reason}") from None
    for key in NESTED:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise UserError(f"{typed}: is no state_dict, a dict of names and tensors")
    return {name.removeprefix(PREFIX): value for name, value in content.items()}
