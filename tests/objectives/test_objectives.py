"""Objectives that need no labels: their formulas, and the runs they make."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests import fake_runs
from tests.conftest import TINY, Output
from tests.training.test_train import cut_run, folder, record, without_times
from vitbench.data.loader import seed_random_state
from vitbench.errors import UserError
from vitbench.models.build import build_model, of_record
from vitbench.models.vit import ViT
from vitbench.objectives.mae import MAE, encode
from vitbench.objectives.simsiam import SimSiam, distance
from vitbench.pe.menu import MENU as ENCODINGS
from vitbench.runs.run import Run
from vitbench.settings.check import check
from vitbench.settings.compose import as_settings, compose
from vitbench.settings.overrides import prepare
from vitbench.sweeping.stacked import stacks_of
from vitbench.sweeping.status import ended
from vitbench.training import checkpoint
from vitbench.training.training import Training

Cli = Callable[..., Output]

SMALL = {
    "vit": ["model=vit", "model.width=16", "model.depth=2", "model.heads=2"],
    "resnet": ["model=resnet", "model.base_width=2"],
}


def vit(pe: str, pool: str = "mean") -> ViT:
    torch.manual_seed(0)
    model = build_model(
        "vit", image_size=16, channels=3, num_classes=4, width=16, depth=2, heads=2, pool=pool, pe={"name": pe}
    )
    assert isinstance(model, ViT)
    return model


# ---------------------------------------------------------------------------------------------------------- formulas


@pytest.mark.parametrize("pe", ENCODINGS)
@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_a_visible_token_keeps_its_place_under_every_encoding(pe: str, pool: str) -> None:
    model, images = vit(pe, pool), torch.randn(3, 3, 16, 16)
    tokens, grid = model.embed(images)
    N = tokens.shape[1]
    shuffled = torch.rand(3, N).argsort(1)  # all tokens, in another order in each image
    states = model.states(images).gather(1, shuffled[..., None].expand(-1, -1, 16))
    torch.testing.assert_close(encode(model, tokens, grid, shuffled), states)
    seen, index = shuffled[:, :5], shuffled[:, :5, None].expand(-1, -1, 16)
    other_hidden_tokens = torch.randn_like(tokens).scatter(1, index, tokens.gather(1, index))
    assert torch.equal(encode(model, tokens, grid, seen), encode(model, other_hidden_tokens, grid, seen))


def test_mae_is_the_mean_square_over_hidden_patches_normalised_each() -> None:
    model = vit("learned", "cls")
    mae, images = MAE(model, mask=0.75), torch.randn(2, 3, 16, 16)
    targets = mae.targets(images)
    patch = images[1, :, 4:8, 8:12].flatten()  # the patch in row 1, column 2 of 4 x 4
    torch.testing.assert_close(targets[1, 6], (patch - patch.mean()) / patch.std(), rtol=1e-4, atol=1e-4)
    mae.paint.weight.data.zero_()
    mae.paint.bias.data.zero_()
    # painting zeros, the loss is the variance of 48 numbers, of which var_mean normalises by 47
    order = torch.rand(2, 16).argsort(1)
    torch.testing.assert_close(mae(model, images, order), torch.tensor(47 / 48), rtol=1e-4, atol=0)
    with torch.no_grad():
        painted = mae.painted(torch.randn(2, 5, 16), torch.tensor([[0, 3, 1, 9, 16]] * 2), 17, (4, 4))
    assert mae.seen == 4 and painted.shape == targets.shape == (2, 16, 48)


def test_simsiam_moves_a_view_towards_the_other_and_not_back() -> None:
    p, z = torch.randn(4, 8, requires_grad=True), torch.randn(4, 8, requires_grad=True)
    loss = distance(p, z)
    assert loss.item() == pytest.approx(-F.cosine_similarity(p, z).mean().item())
    loss.backward()
    assert z.grad is None and p.grad is not None and p.grad.any()


def test_spread_is_0_where_features_collapsed_and_1_on_the_whole_sphere() -> None:
    model = SimSiam(vit("none"), width=64)
    for features, spread in ((torch.ones(256, 64), 0.0), (torch.randn(256, 64), 1.0)):
        model._features = features
        assert model.measured()["spread"] == pytest.approx(spread, abs=0.05)


def test_a_view_is_another_crop_and_other_colours_of_each_image() -> None:
    simsiam = SimSiam(vit("none"))
    images = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8).expand(8, -1, -1, -1)
    views = simsiam.view(images)
    assert views.shape == images.shape and views.min() >= 0 and views.max() <= 255
    assert len({tuple(view.flatten().tolist()) for view in views}) == 8
    grey = SimSiam(vit("none"), area=1.0, colour=0.0, grey=1.0).view(images)
    assert torch.equal(grey[:, :1], grey[:, 1:2])


# -------------------------------------------------------------------------------------------------------------- runs


def test_a_run_without_labels_that_lost_its_metrics_has_an_unknown_loss(vitbench: Cli, tmp_path: Path) -> None:
    words = [*SMALL["vit"], "objective=mae", "optim.steps=2", "runs=r"]
    words = [*(word for word in TINY if not word.startswith("optim.steps")), *words]
    assert vitbench("train", *words).code == 0
    path = folder(tmp_path / "r")
    fake_runs.change(path, train_loss=None)
    assert "finished, loss unknown after 2 steps" in vitbench("train", *words).out
    assert str(ended(Run(path, {}))).startswith(f"{path.name}: loss unknown, ")


def interrupted(training: Training) -> bytes:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("family", "objective", "more"),
    [("resnet", "simsiam", ["optim.ema=0.5"]), ("vit", "mae", ["pe=relative_bias", "model.pool=cls", "augment=light"])],
)
def test_a_run_without_labels_leaves_an_encoder_and_resumes_exactly(
    vitbench: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, objective: str, more: list[str]
) -> None:
    words = [*SMALL[family], f"objective={objective}", *more]
    output = vitbench("train", *TINY, *words, "runs=whole")
    assert output.code == 0 and "finished, loss " in output.out, output.err
    cut_run(vitbench, monkeypatch, *words, "runs=cut")
    with monkeypatch.context() as patch:  # interrupted again between its last step and its record
        patch.setattr(Training, "weights", interrupted)
        assert vitbench("train", *TINY, *words, "runs=cut").code == 130
    assert vitbench("train", *TINY, *words, "runs=cut").code == 0
    whole, cut = folder(tmp_path / "whole"), folder(tmp_path / "cut")
    assert (whole / "checkpoint.safetensors").read_bytes() == (cut / "checkpoint.safetensors").read_bytes()
    metrics = without_times(whole / "metrics.csv")
    assert metrics == without_times(cut / "metrics.csv") and ("spread" in metrics[0]) == (objective == "simsiam")
    result = record(tmp_path / "whole")
    assert result["test_accuracy"] is result["val_accuracy"] is None and math.isfinite(result["train_loss"])
    assert result["train_loss"] == float(metrics[-1]["train_loss"])
    assert not (whole / "predictions.npy").exists()
    weights, _ = checkpoint.load_tensors(whole / "checkpoint.safetensors")
    model: Any = of_record(result)
    assert weights.keys() == model.state_dict().keys()
    seed_random_state(0, 0)
    before = of_record(result).state_dict()
    moved = {name for name, value in weights.items() if not torch.equal(value, before[name])}
    heads = {"vit": {"head.weight", "head.bias"}, "resnet": {"fc.weight", "fc.bias"}}[family]
    trained = {name for name, _ in model.named_parameters()}
    assert trained - moved == heads, "all parameters are trained but those of the head"


def test_commands_that_read_cope_with_a_run_without_test_accuracy(vitbench: Cli, tmp_path: Path) -> None:
    runs = fake_runs.quickstart(tmp_path / "runs")
    more = {"objective.name": "mae", "result_status": "finished", "result_train_loss": 0.625, "result_test_loss": None}
    fake_runs.write(runs, "painted", None, **more)
    table = vitbench("table", "rows=[model,pe,objective]", "columns=data.fraction", "format=csv")
    assert table.code == 0 and "mae" in table.out and "classify" in table.out, table.err
    assert vitbench("table", "where.objective=classify").code == 0, "older records have no such setting"
    assert vitbench("plot", "file=a.svg").code == 0
    fitted = vitbench("fit")
    assert fitted.code == 0 and "objective=mae: 0 sizes" in fitted.out
    assert "painted" in vitbench("ls", "runs").out
    alone = vitbench("table", "where.objective=mae")
    assert alone.code == 2 and "value=test_accuracy" in alone.err and alone.err.count("\n") == 1


def settings(*words: str) -> dict[str, Any]:
    return check(as_settings(compose(prepare(words))))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["model=resnet", "objective=mae"], "objective=mae: masks patches, and model=resnet has none"),
        (
            ["objective=simsiam", "augment=strong"],
            "augment.mixup=0.8 augment.cutmix=1.0: has no effect with objective=simsiam",
        ),
        (
            ["objective=mae", "augment.erase=0.25"],
            "augment.erase=0.25: has no effect with objective=mae, which uses no labels and erases nothing; "
            "add augment.erase=0",
        ),
        (["objective=mae", "optim.label_smoothing=0.1"], "optim.label_smoothing=0.1: has no effect with objective=mae"),
        (["objective=simsiam", "optim.batch_size=1"], "optim.batch_size=1: objective=simsiam needs 2"),
        (["objective=mae", "freeze=backbone"], "freeze=backbone: objective=mae trains the backbone; drop one of them"),
        (["objective=mae", "objective.mask=1"], "objective.mask=1.0: must be above 0 and below 1"),
        (["objective=mae", "teacher=x"], "teacher=x: teaches classes, and objective=mae learns none"),
    ],
)
def test_what_an_objective_cannot_be_is_refused(words: list[str], line: str) -> None:
    with pytest.raises(UserError) as error:
        settings(*words)
    assert line in str(error.value)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"mask": 0.99}, "objective.mask=0.99: leaves 0 of an image's 16 patches visible"),
        ({"width": 10}, "multiple of 4"),
    ],
)
def test_a_decoder_that_cannot_be_is_refused(options: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        MAE(vit("none"), **options)


def test_runs_without_labels_are_not_stacked() -> None:
    runs = {str(seed): settings("objective=mae", f"seed={seed}") for seed in range(2)}
    assert stacks_of(runs, 2) == ([], dict.fromkeys("01", "objective=mae (it trains modules beside the network)"))
