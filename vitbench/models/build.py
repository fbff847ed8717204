"""Builds a model by its name, and counts what it costs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vitbench.errors import StorageError, UserError
from vitbench.machine.disk import read_json, write
from vitbench.machine.seal import is_whole, sealed
from vitbench.menu import look_up
from vitbench.models.families import LIBRARIES
from vitbench.models.library import Input
from vitbench.models.menu import MENU, check_encoding, is_vit


def build_model(
    name: str, *, image_size: int, channels: int, num_classes: int, pe: Mapping[str, Any] | None = None, **options: Any
) -> nn.Module:
    """Builds a model, whose weights are drawn from torch's global generator.

    `pe` has the name and the options of a position encoding, `{"name": "rope", "theta": 100.0}`, and `options` are the
    model's own. Raises UserError if the model takes no position encoding and `pe` is given.
    """
    model = look_up("model", name, MENU)
    check_encoding(name, pe)
    encoding = {"pe": pe} if is_vit(name) else {}
    return model(image_size, channels, num_classes, **encoding, **options)


def expected_input(name: str, arch: str) -> Input | None:
    """Returns the input that a library's pretrained weights of a network expect; None if there are no such weights."""
    model: Any = look_up("model", name, MENU)
    expected: Input | None = model.expects(arch, channels=3)
    return expected


def of_record(record: Mapping[str, Any]) -> nn.Module:
    """Builds the model of a run's record, with new random weights."""
    shape = {"image_size": record["image_size"], "channels": record["channels"], "num_classes": len(record["classes"])}
    return build_model(**record["config"]["model"], **shape)


def cost(
    name: str, *, image_size: int, channels: int, num_classes: int, memory: Path | None = None, **options: Any
) -> tuple[int, int]:
    """Returns the parameters and the multiply-adds of one forward pass of one image. It allocates no weights.

    It counts once per process or, with a folder `memory`, once per machine, because the counter imports torch's
    compiler, which takes longer than torch itself. A count that was kept is valid for this version of torch and these
    source files.

    `torch.utils.flop_counter`, which counts two operations per multiply-add, counts convolutions (also that of
    `pe=cpe`), linear layers and both matrix products of attention. It leaves out biases, normalisation, activations,
    softmax, pooling, residual sums, and the additions, rotations and look-ups of encodings. The model is in training
    mode, because fused inference kernels hide their products from the counter, and gets two images, because batch norm
    then refuses a single value per channel. A library's network that cannot be built without memory is built with it.
    Raises UserError if it does not take images of this size.
    """
    shape = {"image_size": image_size, "channels": channels, "num_classes": num_classes}
    its_library = [version(name)] if name in LIBRARIES else []
    architecture = json.dumps({"name": name, **shape, **options}, sort_keys=True)
    if memory is None:
        return _cost(architecture)
    key = hashlib.sha256("\n".join([architecture, *its_library, torch.__version__, _sources()]).encode()).hexdigest()[
        :16
    ]
    path = memory / "costs" / f"{name}-{key}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):  # files of old versions, without a checksum, do not count
        remembered = read_json(path)
        if is_whole(remembered):
            return int(remembered["parameters"]), int(remembered["multiply_adds"])
    counted = _cost(architecture)
    with suppress(OSError, StorageError):  # without this file, the model is counted again
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, json.dumps(sealed({"parameters": counted[0], "multiply_adds": counted[1]})).encode())
    return counted


@cache
def _sources() -> str:
    """Returns a hash of the code of models and encodings, so that models are counted again after a change."""
    here = Path(__file__).parent
    files = sorted([*here.glob("*.py"), *here.parent.joinpath("pe").glob("*.py")])
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


@cache
def _cost(architecture: str) -> tuple[int, int]:
    asked = json.loads(architecture)
    try:
        return _counted(asked, "meta")
    except UserError:
        raise
    except Exception:
        if asked["name"] not in LIBRARIES:
            raise
    with torch.random.fork_rng(devices=[]):
        network: Any = build_model(**asked)
        network.check_images()
        return _counted(asked, "cpu")


def cost_on_meta(asked: Mapping[str, Any]) -> tuple[int, int] | None:
    """Does the same without memory. Returns None if this fails, for example for images that a network does not take."""
    try:
        return _counted(asked, "meta")
    except Exception:
        return None


def _counted(asked: Mapping[str, Any], device: str) -> tuple[int, int]:
    with torch.device(device):
        model = build_model(**asked).train()
        images = torch.empty(2, asked["channels"], asked["image_size"], asked["image_size"])
    with FlopCounterMode(display=False) as counter:
        logits = model(images)
    if asked["name"] in LIBRARIES and getattr(logits, "shape", None) != (2, asked["num_classes"]):
        raise UserError(
            f"model.arch={asked['arch']}: does not give one logit for each of {asked['num_classes']} classes"
        )
    operations = counter.get_total_flops() // 2  # of one image
    return sum(parameter.numel() for parameter in model.parameters()), operations // 2


_compiled: dict[str, tuple[nn.Module, Any]] = {}  # holds one network at most, to save memory of a GPU


def compiled(
    model: nn.Module, architecture: Mapping[str, Any], wrap: Callable[[nn.Module], nn.Module]
) -> tuple[Any, Any]:
    """Returns a model with these weights, and the compiled form of `wrap(model)`.

    If the model that was compiled last has the same architecture, it gets the weights and is returned instead. So
    successive runs of one process compile once.
    """
    key = json.dumps([architecture, str(next(model.parameters()).device)], sort_keys=True)
    if key not in _compiled:
        _compiled.clear()
        _compiled[key] = model, torch.compile(wrap(model), dynamic=False)
    kept, forward = _compiled[key]
    if kept is not model:
        kept.load_state_dict(model.state_dict())
        kept.zero_grad()
    return kept, forward
