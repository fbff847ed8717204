"""What every model and every encoding on the menus promises."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from vitbench.errors import UserError, did_you_mean
from vitbench.menu import look_up, tunables
from vitbench.models import alike
from vitbench.models.build import build_model, cost
from vitbench.models.families import LIBRARIES
from vitbench.models.ladders import LADDERS
from vitbench.models.menu import MENU, SIZES
from vitbench.models.patches import usual_patch_size
from vitbench.objectives.menu import MENU as OBJECTIVES
from vitbench.pe.menu import MENU as ENCODINGS
from vitbench.settings.compose import CONF_DIR

RUNGS: dict[str, dict[str, Any]] = {name: {**rung.options} for name, rung in LADDERS["vit"].items() if name}
RUNGS["all"] = {key: value for rung in RUNGS.values() for key, value in rung.items()}
CNN_RUNGS: dict[str, dict[str, Any]] = {name: {**rung.options} for name, rung in LADDERS["resnet"].items() if name}
CNN_RUNGS["all"] = {"sharing": False, "reach": "random", "hierarchy": False, "pool": "flatten", "norm": "layer"}
CASES: dict[str, dict[str, Any]] = {
    **{f"vit-{name}": {"name": "vit", "pe": {"name": name}} for name in ENCODINGS},
    **{f"vit-cls-{name}": {"name": "vit", "pool": "cls", "pe": {"name": name}} for name in ENCODINGS},
    **{name: {"name": name} for name in MENU if name not in LIBRARIES},  # tests/models/test_library.py has those
    **{f"vit-{name}": {"name": "vit", "pe": {"name": "relative_bias"}, **rung} for name, rung in RUNGS.items()},
    **{f"resnet-{name}": {"name": "resnet", **rung} for name, rung in CNN_RUNGS.items()},
}
EVERY_CASE = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def nano(case: dict[str, Any]) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model(**case, image_size=32, channels=3, num_classes=10)


@EVERY_CASE
def test_images_become_finite_logits(case: dict[str, Any]) -> None:
    logits = nano(case)(torch.randn(2, 3, 32, 32))
    assert logits.shape == (2, 10)
    assert logits.isfinite().all()


@EVERY_CASE
def test_every_parameter_gets_a_gradient(case: dict[str, Any]) -> None:
    model = nano(case)
    loss = torch.nn.functional.cross_entropy(model(torch.randn(4, 3, 32, 32)), torch.arange(4))
    loss.backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not idle
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@EVERY_CASE
def test_other_image_sizes_come_at_call_time(case: dict[str, Any]) -> None:
    model = nano(case).eval()
    with torch.no_grad():
        for height, width in [(48, 48), (24, 40), (16, 16)]:
            if case["name"] == "mixer" or case.get("pool") == "flatten" or not case.get("sharing", True):
                with pytest.raises(UserError):  # its weights belong to places
                    model(torch.randn(2, 3, height, width))
                continue
            assert model(torch.randn(2, 3, height, width)).isfinite().all()


@EVERY_CASE
def test_the_same_seed_draws_the_same_weights(case: dict[str, Any]) -> None:
    first, second = nano(case).state_dict(), nano(case).state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


@EVERY_CASE
def test_taps_are_met_in_depth_order_and_end_with_the_pooled_feature(case: dict[str, Any]) -> None:
    model, met = nano(case).eval(), []
    for name, module in model.taps.items():
        module.register_forward_hook(lambda module, inputs, output, name=name: met.append((name, inputs[0], output)))
    logits = model(torch.randn(2, 3, 32, 32))
    assert [name for name, _, _ in met] == list(model.taps)
    name, feature, output = met[-1]
    assert name == "head" and feature.ndim == 2 and torch.equal(output, logits)
    assert all(output.ndim in (3, 4) for _, _, output in met[:-1])


@EVERY_CASE
def test_a_grey_image_of_another_size_can_be_the_training_image(case: dict[str, Any]) -> None:
    side = 24 if case.get("hierarchy") else 28  # an even number of patches
    model = build_model(**case, image_size=side, channels=1, num_classes=3)
    assert model(torch.randn(2, 1, side, side)).shape == (2, 3)


@pytest.mark.parametrize("size", SIZES)
def test_the_pairs_of_a_size_match_within_ten_percent_and_are_counted_right(size: str) -> None:
    counted = {}
    for name, entry in SIZES[size].items():
        counted[name] = cost(name, image_size=32, channels=3, num_classes=10, size=size)
        assert counted[name] == (entry.parameters, entry.multiply_adds)
    for name in SIZES[size]:
        assert 0.9 < counted[name][1] / counted["vit"][1] < 1.1


def test_counting_draws_no_random_numbers() -> None:
    before = torch.get_rng_state()
    cost("vit", image_size=32, channels=3, num_classes=10, pe={"name": "learned"}, drop_path=0.1)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_cost_that_was_counted_on_this_machine_is_not_counted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {"image_size": 32, "channels": 3, "num_classes": 10, "width": 16, "depth": 1}
    counted = cost("vit", **asked, memory=tmp_path)
    monkeypatch.setattr("vitbench.models.build._cost", lambda architecture: (0, 0))
    assert cost("vit", **asked, memory=tmp_path) == counted
    assert cost("vit", **asked | {"depth": 2}, memory=tmp_path) == (0, 0)  # another network
    monkeypatch.setattr("vitbench.models.build._sources", lambda: "other code")
    assert cost("vit", **asked, memory=tmp_path) == (0, 0)


def change_digits(path: Path) -> None:
    path.write_text(path.read_text().translate(str.maketrans("123456789", "234567891")))


def test_costs_that_were_damaged_on_disk_are_counted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {"image_size": 32, "channels": 3, "num_classes": 10, "width": 16, "depth": 1}
    counted = cost("vit", **asked, memory=tmp_path)
    (path,) = (tmp_path / "costs").iterdir()
    change_digits(path)
    assert cost("vit", **asked, memory=tmp_path) == counted
    monkeypatch.setattr(alike, "_count", lambda *given: given[-1].setdefault("a", [10, 20]))
    monkeypatch.setattr(alike, "_target", lambda match, image_size: 20)
    for _ in range(2):
        assert alike.find("torchvision", "vit.nano", ["a"], 32, 1, tmp_path).networks == [("a", 10, 20)]
        change_digits(next((tmp_path / "costs").glob("torchvision-*.json")))


@pytest.mark.parametrize("pe, of_encoding", [("rope", 0), ("rope_mixed", 0), ("cpe", 64 * 64 * 9)])
def test_multiply_adds_of_a_vit_are_those_of_the_formula(pe: str, of_encoding: int) -> None:
    """Per block 12 N D^2 for the linear layers and 2 N^2 D for attention's two products; 9 D a patch for `cpe`."""
    N, D, depth = 65, 64, 4
    expected = 64 * (3 * 4 * 4) * D + depth * (12 * N * D**2 + 2 * N**2 * D) + D * 10 + of_encoding
    assert cost("vit", image_size=32, channels=3, num_classes=10, pool="cls", pe={"name": pe})[1] == expected


@pytest.mark.parametrize("pe", ENCODINGS)
def test_an_encoding_leaves_the_pairs_of_a_size_matched(pe: str) -> None:
    shape = {"image_size": 32, "channels": 3, "num_classes": 10}
    assert 0.9 < cost("vit", **shape, pe={"name": pe})[1] / cost("resnet", **shape)[1] < 1.1


@pytest.mark.parametrize("kind, menu", [("model", MENU), ("pe", ENCODINGS), ("objective", OBJECTIVES)])
def test_a_yaml_lists_exactly_the_tunables_of_the_signature(kind: str, menu: dict) -> None:
    assert {path.stem for path in (CONF_DIR / kind).glob("*.yaml")} == set(menu)
    for name, choice in menu.items():
        text = (CONF_DIR / kind / f"{name}.yaml").read_text(encoding="utf-8")
        settings = yaml.safe_load(text)
        settings.pop("defaults", None)
        assert settings.pop("name") == name
        defaults = {key: default for key, (_, default) in tunables(choice.target).items()}
        if settings.get("patch_size", 0) is None:  # it follows the image size, and of small images it is the default
            settings["patch_size"] = usual_patch_size(32)
        assert settings == defaults
        if kind == "pe":
            assert text.splitlines()[0] == "# @package model.pe"


@pytest.mark.parametrize("kind, menu", [("model", MENU), ("pe", ENCODINGS), ("objective", OBJECTIVES)])
def test_the_signature_read_without_an_import_is_the_real_one(kind: str, menu: dict) -> None:
    for name, choice in menu.items():
        real = inspect.signature(look_up(kind, name, menu)).parameters.values()
        expected = {p.name: (p.annotation, p.default) for p in real if p.default is not p.empty}
        assert tunables(choice.target) == expected


@pytest.mark.parametrize(
    "options, line",
    [
        ({"name": "vitt"}, "model=vitt: did you mean vit? choices: mixer, resnet, timm, torchvision, vit"),
        (
            {"name": "resnet", "pe": {"name": "rope"}},
            "resnet is not a ViT and takes no position encoding; drop pe=rope",
        ),
        ({"name": "vit", "pe": {"name": "ropee"}}, f"pe=ropee: {did_you_mean('ropee', ENCODINGS)}"),
        (
            {"name": "vit", "size": "tinny"},
            "model.size=tinny: did you mean tiny? choices: base, micro, nano, small, tiny",
        ),
        ({"name": "resnet", "size": "big"}, "model.size=big: choices: base, micro, nano, small, tiny"),
        (
            {"name": "vit", "image_size": 30, "patch_size": 16},
            (
                "data.image_size=30 model.patch_size=16: patches must divide the image; "
                "data.image_size=16 or 32 works, or model.patch_size=15"
            ),
        ),
        (
            {"name": "vit", "image_size": 8, "patch_size": 16},
            (
                "data.image_size=8 model.patch_size=16: patches must divide the image; "
                "data.image_size=16 works, or model.patch_size=8"
            ),
        ),
        (
            {"name": "vit", "width": 64, "heads": 5},
            "model.width=64 model.heads=5: the width must be divisible by the number of heads; model.heads=4 works",
        ),
        ({"name": "vit", "depth": 0}, "model.depth=0: must be greater than 0"),
        ({"name": "vit", "patch_size": -4}, "model.patch_size=-4: must be greater than 0"),
        ({"name": "vit", "mlp_ratio": float("nan")}, "model.mlp_ratio=nan: must be greater than 0"),
        ({"name": "vit", "pool": "clss"}, "model.pool=clss: did you mean cls? choices: cls, mean"),
        ({"name": "vit", "drop_path": 1.0}, "model.drop_path=1.0: must be at least 0 and less than 1"),
        ({"name": "resnet", "depth": 19}, "model.depth=19: must be one of 18, 20, 32, 34, 50, 56"),
        ({"name": "resnet", "base_width": 0}, "model.base_width=0: must be greater than 0"),
        (
            {"name": "resnet", "stem": "cifar10"},
            "model.stem=cifar10: did you mean cifar? choices: auto, cifar, imagenet, patch",
        ),
        (
            {"name": "vit", "heads": 32, "pe": {"name": "rope"}},
            "pe=rope model.width=64 model.heads=32: the width of a head, 2, must be a multiple of 4",
        ),
        ({"name": "vit", "pe": {"name": "rope", "theta": 0.0}}, "pe.theta=0.0: must be greater than 0"),
        (
            {"name": "vit", "width": 66, "heads": 3, "pe": {"name": "sincos2d"}},
            "pe=sincos2d model.width=66: the width must be a multiple of 4, at least 8",
        ),
        (
            {"name": "vit", "width": 65, "heads": 5, "pe": {"name": "sincos1d"}},
            "pe=sincos1d model.width=65: the width must be even",
        ),
    ],
)
def test_a_slip_gets_one_line_with_what_would_work(options: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as error:
        build_model(**{"image_size": 32, "channels": 3, "num_classes": 10, **options})
    assert str(error.value) == line
