"""Hybrid images add up and are decided by the half that a network sees; noise has a flat spectrum, a wave a peak."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.probes.known import curve, find, noise, subject, value
from vitbench.errors import UserError
from vitbench.models.build import build_model
from vitbench.probes.distorted import generator
from vitbench.probes.frequency import balance, low_pass, partners, probe, ring_power, spectrum

LOW = {"protocol": "frequency.hybrid@v1"}


@pytest.mark.parametrize("size", [15, 16])
@pytest.mark.parametrize("cutoff", [1.0, 3.0, 8.0])
def test_a_wave_passes_with_the_stated_gain(size: int, cutoff: float) -> None:
    """The waves of a mirrored image are cos(pi k (x + 1/2) / W): k/2 cycles an image. At the cut-off half passes."""
    x = (torch.arange(size) + 0.5) / size
    for rows, columns in [(0, 0), (0, 5), (6, 0), (2, 4)]:
        wave = torch.cos(math.pi * rows * x)[:, None] * torch.cos(math.pi * columns * x)
        gain = 2 ** -((rows**2 + columns**2) / 4 / cutoff**2)
        torch.testing.assert_close(low_pass(wave[None, None], cutoff)[0, 0], gain * wave, rtol=0, atol=1e-5)


def test_low_pass_and_high_pass_of_one_image_add_up_to_it() -> None:
    images = noise(3, 16).float()
    low = low_pass(images, 4.0)
    high = images - low
    torch.testing.assert_close(low + high, images, rtol=0, atol=1e-4)
    torch.testing.assert_close(high.mean((2, 3)), torch.zeros(3, 3), rtol=0, atol=1e-3)  # the mean is low
    assert low.std() < images.std() and high.std() < images.std()


def two_classes(M: int) -> tuple[Tensor, Tensor]:
    """Class 1 is brighter (frequency 0) and has a checkerboard (the highest frequency)."""
    labels = torch.arange(M) % 2
    board = 20.0 * (1 - 2 * (torch.arange(16)[:, None] + torch.arange(16)).remainder(2))
    return (100 + labels.view(-1, 1, 1, 1) * (30 + board)).expand(-1, 1, -1, -1).to(torch.uint8), labels


def sees_low(images: Tensor) -> Tensor:
    return torch.stack([115 - images.mean((1, 2, 3)), images.mean((1, 2, 3)) - 115], 1)


def sees_high(images: Tensor) -> Tensor:
    contrast = images.std((1, 2, 3))
    return torch.stack([2 - contrast, contrast - 2], 1)


@pytest.mark.known_answer
def test_a_network_that_sees_the_mean_follows_the_low_half_at_every_cutoff() -> None:
    rows = probe(subject(sees_low, *two_classes(40), 2), seed=0)
    assert list(curve(rows, "low_share")) == pytest.approx([2 ** (half / 2) for half in range(7)]), "1 to 8 cycles"
    assert set(curve(rows, "low_share").values()) == set(curve(rows, "decided").values()) == {1.0}
    assert value(rows, "low_share") == value(rows, "decided") == 1
    assert math.isnan(value(rows, "balance")) and "no cut-off" in find(rows, "balance")["reason"]


def test_a_network_that_sees_the_finest_pattern_follows_the_high_half() -> None:
    rows = probe(subject(sees_high, *two_classes(40), 2), seed=0)
    assert value(rows, "low_share", 1.0) == 0
    assert set(curve(rows, "decided").values()) == {1.0}


def test_a_network_that_says_a_third_class_decides_nothing() -> None:
    third = subject(lambda images: images.mean((2, 3)) @ torch.tensor([[0.0, 0.0, 1.0]]), *two_classes(10), 3)
    rows = probe(third, seed=0)
    assert value(rows, "decided") == 0
    assert math.isnan(value(rows, "low_share")) and math.isnan(value(rows, "low_share", 1.0))
    assert "neither" in find(rows, "low_share", 1.0)["reason"] or "either" in find(rows, "low_share", 1.0)["reason"]


def test_partners_are_uniform_among_the_images_of_other_classes() -> None:
    labels = torch.tensor([2, 0, 1, 0, 2, 2])
    drawn = torch.stack([partners(labels, generator(seed)) for seed in range(600)])
    for image, label in enumerate(labels):
        counts = drawn[:, image].bincount(minlength=6)
        others = labels != label
        assert not counts[~others].any()
        assert (counts[others] > 0.6 * 600 / others.sum()).all()
    assert partners(torch.zeros(4, dtype=torch.int64), generator(0)) is None


def test_the_balance_is_where_the_share_crosses_a_half() -> None:
    x = np.log2([1.0, 2.0, 4.0])
    found = balance(x, np.array([[0.0, 0.5, 1.0], [0.0, 0.25, 0.75], [0.6, 0.7, 0.8]]))
    assert found[:2].tolist() == pytest.approx([2, 2 * math.sqrt(2)]) and math.isnan(found[2])


def relative(features: Tensor) -> np.ndarray:
    power = ring_power(features).double().numpy()  # (B,D,F)
    return spectrum(power.mean(0).reshape(1, -1), channels=features.shape[1])[0]


@pytest.mark.parametrize("side", [7, 8])
def test_white_noise_has_a_flat_spectrum(side: int) -> None:
    features = torch.randn(4000, 8, side, side, generator=torch.Generator().manual_seed(0))
    found = relative(features)
    assert found.shape == (side // 2 + 1,)
    assert np.abs(found).max() < 0.015 and found[0] == 0


@pytest.mark.known_answer
def test_a_wave_on_a_constant_has_the_amplitude_it_was_given() -> None:
    x = torch.arange(16) / 16
    wave = 1 + 2 * math.exp(-3) * torch.cos(2 * math.pi * 5 * x).expand(16, 16)
    found = relative(wave[None, None])
    ring = torch.hypot(torch.fft.fftfreq(16, 1 / 16)[:, None], torch.fft.fftfreq(16, 1 / 16)).round()
    assert found.argmax() == 0 and found[1:].argmax() == 4
    assert found[5] == pytest.approx(-3 + math.log(2 / (ring == 5).sum()) / 2), "two waves of a ring, each e^-3"


def test_features_of_a_layer_do_not_depend_on_their_scale() -> None:
    features = torch.randn(10, 3, 8, 8)
    np.testing.assert_allclose(
        relative(features), relative(features * torch.tensor([1.0, 10.0, 100.0]).view(3, 1, 1)), atol=1e-4
    )


@pytest.mark.parametrize(
    "name, layers",
    [("vit", {"patch_embed": 2, "block1": 2, "norm": 2}), ("resnet", {"stem": 8, "layer2.0": 4, "layer3.0": 2})],
)
def test_every_layer_with_a_grid_has_a_spectrum_up_to_its_nyquist_frequency(name: str, layers: dict) -> None:
    torch.manual_seed(0)
    options = {"pool": "cls"} if name == "vit" else {}
    model = build_model(name, image_size=16, channels=3, num_classes=3, **options)
    rows = probe(subject(model, noise(12, 16), torch.arange(12) % 3, 3), seed=0, step=1.0)
    for layer, nyquist in layers.items():
        found = curve(rows, "log_amplitude", layer=layer)
        assert list(found) == list(range(nyquist + 1)) and found[0] == 0
        assert value(rows, "log_amplitude", layer=layer) == found[nyquist]
    assert {row.get("layer") for row in rows if row["metric"] == "log_amplitude"}.isdisjoint({"head", "pooled", None})


def test_the_step_is_checked() -> None:
    known = subject(sees_low, *two_classes(4), 2)
    with pytest.raises(
        UserError, match=r"^probe\.frequency\.step=4: must be 0\.1 to 3 octaves, so that there are two$"
    ):
        probe(known, seed=0, step=4.0)
