"""Images that are drawn for each step are those of (image_seed, seed, step), none comes twice, and threads end."""

from __future__ import annotations

import gc
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import TINY
from tests.training.test_train import Cli, assert_same_run, cut_run, folder, record
from vitbench.data.online import PART, Drawn, OnlineLoader
from vitbench.data.shape_tasks import TASKS
from vitbench.data.shapes import draw_shapes
from vitbench.runs.ancestor import validation_leaks
from vitbench.runs.plan import Planner

CPU = torch.device("cpu")
STEPS = 6


def loader(seed: int = 0, batch_size: int = 40, **data: Any) -> OnlineLoader:
    settings = Planner().settings(["data=shapes", *(f"data.{key}={value}" for key, value in data.items())])["data"]
    return OnlineLoader(Drawn(settings, seed, 16, CPU), batch_size, STEPS)


def batch(of: OnlineLoader, step: int) -> tuple[np.ndarray, np.ndarray]:
    images, labels = of.take(*of.batch(step))
    return images.numpy(), labels.numpy()


@pytest.mark.parametrize("task", TASKS)
def test_a_batch_is_a_function_of_both_seeds_and_the_step_in_whichever_order_steps_come(task: str) -> None:
    online = loader(seed=5, task=task, image_seed=7)
    for step in (0, 1, 2, 5, 1, 1, 4):
        images, labels = batch(online, step)
        places = np.arange(step * 40, (step + 1) * 40)
        expected = draw_shapes(places, task=task, image_seed=7, online_seed=5, image_size=16)
        assert np.array_equal(images, expected[0]) and np.array_equal(labels, expected[1])


def test_a_batch_of_several_parts_is_drawn_as_one() -> None:
    images, labels = batch(loader(batch_size=2 * PART + 3), 1)
    places = np.arange(2 * PART + 3, 2 * (2 * PART + 3))
    expected = draw_shapes(places, online_seed=0, image_size=16)
    assert np.array_equal(images, expected[0]) and np.array_equal(labels, expected[1])


def test_no_image_comes_twice_in_a_run_in_another_run_or_in_the_splits() -> None:
    seen = [image.tobytes() for seed in (0, 1) for s in range(STEPS) for image in batch(loader(seed), s)[0]]
    splits = [image.tobytes() for split in ("train", "test") for image in draw_shapes(np.arange(300), split=split)[0]]
    assert len({*seen, *splits}) == 2 * STEPS * 40 + 600


def test_nuisances_are_those_of_training_images() -> None:
    plain = {"noise": 0, "texture": 0, "background": 0, "contrast": 0}
    images, _ = batch(loader(**plain, **{"test.noise": 0.5}), 0)
    assert (images == 128).all()


def test_the_sample_is_what_the_run_saw_first() -> None:
    online = loader()
    first = np.concatenate([batch(online, step)[0] for step in range(STEPS)])
    for most in (50, 10_000):
        images, labels = online.sample(most)
        assert len(labels) == len(images) and np.array_equal(images.numpy(), first[:most])


def test_threads_draw_at_most_two_batches_ahead_and_end_with_the_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    before, drawn = {*threading.enumerate()}, set()

    def draw(places: np.ndarray, *args: Any, **options: Any) -> Any:
        drawn.add(places[0] // 40)
        return draw_shapes(places, *args, **options)

    monkeypatch.setattr("vitbench.data.online.draw_shapes", draw)
    online = loader()
    for step in range(3):
        batch(online, step)
    started = {*threading.enumerate()} - before
    assert started and {0, 1, 2} <= drawn <= {0, 1, 2, 3, 4}
    del online
    gc.collect()
    for thread in started:
        thread.join(timeout=10)
        assert not thread.is_alive()


def test_what_goes_wrong_while_drawing_ends_the_run_with_its_traceback(
    vitbench: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **options: Any) -> Any:
        raise ZeroDivisionError("drawn")

    monkeypatch.setattr("vitbench.data.online.draw_shapes", broken)
    with pytest.raises(ZeroDivisionError, match="drawn"):
        vitbench("train", *TINY, "data.online=true")
    assert "ZeroDivisionError" in (folder(tmp_path / "runs") / "failure.json").read_text()


def test_an_online_run_that_was_cut_ends_with_the_bits_of_one_that_was_not(
    vitbench: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["data.online=true", "data.task=place"]
    assert vitbench("train", *TINY, *words, "runs=whole", "machine.images=memory").code == 0
    cut_run(vitbench, monkeypatch, *words, "runs=cut", loader=OnlineLoader)
    assert vitbench("train", *TINY, *words, "runs=cut", "machine.images=cache").code == 0
    assert_same_run(folder(tmp_path / "whole"), folder(tmp_path / "cut"))


def test_the_record_counts_every_image_seen_and_normalises_as_without_online(vitbench: Cli, tmp_path: Path) -> None:
    assert vitbench("train", *TINY, "data.online=true", "runs=online").code == 0
    assert vitbench("train", *TINY, "runs=split").code == 0
    online, split = record(tmp_path / "online"), record(tmp_path / "split")
    assert online["train_images"] == online["total_samples_seen"] == 6 * 16 and split["train_images"] == 180
    for key in ("mean", "std", "data_fingerprint", "val_images", "test_images", "parameters"):
        assert online[key] == split[key], key
    assert online["id"] != split["id"] and online["train_loss"] != split["train_loss"]
    lines = (folder(tmp_path / "online") / "metrics.csv").read_text().splitlines()
    assert [float(line.split(",")[1]) for line in lines[1:]] == pytest.approx([1 / 3, 2 / 3, 1])  # of its one epoch


def test_a_step_in_parts_and_a_stack_of_runs_see_the_same_images(vitbench: Cli, tmp_path: Path) -> None:
    words = [*TINY, "data.online=true", "model.depth=1", "model.width=16"]
    for seed in (0, 1):
        assert vitbench("train", *words, f"seed={seed}", "runs=alone").code == 0
    assert vitbench("train", *words, "machine.microbatch=5", "runs=parts").code == 0
    (tmp_path / "two.yaml").write_text("runs: [seed=0, seed=1]")
    output = vitbench("sweep", "study=two.yaml", *words, "hydra/launcher=stacked", "runs=stacked")
    assert output.code == 0, output.err
    for root, seeds in (("parts", 1), ("stacked", 2)):
        for seed in range(seeds):
            (path,) = (tmp_path / root).glob(f"*-s{seed}-*")
            losses, expected = (
                np.loadtxt(run / "metrics.csv", delimiter=",", skiprows=1, usecols=3)
                for run in (path, tmp_path / "alone" / path.name)
            )
            assert losses == pytest.approx(expected, rel=1e-4)


def test_a_parent_that_drew_its_images_online_has_seen_no_validation_image(vitbench: Cli, tmp_path: Path) -> None:
    words = ["data=shapes", *TINY, "model.depth=1", "model.width=16"]
    leaks = {}
    for online in ("true", "false"):
        assert vitbench("train", *words, f"data.online={online}", "seed=1").code == 0
        parent = next(path for path in (tmp_path / "runs").glob("*-s1-*") if path.name not in leaks)
        settings = Planner().settings([*words, f"init={parent.name}", "seed=2"])
        fingerprint = json.loads((parent / "record.json").read_text())["data_fingerprint"]
        leaks[parent.name] = validation_leaks(settings, fingerprint)
    assert [len(found) for found in leaks.values()] == [0, 1]


MISTAKES = {
    "data.fraction=0.5": "data.fraction=0.5: data.online=true repeats no image",
    "data.count=100": "data.count=100: data.online=true repeats no image",
    "data.subset_seed=0": "data.subset_seed=0: data.online=true repeats no image",
    "optim.epochs=2": "optim.epochs=2: data.online=true repeats no image",
    "data.classes=[0,1]": "data.classes=[0,1]: data.online=true draws images of all classes",
    "machine.images=files": "machine.images=files: is for data=imagefolder",
    "data=mnist": "data.online=true: no such setting",
}


@pytest.mark.parametrize("word", MISTAKES)
def test_what_says_how_images_repeat_is_refused(vitbench: Cli, word: str) -> None:
    steps = ["optim.steps=null"] if "epochs" in word else ["optim.steps=6"]
    output = vitbench("train", "data.online=true", *steps, word)
    assert output.code == 2 and output.err.startswith(f"vitbench: {MISTAKES[word]}"), output.err
    assert output.err.count("\n") == 1
