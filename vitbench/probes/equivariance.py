"""Does a shift of the picture shift what each layer computes? The equivariance error of every tap, for finite shifts.

f_l(x) is the map of layer l, r_l its stride, s the shift in pixels, S the translation of a map by s / r_l, V the
positions whose source lies inside the map, mu_l the mean of each channel over images and positions:

    e_l(s) = sqrt( sum_x sum_V |f_l(T_s x) - S f_l(x)|^2 / sum_x sum_V |f_l(x) - mu_l|^2 )

0 is equivariant; features that have nothing to do with each other give sqrt(2). Of a feature without a grid (pooled,
logits) S is the identity, and e_l is the invariance error. Two ways of shifting, each a protocol:

- `equivariance.circular@v1`: what leaves at one border enters at the other (`torch.roll`), V is everything. What
  remains is due to padding, to position encodings and to strides.
- `equivariance.crop@v1`: what enters is the picture reflected at its border, as in `shift.crop@v1`. Features near the
  border see it, and count.

Shifts (dy, dx) are drawn for each image and protocol anew, uniformly from [-k, k]^2. On the lattice are those that are whole
positions in every layer (multiples of the network's lattice, the largest stride); S is then exact. `off_lattice` of a
layer has the shifts that are fractions of its positions: S f_l(x) is resampled, bilinearly or, for circular shifts, by
Fourier; the error holds the aliasing of the layer and the blur of the resampling, so it compares networks and
checkpoints, and is no floor that a network could reach. A layer of stride 1 has none. Shifts on the lattice are the
longer ones, so where padding decides (ResNets) `on_lattice` can be the larger: compare networks in one of the two.

Why strides alias: Azulay and Weiss (2019, arXiv 1805.12177), Zhang (2019, arXiv 1904.11486).
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
FILLS = {"circular": "circular", "crop": "reflect"}  # of a mode: what enters


@torch.inference_mode()
def probe(subject: Subject, *, seed: int, max_shift: int | None = None, resample: str = "bilinear") -> list[Row]:
    """`max_shift` is k in pixels; null: an eighth of the width, or the network's lattice where that is larger.

    Rows of each layer, and three of the whole network: the last map (`on_lattice`), the pooled feature (`invariance`)
    and the logits (`logits`), each off the lattice too. Six forwards an image.
    """
    if resample not in RESAMPLE:
        raise UserError(f"probe.equivariance.resample={resample}: {did_you_mean(resample, RESAMPLE)}")
    images = subject.images
    size = (images.shape[-2], images.shape[-1])
    step = batch_size_for(subject.model, subject.normalise(images[:1]))
    batches = [slice(start, start + step) for start in range(0, len(images), step)]
    means = mean_features(subject, batches)
    strides = {name: (size[0] / h, size[1] / w) for name, (_, h, w) in means.items() if h * w > 1}
    shifts, lattice = allowed(list(strides.values()), size, max_shift)
    random = torch.Generator().manual_seed(seed)
    drawn = {
        (mode, kind): choice[torch.randint(len(choice), (len(images),), generator=random)]
        for mode in FILLS
        for kind, choice in shifts.items()
        if len(choice)
    }
    sums = {(*key, name): torch.zeros(2, len(images), dtype=torch.float64) for key in drawn for name in means}
    for part in batches:
        still = layers(subject.model, subject.normalise(images[part]))
        for (mode, kind), offsets in drawn.items():
            by = offsets[part]
            moved = layers(subject.model, subject.normalise(translate(images[part], by, FILLS[mode])))
            for name, before in still.items():
                t = by / torch.tensor(strides[name]) if name in strides else torch.zeros(len(by), 2)
                counts = (t % 1 != 0).any(1) if kind == "off_lattice" and name in strides else torch.ones(len(by))
                way = resample if (mode, kind) == ("circular", "off_lattice") else "bilinear"
                expected, inside = move(before, t, mode, way)
                for i, error in enumerate((moved[name] - expected, before - means[name][0])):
                    each = (error.square().sum(1) * inside).sum((1, 2)).cpu()
                    sums[mode, kind, name][i, part] = each.double() * counts
    return _rows(strides, list(means), sums, lattice, seed)


def layers(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    """Every tap as a map (B,D,h,w), with h = w = 1 where it has no grid."""
    with record(model) as features:
        model(batch)
    found = {}
    for name, value in features.items():
        if name == POOLED and value.ndim > 2:  # a head that pools for itself
            value = mean_over_positions(value)
        if value.ndim in (3, 4):
            found[name] = grid_of(model, name, features) if name != POOLED else value
        elif value.ndim == 2:
            found[name] = value[:, :, None, None]
    return found


def mean_features(subject: Subject, batches: list[slice]) -> dict[str, tuple[Tensor, int, int]]:
    """The mean (D,1,1) of each layer's channels over images and positions, with the map's height and width."""
    sums: dict[str, Tensor] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for part in batches:
        for name, value in layers(subject.model, subject.normalise(subject.images[part])).items():
            sizes[name] = (value.shape[2], value.shape[3])
            sums[name] = sums.get(name, 0) + value.mean((2, 3)).sum(0, dtype=torch.float64)
    return {name: ((total / len(subject.images)).float()[:, None, None], *sizes[name]) for name, total in sums.items()}


def allowed(
    strides: list[tuple[float, float]], size: tuple[int, int], max_shift: int | None
) -> tuple[dict[str, Tensor], int]:
    """The shifts (dy, dx) on the lattice and off it, (n,2) each; and the lattice, the least shift in pixels that is
    whole in every layer."""
    smallest, largest = min(size), min(size) - 1
    whole = (step for step in range(1, smallest) if all(step % r == 0 for stride in strides for r in stride))
    lattice = next(whole, smallest)
    if max_shift is not None and not 1 <= max_shift <= largest:
        raise UserError(
            f"probe.equivariance.max_shift={max_shift}: must be 1 to {largest} pixels, for images of {smallest} px"
        )
    k = max_shift or max(1, round(smallest / 8), lattice if lattice <= largest else 1)
    span = torch.arange(-k, k + 1)
    shifts = torch.cartesian_prod(span, span)
    shifts = shifts[(shifts != 0).any(1)]
    on = (shifts % lattice == 0).all(1)
    return {"on_lattice": shifts[on], "off_lattice": shifts[~on]}, lattice


def move(features: Tensor, t: Tensor, mode: str, resample: str = "bilinear") -> tuple[Tensor, Tensor]:
    """S f: maps (B,D,h,w) moved by t (B,2) positions of their own, and which positions (B,h,w) have their source inside.

    Both axes are linear maps, one matrix an image; where t is whole they are permutations, so nothing is rounded.
    """
    t = t.to(features.device, features.dtype)
    (down, rows), (across, columns) = (
        _matrix(size, t[:, axis], mode, resample) for axis, size in enumerate(features.shape[-2:])
    )
    moved = torch.einsum("bij,bdjk,blk->bdil", down, features, across)
    return moved, rows[:, :, None] & columns[:, None, :]


def _matrix(size: int, t: Tensor, mode: str, resample: str) -> tuple[Tensor, Tensor]:
    """The matrices (B,size,size) that move a row of values by t (B,), and which values (B,size) come from inside."""
    source = torch.arange(size, device=t.device, dtype=t.dtype) - t[:, None]
    inside = torch.ones_like(source, dtype=torch.bool) if mode == "circular" else (source >= 0) & (source <= size - 1)
    if resample == "fourier":
        impulses = torch.fft.rfft(torch.eye(size, device=t.device, dtype=t.dtype))  # a row each
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
        found, why = (math.nan,) * 3, "the same for every image"
        if name is None:
            why = "the network has no such layer"
        elif (mode, kind, name) in sums:
            wrong, spread = sums[mode, kind, name].numpy()
            found = bootstrap_ratio(wrong, spread, seed)
            if kind == "off_lattice" and name in strides and max(strides[name]) == 1:
                why = "every shift by whole pixels lies on the lattice of a layer of stride 1"
        elif kind == "off_lattice":
            why = "every shift by whole pixels lies on the lattice of a network of stride 1"
        else:
            why = f"no shift that is drawn lies on the lattice of {lattice} px"
        root, low, high = (math.sqrt(number) for number in found)
        reason = why if math.isnan(root) else ""
        return make_row(f"equivariance.{mode}@v1", metric, root, low, high, reason, **where)

    whole = {"": next(reversed(strides), None), "invariance": POOLED if POOLED in names else None, "logits": names[-1]}
    rows: list[Row] = []
    for mode in FILLS:
        for kind in ("on_lattice", "off_lattice"):
            for metric, name in whole.items():
                called = kind if not metric else metric if kind == "on_lattice" else f"{metric}_{kind}"
                rows.append(error_row(mode, kind, called, name))
            rows += [error_row(mode, kind, kind, name, layer=name) for name in names]
    return rows
