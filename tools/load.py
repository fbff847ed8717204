"""Makes thousands of finished runs without training, or many small images, and measures the commands that read them.

    python tools/load.py FOLDER runs=5000      makes FOLDER/study.yaml and FOLDER/runs; only one run is really trained
    python tools/load.py FOLDER images=60000 classes=1000      makes FOLDER/images: different PNGs of noise, 8 px
    python tools/load.py FOLDER measure        prints CPU seconds, wall seconds and peak memory of each command

All other runs have copies of the trained run's files, their own settings and seed, and an accuracy and predictions that
are drawn at random. Their records are written like those of real runs, with all checksums. The results of measurements
are in docs/how-to/scaling-out.md.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from vitbench.machine.disk import read_json, write
from vitbench.runs.plan import plan
from vitbench.runs.run import Run
from vitbench.runs.study import load_study

STUDY = """\
title: Load
question: How long does it take to read many runs?
with: >-
  data=shapes data.image_size=16 data.train_images=1000 data.test_images=200 data.val_fraction=0
  optim.steps=20 optim.batch_size=16
runs:
  - model=vit pe=none,sincos2d,rope data.fraction={fractions} optim.lr={rates} seed=range({seeds})
  - model=resnet                    data.fraction={fractions} optim.lr={rates} seed=range({seeds})
tables:
  accuracy: {{rows: [model, pe, optim.lr], columns: data.fraction, value: test_accuracy, show: mean ± ci95}}
figures:
  accuracy: {{x: train_images, y: test_error, lines: [model, pe], log: xy, fit: true, where: {{optim.lr: 0.003}}}}
"""
FRACTIONS = "0.05,0.075,0.1,0.15,0.2,0.3,0.4,0.5,0.75,1"
RATES = "0.0003,0.001,0.003,0.01,0.03"
NETWORKS = 4
COMMANDS = {  # the measured commands by their names
    "ls runs": "ls runs runs={folder}/runs",
    "watch": "watch study={study} runs={folder}/runs",
    "table": "table study={study} runs={folder}/runs",
    "plot": "plot study={study} file={folder}/figure.svg replace=true runs={folder}/runs",
    "fit": "fit study={study} where.optim.lr=0.003 runs={folder}/runs",
    "sweep dry_run=true": "sweep study={study} dry_run=true runs={folder}/runs",
    "sweep": "sweep study={study} runs={folder}/runs",
    "report": "report study={study} results={folder}/results replace=true runs={folder}/runs",
    "check": "check results={folder}/results runs={folder}/runs",
}
IMAGES = "data=imagefolder data.root={folder}/images data.cache={folder}/cache data.image_size=8"
SMALL = "model=vit model.width=8 model.depth=1 model.heads=2"
STEP = f"train {IMAGES} data.val_fraction=0 runs={{folder}}/runs {SMALL} optim.steps=1"
COMMANDS_OF_IMAGES = {
    "train optim.steps=1, the images not yet decoded": f"{STEP} seed=0",
    "the same with another seed, the images decoded": f"{STEP} seed=1",
    "the same with 1,000 training images": f"{STEP} data.count=1000",
    "inspect": f"inspect {IMAGES}",
}


def study_of(folder: Path) -> Path:
    return folder / "study.yaml"


def make(folder: Path, runs: int) -> None:
    """Writes a study of about this many runs, with all runs of each seed, and the folders of the runs."""
    seeds = -(-runs // (NETWORKS * len(FRACTIONS.split(",")) * len(RATES.split(","))))
    write(study_of(folder), STUDY.format(fractions=FRACTIONS, rates=RATES, seeds=seeds).encode(), folders=True)
    first, *others = plan(load_study(str(study_of(folder))), [f"runs={folder / 'runs'}"], confirm=True)
    run = Run(folder / "runs" / first.id, first.settings)
    if run.record() is None:
        vitbench(["train", *first.overrides], check=True)
    record, labels = read_json(run.folder / "record.json"), np.load(run.folder / "labels.npy")
    random = np.random.default_rng(0)
    for planned in others:
        copy = Run(run.folder.parent / planned.id, planned.settings)
        if copy.record() is not None:
            continue
        copy.folder.mkdir(exist_ok=True)
        copy.note_begun()
        for path in run.folder.iterdir():
            if path.suffix in (".csv", ".safetensors", ".npy") and not (link := copy.folder / path.name).exists():
                os.link(path, link)  # copies of thousands of weights would fill a disk
        is_wrong = random.random(len(labels)) < 0.7 * (planned.settings["data"]["fraction"] * 20) ** -0.3
        (copy.folder / "predictions.npy").unlink()
        np.save(copy.folder / "predictions.npy", np.where(is_wrong, (labels + 1) % 10, labels).astype(labels.dtype))
        images = round(1000 * planned.settings["data"]["fraction"])
        own = {"id": copy.id, "config": planned.settings, "train_images": images, "test_accuracy": 1 - is_wrong.mean()}
        copy.finish({**record, **own})  # type: ignore[typeddict-item]
    print(f"{1 + len(others):,} runs in {run.folder.parent}")


def make_images(folder: Path, images: int, classes: int) -> None:
    """Writes images of noise into FOLDER/images/train/<class>/, and every twentieth into test/<class>/."""
    random = np.random.default_rng(0)
    for index in range(images):
        split = "train" if index // classes % 20 else "test"
        path = folder / "images" / split / f"class{index % classes:05}" / f"{index:07}.png"
        if index < 20 * classes:
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(path, compress_level=0)
    print(f"{images:,} images of {classes:,} classes in {folder / 'images'}")


def vitbench(words: Sequence[str], check: bool = False) -> tuple[float, float, float, str]:
    """Runs a command; returns its CPU seconds, its wall seconds, its peak memory in MB, and how it ended."""
    begin = time.monotonic()
    with open(os.devnull, "w") as nowhere:
        process = subprocess.Popen([sys.executable, "-m", "vitbench", *words], stdout=nowhere)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if check and process.returncode:
        sys.exit(f"vitbench {' '.join(words)}: exit code {process.returncode}")
    ended = "" if process.returncode == 0 else f"exit code {process.returncode}"
    return used.ru_utime + used.ru_stime, time.monotonic() - begin, used.ru_maxrss / 1024, ended


def measured(folder: Path, only: Sequence[str]) -> Iterator[str]:
    """Yields a line of a Markdown table for each command, or only for the commands in `only`."""
    yield "| command | processor seconds | wall seconds | peak memory |\n|---|---|---|---|"
    commands = COMMANDS if study_of(folder).is_file() else COMMANDS_OF_IMAGES
    for name, words in commands.items():
        if not only or name in only:
            cpu, wall, memory, ended = vitbench(words.format(study=study_of(folder), folder=folder).split())
            yield f"| `{name}` | {cpu:.1f} | {wall:.1f} | {memory:.0f} MB | {ended}"


def main(words: Sequence[str]) -> None:
    if len(words) < 2 or words[1].partition("=")[0] not in ("runs", "images", "measure"):
        sys.exit(__doc__)
    folder = Path(words[0]).absolute()
    if words[1] == "measure":
        for line in measured(folder, words[2:]):
            print(line, flush=True)
        return
    counts = {key: int(count) for key, _, count in (word.partition("=") for word in words[1:])}
    if "images" in counts:
        make_images(folder, counts["images"], counts.get("classes", 10))
    else:
        make(folder, counts["runs"])


if __name__ == "__main__":
    main(sys.argv[1:])
