"""Every probe measures on a GPU what it measures on the CPU."""

from __future__ import annotations

import csv
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Output
from tests.gpu.conftest import DEVICE, Train
from vitbench.probes.menu import MENU as PROBES

Cli = Callable[..., Output]

IMAGES = 40
RELATIVE = 2e-3  # float32 on both sides, summed in another order
FLIPS = 2 / IMAGES  # where an image counts by its class, two may flip
BY_CLASS = ("attribution", "corruption", "frequency", "linear", "occlusion", "resolution", "rotation", "scale", "shift")
BY_CLASS += ("shuffle",)
SPEEDS = ("images_per_second", "peak_memory", "seconds")  # of cost, what a machine decides


def rows(path: Path) -> Iterator[tuple[str, float]]:
    with path.open() as file:
        for row in csv.DictReader(file):
            place = " ".join(row[key] for key in ("protocol", "metric", "layer", "at"))
            if not any(word in row["metric"] for word in SPEEDS):
                yield place, float(row["value"] or "nan")


@pytest.mark.parametrize("model", ["vit", "resnet"])
def test_every_probe_measures_what_it_does_on_the_cpu(train: Train, vitbench: Cli, tmp_path: Path, model: str) -> None:
    words = ["data.train_images=300", f"data.test_images={IMAGES}", "machine.threads=1", "optim.steps=60"]
    run = train("gpu", *words, f"model={model}", "machine.device=cpu", "machine.graph=false")
    shutil.copytree(run.parent, tmp_path / "cpu")
    for device, runs in ((DEVICE, "gpu"), ("cpu", "cpu")):
        for probe in PROBES:
            output = vitbench(
                "probe", f"run={run.name}", f"probe={probe}", f"images={IMAGES}", f"runs={runs}", "figures=false",
                f"machine.device={device}", "machine.threads=1",
            )  # fmt: skip
            assert output.code == 0 or "does not apply" in output.err, output.err
    wrong = []
    files = sorted(path.name for path in (tmp_path / "cpu" / run.name / "probes").glob("*.csv"))
    assert len(files) > len(PROBES) // 2
    for file in files:
        here, there = (dict(rows(tmp_path / device / run.name / "probes" / file)) for device in ("gpu", "cpu"))
        assert here.keys() == there.keys()
        absolute = FLIPS if file.removesuffix(".csv") in BY_CLASS else RELATIVE
        for place, value in there.items():
            same = math.isnan(value) and math.isnan(here[place])
            if not same and not math.isclose(here[place], value, rel_tol=RELATIVE, abs_tol=absolute):
                wrong.append(f"{place}: {here[place]} here, {value} on the CPU")
    assert not wrong, "\n".join(wrong)
