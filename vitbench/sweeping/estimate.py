"""Estimates how long missing runs would take: the number of images that they train on, times the seconds of one image.

The seconds of one image are the median of comparable recorded runs. Runs are comparable when they agree in model,
encoding, size, what is frozen, augmentation, objective, teacher, images and hardware (kind, name, threads, precision).
The estimate holds only training time, without evaluation. A run that was stacked counts with its share of the stack's
time. On a processor, `measure` times a step of each network that no recorded run has.
"""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from vitbench.data.sizes import own_size
from vitbench.errors import UserError
from vitbench.machine.provenance import processor, threads_of_process
from vitbench.runs.record import flat_settings, stated
from vitbench.runs.records import read_record, run_folders
from vitbench.settings.compose import flatten
from vitbench.settings.schedule import steps_of
from vitbench.settings.share import PLACE_KEYS

# Runs take equally long for an image on the same hardware if they agree in the settings whose keys begin like this.
ALIKE = ("model.", "freeze", "augment.", "objective.", "teacher", "data.source", "data.name", "data.image_size")


class Estimate:
    """Estimates the training time of runs from the records below `runs`, and from records that are added."""

    def __init__(self, runs: Path | None, threads: int | None, anywhere: bool = False, stacked: bool = False):
        """A run whose settings name no number of threads gets `threads` (None: all cores).

        `anywhere` ignores the hardware, because the jobs run on another machine. `stacked` prefers runs that were
        stacked, and uses others only where no stacked run is comparable.
        """
        self._here, self._anywhere, self._threads = _hardware(), anywhere, threads or threads_of_process(1)
        self._kinds = (True, False) if stacked else (False,)
        self._rates: dict[str, list[float]] = defaultdict(list)  # seconds for one image
        self._medians: dict[str, float] = {}
        self._train_images: dict[str, int] = {}
        self._measured: dict[str, float | None] = {}
        for folder in run_folders(runs) if runs else []:
            with suppress(OSError, UserError):
                self.add(read_record(folder / "record.json"))

    def add(self, record: Mapping[str, Any]) -> None:
        """Learns from the record of a run; ignores a record that lacks a field which it needs."""
        with suppress(KeyError, TypeError, ZeroDivisionError):
            config, hardware = record["config"], record["hardware"]
            self._train_images[_share(config)] = record["train_images"]
            together = stated(flatten({"hardware": hardware}), "hardware.stacked")
            images = together * record["steps"] * config["optim"]["batch_size"]
            if record["status"] == "finished" and record["train_seconds"] > 0:
                seconds = record["train_seconds"] - record.get("compile_seconds", 0.0)
                self._note(self._key(config, hardware, together > 1), seconds / images)

    def add_begun(self, settings: Mapping[str, Any], train_images: int | None, step: int, seconds: float) -> None:
        """Learns from a run that has not ended and has trained for `seconds` up to `step`."""
        if train_images:
            self._train_images.setdefault(_share(settings), train_images)
        if (key := self._keys(settings)[-1]) not in self._rates:
            self._note(key, seconds / (step * settings["optim"]["batch_size"]))

    def _note(self, key: str, rate: float) -> None:
        self._rates[key].append(rate)
        self._medians.pop(key, None)

    def _rate(self, key: str) -> float | None:
        """Returns the seconds for one image, from records or, without any, from a measured step."""
        if key not in self._rates:
            return self._measured.get(key)
        if key not in self._medians:
            self._medians[key] = median(self._rates[key])
        return self._medians[key]

    def seconds(self, settings: Mapping[str, Any]) -> float | None:
        """Returns the training time of a run in seconds; None where no recorded or measured run is comparable."""
        keys = self._keys(settings)
        rate = next((self._rate(key) for key in keys if key in self._rates or key in self._measured), None)
        optim, images = settings["optim"], None
        if size := self._train_images.get(_share(settings)):
            images = steps_of(optim, size) * optim["batch_size"]
        elif optim["epochs"] is None:
            images = optim["steps"] * optim["batch_size"]
        done_before = (settings["checkpoint"] or 0) * optim["batch_size"]  # a branch begins at this checkpoint
        return rate * (images - done_before) if rate is not None and images else None

    @property
    def has_records(self) -> bool:
        """Whether any record has told how long training takes."""
        return bool(self._rates)

    def count_images(self, settings: Mapping[str, Any], source_images: int | None) -> None:
        """Works out a run's number of training images from that of its source, where no recorded run says it."""
        data = settings["data"]
        if source_images is not None and _share(settings) not in self._train_images:
            left = source_images - round(data["val_fraction"] * source_images)
            self._train_images[_share(settings)] = data["count"] or max(1, round(data["fraction"] * left))

    def unmeasured(self, runs: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Returns the settings of one run for each kind of network that has neither a record nor a measured step."""
        kinds = {self._keys(settings)[0]: settings for settings in runs if self.device(settings) == "cpu"}
        known = self._rates.keys() | self._measured.keys()
        return [settings for settings in kinds.values() if not known & {*self._keys(settings)}]

    def measure(self, kinds: Sequence[Mapping[str, Any]], seconds: float) -> int:
        """Times a step of each of these networks until `seconds` have passed; returns how many it timed."""
        from vitbench.training.step_time import seconds_an_image

        end = time.monotonic() + seconds
        for settings in kinds:
            if time.monotonic() > end:
                break
            size = image_size_of(settings)
            machine = settings["machine"] | {"threads": settings["machine"]["threads"] or self._threads}
            timed = seconds_an_image({**settings, "machine": machine}, size) if size else None
            self._measured[self._keys(settings)[0]] = timed
        return sum(rate is not None for rate in self._measured.values())

    def device(self, settings: Mapping[str, Any]) -> str:
        """Returns where a run with these settings computes: cpu or cuda."""
        device: str = settings["machine"]["device"].partition(":")[0]
        return ("cuda" if "cuda" in self._here else "cpu") if device == "auto" else device

    def _keys(self, settings: Mapping[str, Any]) -> list[str]:
        """Returns the keys under which the times of comparable runs are found, the most similar runs first."""
        machine, device = settings["machine"], self.device(settings)
        precision = machine["precision"]
        if precision == "auto":
            precision = "bfloat16" if device == "cuda" else "float32"
        hardware = {
            "device": device,
            "name": self._here.get(device),
            "precision": precision,
            "threads": machine["threads"] or self._threads,
        }
        return [self._key(settings, hardware, stacked) for stacked in self._kinds]

    def _key(self, config: Mapping[str, Any], hardware: Mapping[str, Any], stacked: bool) -> str:
        alike = {key: value for key, value in flat_settings(config).items() if key.startswith(ALIKE)}
        aspects = ["device", "name", "precision"] + (["threads"] if hardware["device"] == "cpu" else [])
        place = [] if self._anywhere else [hardware[aspect] for aspect in aspects]
        return json.dumps([alike, place, stacked], sort_keys=True)


def image_size_of(settings: Mapping[str, Any]) -> int | None:
    """Returns the side of a run's images in pixels, without opening them; None where nothing says it."""
    data = settings["data"]
    size: int | None = data["image_size"] or own_size(data["source"], data["root"])
    return size


def _share(config: Mapping[str, Any]) -> str:
    """Returns, as text, the settings that decide how many training images a run has."""
    others = ("root", "cache", "subset_seed", *PLACE_KEYS)
    data = {key: value for key, value in config["data"].items() if key not in others}
    return json.dumps(data, sort_keys=True)


def _hardware() -> dict[str, str]:
    """Returns the names that records give to this machine's processor and first GPU. Imports no torch."""
    names = {"cpu": processor()}
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all") not in ("", "-1"):
        for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
            with suppress(OSError, StopIteration):
                lines = path.read_text(errors="replace").splitlines()
                names["cuda"] = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("Model:"))
                break
    return names


def total(seconds: Iterable[float], at_once: int) -> float:
    """Returns the seconds that runs take when `at_once` of them train side by side: at least those of the longest."""
    times = list(seconds)
    return max(sum(times) / at_once, max(times, default=0.0))
