"""Runs that nobody trained: record.json files with known numbers, for everything that only reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vitbench.machine.seal import sealed
from vitbench.runs.run import write_record

COSTS = {"vit": (450_000, 14_900_000), "resnet": (110_000, 15_900_000)}


def record(accuracy: float | None, /, **changed: Any) -> dict[str, Any]:
    """A record of schema 1. Settings by their key (`**{"optim.lr": 0.1}`), results by `result_<name>`."""
    model = changed.get("model.name", "vit")
    recipe = {"vit": {"name": "vit", "lr": 1e-3}, "resnet": {"name": "resnet", "lr": 0.1}}.get(model, {"name": "vit"})
    settings: dict[str, Any] = {
        "seed": 0,
        "runs": "runs",
        "eval_every": None,
        "model": {"name": model, "size": "nano"} | ({"pe": {"name": "learned"}} if model == "vit" else {}),
        "data": {
            "source": "shapes",
            "name": "shapes",
            "root": "data",
            "cache": "/c",
            "fraction": 1.0,
            "count": None,
            "subset_seed": None,
            "x": [-1.0, 1.0],
            "train_images": 10_000,
        },
        "optim": recipe | {"steps": 120, "epochs": None},
        "augment": {"name": "none"},
        "machine": {"device": "auto", "threads": None},
    }
    results: dict[str, Any] = {}
    for key, value in changed.items():
        if key.startswith("result_"):
            results[key.removeprefix("result_")] = value
            continue
        *path, last = key.split(".")
        place = settings
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    data = settings["data"]
    parameters, multiply_adds = COSTS.get(model, (1, 1))
    made = {
        "schema": 1,
        "id": "",
        "status": "finished" if accuracy is not None else "diverged",
        "config": settings,
        "classes": [str(k) for k in range(10)],
        "image_size": 32,
        "channels": 3,
        "train_images": data["count"] or int(data["fraction"] * data["train_images"]),
        "val_images": 0,
        "test_images": 1000,
        "mean": [0.5] * 3,
        "std": [0.2] * 3,
        "data_fingerprint": data["name"],
        "parameters": parameters,
        "multiply_adds": multiply_adds,
        "steps": 120,
        "train_seconds": 10.0,
        "images_per_second": 768.0,
        "diverged_step": None if accuracy is not None else 7,
        "commit": "0123456789",
        "versions": {"python": "3.12.1", "vitbench": "0.1.0", "torch": "2.15", "numpy": "2.5"},
        "hardware": {"device": "cpu", "name": "Xeon", "threads": 1, "precision": "float32", "compiled": False},
        "created": "2026-01-01T00:00:00Z",
        "train_loss": 1.0,
        "val_accuracy": None,
        "val_loss": None,
        "test_accuracy": accuracy,
        "test_loss": None if accuracy is None else 1.5,
        "warnings": [],
    }
    for name in ("hardware", "versions"):  # these are changed in part
        made[name] = made[name] | results.pop(name, {})
    return made | results


def write(runs: Path, name: str, accuracy: float | None, /, **changed: Any) -> Path:
    folder = runs / name
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps(record(accuracy, **changed) | {"id": name}))
    return folder


def quickstart(runs: Path, seeds: int = 2) -> Path:
    """ViT with no and with learned encodings and a ResNet, three shares, some seeds: the shape of the quickstart."""
    top = {"none": 0.35, "learned": 0.38, None: 0.60}
    for pe, best in top.items():
        for fraction, factor in {0.05: 0.6, 0.2: 0.8, 1.0: 1.0}.items():
            for seed in range(seeds):
                model = {"model.name": "vit", "model.pe.name": pe} if pe else {"model.name": "resnet"}
                accuracy = best * factor + 0.01 * (seed - (seeds - 1) / 2)
                write(runs, f"{pe}-{fraction}-{seed}", accuracy, **model, **{"data.fraction": fraction, "seed": seed})
    return runs


def change(folder: Path, **changed: Any) -> None:
    """Gives fields of a run's record other values, as if the run itself had written them."""
    path = folder / "record.json"
    record = json.loads(path.read_text()) | changed
    path.write_text(json.dumps(sealed(record) if "sha256" in record else record))


def with_files(folder: Path, **files: bytes) -> Path:
    """Writes files of a run (config_yaml=b"...") beside its record, and the record anew, with their checksums."""
    for name, blob in files.items():
        (folder / name.replace("_", ".")).write_bytes(blob)
    write_record(folder, json.loads((folder / "record.json").read_text()))
    return folder
