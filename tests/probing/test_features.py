"""`vitbench features`: frozen networks compared by linear and nearest-neighbour accuracy."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import fake_runs
from tests.conftest import TINY, TINY_32, Output
from vitbench import cli
from vitbench.numbers.ridge import ridge
from vitbench.probes.linear import Labelled
from vitbench.probing import frozen
from vitbench.probing.features_told import Compared, Gap, difference, sentence
from vitbench.runs.record import FrozenFeatures

Cli = Callable[..., Output]
DATA, DATA_32 = ([word for word in words if word.startswith("data.")] for words in (TINY, TINY_32))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny trained ViT and a ResNet."""
    runs, argv = tmp_path_factory.mktemp("features") / "runs", sys.argv
    for model in ("vit", "resnet"):
        assert cli.run(["train", *TINY, f"model={model}", "model.size=nano", f"runs={runs}"]) == 0
    sys.argv = argv
    return runs


def ids(runs: Path) -> list[str]:
    """Those of the two trained networks."""
    return sorted(folder.parent.name for folder in runs.glob("*/checkpoint.safetensors"))


def records(runs: Path) -> list[dict[str, Any]]:
    """Those of frozen networks."""
    all_of_them = [json.loads(path.read_text()) for path in runs.glob("*/record.json")]
    return [record for record in all_of_them if "features" in record]


def test_each_network_share_seed_and_classifier_is_a_run_and_none_is_done_twice(trained: Path, vitbench: Cli) -> None:
    words = [
        "features",
        f"models=[{','.join(ids(trained))}]",
        "shares=[0.25,0.5,1]",
        "seeds=2",
        f"runs={trained}",
        *DATA,
    ]
    done = vitbench(*words)
    assert done.code == 0, done.err
    found = records(trained)
    assert len(found) == 2 * 3 * 2 * 2
    assert {record["config"]["classifier"] for record in found} == {"linear", "nearest"}
    for record in found:
        predictions, labels = (
            np.load(trained / str(record["id"]) / f"{name}.npy") for name in ("predictions", "labels")
        )
        assert record["test_accuracy"] == (predictions == labels).mean()
        assert {*record["features"]} == {*FrozenFeatures.__annotations__}
        assert record["status"] == "finished" and record["train_images"] in (45, 90, 180) and record["val_images"] == 20
    assert "share 0.5 (90 images)" in done.out and done.out.count("linear, 180 training images: ") == 1
    before = {path: path.stat().st_mtime_ns for path in trained.glob("*/*") if path.name != ".lock"}
    assert vitbench(*words).out == done.out
    assert before == {path: path.stat().st_mtime_ns for path in trained.glob("*/*") if path.name != ".lock"}
    table = vitbench("table", f"runs={trained}", "where.freeze=backbone")
    assert table.code == 0 and "nearest" in table.out and "linear" in table.out
    fitted = vitbench("fit", f"runs={trained}", "where.freeze=backbone")
    assert fitted.code == 0 and "linear" in fitted.out


@pytest.mark.slow
def test_weights_in_timms_own_format_give_timms_own_features(vitbench: Cli, tmp_path: Path, cache: Path) -> None:
    timm = pytest.importorskip("timm")
    from safetensors.torch import load_file, save_file

    from vitbench.data.menu import open_dataset

    torch.manual_seed(0)
    network = timm.create_model("test_convnext", pretrained=False).eval()
    save_file(network.state_dict(), tmp_path / "own.safetensors")
    typed = f"models=[timm:test_convnext@{tmp_path}/own.safetensors]"
    done = vitbench(
        "features", typed, *DATA_32, "data.image_size=32", "shares=1", "seeds=1", f"data.cache={tmp_path}/c"
    )
    assert done.code == 0, done.err
    (path,) = (tmp_path / "c" / "features").iterdir()
    record = records(tmp_path / "runs")[0]
    assert record["mean"] == [0.485, 0.456, 0.406] or record["mean"] == [0.5, 0.5, 0.5]
    config = record["config"]["data"]
    options = {key: config[key] for key in ("train_images", "test_images")}
    dataset = open_dataset("shapes", root="data", cache=f"{tmp_path}/c", image_size=32, progress=False, **options)
    mean, std = (torch.tensor(record[key]).view(3, 1, 1) for key in ("mean", "std"))
    images = (torch.from_numpy(np.array(dataset.test.images[:4])) / 255 - mean) / std
    with torch.inference_mode():
        expected = network.forward_head(network.forward_features(images), pre_logits=True)
    torch.testing.assert_close(load_file(path)["test"][:4], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["models=[nobody]"], "models=[nobody]: "),
        (["models=[timm:convnext_ato]"], "models=[timm:convnext_ato]: did you mean"),
        (["models=[timm:convnext_atto@no.pth]"], "models=[timm:convnext_atto@no.pth]: no.pth: no such file of weights"),
        (["models=[keras:resnet]"], "must be a run's id, timm:NAME, torchvision:NAME"),
        ([], "models= is missing"),
        (["models=[a]", "shares=[0.1,2]"], "shares=2: must be above 0 and at most 1"),
        (["models=[a]", "shares=[]"], "shares=[]: must be shares"),
        (["models=[a]", "seeds=0"], "seeds=0: must be 1 or more"),
        (["models=[a]", "classifiers=svm"], "classifiers=svm: "),
        (["models=[a]", "data.fraction=0.1"], "data.fraction=0.1: type the shares of the images as shares="),
        (["models=[a]", "data.permute=tiles"], "data.permute=tiles: `vitbench features` takes the images as they are"),
    ],
)
def test_slips_get_one_line(vitbench: Cli, tmp_path: Path, words: list[str], line: str) -> None:
    done = vitbench("features", *words)
    assert done.code == 2 and line in done.err and done.err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_share_too_small_is_refused_before_anything_is_done(trained: Path, vitbench: Cli) -> None:
    before = len(records(trained))
    small = vitbench("features", f"models=[{ids(trained)[0]}]", f"runs={trained}", *DATA, "shares=[0.01]")
    assert small.code == 2 and "shares=0.01: 2 images have none of class" in small.err
    assert small.err.count("\n") == 1 and len(records(trained)) == before


def test_a_run_of_other_channels_is_refused_and_others_go_on(trained: Path, vitbench: Cli, tmp_path: Path) -> None:
    grey, other = ids(trained)
    for name in (grey, other):
        shutil.copytree(trained / name, tmp_path / "runs" / name)
    fake_runs.change(tmp_path / "runs" / grey, channels=1)
    words = ["shares=1", "seeds=1", "classifiers=nearest", *DATA]
    alone = vitbench("features", f"models=[{grey}]", *words)
    assert (alone.code, alone.err) == (
        2,
        f"vitbench: models=[{grey}]: it takes images with 1 channel, and these have 3\n",
    )
    both = vitbench("features", f"models=[{grey},{other}]", *words)
    assert both.code == 2 and alone.err in both.err
    assert [record["config"]["init"] for record in records(tmp_path / "runs")] == [other]
    assert other in both.out and grey not in both.out


def test_training_refuses_what_no_steps_train(vitbench: Cli) -> None:
    done = vitbench("train", "classifier=linear", *TINY)
    assert done.code == 2 and "classifier=linear: only `vitbench features models=[...]`" in done.err


def test_the_nearest_images_vote_by_their_cosine() -> None:
    fit = Labelled(torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.1, 1.0]]), torch.tensor([0, 1, 1]))
    one, two = frozen.votes(fit, torch.tensor([[5.0, 0.0], [0.0, 0.1]]), 2, [1, 2])
    torch.testing.assert_close(one, torch.eye(2, dtype=torch.float64))
    near = math.exp((0.1 / math.sqrt(1.01) - 1) / frozen.TEMPERATURE)
    torch.testing.assert_close(two[0], torch.tensor([1, near], dtype=torch.float64) / (1 + near), rtol=1e-4, atol=1e-9)


def test_validation_images_choose_penalty_and_neighbours() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    features = torch.randn(90, 8, generator=generator) + 2 * torch.nn.functional.one_hot(labels, 8)
    fit, choose = Labelled(features[:60], labels[:60]), Labelled(features[60:], labels[60:])
    linear, nearest = (frozen.classify(name, fit, choose, choose.features, 3) for name in ("linear", "nearest"))
    (outputs,) = ridge(fit.features.double(), fit.labels, [choose.features.double()], 3)
    assert linear.val_accuracy == pytest.approx((outputs.argmax(2) == choose.labels).double().mean(1).max().item())
    all_of_them = frozen.votes(fit, choose.features, 3, [*frozen.NEIGHBOURS])
    assert nearest.val_accuracy == max((each.argmax(1) == choose.labels).double().mean().item() for each in all_of_them)
    assert nearest.neighbours in frozen.NEIGHBOURS and linear.penalty is not None


def test_a_difference_whose_interval_holds_0_cannot_be_told() -> None:
    assert sentence("a", "b", Gap(-3.0, 1.0)) == "b is better than a by 3.0 points (95 % interval 2.0 to 4.0)"
    assert "these runs cannot tell whether a or b is better (difference 0.5" in sentence("a", "b", Gap(0.5, 1.0))
    assert "cannot tell whether a or b is better: one seed has" in sentence(
        "a", "b", Gap(4.0, math.nan, "one seed has no interval")
    )


def test_a_difference_without_predictions_says_which_are_missing(tmp_path: Path) -> None:
    def runs(name: str) -> list[Compared]:
        made: Any = [{"id": f"{name}{seed}", "test_accuracy": 0.5 + seed / 10, "test_images": 9} for seed in (0, 1)]
        return [Compared(name, "linear", 1, seed, record) for seed, record in enumerate(made)]

    gap = difference(runs("a"), runs("b"), tmp_path)
    assert math.isnan(gap.half) and "a0/predictions.npy: No such file" in gap.why
