"""vitbench: what a CNN knows before it sees data, what a ViT must learn, and when the difference stops mattering."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vitbench.version import __version__

if TYPE_CHECKING:
    from torch import nn

    from vitbench.runs.record import Record

__all__ = ["Loaded", "__version__", "load"]


class Loaded(NamedTuple):
    """What `load` returns of a finished run."""

    model: nn.Module  # in evaluation mode, on the CPU
    config: dict[str, Any]
    record: Record  # vitbench/runs/record.py says what its fields hold


def load(run_id: str, runs: str | Path = "runs") -> Loaded:
    """Loads a run into a notebook: `model, config, record = vitbench.load("vit-rope-shapes-f1-s0-3fa9c1d2")`.

    The model expects images with values in 0..1, normalised by `record["mean"]` and `record["std"]`. Where the run has
    `data.permute`, it also expects them rearranged: `vitbench.settings.share.places_of(config, 32)` says which pixel
    stands at each place of an image of 32 px. Raises UserError where there is no such run, it did not finish, or its
    checkpoint is damaged or another run's.
    """
    from vitbench.runs.records import find_record
    from vitbench.training.transfer import trained

    folder = Path(runs).expanduser() / run_id
    record = find_record(folder)
    return Loaded(trained(folder, record).eval(), record["config"], record)
