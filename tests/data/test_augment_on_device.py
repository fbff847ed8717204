"""Augmentation is work of the device alone: a recording of it, done again with other random numbers, is right."""

from __future__ import annotations

from dataclasses import asdict, fields
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.tape import NotReplayable, Tape
from vitbench.data.augment import Augment
from vitbench.data.loader import Normalise
from vitbench.settings.compose import CONF_DIR, read_yaml
from vitbench.settings.schema import AugmentConfig

ALONE: dict[str, dict[str, Any]] = {
    "area": {"area": 0.08},
    "crop": {"crop": 0.125},
    "rotate": {"rotate": 15.0},
    "scale": {"scale": 0.2},
    "flip": {"flip": True},
    "randaugment": {"randaugment": 2, "draw": "image"},
    "mixup": {"mixup": 0.8},
    "cutmix": {"cutmix": 1.0},
    "erase": {"erase": 0.25},
}
PRESETS = {
    path.stem: {key: value for key, value in read_yaml(path).items() if key != "defaults"}
    for path in sorted((CONF_DIR / "augment").glob("*.yaml"))
}
CPU = torch.device("cpu")


def augmentation(settings: dict[str, Any], device: torch.device = CPU) -> partial[tuple[Tensor, Tensor]]:
    """What these settings do, from uint8 images and labels to what a model sees."""
    options = asdict(AugmentConfig(**settings))
    del options["name"]
    augment = Augment(num_classes=10, image_size=16, **options)
    normalise = Normalise([0.5] * 3, [0.2] * 3, device)

    def augmented(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return augment.mix(normalise(augment.pixels(images)), labels)

    return partial(augmented)


@pytest.mark.parametrize("settings", [*PRESETS.values(), *ALONE.values()], ids=[*PRESETS, *ALONE])
def test_a_replay_augments_as_a_call_does(settings: dict[str, Any]) -> None:
    augmented = augmentation(settings)
    inputs = torch.randint(0, 256, (24, 3, 16, 16), dtype=torch.uint8), torch.arange(24) % 10
    given = tuple(tensor.clone() for tensor in inputs)
    augmented(*inputs)  # a graph is recorded after calls that make the tables
    with Tape() as tape:
        outputs = augmented(*inputs)
    first = tuple(tensor.clone() for tensor in outputs)
    for seed in range(5):
        torch.manual_seed(seed)
        tape.replay()
        torch.manual_seed(seed)
        for replayed, expected in zip(outputs, augmented(*inputs), strict=True):
            assert torch.equal(replayed, expected)
    assert all(map(torch.equal, inputs, given))
    assert torch.equal(outputs[0], first[0]) == (settings.get("name") == "none"), "other numbers, other images"


@pytest.mark.parametrize("settings", [*PRESETS.values(), *ALONE.values()], ids=[*PRESETS, *ALONE])
def test_no_tensor_is_made_on_the_host_for_a_gpu(settings: dict[str, Any]) -> None:
    gpu = torch.device("cuda")
    with FakeTensorMode():
        augmented = augmentation(settings, gpu)
        images = torch.zeros(24, 3, 16, 16, dtype=torch.uint8, device=gpu)
        inputs = images, images[:, 0, 0, 0].long()
        augmented(*inputs)
        with Tape() as tape:
            augmented(*inputs)
    assert tape.tensors and {tensor.device.type for tensor in tape.tensors} == {"cuda"}


def test_each_setting_is_recorded_alone() -> None:
    assert {*ALONE} == {field.name for field in fields(AugmentConfig)} - {"name", "draw", "magnitude"}
    for key, settings in ALONE.items():
        assert settings[key] != getattr(AugmentConfig, key)


def draw_by_chunk(images: Tensor) -> Tensor:
    return augmentation({"randaugment": 2})(images, images[:, 0, 0, 0].long())[0]


@pytest.mark.parametrize(
    "function",
    [
        draw_by_chunk,
        lambda images: images * images.max().item(),
        lambda images: images * float(torch.rand(1)),
        lambda images: images[images > 9],
        lambda images: images.masked_fill(images > 9, 0).nonzero(),
        lambda images: images * torch.tensor([2]),
    ],
    ids=["draw=chunk", "item", "float", "mask", "nonzero", "tensor"],
)
def test_what_no_graph_could_hold_is_not_recorded(function: Any) -> None:
    with pytest.raises(NotReplayable), Tape():
        function(torch.arange(3 * 64).view(1, 3, 8, 8).to(torch.uint8))
