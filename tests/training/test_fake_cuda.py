"""A step on a GPU that is not there: torch's fake tensors know their device, so whatever stays on the CPU is found.

Forward and loss are tried. A backward on fake CUDA tensors asks for a driver.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.models.test_contracts import CNN_RUNGS, RUNGS
from tests.tape import COPIES, WAITS
from vitbench.data.augment import Augment
from vitbench.data.loader import Loader, Normalise
from vitbench.data.permute import rearrangement
from vitbench.models.build import build_model
from vitbench.models.menu import SIZES, is_vit
from vitbench.objectives.build import build_objective, teacher
from vitbench.objectives.menu import MENU as OBJECTIVES
from vitbench.pe.menu import MENU as ENCODINGS
from vitbench.settings.compose import as_settings, compose

AUGMENTS = ("none", "light", "strong", "deit")


class OnTheGpu(TorchDispatchMode):
    """Fails for a call that touches a tensor of the CPU, or whose result the host would have to wait for."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert function.overloadpacket not in WAITS | COPIES, f"{function} waits for the device"
        results = function(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs, results)):
            assert not isinstance(tensor, Tensor) or tensor.device.type == "cuda", f"{function} works on the CPU"
        return results


@pytest.fixture
def fake() -> Iterator[FakeTensorMode]:
    with FakeTensorMode() as mode:
        yield mode


def on_gpu(module: Any) -> Any:
    """Moves parameters and buffers by hand, since `Module.to` refuses."""
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            moved = torch.empty(parameter.shape, device="cuda")
            setattr(part, name, nn.Parameter(moved, requires_grad=parameter.requires_grad))
        for name, buffer in part.named_buffers(recurse=False):
            part._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device="cuda")
    return module


OURS = tuple(SIZES["nano"])  # networks of libraries have no graph, so they may ask the host for something


def network(name: str, pe: str | None = None, **options: Any) -> Any:
    small = (
        {"base_width": 4} if name == "resnet" else {"width": 16, "depth": 2} | ({"heads": 2} if is_vit(name) else {})
    )
    encoding = {"name": pe or "learned"} if is_vit(name) else None
    return build_model(name, image_size=32, channels=3, num_classes=10, pe=encoding, **small | options)


def augmented(preset: str) -> Augment:
    settings = as_settings(compose([f"augment={preset}", "data.flip=true"]))["augment"]
    return Augment(num_classes=10, image_size=32, **{key: value for key, value in settings.items() if key != "name"})


def loss_on_gpu(model: Any, objective: Any, augment: Augment) -> Tensor:
    """The loss of a batch that is cut from images on the GPU, as in vitbench/training/training.py."""
    images = torch.empty(200, 3, 32, 32, dtype=torch.uint8, device="cuda")
    labels = torch.empty(200, dtype=torch.long, device="cuda")
    normalise = Normalise([0.5] * 3, [0.25] * 3, images.device, model.channels_last, rearrangement(32, 4, 1.0, 0))
    batch = torch.empty(16, dtype=torch.long, device="cuda")
    loader = Loader(images, labels, 16, 0)

    def loss() -> Tensor:
        views = objective.views(*loader.take(batch), augment, normalise)
        computed: Tensor = objective(model, *views)
        return computed

    loss()  # tables are made on the host, once
    with OnTheGpu():
        return loss()


def objective_of(name: str, model: Any, **given: Any) -> Any:
    return build_objective(name, model, **{"label_smoothing": 0.1, "teacher": None, "distill": {}} | given)


@pytest.mark.parametrize("model", OURS)
@pytest.mark.parametrize("augment", AUGMENTS)
def test_every_model_and_augmentation_stays_on_the_gpu(fake: FakeTensorMode, model: str, augment: str) -> None:
    built = on_gpu(network(model, **({"drop_path": 0.5} if is_vit(model) else {})))
    assert loss_on_gpu(built, objective_of("classify", built), augmented(augment)).device.type == "cuda"


@pytest.mark.parametrize("pool", ["mean", "cls"])
@pytest.mark.parametrize("pe", ENCODINGS)
def test_every_encoding_stays_on_the_gpu(fake: FakeTensorMode, pe: str, pool: str) -> None:
    model = on_gpu(network("vit", pe, pool=pool))
    assert loss_on_gpu(model, objective_of("classify", model), augmented("light")).device.type == "cuda"


@pytest.mark.parametrize("rung", RUNGS.values(), ids=RUNGS)
def test_every_rung_of_a_vit_stays_on_the_gpu(fake: FakeTensorMode, rung: dict[str, Any]) -> None:
    model = on_gpu(network("vit", "relative_bias", **rung))
    assert loss_on_gpu(model, objective_of("classify", model), augmented("light")).device.type == "cuda"


@pytest.mark.parametrize("rung", ["sharing", "random", "blur", "all"])
def test_rungs_of_a_cnn_stay_on_the_gpu(fake: FakeTensorMode, rung: str) -> None:
    model = on_gpu(network("resnet", **CNN_RUNGS[rung]))
    assert loss_on_gpu(model, objective_of("classify", model), augmented("light")).device.type == "cuda"


@pytest.mark.parametrize("pe", ENCODINGS)
def test_hiding_patches_stays_on_the_gpu_whatever_the_encoding(fake: FakeTensorMode, pe: str) -> None:
    model = network("vit", pe)
    objective = objective_of("mae", model)
    assert loss_on_gpu(on_gpu(model), on_gpu(objective), augmented("light")).device.type == "cuda"


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name != "mae"])
@pytest.mark.parametrize("model", OURS)
def test_every_objective_stays_on_the_gpu(fake: FakeTensorMode, model: str, name: str) -> None:
    built = network(model)
    objective = objective_of(name, built)
    assert loss_on_gpu(on_gpu(built), on_gpu(objective), augmented("light")).device.type == "cuda"


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_distillation_stays_on_the_gpu(fake: FakeTensorMode, kind: str) -> None:
    model, asked = on_gpu(network("vit", distill_token=True)), on_gpu(network("resnet")).eval()
    normalise = Normalise([0.5] * 3, [0.25] * 3, torch.device("cuda"))
    asked.to = lambda *args, **options: asked  # on the GPU already
    its = teacher(asked, normalise, mean=[0.4] * 3, std=[0.2] * 3)
    distill = {"kind": kind, "alpha": 0.5, "temperature": 3.0 if kind == "soft" else None}
    objective = objective_of("classify", model, teacher=its, distill=distill)
    assert loss_on_gpu(model, objective, augmented("light")).device.type == "cuda"


def test_what_stays_on_the_cpu_is_found(fake: FakeTensorMode) -> None:
    numbers = torch.empty(4, device="cuda")
    for stray in (lambda: numbers + torch.ones(()), lambda: numbers[torch.arange(2)], lambda: numbers.sum().item()):
        with pytest.raises(AssertionError), OnTheGpu():
            stray()
