"""The network of a finished run, with all that it needs to be given images as in its training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitbench.data.decode import decode
from vitbench.errors import UserError
from vitbench.runs.record import Record
from vitbench.runs.records import find_record
from vitbench.runs.run import Run
from vitbench.settings.check import check_machine
from vitbench.settings.share import places_of
from vitbench.version import __version__

if TYPE_CHECKING:
    from torch import Tensor

    from vitbench.data.loader import Normalise
    from vitbench.machine.hardware import Machine


class Network(NamedTuple):
    """A trained network in evaluation mode, on the device of its machine."""

    model: Any
    normalise: Normalise
    machine: Machine

    def logits(self, images: NDArray[np.uint8]) -> Tensor:
        """What it gives uint8 images (B,C,H,W): logits (B,K) in float32, on the CPU."""
        import torch

        from vitbench.training.evaluate import forward_of

        with torch.inference_mode():
            batch = torch.from_numpy(images).to(self.machine.device)
            return forward_of(self.model, self.normalise, batch).cpu()


Logits = Callable[[NDArray[np.uint8]], "Tensor"]  # of images (B,C,H,W): (B,K), on the CPU


class Exported(NamedTuple):
    blob: bytes
    logits: Logits  # what a program that reads the file computes
    note: str = ""


def find_classifier(runs: str, run: str | None) -> tuple[Path, Record]:
    """The folder and the record of a run that learned classes and has its weights; UserError says what it lacks."""
    if run is None or not str(run).strip():
        raise UserError("run=ID is missing; `vitbench ls runs` lists what there is")
    folder = Path(runs).expanduser() / str(run)
    if (folder / "config.yaml").exists() and not (folder / "record.json").exists():
        why = Run(folder, {}).failure()
        stands = f"failed ({why[:120]})" if why else "has begun and not ended"
        raise UserError(f"run={run}: {stands}; its command again goes on with it")
    record = find_record(folder)
    if "optim" not in record["config"]:
        raise UserError(f"run={run}: was trained elsewhere, and its weights are a file of their own")
    if record["status"] == "diverged":
        raise UserError(f"run={run}: diverged, and left no weights")
    if record["test_accuracy"] is None:
        objective = record["config"].get("objective", {}).get("name")
        raise UserError(f"run={run}: learned no classes (objective={objective}); a run with init={run} can")
    if "features" in record:
        raise UserError(f"run={run}: is a classifier of frozen features, of which no weights are kept")
    if not Run(folder, {}).weights().exists():
        raise UserError(f"run={run}: has no weights, {Run(folder, {}).weights()} is gone")
    return folder, record


def load_network(folder: Path, record: Record, machine: Mapping[str, Any]) -> Network:
    """Builds the network of a run and loads its weights; `machine` has `device` and `threads`."""
    check_machine(machine["device"], machine["threads"])
    import torch

    from vitbench.data.loader import Normalise
    from vitbench.machine.hardware import Machine
    from vitbench.training.transfer import trained

    chosen = {key: machine[key] for key in ("device", "threads")}
    its = Machine.of(**chosen, precision="float32", compile=False)
    model = trained(folder, record).eval()
    layout = torch.channels_last if model.channels_last else torch.preserve_format
    model = model.to(its.device, memory_format=layout)
    places = places_of(record["config"], record["image_size"])
    return Network(model, Normalise(record["mean"], record["std"], its.device, model.channels_last, places), its)


def pixels_of(path: str, size: int, channels: int, fit: str) -> NDArray[np.uint8]:
    """A file as uint8 (C, size, size), decoded as in training; ValueError with the reason where that cannot be."""
    pixels: NDArray[np.uint8] = decode(path, size, fit)
    if channels == 3:
        return pixels
    from PIL import Image

    return np.asarray(Image.fromarray(pixels.transpose(1, 2, 0)).convert("L"))[None]


def fit_of(record: Record) -> str:
    """How images that are not square were made so; records of before that was a setting do not name it."""
    fit: str = record["config"]["data"].get("fit", "crop")
    return fit


def described(record: Record) -> dict[str, Any]:
    """What a program needs to know of a network, beside its weights."""
    data = record["config"]["data"]
    return {
        "run": record["id"],
        "classes": record["classes"],
        "image_size": record["image_size"],
        "channels": record["channels"],
        "mean": record["mean"],
        "std": record["std"],
        "fit": fit_of(record),
        "permute": {key: value for key, value in data.items() if key.startswith("permute")},
        "seed": record["config"]["seed"],
        "model": record["config"]["model"],
        "test_accuracy": record["test_accuracy"],
        "vitbench_version": __version__,
    }
