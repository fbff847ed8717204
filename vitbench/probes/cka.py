"""Which layers of two networks say the same of the same images? Linear CKA between all of their layers, unbiased.

X (n,p) and Y (n,q) are the features of n images in two layers, flattened, K = XX' and L = YY' with zeros on the
diagonal:

    HSIC_1(K, L) = [ tr(KL) + (1'K1)(1'L1) / ((n-1)(n-2)) - 2/(n-2) 1'KL1 ] / (n(n-3))
    CKA(X, Y)    = sum_b HSIC_1(K_b, L_b) / sqrt( sum_b HSIC_1(K_b, K_b)  sum_b HSIC_1(L_b, L_b) )

over batches b (Nguyen et al. 2021, arXiv 2010.15327, eq. 3; Kornblith et al. 2019, arXiv 1905.00414; HSIC_1: Song et
al. 2012). 1: the same up to rotation and scale; 0: unrelated. Without bias, unrelated features come out near 0, also
below it, where the plain form gives 0.94 (32 images, 512 Gaussian features). In float64. The images are cut into
batches of 128 to 255, as equal as can be, so that no small last one counts like the others (fewer than 128 images are
one batch); memory does not grow with their number.

HSIC_1 is the inner product of U-centred matrices over n(n-3) (Szekely and Rizzo 2014): each gram is centred once, and
all pairs of layers are one matrix product. Agreement: `CKA._HSIC` of torch_cka 0.21,
which writes the formula out, gives the same CKA of all layers of an untrained ResNet (100 images) within 3e-10 when it
is handed grams in float64; in float32, as it takes them, it is off by up to 0.09, as large terms cancel.

`cka.<label>@v1` for each of the other runs, `cka.self@v1` (the layers of the network against each other) where there is
none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vitbench.errors import UserError, did_you_mean
from vitbench.numbers import look
from vitbench.probes.subject import Row, Subject, make_row
from vitbench.probes.taps import POOLED, batch_size_for, record

BATCH = 128  # images at least
ROOM = 2**27  # numbers of features that are kept at a time, 512 MiB
COLUMNS = 2**15  # features that go into a product at a time


class Similarity(NamedTuple):
    """CKA of every own layer with every layer of another network."""

    values: Tensor  # (own, other's), NaN where a layer says the same of all images
    own: list[str]  # names of layers, in depth order
    others: list[str]
    name: str  # of the other run
    alike: bool  # whether both networks have the same layers


def probe(subject: Subject, *, seed: int, other: Any = None, layers: tuple[str, ...] | None = None) -> list[Row]:
    """`other` are the runs to compare with: an id, or {label: id}, of which None says that the only run meant is the
    subject's own. On the command line a label may also name the settings that the other run differs in
    (vitbench/probing/partners.py). `layers` are own ones; null: all.

    Swept: `similarity` of a layer with each of the other's, at their relative depth; `best`, the largest of them, and
    `best_at`, where. Scalars: `mean_best` over own layers; `last`, of the features that the heads are given;
    `diagonal`, the mean over layers of one name, where both have the same. Of `self`: `between`, the mean over pairs of
    different layers.
    """
    rows: list[Row] = []
    for label, found in similarities(subject, _frozen(other), layers).items():
        rows += _rows(f"cka.{label}@v1", found, label == "self")
    return rows


def _frozen(other: Any) -> tuple[tuple[str, str | None], ...]:
    return tuple(other.items()) if isinstance(other, Mapping) else () if other is None else (("other", str(other)),)


@lru_cache(maxsize=1)  # the rows and then the figure
@torch.inference_mode()
def similarities(
    subject: Subject, other: tuple[tuple[str, str | None], ...], layers: tuple[str, ...] | None
) -> dict[str, Similarity | None]:
    """By label, None where the other run is none. One pass over the images for all of them."""
    M = len(subject.images)
    if M < 4:
        raise UserError(f"images={M}: unbiased CKA needs 4 or more")
    own = _layers(subject)
    unknown = [name for name in layers or () if name not in own]
    if unknown:
        raise UserError(f"probe.cka.layers={unknown[0]}: {did_you_mean(unknown[0], own)}")
    everything, own = [*own], {name: size for name, size in own.items() if layers is None or name in layers}
    others = {label: _other(subject, name) for label, name in other if name is not None}
    sizes = {label: _layers(one) for label, one in others.items()}
    sums: dict[str, Any] = {label: [0.0, 0.0, 0.0] for label in others or ["self"]}
    for part in torch.tensor_split(torch.arange(M), max(1, M // BATCH)):
        n = len(part)
        mine = centred_grams(subject, subject.images[part], own) / math.sqrt(n * (n - 3))
        for label, total in sums.items():
            theirs = (
                mine
                if label not in others
                else (centred_grams(others[label], subject.images[part], sizes[label]) / math.sqrt(n * (n - 3)))
            )
            for i, term in enumerate((mine @ theirs.T, mine.square().sum(1), theirs.square().sum(1))):
                total[i] = total[i] + term
    found: dict[str, Similarity | None] = {label: None for label, _ in other}
    for label, (xy, xx, yy) in sums.items():
        spread = (xx[:, None] * yy).sqrt()  # HSIC_1 of a layer with itself is a sum of squares here
        values = torch.where(spread > 0, xy / spread, math.nan).cpu()
        found[label] = Similarity(
            values,
            [*own],
            [*sizes.get(label, own)],
            others[label].name if label in others else subject.name,
            everything == [*sizes.get(label, own)],
        )
    return found


def _other(subject: Subject, name: str) -> Subject:
    if subject.network is None:
        raise UserError(f"probe.cka.other={name}: there are no other runs here")
    return subject.network(name)


def _layers(subject: Subject) -> dict[str, int]:
    """The layers in depth order with the number of their features; what is no tensor a batch of images long is none."""
    with record(subject.model) as features:
        subject.model(subject.normalise(subject.images[:2]))
    return {name: value[0].numel() for name, value in features.items() if value.ndim > 1 and len(value) == 2}


def centred_grams(subject: Subject, images: Tensor, sizes: Mapping[str, int]) -> Tensor:
    """The U-centred gram matrix of each layer, (L,n*n) in float64. Layers whose features are too many to be kept at a
    time take another forward."""
    found, step = {}, batch_size_for(subject.model, subject.normalise(images[:1]))
    for names in _groups(sizes, ROOM // len(images)):
        parts: dict[str, list[Tensor]] = {name: [] for name in names}
        for batch in images.split(step):
            with record(subject.model, names) as features:
                subject.model(subject.normalise(batch))
            for name in names:
                parts[name].append(features[name].flatten(1))
        for name in names:
            found[name] = centred(gram(torch.cat(parts.pop(name)))).flatten()
    return torch.stack([found[name] for name in sizes])


def _groups(sizes: Mapping[str, int], most: int) -> Iterable[list[str]]:
    group: list[str] = []
    for name, size in sizes.items():
        if group and sum(sizes[one] for one in group) + size > most:
            yield group
            group = []
        group.append(name)
    yield group


def gram(features: Tensor) -> Tensor:
    """XX' (n,n) of features (n,p), in float64."""
    total = features.new_zeros(len(features), len(features), dtype=torch.float64)
    for part in features.split(COLUMNS, 1):
        total.addmm_(part.double(), part.double().T)
    return total


def centred(K: Tensor) -> Tensor:
    """A gram matrix with zeros on the diagonal and rows that sum to 0: HSIC_1(K, L) = <centred(K), centred(L)> / (n(n-3))."""
    n = len(K)
    K = K.clone().fill_diagonal_(0)
    means = K.sum(1) / (n - 2)
    means -= means.sum() / (2 * (n - 1))
    left = (K - means[:, None] - means).fill_diagonal_(0)
    return left if left.norm() > 1e-10 * K.norm() else left.zero_()  # rounding, of features that are all the same


# -------------------------------------------------------------------------------------------------------------- rows


def _rows(protocol: str, found: Similarity | None, itself: bool) -> list[Row]:
    if found is None:
        why = "the run that is meant is this one itself"
        return [_row(protocol, metric, math.nan, why) for metric in ("mean_best", "last", "diagonal")]
    same = "the layer says the same of all images"
    depth = [j / max(len(found.others) - 1, 1) for j in range(len(found.others))]
    unit = f"relative depth in {found.name or 'the other network'}"
    rows, best = [], []
    for name, line in zip(found.own, found.values.tolist(), strict=True):
        rows += [
            _row(protocol, "similarity", value, same, layer=name, at=at, at_unit=unit)
            for value, at in zip(line, depth, strict=True)
        ]
        best.append(
            max((pair for pair in zip(line, depth, strict=True) if pair[0] == pair[0]), default=(math.nan,) * 2)
        )
    if itself:
        apart = found.values[torch.triu_indices(len(depth), len(depth), 1).unbind()]
        few = f"{len(depth)} layer has no pair" if len(depth) < 2 else same
        return [*rows, _row(protocol, "between", float(apart.mean()), few)]
    for i, metric in enumerate(("best", "best_at")):
        rows += [_row(protocol, metric, pair[i], same, layer=name) for name, pair in zip(found.own, best, strict=True)]
    rows.append(_row(protocol, "mean_best", sum(value for value, _ in best) / len(best), same))
    last = POOLED in found.own and POOLED in found.others
    pooled = found.values[found.own.index(POOLED), found.others.index(POOLED)] if last else math.nan
    rows.append(
        _row(
            protocol,
            "last",
            float(pooled),
            same if last else "the features that a head is given are not among the layers",
        )
    )
    diagonal, why = math.nan, "the networks have different layers"
    if found.alike:
        twins = [found.values[i, found.others.index(name)] for i, name in enumerate(found.own)]
        diagonal, why = float(torch.stack(twins).mean()), same
    return [*rows, _row(protocol, "diagonal", diagonal, why)]


def _row(protocol: str, metric: str, value: float, reason: str, **where: Any) -> Row:
    return make_row(protocol, metric, value, reason=reason if math.isnan(value) else "", **where)


# ------------------------------------------------------------------------------------------------------------ figure


def draw(
    subject: Subject, *, seed: int, other: Any = None, layers: tuple[str, ...] | None = None, ending: str = ".svg"
) -> bytes:
    """A heat map for each of the other runs side by side, own layers upwards, the other's to the right; a dot on the
    most similar one."""
    from matplotlib.figure import Figure

    panels = {label: found for label, found in similarities(subject, _frozen(other), layers).items() if found}
    if not panels:
        raise UserError("probe.cka.other: no other run to draw")
    width = sum(1.1 + 0.24 * len(found.others) for found in panels.values())
    height = 1.9 + 0.24 * len(next(iter(panels.values())).own)
    with look.figure_style():
        made = Figure(figsize=(max(width + 1.1, 5.2), height), layout="constrained")
        axes = made.subplots(
            1, len(panels), squeeze=False, width_ratios=[len(found.others) + 2 for found in panels.values()]
        )[0]
        for panel, (label, found) in zip(axes, panels.items(), strict=True):
            image = panel.imshow(found.values.numpy(), origin="lower", cmap="magma", vmin=0, vmax=1, aspect="auto")
            panel.grid(False)
            panel.set_xticks(range(len(found.others)), found.others, rotation=90, fontsize=7)
            panel.set_yticks(range(len(found.own)), found.own, fontsize=7)
            panel.set_xlabel(
                "layers of the same network" if label == "self" else f"layers of\n{found.name}", fontsize=8
            )
            panel.set_title("with itself" if label == "self" else label, fontsize=9)
            if label != "self":
                for y, line in enumerate(found.values.nan_to_num(-1).tolist()):
                    x = line.index(max(line))
                    panel.plot(x, y, ".", color="black" if line[x] > 0.6 else "white", markersize=4)
        axes[0].set_ylabel(f"layers of\n{subject.name}" if subject.name else "layers", fontsize=8)
        bar = made.colorbar(image, ax=list(axes), shrink=0.9)
        bar.set_label("linear CKA, unbiased", fontsize=8)
        bar.ax.tick_params(labelsize=7)
        made.suptitle("Which layers say the same of the same images?", fontsize=10, fontweight="bold")
        dots = "; dots: the other's most similar layer" if [*panels] != ["self"] else ""
        look.small_print(made, f"{len(subject.images):,} test images{dots}")
        return look.save_figure(made, ending)
