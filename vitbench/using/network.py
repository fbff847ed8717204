"""The network of a finished run, together with the decoding and normalisation of images that it was trained with."""

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
        """Computes the logits (B,K) of uint8 images (B,C,H,W), in float32 and on the CPU."""
        import torch

        from vitbench.training.evaluate import forward_of

        with torch.inference_mode():
            batch = torch.from_numpy(images).to(self.machine.device)
            return forward_of(self.model, self.normalise, batch).cpu()


Logits = Callable[[NDArray[np.uint8]], "Tensor"]  # images (B,C,H,W) -> logits (B,K), on the CPU


class Exported(NamedTuple):
    blob: bytes
    logits: Logits  # what a program that reads the file computes
    note: str = ""


def find_classifier(runs: str, run: str | None) -> tuple[Path, Record]:
    """Returns the folder and the record of a run that learned classes and has its weights.

    Raises UserError that says what the run lacks.
    """
    if run is None or not str(run).strip():
        raise UserError("run=ID is missing; `vitbench ls runs` lists the runs")
    folder = Path(runs).expanduser() / str(run)
    if (folder / "config.yaml").exists() and not (folder / "record.json").exists():
        why = Run(folder, {}).failure()
        stands = f"failed ({why[:120]})" if why else "has not ended"
        raise UserError(f"run={run}: {stands}; repeat its command to continue")
    record = find_record(folder)
    if "optim" not in record["config"]:
        raise UserError(f"run={run}: was trained elsewhere, so vitbench has no weights of it")
    if record["status"] == "diverged":
        raise UserError(f"run={run}: diverged and left no weights")
    if record["test_accuracy"] is None:
        objective = record["config"].get("objective", {}).get("name")
        raise UserError(f"run={run}: learned no classes (objective={objective}); train a classifier with init={run}")
    if "features" in record:
        raise UserError(f"run={run}: is a classifier of frozen features, whose weights are not kept")
    if not Run(folder, {}).weights().exists():
        raise UserError(f"run={run}: has no weights; {Run(folder, {}).weights()} is missing")
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
    """Decodes a file as in training, to uint8 (C, size, size). Raises ValueError with the reason where it cannot."""
    pixels: NDArray[np.uint8] = decode(path, size, fit)
    if channels == 3:
        return pixels
    from PIL import Image

    return np.asarray(Image.fromarray(pixels.transpose(1, 2, 0)).convert("L"))[None]


def fit_of(record: Record) -> str:
    """Returns how images were made square. Old records lack this setting, and then it is crop."""
    fit: str = record["config"]["data"].get("fit", "crop")
    return fit


def described(record: Record) -> dict[str, Any]:
    """Returns what a program needs to know about a network, besides its weights."""
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
