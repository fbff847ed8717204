"""The ResNet is the published one: torchvision's for ImageNet, the paper's for CIFAR."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vitbench.models.build import build_model, cost
from vitbench.models.resnet import ResNet, Subsample


def resnet(image_size: int = 32, **options: object) -> ResNet:
    torch.manual_seed(0)
    model = build_model("resnet", image_size=image_size, channels=3, num_classes=10, **options)
    assert isinstance(model, ResNet)
    return model


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_it_is_torchvisions_resnet(depth: int) -> None:
    from torchvision import models

    torch.manual_seed(0)
    theirs = getattr(models, f"resnet{depth}")()
    for name, module in theirs.named_modules():
        if isinstance(module, nn.BatchNorm2d):  # statistics and weights as after training: none is 0 or 1
            small = 0.2 if name.split(".")[-1] == ("bn3" if depth == 50 else "bn2") else 1.0
            nn.init.uniform_(module.weight, 0.5 * small, 1.5 * small)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    ours = build_model("resnet", image_size=224, channels=3, num_classes=1000, depth=depth)
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), theirs.eval()(images), rtol=0, atol=1e-5)


@pytest.mark.parametrize("depth, millions", [(20, 0.27), (32, 0.46), (56, 0.85)])
def test_the_cifar_networks_have_the_parameters_of_the_papers_table_6(depth: int, millions: float) -> None:
    parameters, _ = cost("resnet", image_size=32, channels=3, num_classes=10, depth=depth)
    assert round(parameters / 1e6, 2) == pytest.approx(millions, abs=0.011)


def test_the_image_size_chooses_the_stem() -> None:
    for image_size, stem, kernel, pooling in [
        (32, "auto", 3, nn.Identity),
        (64, "auto", 3, nn.Identity),
        (96, "auto", 7, nn.MaxPool2d),
        (32, "imagenet", 7, nn.MaxPool2d),
        (224, "cifar", 3, nn.Identity),
    ]:
        model = resnet(image_size, stem=stem)
        assert model.conv1.kernel_size == (kernel, kernel)
        assert isinstance(model.maxpool, pooling)


def test_the_shortcut_without_weights_takes_every_second_pixel_and_adds_empty_channels() -> None:
    x = torch.randn(2, 3, 5, 6)
    y = Subsample(new_channels=3, stride=2)(x)
    assert y.shape == (2, 6, 3, 3)
    assert torch.equal(y[:, :3], x[:, :, ::2, ::2])
    assert not y[:, 3:].any()


def test_a_width_set_by_hand_goes_before_the_sizes() -> None:
    assert resnet(size="nano").conv1.out_channels == 10
    assert resnet(size="nano", base_width=12).conv1.out_channels == 12
    assert resnet(size="nano", depth=32).conv1.out_channels == 16
    assert resnet(size="nano", depth=18).conv1.out_channels == 64


def test_channels_last_changes_nothing_but_the_rounding() -> None:
    model, images = resnet().double().eval(), torch.randn(2, 3, 32, 32, dtype=torch.float64)
    expected = model(images)
    model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(images.to(memory_format=torch.channels_last)), expected, rtol=0, atol=1e-10)
