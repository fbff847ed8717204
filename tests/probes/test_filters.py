"""Banks of filters whose spectrum, colour and components are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tests.probes.known import noise, subject, value
from vitbench.errors import DoesNotApply
from vitbench.models.build import build_model
from vitbench.probes.filters import components, draw, mean_frequency, probe
from vitbench.probes.subject import Row, Subject


def subject_of(model: nn.Module, channels: int = 3) -> Subject:
    return subject(model, noise(2, 32, channels), torch.zeros(2), 5)


def bank(weight: torch.Tensor) -> list[Row]:
    D, C, k, _ = weight.shape
    layer = nn.Conv2d(C, D, k, bias=False)
    layer.weight.data = weight
    return probe(subject_of(nn.Sequential(layer, nn.AdaptiveAvgPool2d(1), nn.Flatten()), C), seed=0)


@pytest.mark.known_answer
def test_one_pixel_has_all_frequencies_alike_and_a_wave_has_its_own() -> None:
    pixel = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    pixel[0, 0, 1, 1] = 1
    assert mean_frequency(pixel).item() == pytest.approx(0.3826, abs=0.002)
    wave = torch.cos(2 * math.pi * torch.arange(32) / 8).double().expand(1, 1, 32, 32)
    assert mean_frequency(wave).item() == pytest.approx(1 / 8)


def test_grey_filters_have_no_colour_and_independent_channels_have_two_thirds() -> None:
    torch.manual_seed(0)
    grey = torch.randn(32, 1, 4, 4).expand(-1, 3, -1, -1).clone()
    assert value(bank(grey), "colour_share") == pytest.approx(0, abs=1e-6)
    assert value(bank(torch.randn(500, 3, 4, 4)), "colour_share") == pytest.approx(2 / 3, abs=0.02)
    assert math.isnan(value(bank(torch.randn(8, 1, 3, 3)), "colour_share"))


@pytest.mark.known_answer
def test_components_are_those_that_the_filters_are_made_of() -> None:
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(48, 2, dtype=torch.float64))[0].T  # two orthogonal filters
    amounts = torch.tensor([[3.0, 0], [-3, 0], [0, 1], [0, -1]], dtype=torch.float64)
    w = (amounts @ basis).view(4, 3, 4, 4)
    found, variances = components(w)
    assert variances.tolist() == pytest.approx([6, 2 / 3])
    assert (found.flatten(1) @ basis.T).abs().numpy() == pytest.approx(torch.eye(2).numpy(), abs=1e-9)
    rows = bank(w)
    assert value(rows, "variance_share", 1) == pytest.approx(0.9)
    assert value(rows, "effective_components") == pytest.approx((1 + 1 / 9) ** 2 / (1 + 1 / 81))


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_it_is_a_picture_of_either_family(name: str) -> None:
    network = subject_of(build_model(name, image_size=32, channels=3, num_classes=5))
    assert draw(network, seed=0).startswith(b"\x89PNG")
    assert 0 < value(probe(network, seed=0), "mean_frequency") < 0.5


def test_a_network_whose_first_layer_is_no_convolution_has_no_filters() -> None:
    with pytest.raises(DoesNotApply, match="no convolution takes the image"):
        probe(subject_of(nn.Sequential(nn.Flatten(), nn.Linear(3072, 5))), seed=0)


@pytest.mark.parametrize("reach", ["random", "spread"])
def test_taps_that_lie_apart_are_no_picture(reach: str) -> None:
    model = build_model("resnet", image_size=32, channels=3, num_classes=5, reach=reach)
    with pytest.raises(DoesNotApply, match="the taps of its first convolution are not next to each other"):
        probe(subject_of(model), seed=0)
