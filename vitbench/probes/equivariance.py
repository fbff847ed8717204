"""Does a shift of the image shift what each layer computes? Measures the equivariance error of every tap.

T_s shifts the image x by s pixels. f_l(x) is the map of layer l and r_l its stride. S translates a map by s / r_l
positions, V are the positions whose source lies inside the map, mu_l is the mean of each channel over images and
positions:

    e_l(s) = sqrt( sum_x sum_V |f_l(T_s x) - S f_l(x)|^2 / sum_x sum_V |f_l(x) - mu_l|^2 )

An equivariant layer has 0; unrelated features give sqrt(2). For a feature without a grid (pooled, logits), S is the
identity, and e_l is the invariance error. There are two ways of shifting, and each is a protocol:

- `equivariance.circular@v1`: pixels that leave at one border enter at the other (`torch.roll`), and V is every
  position. Padding, position encodings and strides cause the error that remains.
- `equivariance.crop@v1`: the mirror image enters at the border, as in `shift.crop@v1`. Features near the border see it,
  and are counted.

A shift (dy, dx) is drawn for each image and protocol, uniformly from [-k, k]^2. `on_lattice` has the shifts by whole
positions of every layer (multiples of the network's lattice, the largest stride), for which S is exact. `off_lattice`
of a layer has the shifts by fractions of its positions, for which S f_l(x) is resampled, bilinearly or, if circular, by
Fourier. The error then includes the aliasing of the layer and the blur of the resampling. So it can compare networks
and checkpoints, but no network can reach 0. A layer of stride 1 has no such shifts. Shifts on the lattice are longer,
so `on_lattice` can be larger than `off_lattice` where padding decides (ResNets): compare networks only within one of
the two.

Azulay and Weiss (2019, arXiv 1805.12177) and Zhang (2019, arXiv 1904.11486) show why strides alias.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vitbench.errors import UserError, did_you_mean
from vitbench.numbers.intervals import bootstrap_ratio
from vitbench.probes.shift import translate
from vitbench.probes.subject import Row, Subject, make_row
from vitbench.probes.taps import POOLED, batch_size_for, grid_of, mean_over_positions, record

RESAMPLE = ("bilinear", "fourier")
FILL_OF_MODE = {"circular": "circular", "crop": "reflect"}  # how `translate` fills the border


@torch.inference_mode()
def probe(subject: Subject, *, seed: int, max_shift: int | None = None, resample: str = "bilinear") -> list[Row]:
    """Measures each layer on and off the lattice, at the cost of six forwards for each image.

    `max_shift` is k in pixels; null takes an eighth of the width, or the network's lattice where that is larger. The
    rows of the whole network are those of the last map (`on_lattice`), of the pooled feature (`invariance`) and of the
    logits (`logits`).
    """
    if resample not in RESAMPLE:
        raise UserError(f"probe.equivariance.resample={resample}: {did_you_mean(resample, RESAMPLE)}")
    images = subject.images
    size = (images.shape[-2], images.shape[-1])
    batch_size = batch_size_for(subject.model, subject.normalise(images[:1]))
    batches = [slice(start, start + batch_size) for start in range(0, len(images), batch_size)]
    means = mean_features(subject, batches)
    strides = {name: (size[0] / h, size[1] / w) for name, (_, h, w) in means.items() if h * w > 1}
    shifts, lattice = allowed(list(strides.values()), size, max_shift)
    random = torch.Generator().manual_seed(seed)
    drawn = {
        (mode, kind): choice[torch.randint(len(choice), (len(images),), generator=random)]
        for mode in FILL_OF_MODE
        for kind, choice in shifts.items()
        if len(choice)
    }
    # the two sums of e_l, for each image
    sums = {(*key, name): torch.zeros(2, len(images), dtype=torch.float64) for key in drawn for name in means}
    for part in batches:
        still = maps_of_taps(subject.model, subject.normalise(images[part]))
        for (mode, kind), offsets in drawn.items():
            pixels = offsets[part]
            shifted = translate(images[part], pixels, FILL_OF_MODE[mode])
            moved = maps_of_taps(subject.model, subject.normalise(shifted))
            for name, before in still.items():
                has_grid = name in strides
                t = pixels / torch.tensor(strides[name]) if has_grid else torch.zeros(len(pixels), 2)
                counts = (t % 1 != 0).any(1) if kind == "off_lattice" and has_grid else torch.ones(len(pixels))
                method = resample if (mode, kind) == ("circular", "off_lattice") else "bilinear"
                expected, inside = move(before, t, mode, method)
                for i, difference in enumerate((moved[name] - expected, before - means[name][0])):
                    squares = (difference.square().sum(1) * inside).sum((1, 2)).cpu()
                    sums[mode, kind, name][i, part] = squares.double() * counts
    return _rows(strides, list(means), sums, lattice, seed)


def maps_of_taps(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    """Returns every tap as a map (B,D,h,w), with h = w = 1 where it has no grid."""
    with record(model) as features:
        model(batch)
    maps = {}
    for name, value in features.items():
        if name == POOLED and value.ndim > 2:  # the head does the pooling itself
            value = mean_over_positions(value)
        if value.ndim == 2:
            maps[name] = value[:, :, None, None]
        elif value.ndim in (3, 4):
            maps[name] = grid_of(model, name, features)
    return maps


def mean_features(subject: Subject, batches: list[slice]) -> dict[str, tuple[Tensor, int, int]]:
    """Computes the mean of each layer's channels over images and positions (D,1,1), with the map's height and width."""
    sums: dict[str, Tensor] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for part in batches:
        for name, value in maps_of_taps(subject.model, subject.normalise(subject.images[part])).items():
            sizes[name] = (value.shape[2], value.shape[3])
            sums[name] = sums.get(name, 0) + value.mean((2, 3)).sum(0, dtype=torch.float64)
    return {name: ((total / len(subject.images)).float()[:, None, None], *sizes[name]) for name, total in sums.items()}


def allowed(
    strides: list[tuple[float, float]], size: tuple[int, int], max_shift: int | None
) -> tuple[dict[str, Tensor], int]:
    """Lists the shifts (dy, dx) on the lattice and off it, (n,2) each, and returns the lattice.

    The lattice is the smallest shift in pixels that is a whole number of positions in every layer. Raises UserError
    for a `max_shift` that the image is too small for.
    """
    side, largest = min(size), min(size) - 1
    whole = (shift for shift in range(1, side) if all(shift % r == 0 for stride in strides for r in stride))
    lattice = next(whole, side)
    if max_shift is not None and not 1 <= max_shift <= largest:
        must = f"must be 1 to {largest} pixels, for images of {side} px"
        raise UserError(f"probe.equivariance.max_shift={max_shift}: {must}")
    k = max_shift or max(1, round(side / 8), lattice if lattice <= largest else 1)
    span = torch.arange(-k, k + 1)
    shifts = torch.cartesian_prod(span, span)
    shifts = shifts[(shifts != 0).any(1)]
    on = (shifts % lattice == 0).all(1)
    return {"on_lattice": shifts[on], "off_lattice": shifts[~on]}, lattice


def move(features: Tensor, t: Tensor, mode: str, resample: str = "bilinear") -> tuple[Tensor, Tensor]:
    """Returns S f, maps (B,D,h,w) moved by t (B,2) positions, and V, the positions (B,h,w) whose source is inside.

    Each axis of an image is moved by a matrix. Where t is whole, the matrices are permutations and nothing is rounded.
    """
    t = t.to(features.device, features.dtype)
    down, rows = _moving_matrices(features.shape[-2], t[:, 0], mode, resample)
    across, columns = _moving_matrices(features.shape[-1], t[:, 1], mode, resample)
    moved = torch.einsum("bij,bdjk,blk->bdil", down, features, across)
    return moved, rows[:, :, None] & columns[:, None, :]


def _moving_matrices(size: int, t: Tensor, mode: str, resample: str) -> tuple[Tensor, Tensor]:
    """Makes the matrices (B,size,size) that move an axis by t (B,), and says which values (B,size) come from inside."""
    source = torch.arange(size, device=t.device, dtype=t.dtype) - t[:, None]
    inside = torch.ones_like(source, dtype=torch.bool) if mode == "circular" else (source >= 0) & (source <= size - 1)
    if resample == "fourier":
        impulses = torch.fft.rfft(torch.eye(size, device=t.device, dtype=t.dtype))  # one in each row
        turn = torch.exp(-2j * math.pi * torch.fft.rfftfreq(size, device=t.device) * t[:, None])
        return torch.fft.irfft(impulses * turn[:, None], size).transpose(1, 2), inside
    distance = source[:, :, None] - torch.arange(size, device=t.device, dtype=t.dtype)
    if mode == "circular":
        distance = (distance + size / 2) % size - size / 2
    return (1 - distance.abs()).clamp(min=0), inside


def _rows(
    strides: dict[str, tuple[float, float]],
    names: list[str],
    sums: dict[tuple[str, str, str], Tensor],
    lattice: int,
    seed: int,
) -> list[Row]:
    def error_row(mode: str, kind: str, metric: str, name: str | None, **where: str) -> Row:
        squared, reason = (math.nan,) * 3, "the same for every image"
        if name is None:
            reason = "the network has no such layer"
        elif (mode, kind, name) in sums:
            errors, spreads = sums[mode, kind, name].numpy()
            squared = bootstrap_ratio(errors, spreads, seed)
            if kind == "off_lattice" and name in strides and max(strides[name]) == 1:
                reason = "every shift by whole pixels lies on the lattice of a layer of stride 1"
        elif kind == "off_lattice":
            reason = "every shift by whole pixels lies on the lattice of a network of stride 1"
        else:
            reason = f"no possible shift lies on the lattice of {lattice} px"
        error, low, high = (math.sqrt(number) for number in squared)
        reason = reason if math.isnan(error) else ""
        return make_row(f"equivariance.{mode}@v1", metric, error, low, high, reason, **where)

    last_map, pooled = next(reversed(strides), None), POOLED if POOLED in names else None
    rows: list[Row] = []
    for mode in FILL_OF_MODE:
        for kind in ("on_lattice", "off_lattice"):
            suffix = "" if kind == "on_lattice" else "_off_lattice"
            rows.append(error_row(mode, kind, kind, last_map))
            rows.append(error_row(mode, kind, f"invariance{suffix}", pooled))
            rows.append(error_row(mode, kind, f"logits{suffix}", names[-1]))
            rows += [error_row(mode, kind, kind, name, layer=name) for name in names]
    return rows
