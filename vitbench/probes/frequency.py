"""Frequency: measures which half of a hybrid image decides the class, and the spectrum of each layer's features."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitbench.errors import UserError
from vitbench.probes.distorted import Array, area, batches_of, bootstrap, generator, rounded
from vitbench.probes.subject import Row, Subject, make_row, predict
from vitbench.probes.taps import grid_of, record

HYBRID, SPECTRUM = "frequency.hybrid@v1", "frequency.spectrum@v1"


def probe(subject: Subject, *, seed: int, step: float = 0.5) -> list[Row]:
    """Measures two protocols. Neither can tell shape from texture, because both have all frequencies.

    `frequency.hybrid` adds the low frequencies of image A to the high frequencies of image B, which has another class,
    at each cut-off from 1 cycle/image to the Nyquist frequency in steps of `step` octaves. At the cut-off the gain is a
    half (`low_pass`). Of N hybrid images, #low get the class of A and #high that of B. `low_share` is
    #low / (#low + #high), and `decided` is (#low + #high) / N. The summary has the means of both over log2 of the
    cut-off (`low_share` is large where low frequencies decide) and `balance`, the cut-off at which the classes of A and
    B are predicted equally often. This test is not from Park and Kim, who add noise of one frequency to images and
    compare spectra of features.

    `frequency.spectrum` is, for each tap with a grid, the natural log of the amplitude at each frequency relative to
    frequency 0; without `at`, it is that at the Nyquist frequency (Park & Kim 2022, arXiv 2202.06709, figure 2;
    `spectrum` says where we differ). Raises UserError for a `step` that leaves fewer than two cut-offs.
    """
    nyquist = subject.images.shape[-1] / 2
    if not 0.1 <= step <= math.log2(nyquist):
        must = f"must be 0.1 to {math.log2(nyquist):g} octaves, so that there are two"
        raise UserError(f"probe.frequency.step={step:g}: {must}")
    cutoffs = [2 ** (i * step) for i in range(int(math.log2(nyquist) / step + 1e-9) + 1)]
    return hybrid(subject, cutoffs, seed) + spectra(subject, seed)


# ------------------------------------------------------------------------------------------------------------- hybrid


@torch.inference_mode()
def hybrid(subject: Subject, cutoffs: list[float], seed: int) -> list[Row]:
    """Measures hybrid images. Every image is A once, and has the same B at all cut-offs."""
    labels = subject.labels
    partner = partners(labels, generator(seed, 0))
    if partner is None:
        one_class = "all images have one class"
        return [make_row(HYBRID, metric, math.nan, reason=one_class) for metric in ("low_share", "decided")]
    given_a, given_b = [], []  # at each cut-off, whether an image is given the class of its A, or of its B
    for cutoff in cutoffs:
        predicted = []
        for index in torch.arange(len(labels), device=labels.device).split(250):
            a, b = subject.images[index].float(), subject.images[partner[index]].float()
            predicted.append(predict(subject, rounded(low_pass(a, cutoff) + (b - low_pass(b, cutoff)))).argmax(1))
        given_a.append(torch.cat(predicted) == labels)
        given_b.append(torch.cat(predicted) == labels[partner])
    columns = torch.stack(given_a + given_b, 1).double().cpu().numpy()  # (M,2L)
    L, x = len(cutoffs), np.log2(cutoffs)

    def statistics(means: Array) -> Array:  # (R,2L) -> (R,2L+3)
        share_a, share_b = means[:, :L], means[:, L:]
        share, decided = share_a / (share_a + share_b), share_a + share_b
        summary = [area(x, share), area(x, decided), balance(x, share)]
        return np.concatenate([share, decided, np.stack(summary, 1)], 1)

    value, low, high = bootstrap(columns, statistics, seed)
    rows = []
    for i, at in enumerate(cutoffs):
        reason = "" if value[L + i] else "no hybrid image was given either of its classes"
        rows.append(make_row(HYBRID, "low_share", value[i], low[i], high[i], reason, at=at, at_unit="cycles/image"))
        rows.append(make_row(HYBRID, "decided", value[L + i], low[L + i], high[L + i], at=at, at_unit="cycles/image"))
    reasons = {
        "low_share": "at some cut-off no hybrid image was given either of its classes",
        "decided": "",
        "balance": "low_share rises through a half at no cut-off",
    }
    for i, (metric, reason) in enumerate(reasons.items(), 2 * L):
        rows.append(make_row(HYBRID, metric, value[i], low[i], high[i], "" if np.isfinite(value[i]) else reason))
    return rows


def partners(labels: Tensor, random: torch.Generator) -> Tensor | None:
    """Draws for each image one of another class (M,), uniformly; None where there is only one class."""
    order = labels.argsort(stable=True)
    same_class = labels.bincount()[labels]  # for each image, how many images have its class
    smaller_class = (labels.bincount().cumsum(0) - labels.bincount())[labels]  # and how many have a smaller class
    other_class = len(labels) - same_class
    if not other_class.all():
        return None
    place = (torch.rand(len(labels), generator=random, dtype=torch.float64).to(labels.device) * other_class).long()
    return order[place + same_class * (place >= smaller_class)]  # steps over the places of the image's own class


def low_pass(images: Tensor, cutoff: float) -> Tensor:
    """Keeps the low frequencies of float images (B,C,H,W): a Gaussian of gain 2^-(f/cutoff)², f in cycles/image.

    The image is continued by its mirror image, so that its border is no edge. The image minus the result is its
    high-pass.
    """
    H, W = images.shape[-2:]
    mirrored = torch.cat([images, images.flip(3)], 3)
    mirrored = torch.cat([mirrored, mirrored.flip(2)], 2)  # (B,C,2H,2W)
    rows = torch.fft.fftfreq(2 * H, 1 / H, device=images.device)  # cycles/image
    columns = torch.fft.rfftfreq(2 * W, 1 / W, device=images.device)
    gain = 2 ** (-(rows[:, None] ** 2 + columns**2) / cutoff**2)
    return torch.fft.irfft2(torch.fft.rfft2(mirrored) * gain, s=mirrored.shape[-2:])[..., :H, :W]


def balance(x: Array, share: Array) -> Array:
    """Returns the cut-off at which share (R,L) first rises through a half, or NaN. x is log2 of the cut-offs."""
    crosses = (share[:, :-1] < 0.5) & (share[:, 1:] >= 0.5)  # (R,L-1)
    i, r = crosses.argmax(1), np.arange(len(share))
    before, after = share[r, i], share[r, i + 1]
    place = x[i] + (0.5 - before) / (after - before) * (x[i + 1] - x[i])
    return np.where(crosses.any(1), 2**place, np.nan)


# ----------------------------------------------------------------------------------------------------------- spectrum


@torch.inference_mode()
def spectra(subject: Subject, seed: int) -> list[Row]:
    """Measures the spectrum of every tap with a grid of 2 x 2 or more."""
    powers: dict[str, list[Tensor]] = {}
    with record(subject.model) as features:
        for batch in batches_of(subject.images):
            subject.model(subject.normalise(batch))
            for name, feature in features.items():
                if feature.ndim < 3:  # a pooled feature, or logits
                    continue
                grid = grid_of(subject.model, name, features)
                if min(grid.shape[2:]) > 1:
                    powers.setdefault(name, []).append(ring_power(grid))
    rows = []
    for name, parts in powers.items():
        power = torch.cat(parts).double().cpu().numpy()  # (M,D,F)
        alive = power.sum((0, 2)) > 0
        D, F = int(alive.sum()), power.shape[2]
        if not D:
            rows.append(make_row(SPECTRUM, "log_amplitude", math.nan, reason="all features are 0", layer=name))
            continue
        columns = power[:, alive].reshape(len(power), D * F)
        value, low, high = bootstrap(columns, partial(spectrum, channels=D), seed)
        for k in range(F):
            where: dict[str, Any] = {"layer": name, "at": float(k), "at_unit": "cycles/image"}
            rows.append(make_row(SPECTRUM, "log_amplitude", value[k], low[k], high[k], **where))
        rows.append(make_row(SPECTRUM, "log_amplitude", value[-1], low[-1], high[-1], layer=name))
    return rows


def ring_power(grid: Tensor) -> Tensor:
    """Computes the mean squared amplitude of maps at the frequencies k = 0 .. h/2, (B,D,h,w) -> (B,D,F).

    Frequency k has the waves of all directions whose frequency is nearest to k cycles/image. The corners of the plane
    of frequencies, which are beyond the Nyquist frequency, are left out.
    """
    h, w = grid.shape[-2:]
    power = torch.fft.fft2(grid.float()).abs().square().flatten(2)  # (B,D,hw)
    rows, columns = (torch.fft.fftfreq(side, 1 / side, device=grid.device) for side in (h, w))
    radius = torch.hypot(rows[:, None], columns).round().flatten()  # hw
    rings = (radius == torch.arange(min(h, w) // 2 + 1, device=grid.device)[:, None]).float()  # (F,hw)
    return power @ (rings / rings.sum(1, keepdim=True)).T


def spectrum(power: Array, channels: int) -> Array:
    """Computes the log of the root mean square amplitude at each frequency minus that at frequency 0, (R,D*F) -> (R,F).

    The result is the mean over channels. Park & Kim take the log of each image's amplitude first and then the mean.
    Then white noise would not be flat: at frequency 0 the amplitude is that of a real number, elsewhere that of a
    complex one, whose mean log is 0.35 higher. So here the mean over images comes first. They show the diagonal of the
    plane of frequencies, and we show the mean over directions. They add 1e-6 to an amplitude; here a power below 1e-12
    counts as 1e-12.
    """
    logs = np.log(np.maximum(power, 1e-12)).reshape(len(power), channels, -1) / 2
    return (logs - logs[:, :, :1]).mean(1)
