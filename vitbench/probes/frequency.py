"""Frequency: which half of a hybrid image decides, and what spectrum the features of each layer have."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
from torch import Tensor

from vitbench.errors import UserError
from vitbench.probes.distorted import Array, area, batches, bootstrap, generator, rounded
from vitbench.probes.subject import Row, Subject, make_row, predict
from vitbench.probes.taps import grid_of, record

HYBRID, SPECTRUM = "frequency.hybrid@v1", "frequency.spectrum@v1"


def probe(subject: Subject, *, seed: int, step: float = 0.5) -> list[Row]:
    """Two protocols. This is no measure of shape against texture: both have all frequencies.

    `frequency.hybrid`: the low-pass of image A plus the high-pass of image B, of another class, at each cut-off from
    1 cycle/image to the Nyquist frequency, in steps of `step` octaves. `low_share` is #low / (#low + #high), where
    #low counts images called A's class and #high B's; `decided` is (#low + #high) / N. The gain at the cut-off is a half
    (`low_pass`). Over the sweep: both means, over log2 of the cut-off (`low_share` is large where low frequencies
    decide), and `balance`, the cut-off at which both halves are chosen equally often.

    `frequency.spectrum`, of each tap that has a grid: Park & Kim 2022 (arXiv 2202.06709, figure 2), the log amplitude
    (natural) at each frequency relative to frequency 0, and without `at` that of the Nyquist frequency. See `spectrum`.
    """
    nyquist = subject.images.shape[-1] / 2
    if not 0.1 <= step <= math.log2(nyquist):
        raise UserError(
            f"probe.frequency.step={step:g}: must be 0.1 to {math.log2(nyquist):g} octaves, so that there are two"
        )
    cutoffs = [2 ** (i * step) for i in range(int(math.log2(nyquist) / step + 1e-9) + 1)]
    return hybrid(subject, cutoffs, seed) + spectra(subject, seed)


# ------------------------------------------------------------------------------------------------------------- hybrid


@torch.inference_mode()
def hybrid(subject: Subject, cutoffs: list[float], seed: int) -> list[Row]:
    """Every image is A once; its B is drawn once, and stays for all cut-offs."""
    labels = subject.labels
    partner = partners(labels, generator(seed, 0))
    if partner is None:
        return [
            make_row(HYBRID, metric, math.nan, reason="all images have one class")
            for metric in ("low_share", "decided")
        ]
    low_columns, high_columns = [], []
    for cutoff in cutoffs:
        said = []
        for index in batches(torch.arange(len(labels), device=labels.device).view(-1, 1, 1, 1)):
            a, b = subject.images[index.flatten()].float(), subject.images[partner[index.flatten()]].float()
            said.append(predict(subject, rounded(low_pass(a, cutoff) + (b - low_pass(b, cutoff)))).argmax(1))
        low_columns.append(torch.cat(said) == labels)
        high_columns.append(torch.cat(said) == labels[partner])
    columns = torch.stack(low_columns + high_columns, 1).double().cpu().numpy()  # (M,2L)
    L, x = len(cutoffs), np.log2(cutoffs)

    def statistics(means: Array) -> Array:  # (R,2L) -> (R,2L+3)
        low, high = means[:, :L], means[:, L:]
        share, decided = low / (low + high), low + high
        summary = [area(x, share), area(x, decided), balance(x, share)]
        return np.concatenate([share, decided, np.stack(summary, 1)], 1)

    value, low, high = bootstrap(columns, statistics, seed)
    rows = []
    for i, at in enumerate(cutoffs):
        why = "" if value[L + i] else "no hybrid image was given either of its classes"
        rows.append(make_row(HYBRID, "low_share", value[i], low[i], high[i], why, at=at, at_unit="cycles/image"))
        rows.append(make_row(HYBRID, "decided", value[L + i], low[L + i], high[L + i], at=at, at_unit="cycles/image"))
    i = 2 * L
    why = "" if np.isfinite(value[i]) else "at some cut-off no hybrid image was given either of its classes"
    rows.append(make_row(HYBRID, "low_share", value[i], low[i], high[i], why))
    rows.append(make_row(HYBRID, "decided", value[i + 1], low[i + 1], high[i + 1]))
    why = "" if np.isfinite(value[-1]) else "low_share rises through a half at no cut-off"
    rows.append(make_row(HYBRID, "balance", value[-1], low[-1], high[-1], why))
    return rows


def partners(labels: Tensor, random: torch.Generator) -> Tensor | None:
    """For each image another one (M,), uniform among those of other classes; None where there is one class only."""
    order = labels.argsort(stable=True)
    own = labels.bincount()[labels]  # of each image, how many have its class
    before = (labels.bincount().cumsum(0) - labels.bincount())[labels]  # and how many have a smaller one
    others = len(labels) - own
    if not others.all():
        return None
    place = (torch.rand(len(labels), generator=random, dtype=torch.float64).to(labels.device) * others).long()
    return order[place + own * (place >= before)]  # the places of an image's own class are stepped over


def low_pass(images: Tensor, cutoff: float) -> Tensor:
    """Float (B,C,H,W) with only their slow changes: a Gaussian of gain 2^-(f/cutoff)², f in cycles/image.

    The image is continued by its mirror image, so that no border is an edge. What this takes away is the high-pass.
    """
    H, W = images.shape[-2:]
    mirrored = torch.cat([images, images.flip(3)], 3)
    mirrored = torch.cat([mirrored, mirrored.flip(2)], 2)  # (B,C,2H,2W)
    rows = torch.fft.fftfreq(2 * H, 1 / H, device=images.device)  # cycles/image
    columns = torch.fft.rfftfreq(2 * W, 1 / W, device=images.device)
    gain = 2 ** (-(rows[:, None] ** 2 + columns**2) / cutoff**2)
    return torch.fft.irfft2(torch.fft.rfft2(mirrored) * gain, s=mirrored.shape[-2:])[..., :H, :W]


def balance(x: Array, share: Array) -> Array:
    """Where share (R,L) first rises through a half, as a cut-off; NaN where it never does. x is log2 of the cut-offs."""
    crosses = (share[:, :-1] < 0.5) & (share[:, 1:] >= 0.5)  # (R,L-1)
    i, r = crosses.argmax(1), np.arange(len(share))
    before, after = share[r, i], share[r, i + 1]
    place = x[i] + (0.5 - before) / (after - before) * (x[i + 1] - x[i])
    return np.where(crosses.any(1), 2**place, np.nan)


# ----------------------------------------------------------------------------------------------------------- spectrum


@torch.inference_mode()
def spectra(subject: Subject, seed: int) -> list[Row]:
    """The spectrum of every tap with a grid of 2 x 2 or more."""
    powers: dict[str, list[Tensor]] = {}
    with record(subject.model) as features:
        for batch in batches(subject.images):
            subject.model(subject.normalise(batch))
            for name, feature in features.items():
                if feature.ndim < 3:
                    continue  # pooled features, logits
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
            rows.append(
                make_row(
                    SPECTRUM,
                    "log_amplitude",
                    value[k],
                    low[k],
                    high[k],
                    layer=name,
                    at=float(k),
                    at_unit="cycles/image",
                )
            )
        rows.append(make_row(SPECTRUM, "log_amplitude", value[-1], low[-1], high[-1], layer=name))
    return rows


def ring_power(grid: Tensor) -> Tensor:
    """(B,D,h,w) -> (B,D,F): mean squared amplitude at the frequencies k = 0 .. h/2, of all waves whose length is
    nearest to k cycles an image in any direction; the corners beyond the Nyquist frequency are left out."""
    h, w = grid.shape[-2:]
    power = torch.fft.fft2(grid.float()).abs().square().flatten(2)  # (B,D,hw)
    rows, columns = (torch.fft.fftfreq(side, 1 / side, device=grid.device) for side in (h, w))
    radius = torch.hypot(rows[:, None], columns).round().flatten()  # hw
    rings = (radius == torch.arange(min(h, w) // 2 + 1, device=grid.device)[:, None]).float()  # (F,hw)
    return power @ (rings / rings.sum(1, keepdim=True)).T


def spectrum(power: Array, channels: int) -> Array:
    """(R,D F) -> (R,F): the log of the root mean square amplitude at each frequency, less that at frequency 0, mean over
    channels.

    Park & Kim take the log of each image's amplitude and then the mean. White noise would not be flat then: at
    frequency 0 the amplitude is of a real number, elsewhere of a complex one, whose mean log is 0.35 higher. So the mean
    over images comes first here. They show the diagonal of the plane of frequencies, we the mean over directions. A
    power below 1e-12 counts as 1e-12, as they add 1e-6 to an amplitude.
    """
    logs = np.log(np.maximum(power, 1e-12)).reshape(len(power), channels, -1) / 2
    return (logs - logs[:, :, :1]).mean(1)
