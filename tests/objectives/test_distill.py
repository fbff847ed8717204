"""Distillation: DeiT's formulas, and runs that have a teacher."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests import fake_runs
from tests.conftest import TINY, Output
from tests.objectives.test_objectives import SMALL, settings, vit
from vitbench import load
from vitbench.data.loader import Normalise
from vitbench.errors import UserError
from vitbench.models.build import build_model
from vitbench.objectives.build import _renormalise
from vitbench.objectives.classify import Classify, Distill
from vitbench.runs.ancestor import check_teacher, finished_parent
from vitbench.training import checkpoint

Cli = Callable[..., Output]


def gradients(objective: Classify, model: Any, images: Tensor, labels: Tensor) -> list[Tensor]:
    model.zero_grad()
    objective(model, images, labels).backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_who_teaches_himself_softly_learns_from_the_labels_alone(alpha: float) -> None:
    """softmax(s) - softmax(t) = 0 where s = t, so the gradient is 1 - alpha times that of plain training."""
    model, images, labels = vit("rope"), torch.randn(5, 3, 16, 16), torch.arange(5) % 4
    plain = gradients(Classify(0.0, None), model, images, labels)
    taught = gradients(Distill(0.0, model, "soft", alpha, 1.0), model, images, labels)
    for gradient, plain_gradient in zip(taught, plain, strict=True):
        torch.testing.assert_close(gradient, (1 - alpha) * plain_gradient, rtol=1e-5, atol=1e-7)


def test_the_losses_are_those_of_the_paper() -> None:
    s, t, y = torch.randn(6, 4), torch.randn(6, 4), torch.arange(6) % 4
    p, q = (t / 2).softmax(1), (s / 2).softmax(1)
    kl = (p * (p / q).log()).sum(1).mean()
    soft, hard = (Distill(0.0, lambda _: t, kind, 0.3, T) for kind, T in (("soft", 2.0), ("hard", None)))
    label_loss = F.cross_entropy(s, y)
    torch.testing.assert_close(soft(lambda _: s, s, y), 0.7 * label_loss + 0.3 * 4 * kl)
    torch.testing.assert_close(hard(lambda _: s, s, y), 0.7 * label_loss + 0.3 * F.cross_entropy(s, t.argmax(1)))
    head_logits = torch.randn(6, 4)  # from the distillation head
    loss = hard(lambda _: (s, head_logits), s, y)
    torch.testing.assert_close(loss, 0.7 * label_loss + 0.3 * F.cross_entropy(head_logits, t.argmax(1)))


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_the_distillation_token_has_a_head_of_its_own_and_tests_give_the_mean(pool: str) -> None:
    shape = {"image_size": 16, "channels": 3, "num_classes": 4, "width": 16, "depth": 2, "heads": 2}
    model: Any = build_model("vit", **shape, pool=pool, pe={"name": "relative_bias"}, distill_token=True)
    images = torch.randn(2, 3, 16, 16)
    labelled, taught = model(images)
    assert not torch.allclose(labelled, taught)
    torch.testing.assert_close(model.eval()(images), (labelled + taught) / 2)
    taught.sum().backward()
    assert model.head.weight.grad is None and model.dist_token.grad.any()
    prefix = model.states(images)[:, : model.prefix_tokens]
    torch.testing.assert_close(model.head.dist(prefix[:, -1]), taught)


def test_a_teacher_gets_images_normalised_as_its_own_were() -> None:
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    ours = Normalise((0.1, 0.5, 0.6), (0.2, 0.3, 0.4), torch.device("cpu"))
    teachers = Normalise((0.4, 0.5, 0.2), (0.3, 0.1, 0.2), torch.device("cpu"))
    scale, shift = _renormalise(ours, teachers.mean, teachers.std)
    torch.testing.assert_close(ours(images) * scale + shift, teachers(images))
    scale, shift = _renormalise(ours, ours.mean, ours.std)
    assert (scale == 1).all() and (shift == 0).all()


TEACHER = "model=resnet model.base_width=2"


def test_a_sweep_trains_teachers_first_and_one_that_counts_nothing_changes_no_bit(
    vitbench: Cli, tmp_path: Path
) -> None:
    path, student = tmp_path / "mine.yaml", " ".join(SMALL["vit"])
    lines = [
        f"{student} teacher='{TEACHER}' distill.alpha=0",
        f"{student} teacher='{TEACHER}' distill.kind=soft model.distill_token=true",
        student,
        TEACHER,
    ]
    path.write_text("with: augment=light data.flip=true\nruns:\n" + "".join(f"  - {line}\n" for line in lines))
    output = vitbench("sweep", f"study={path}", *TINY, "runs=s")
    assert output.code == 0 and output.out == "4 of 4 runs finished\n", output.err
    records = [json.loads(path.read_text()) for path in (tmp_path / "s").glob("[rv]*/record.json")]
    (teacher,) = (record for record in records if record["config"]["model"]["name"] == "resnet")
    records.remove(teacher)
    by_kind = {record["config"]["distill"]["kind"]: record for record in records}
    alone, untaught, taught = by_kind[None], by_kind["hard"], by_kind["soft"]
    weights, untaught_weights = (
        checkpoint.load_tensors(tmp_path / "s" / record["id"] / "checkpoint.safetensors")[0]
        for record in (alone, untaught)
    )
    assert weights.keys() == untaught_weights.keys()
    assert all(torch.equal(weights[name], untaught_weights[name]) for name in weights)
    assert taught["teacher_run"] == untaught["teacher_run"] == teacher["id"] and alone["teacher_run"] is None
    assert taught["config"]["distill"] == {"kind": "soft", "alpha": 0.1, "temperature": 3.0}
    assert taught["total_train_seconds"] == taught["train_seconds"] + teacher["train_seconds"]
    assert alone["total_train_seconds"] == alone["train_seconds"]
    samples = 6 * 16  # of each run, by TINY
    assert (taught["total_samples_seen"], alone["total_samples_seen"]) == (2 * samples, samples)
    forwards = 3 * taught["multiply_adds"] + (1 + 3) * teacher["multiply_adds"]  # the teacher was trained, and asked
    assert taught["total_multiply_adds"] == samples * forwards
    head, *rows = vitbench("table", "runs=s", "format=csv").out.splitlines()
    assert "teacher" in head and len(rows) == 4
    assert len(vitbench("table", "runs=s", "format=csv", f"where.teacher={TEACHER}").out.splitlines()) == 3
    path.write_text("runs: [\"teacher='seed=7' seed=3\"]")
    refused = vitbench("sweep", f"study={path}", *TINY, "runs=s")
    assert refused.code == 2 and "is not finished; it is trained by: vitbench train" in refused.err


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("model=resnet", "teacher='model=resnet': resnet-shapes-f1-s0-"),
        ("good-on", "teacher=good-on: no finished run in runs=runs; did you mean good-one"),
        ("diverged", "teacher=diverged: diverged diverged and has no weights"),
    ],
)
def test_a_teacher_that_has_not_finished_gets_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    fake_runs.write(tmp_path / "runs", "good-one", 0.5)
    fake_runs.write(tmp_path / "runs", "diverged", None)
    with pytest.raises(UserError) as error:
        finished_parent(settings(f"teacher={typed}"), "teacher")
    assert str(error.value).startswith(line)


WITHOUT_LABELS = {"objective.name": "mae", "result_test_accuracy": None}


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"result_classes": ["a", "b"]}, "teacher=t: knows 2 classes (a, b ...), but these images have 10"),
        ({"result_data_fingerprint": "other"}, "teacher=t: learned from other images (data.name=shapes, 32 px)"),
        (WITHOUT_LABELS, "teacher=t: was not trained to classify (objective=mae)"),
    ],
)
def test_a_teacher_of_other_images_or_classes_is_refused(changed: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as error:
        record = fake_runs.record(0.5, **changed) | {"id": "t"}
        check_teacher(record, record["config"], [*map(str, range(10))], "shapes")
    assert str(error.value).startswith(line)


def test_a_copied_file_of_weights_teaches_nobody_and_is_loaded_by_nobody(vitbench: Cli, tmp_path: Path) -> None:
    train = ("train", *TINY, *TEACHER.split())
    ids = [vitbench(*train, f"seed={seed}").out.partition(":")[0] for seed in range(2)]
    right, wrong = (tmp_path / "runs" / name / "checkpoint.safetensors" for name in ids)
    wrong.write_bytes(right.read_bytes())
    message = f"{ids[1]}/checkpoint.safetensors holds the weights of another run, {ids[0]}"
    for setting in (f"teacher={ids[1]}", f"init={ids[1]}"):
        output = vitbench(*train, "seed=2", setting)
        assert output.code == 2 and message in output.err
    assert load(ids[0]).record["id"] == ids[0]
    with pytest.raises(UserError, match=f"holds the weights of another run, {ids[0]}"):
        load(ids[1])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["distill.kind=soft"], "distill.kind=soft: is for a run with a teacher"),
        (["model.distill_token=true"], "model.distill_token=true: is for a run with a teacher"),
        (["teacher=x", "distill.kind=sofft"], "distill.kind=sofft: did you mean soft?"),
        (["teacher=x", "distill.alpha=2"], "distill.alpha=2.0: must be 0 to 1"),
        (["teacher=x", "distill.temperature=2"], "distill.temperature=2.0: is for distill.kind=soft"),
        (["teacher=x", "distill.kind=soft", "distill.temperature=0"], "distill.temperature=0.0: must be above 0"),
        (["teacher="], "teacher=: must be the id of a run"),
    ],
)
def test_what_distillation_cannot_be_is_refused(words: list[str], line: str) -> None:
    with pytest.raises(UserError) as error:
        settings(*words)
    assert line in str(error.value)
