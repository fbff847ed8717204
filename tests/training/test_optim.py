from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from vitbench.models.build import build_model
from vitbench.models.ladders import LADDERS
from vitbench.pe.menu import MENU as ENCODINGS
from vitbench.training import optim


def test_only_weights_of_linear_and_convolutional_layers_decay() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2), nn.LayerNorm(2))
    model.register_parameter("token", nn.Parameter(torch.zeros(1, 1, 4)))
    decayed, rest = optim.parameter_groups(model, 0.05)
    assert {id(p) for p in decayed["params"]} == {id(model[0].weight), id(model[3].weight)}  # type: ignore[attr-defined]
    assert rest["weight_decay"] == 0.0
    assert len(decayed["params"]) + len(rest["params"]) == len(list(model.parameters()))  # type: ignore[arg-type]


@pytest.mark.parametrize("pe", ENCODINGS)
def test_nothing_that_an_encoding_learns_decays(pe: str) -> None:
    model = build_model("vit", image_size=16, channels=3, num_classes=3, width=16, depth=2, heads=2, pe={"name": pe})
    decayed = {id(p) for p in optim.parameter_groups(model, 0.05)[0]["params"]}
    assert decayed and not decayed & {id(p) for p in model.get_submodule("pe").parameters()}


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_an_average_of_any_rung_is_finite_and_moves_a_share_of_the_way(name: str) -> None:
    for rung in LADDERS[name].values():
        encoding = {"pe": {"name": "rope"}} if name == "vit" else {}
        model = build_model(name, image_size=16, channels=3, num_classes=3, **encoding, **rung.options)
        averaged = optim.averaged(model)
        before = [parameter.clone() for parameter in averaged.module.parameters()]
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1)
        optim.average_into(averaged, model, 0.25)
        for old, new in zip(before, averaged.module.parameters(), strict=True):
            torch.testing.assert_close(new, old + 0.25)
        assert averaged.module.eval()(torch.randn(1, 3, 16, 16)).isfinite().all()


def test_the_encoding_after_a_merging_learns_as_fast_as_the_blocks_that_it_serves() -> None:
    model = build_model(
        "vit", image_size=16, channels=3, num_classes=3, depth=4, hierarchy=True, pe={"name": "relative_bias"}
    )
    below = optim.depths_below_head(model)
    (table,) = [p for name, p in model.named_parameters() if ".merge.pe." in name]
    first_after = next(p for name, p in model.named_parameters() if name == "blocks.2.attn.qkv.weight")
    assert below[id(table)] == below[id(first_after)] == 2


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)])
def test_a_step_equals_the_unfused_optimizer_of_torch(name: str, kind: type[torch.optim.Optimizer]) -> None:
    models = [nn.Linear(3, 2, dtype=torch.float64) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    ours = optim.build_optimizer(models[0], optimizer=name, lr=0.1, weight_decay=0.1, momentum=0.9, beta2=0.99)
    settings = {"lr": 0.1, "betas": (0.9, 0.99)} if name == "adamw" else {"lr": 0.1, "momentum": 0.9, "nesterov": True}
    theirs = kind(optim.parameter_groups(models[1], 0.1), **settings)  # type: ignore[arg-type]
    for step in range(3):
        for model, optimizer in zip(models, (ours, theirs), strict=True):
            optimizer.zero_grad()
            (model(torch.full((1, 3), 1.0 + step, dtype=torch.float64)) ** 2).sum().backward()
            optimizer.step()
    for mine, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-14)


def test_an_optimizer_does_not_load_the_compiler() -> None:
    """It takes as long to import as torch itself, at every start."""
    code = """
import sys, torch
from vitbench.training.optim import build_optimizer
recipe = {"lr": 0.1, "weight_decay": 0.1, "momentum": 0.9, "beta2": 0.99}
for name in "adamw", "sgd":
    layer = torch.nn.Linear(2, 2)
    optimizer = build_optimizer(layer, optimizer=name, **recipe)
    optimizer.zero_grad()
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
