"""Networks of torchvision and timm that were trained elsewhere become runs without training, so that tables have them.

    vitbench probe model=torchvision arch=resnet50 weights=FILE data=imagefolder data.root=FOLDER data.image_size=224

A file of weights is .safetensors, or a state_dict that `torch.save` wrote; nothing in it is run as code. The record
names it by its SHA-256. The classes of the data must be those of the network, in its order. `name=` means `arch=`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from vitbench.data.menu import open_dataset
from vitbench.errors import UserError, did_you_mean
from vitbench.machine.disk import checksum
from vitbench.machine.provenance import commit, now
from vitbench.models.families import LIBRARIES
from vitbench.runs.record import RECORD_SCHEMA, Metrics, Record
from vitbench.runs.records import read_record
from vitbench.runs.run import write_record
from vitbench.settings.identity import RESULTS_VERSION
from vitbench.settings.share import source_options

if TYPE_CHECKING:
    from vitbench.data.split import Dataset
    from vitbench.models.library import Network

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
SEED = 0  # draws the weights for checkpoint=init


def enter(asked: Mapping[str, Any], typed: Sequence[str]) -> tuple[Path, Record]:
    """Returns the folder and the record of a network on these data. Without a record, the network is tested first."""
    from vitbench.runs.plan import Planner

    words = _data_words(asked, typed)
    data = Planner().settings(words)["data"]
    dataset = open_dataset(**source_options(data), progress=asked["machine"]["progress"] is not False)
    channels = {key: _channels(key, asked[key], dataset.test.channels) for key in IMAGENET}
    family, name = asked["outside"], asked["arch"]
    model = {"name": family, "network": name, "weights": checksum(Path(asked["weights"]).expanduser(), "weights=")}
    key = json.dumps([RESULTS_VERSION, model, channels, dataset.fingerprint], sort_keys=True)
    readable = "".join(c if (c.isalnum() and c.isascii()) or c in "-._" else "_" for c in f"{name}-{data['name']}")[:60]
    folder = Path(asked["runs"]).expanduser() / f"{family}-{readable}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
    with suppress(FileNotFoundError, NotADirectoryError):
        return folder, read_record(folder / "record.json")
    record = _tested(folder.name, {"seed": SEED, "model": model, "data": data}, dataset, channels, asked)
    write_record(folder, record)
    return folder, record


def _data_words(asked: Mapping[str, Any], typed: Sequence[str]) -> list[str]:
    """Returns the words of the command line that choose the data.

    Raises UserError where the network, its weights or the data are not named.
    """
    family, name = asked["outside"], asked["arch"]
    if family not in LIBRARIES:
        raise UserError(
            f"model={family}: {did_you_mean(str(family), LIBRARIES)}; a network that vitbench trained is typed run=ID"
        )
    for key, example in {"arch": "resnet50", "weights": "resnet50.pth"}.items():
        if asked[key] is None:
            raise UserError(f"model={family}: {key}= is missing, for example {key}={example}")
    words = [word for word in typed if word.partition("=")[0].partition(".")[0] == "data"]
    if not any(word.startswith("data=") for word in words):
        raise UserError(f"model={family} arch={name}: data= is missing, for example data=imagefolder data.root=FOLDER")
    if moved := next((word for word in words if word.startswith("data.permute")), None):
        raise UserError(f"{moved}: a network that was trained elsewhere takes the images as they are; drop it")
    return words


def _channels(key: str, given: Any, channels: int) -> list[float]:
    """Returns the numbers typed as `mean=` or `std=`, or else those of ImageNet. Raises UserError where they do not
    fit the channels."""
    values = IMAGENET[key] if given is None else given
    if not isinstance(values, list) or len(values) != channels or not all(isinstance(v, int | float) for v in values):
        raise UserError(f"{key}={given}: must be {channels} numbers, one for each channel of the images, in 0..1")
    return [float(value) for value in values]


def _tested(
    run: str, config: dict[str, Any], dataset: Dataset, channels: Mapping[str, list[float]], asked: Mapping[str, Any]
) -> Record:
    """Tests the network on all test images, and returns the record of a run that trained for no step."""
    import numpy as np
    import torch

    from vitbench.data.loader import Normalise
    from vitbench.data.stream import Stream
    from vitbench.machine.hardware import Machine
    from vitbench.training.evaluate import evaluate, results_of_test

    hardware = {key: asked["machine"][key] for key in ("device", "threads")}
    machine = Machine.of(**hardware, precision="float32", compile=False)
    test, classes = dataset.test, list(dataset.classes)
    shape = {"classes": len(classes), "channels": test.channels, "image_size": test.image_size}
    model = _build(config["model"], asked["weights"], **shape).to(machine.device)
    images = Stream(test.images, np.arange(len(test)), machine.device)  # one batch at a time is in memory
    labels = torch.from_numpy(np.array(test.labels)).to(machine.device)
    normalise = Normalise(channels["mean"], channels["std"], machine.device)
    result = evaluate(model, images, labels, normalise, batch_size=100)
    return {
        "schema": RECORD_SCHEMA,
        "results_version": RESULTS_VERSION,
        "id": run,
        "status": "finished",
        "config": config,
        "classes": classes,
        "image_size": test.image_size,
        "channels": test.channels,
        "train_images": 0,
        "val_images": 0,
        "test_images": len(test),
        "mean": channels["mean"],
        "std": channels["std"],
        "data_fingerprint": dataset.fingerprint,
        "steps": 0,
        "train_seconds": 0.0,
        "images_per_second": None,
        "diverged_step": None,
        "created": now(),
        "commit": commit(),
        "warnings": list(dataset.warnings),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        **cast(Metrics, results_of_test(result, labels)),
        **machine.described(),
    }


def build_outside(record: Record, weights: str | None) -> Network:
    """Builds the network of a record, with the weights of a file or freshly initialised.

    Raises UserError where the weights do not fit.
    """
    shape = {"channels": record["channels"], "image_size": record["image_size"]}
    return _build(record["config"]["model"], weights, classes=len(record["classes"]), **shape)


def _build(about: Mapping[str, Any], weights: str | None, *, classes: int, channels: int, image_size: int) -> Network:
    """Builds the network that a record's settings name, for images (channels, image_size, image_size)."""
    from vitbench.data.loader import seed_random_state
    from vitbench.models.build import build_model

    seed_random_state(SEED, 0)
    shape: dict[str, Any] = {"image_size": image_size, "channels": channels, "num_classes": classes}
    model: Any = build_model(about["name"], arch=about["network"], **shape)
    if weights is not None:
        _load(model, Path(weights).expanduser(), classes)
    model.check_images()
    return model


def _load(model: Network, path: Path, classes: int) -> None:
    """Loads a file of weights into the network. Raises UserError where it does not fit or is for other classes."""
    from vitbench.models.library import adapted
    from vitbench.models.weights import read_state_dict
    from vitbench.training import checkpoint

    tensors = adapted(model, read_state_dict(path, f"weights={path}"))
    own = model.net.state_dict()
    other = [name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape]
    outputs = {tensors[name].shape[:1] for name in other if own[name].shape[:1] == (classes,)}
    if other and len(outputs) == 1 and all(own[name].shape[1:] == tensors[name].shape[1:] for name in other):
        raise UserError(f"weights={path}: these are for {outputs.pop()[0]:,} classes, and the data have {classes:,}")
    checkpoint.fit_tensors(model.net, tensors, path)
