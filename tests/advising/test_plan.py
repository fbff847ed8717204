from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vitbench.advising import measure, planning, pretrained
from vitbench.advising.asked import Asked
from vitbench.advising.measure import scratch_costs
from vitbench.advising.plan import (
    Arm,
    Photographs,
    Plan,
    choose,
    plan_lines,
    setting_word,
    shares_of,
    study_text,
    study_with,
)
from vitbench.advising.planning import old_plan
from vitbench.advising.pretrained import read_models, run_words, tuning_rate
from vitbench.errors import UserError
from vitbench.inspect import Inspected
from vitbench.runs.study import load_study
from vitbench.settings.schema import FolderConfig

PETS = Photographs(train=1200, validation=130, test=330, smallest_class=100, classes=10, side=300)


def arms_of(seconds: float, pretrained: bool = False) -> list[Arm]:
    """A ViT and a ResNet whose images take so long, and where asked for a pretrained network that takes three times."""
    arms = [Arm("ViT", "model=vit pe=learned", seconds), Arm("ResNet", "model=resnet", seconds)]
    return arms + [Arm("a pretrained one", "model=timm init=pretrained", 3 * seconds, True)] * pretrained


def planned(minutes: float, photographs: Photographs = PETS, pretrained: bool = False) -> Plan:
    return choose(60 * minutes, 2, photographs, lambda size: arms_of(0.003 * (size / 64) ** 2, pretrained))


def test_more_minutes_make_a_richer_plan_that_fits() -> None:
    plans = [planned(minutes) for minutes in (0.6, 3, 10, 60)]
    assert [plan.seeds for plan in plans] == sorted(plan.seeds for plan in plans) and plans[0].seeds < 3
    assert len(plans[-1].shares) == 3 and plans[-1].image_size == 128
    assert all(plan.seconds <= 60 * minutes for plan, minutes in zip(plans, (0.6, 3, 10, 60), strict=True))
    assert plans[0].steps >= 150 and not plans[-1].left_out


def test_too_few_minutes_are_said_and_something_is_tried_all_the_same() -> None:
    plan = planned(0.2)
    assert plan.seeds == 1 and plan.steps < 150 and plan.left_out[0].startswith("enough training:")
    assert any("one training of each network cannot tell" in line for line in plan.left_out)


def test_shares_keep_a_few_images_of_every_class() -> None:
    assert shares_of(PETS) == (1, 0.3333, 0.1111)
    assert shares_of(replace(PETS, smallest_class=12)) == (1, 0.3333)


def test_a_class_of_few_images_leaves_smaller_shares_out() -> None:
    plan = planned(60, Photographs(train=200, validation=20, test=50, smallest_class=4, classes=2, side=300))
    assert plan.shares == (1,) and "a class has only 4 training images" in plan.left_out[0]


def test_pretrained_networks_are_given_up_last_and_named() -> None:
    assert any(arm.pretrained for arm in planned(10, pretrained=True).arms)
    hurried = planned(0.5, pretrained=True)
    assert not any(arm.pretrained for arm in hurried.arms) and any("pretrained" in line for line in hurried.left_out)


def test_images_are_not_larger_than_the_photographs() -> None:
    assert planned(60, Photographs(1200, 130, 330, 100, 10, side=50)).image_size == 48


def test_the_study_file_asks_for_the_runs_of_the_plan_and_the_most_important_first(tmp_path: Path) -> None:
    plan = planned(60, pretrained=True)
    path = tmp_path / "study.yaml"
    path.write_text(study_text(plan, "pets", ["data=imagefolder", "data.root='/my pets'"], "vitbench advise", 60))
    study = load_study(str(path))
    assert "data.root='/my pets'" in study.common and f"data.image_size={plan.image_size}" in study.common
    assert study.runs[0].endswith("data.fraction=1 seed=0") and study.runs[-1].endswith(
        "data.fraction=0.1111 seed=0,1,2"
    )
    runs = sum(3 if line.endswith("seed=0,1,2") else 1 for line in study.runs)
    assert runs == plan.runs == 2 * 3 * 3 + 3


def test_the_plan_is_said_with_its_time() -> None:
    plan = planned(10)
    lines = plan_lines(plan, 10, (14_900_000, 15_900_000))
    assert lines[0].startswith("the plan takes about ") and "measured on this machine" in lines[0]
    assert "ViT and ResNet from scratch, of about equal cost (14.9 M and 15.9 M multiply-adds" in lines[1]


@pytest.mark.parametrize("image_size", [32, 64, 96, 128])
def test_patches_are_chosen_so_that_both_cost_about_the_same(tmp_path: Path, image_size: int) -> None:
    _, of_vit, of_resnet = scratch_costs(image_size, tmp_path)
    assert 0.75 < of_vit / of_resnet < 1.33


@pytest.mark.parametrize(
    ("value", "word"),
    [("/home/a/pets", "data.root=/home/a/pets"), ("/my pets", "data.root='/my pets'"), ("1.10", "data.root='1.10'")],
)
def test_a_value_that_could_be_misread_stands_in_quotes(value: str, word: str) -> None:
    assert setting_word("data.root", value) == word


def test_models_are_typed_with_their_library_and_perhaps_a_file(tmp_path: Path) -> None:
    (tmp_path / "own.pth").write_bytes(b"")
    own, file = read_models(["torchvision:resnet18", f"torchvision:resnet18@{tmp_path}/own.pth"])
    assert run_words(own) == "model=torchvision model.arch=resnet18 init=pretrained head=new"
    assert run_words(file) == f"model=torchvision model.arch=resnet18 init={tmp_path}/own.pth head=new"
    assert tuning_rate(file) == 0.01 and read_models([]) == []
    for typed, line in {
        "torchvision:resnet81": "did you mean resnet1",
        "keras:resnet18": "timm:NAME, torchvision:NAME",
        "torchvision:resnet18@no.pth": "no such file",
        "resnet18": "must be timm:NAME or",
    }.items():
        with pytest.raises(UserError, match=line):
            read_models([typed])


def test_a_richer_plan_adds_its_runs_behind_those_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    small = planned(0.6)
    path.write_text(study_text(small, "pets", ["data=imagefolder"], "vitbench advise", 0.6))
    richer = choose(3600, 2, PETS, lambda size: arms_of(0.003), [small.image_size], small.steps)
    assert (richer.image_size, richer.steps, richer.seeds) == (small.image_size, small.steps, 3)
    before = load_study(str(path))
    path.write_text(study_with(richer, path, 60))
    after = load_study(str(path))
    assert after.runs[: len(before.runs)] == before.runs and len({*after.runs}) == len(after.runs) == 2 * 3 + 2 * 2
    assert "minutes=60." in after.notes and after.common == before.common


def asked_for(tmp_path: Path, models: Any = None, **data: Any) -> Asked:
    """What was typed of /pets, whose study lies in tmp_path."""
    machine = {"device": "cpu", "progress": False}
    settings = asdict(FolderConfig()) | {"root": "/pets", "name": "pets", "cache": str(tmp_path)} | data
    return Asked(settings, ["data=imagefolder", "data.root=/pets"], 10, models, tmp_path, str(tmp_path), machine, [])


def test_a_plan_of_other_settings_of_the_data_is_not_gone_on_with(tmp_path: Path) -> None:
    words = ["data=imagefolder", "data.root=/pets"]
    (tmp_path / "study.yaml").write_text(study_text(planned(0.6), "pets", words, "vitbench advise", 0.6))
    kept = old_plan(asked_for(tmp_path))
    assert not kept.is_done and kept.minutes == 0.6
    for key, value in (("fit", "pad"), ("test_fraction", 0.5), ("root", "/cats"), ("skip_broken", True)):
        with pytest.raises(UserError, match=rf"data.{key}=.*: the plan in .*study.yaml has .*; type data.name=NEW"):
            old_plan(asked_for(tmp_path, **{key: value}))


def test_a_plan_is_made_anew_for_networks_that_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(study_text(planned(0.6), "pets", ["data=imagefolder"], "vitbench advise", 0.6))
    with_data = (tmp_path / "study.yaml").read_text().replace("data=imagefolder", "data=imagefolder data.root=/pets")
    (tmp_path / "study.yaml").write_text(with_data)
    models = ["torchvision:resnet18"]
    assert not old_plan(asked_for(tmp_path)).lacks_models and old_plan(asked_for(tmp_path, models)).lacks_models
    line = f"- {run_words(*read_models(models))} freeze=backbone optim.steps=50 seed=0\n"
    (tmp_path / "study.yaml").write_text(with_data.replace("runs:\n", f"runs:\n{line}"))
    assert not old_plan(asked_for(tmp_path, models)).lacks_models


def test_a_network_that_takes_no_images_of_one_size_is_tried_at_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def why(one: Any, size: int, classes: int) -> str | None:
        return "takes no images of 128 px" if size == 128 else None

    monkeypatch.setattr(planning, "photographs_in", lambda *given: PETS)
    monkeypatch.setattr(pretrained, "why_no_images", why)
    monkeypatch.setattr(pretrained, "why_no_weights", lambda *given: None)
    monkeypatch.setattr(measure, "scratch_arms", lambda size, *given: arms_of(0.01 * (size / 64) ** 2))
    monkeypatch.setattr(measure, "measured", lambda words, size, common: 0.01 * (size / 64) ** 2)
    monkeypatch.setattr(measure, "scratch_costs", lambda *given: (8, 10**7, 10**7))
    asked, inspected = asked_for(tmp_path, ["torchvision:resnet18"]), Inspected("pets", None, [])  # type: ignore[arg-type]
    small = planning.planned(asked._replace(minutes=5), inspected)
    assert small.image_size < 128 and "model.arch=resnet18 init=pretrained" in small.text
    assert not any("not tried" in line for line in small.lines)
    large = planning.planned(asked._replace(data=asked.data | {"image_size": 128}), inspected)
    assert "  not tried: resnet18 pretrained, takes no images of 128 px" in large.lines


def test_only_the_classes_that_are_typed_are_counted() -> None:
    classes = ["cat"] * 100 + ["dog"] * 50 + ["eel"] * 10
    facts = [SimpleNamespace(width=40, height=30)] * 160
    images = SimpleNamespace(classes=classes, splits=[""] * 160, facts=facts, whole=np.arange(160))
    inspected: Any = SimpleNamespace(images=images)
    every = planning.photographs_in(inspected, asdict(FolderConfig()))
    assert (every.train, every.test, every.classes, every.smallest_class, every.side) == (115, 32, 3, 7, 30)
    some = planning.photographs_in(inspected, asdict(FolderConfig(classes=[0, 1])))
    assert (some.train, some.test, some.classes, some.smallest_class) == (108, 30, 2, 36)
