"""Runs on rearranged places: training, testing, probes, and parents of another rearrangement."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import TINY_32, Output
from vitbench import cli, load
from vitbench.data import share as shares
from vitbench.data.loader import Normalise
from vitbench.probes.subject import Row, Subject
from vitbench.settings.share import places_of, share_options, source_options
from vitbench.training.evaluate import evaluate

Cli = Callable[..., Output]
SMALL = ["model=vit", "model.width=16", "model.depth=1", "model.heads=2", "augment=none", *TINY_32]
TILES = ["data.permute=tiles", "data.permute_tile=4"]


def trained(vitbench: Cli, *words: str) -> str:
    """The id of a run."""
    done = vitbench("train", *SMALL, *words)
    assert done.code == 0, done.err
    return done.out.partition(":")[0]


def losses(run: str, runs: str | Path = "runs") -> list[float]:
    with Path(runs, run, "metrics.csv").open() as file:
        return [float(row[key]) for row in csv.DictReader(file) for key in ("train_loss", "val_loss")]


@pytest.fixture(scope="module")
def without_positions(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Path, str, str]:
    """The folder of two runs without positions, and their ids: one on images as they are, one on moved patches."""
    runs = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", list(sys.argv))
        ids = []
        for words in ([], TILES):
            assert cli.run(["train", *SMALL, "pe=none", *words, f"runs={runs}"]) == 0
            ids += [path.name for path in runs.iterdir() if path.is_dir() and path.name not in ids]
    return runs, ids[0], ids[1]


def test_a_vit_without_positions_learns_as_if_no_patch_had_moved(without_positions: tuple[Path, str, str]) -> None:
    runs, plain, moved = without_positions
    assert losses(plain, runs) == pytest.approx(losses(moved, runs), abs=1e-5)
    results = [load(run, runs).record["test_loss"] for run in (plain, moved)]
    assert results[0] == pytest.approx(results[1], abs=1e-5), "its test images were rearranged as well"


@pytest.mark.parametrize("words", [["pe=learned"], ["model=resnet", "model.base_width=2"]])
def test_a_network_that_knows_places_learns_otherwise(vitbench: Cli, words: list[str]) -> None:
    own = words if words[0].startswith("model") else [*SMALL[:4], *words]
    both = [vitbench("train", *own, "augment=none", *TINY_32, *more) for more in ([], TILES)]
    plain, moved = (done.out.partition(":")[0] for done in both)
    differences = np.subtract(losses(plain), losses(moved))
    assert np.abs(differences).max() > 1e-4


def test_a_share_of_zero_is_the_run_without(vitbench: Cli) -> None:
    plain = trained(vitbench)
    done = vitbench("train", *SMALL, *TILES, "data.permute_share=0")
    assert done.code == 0 and plain in done.out + done.err and len([*Path("runs").iterdir()]) == 1


def test_streamed_batches_in_parts_are_rearranged_alike(vitbench: Cli) -> None:
    resident = trained(vitbench, *TILES)
    assert trained(vitbench, *TILES, "machine.images=cache", "machine.microbatch=5", "runs=streamed") == resident
    assert losses(resident) == pytest.approx(losses(resident, "streamed"), abs=1e-5)


def test_test_images_are_rearranged_as_training_images_are(vitbench: Cli) -> None:
    run = trained(vitbench, *TILES, "seed=2")
    model, config, record = load(run)
    share = shares.load(**source_options(config["data"]), **share_options(config), progress=False)
    places = places_of(config, 32)
    assert places is not None and np.array_equal(places, places_of({"seed": 2, "data": config["data"]}, 32))
    for shown, alike in ((places, True), (None, False)):
        normalise = Normalise(record["mean"], record["std"], torch.device("cpu"), places=shown)
        tested = evaluate(model, *share.test(torch.device("cpu")), normalise)
        assert (tested.loss == pytest.approx(record["test_loss"], abs=1e-6)) is alike


def test_a_probe_gets_images_rearranged_as_the_run_had_them(
    vitbench: Cli, without_positions: tuple[Path, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, *both = without_positions
    seen: list[Subject] = []

    def look(subject: Subject, *, seed: int, **options: object) -> list[Row]:
        seen.append(subject)
        return []

    monkeypatch.setattr("vitbench.probing.probe.look_up", lambda kind, name, menu: look)
    for run in both:
        vitbench("probe", f"runs={runs}", f"run={run}", "probe=shift", "images=8", "figures=false")
    plain, moved = (subject.normalise.places for subject in seen)
    its = places_of(load(both[1], runs).config, 32)
    assert plain is None and moved is not None and its is not None and np.array_equal(moved.numpy(), its)


def test_a_teacher_of_another_rearrangement_is_refused_and_of_the_same_one_asked(vitbench: Cli) -> None:
    teacher = trained(vitbench, *TILES)
    words = [*SMALL, f"teacher={teacher}"]
    for changed in ([], [*TILES, "data.permute_seed=7"], [*TILES, "data.permute_share=0.5"]):
        done = vitbench("train", *words, *changed)
        assert done.code == 2 and f"teacher={teacher}: its images were rearranged in another way" in done.err
    assert vitbench("train", *words, *TILES, "data.permute_seed=0").code == 0


def test_a_run_begins_from_weights_of_another_rearrangement(vitbench: Cli) -> None:
    plain = trained(vitbench)
    assert load(trained(vitbench, f"init={plain}", *TILES)).record["init"]["name"] == plain


@pytest.mark.parametrize("objective", ["mae", "simsiam"])
def test_objectives_without_labels_get_rearranged_images(
    vitbench: Cli, objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    rearranged = Normalise.rearranged

    def counted(self: Normalise, images: torch.Tensor) -> torch.Tensor:
        calls.append(self.places is not None)
        return rearranged(self, images)

    monkeypatch.setattr(Normalise, "rearranged", counted)
    trained(vitbench, f"objective={objective}", *TILES)
    assert len(calls) == 6 * (2 if objective == "simsiam" else 1) and all(calls)


def test_stacked_runs_have_each_its_own_rearrangement(vitbench: Cli) -> None:
    line = " ".join([*SMALL, *TILES, "seed=0,1"])
    Path("two.yaml").write_text(f"question: none\nruns: ['{line}']\n")
    assert vitbench("sweep", "study=two.yaml", "hydra/launcher=stacked").code == 0
    stacked = {path.parent.name: losses(path.parent.name) for path in Path("runs").glob("*/record.json")}
    alone = [trained(vitbench, *TILES, f"seed={seed}", "runs=alone") for seed in (0, 1)]
    assert {*stacked} == {*alone}
    for run in alone:
        assert load(run).record["hardware"]["stacked"] == 2 and stacked[run] == pytest.approx(
            losses(run, "alone"), abs=1e-4
        )


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("data.permute=tiles data.permute_tile=5", "data.permute_tile=5: must divide the image size, 32 px"),
        ("data.permute_share=0.5", "data.permute_share=0.5: goes with data.permute=tiles or pixels"),
        ("data.permute_seed=1", "data.permute_seed=1: goes with data.permute=tiles or pixels"),
        ("data.permute=pixels data.permute_tile=2", "data.permute_tile=2: goes with data.permute=tiles"),
        ("data.permute=tiles data.permute_share=1.5", "data.permute_share=1.5: must be at least 0 and at most 1"),
        ("data.permute=patches", "data.permute=patches: choices: none, pixels, tiles"),
    ],
)
def test_what_no_run_could_mean_gets_one_line(vitbench: Cli, words: str, line: str) -> None:
    done = vitbench("train", *SMALL, *words.split())
    assert done.code == 2 and done.err.startswith(f"vitbench: {line}") and done.err.count("\n") == 1
