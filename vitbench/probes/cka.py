"""Which layers of two networks represent images alike? Unbiased linear CKA between all of their layers.

X (n,p) and Y (n,q) are the features of n images in two layers, flattened; K is XX' and L is YY', both with zeros on the
diagonal. Then

    HSIC_1(K, L) = [ tr(KL) + (1'K1)(1'L1) / ((n-1)(n-2)) - 2/(n-2) 1'KL1 ] / (n(n-3))
    CKA(X, Y)    = sum_b HSIC_1(K_b, L_b) / sqrt( sum_b HSIC_1(K_b, K_b)  sum_b HSIC_1(L_b, L_b) )

with sums over batches b (Nguyen et al. 2021, arXiv 2010.15327, eq. 3; Kornblith et al. 2019, arXiv 1905.00414; HSIC_1:
Song et al. 2012). 1 means the same up to rotation and scale, 0 means unrelated. Unrelated features give values near 0,
also below it, where the plain, biased form gives 0.94 (32 images, 512 Gaussian features). Everything is float64. The
images are cut into batches of 128 to 255 of nearly equal size, so that no small last batch counts as much as the others
(fewer than 128 images are one batch). Memory does not grow with the number of images.

HSIC_1 is the inner product of U-centred matrices over n(n-3) (Szekely and Rizzo 2014). So each gram matrix is centred
once, and all pairs of layers are one matrix product. `CKA._HSIC` of torch_cka 0.21, which writes the formula out, gives
the same CKA for all layers of an untrained ResNet (100 images) within 3e-10, if it gets gram matrices in float64. In
float32, its own type, it is off by up to 0.09, because large terms cancel.

There is a `cka.<label>@v1` for each of the other runs. Where no other run is given, `cka.self@v1` compares the layers
of the network with each other. `other={pixels:pixels}` compares with the raw pixels, as a control: a layer need not
have learned what it shares with the images themselves. An untrained network shares much with the images, and so with
another network. This contributes to `mean_best`, the mean of the best matches. `last` compares the features that the
heads get, which is where two networks can agree on what they learned.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vitbench.errors import UserError
from vitbench.numbers import look
from vitbench.probes.menu import RAW_PIXELS
from vitbench.probes.subject import Row, Subject, make_row
from vitbench.probes.taps import POOLED, batch_size_for, record

BATCH = 128  # a batch has at least so many images
NUMBERS_AT_ONCE = 2**27  # so many features of all images of a batch are kept at a time, 512 MiB
FEATURES_AT_ONCE = 2**15  # so many features of a layer go into one product


class Pixels(nn.Module):
    """Acts as a network whose only layer has the normalised pixels themselves, as the input of a head."""

    class NoHead(nn.Module):
        def forward(self, pixels: Tensor) -> None:
            return None

    def __init__(self) -> None:
        super().__init__()
        self.taps = {"head": self.NoHead()}

    def forward(self, images: Tensor) -> None:
        self.taps["head"](images.flatten(1))


class Similarity(NamedTuple):
    """CKA of every layer of the subject's network with every layer of another."""

    values: Tensor  # (own layers, other layers), NaN where a layer has the same features for all images
    own_layers: list[str]  # in depth order
    other_layers: list[str]
    other_name: str  # the id of the other run
    same_layers: bool  # whether both networks have layers of the same names


def probe(subject: Subject, *, seed: int, other: Any = None) -> list[Row]:
    """Compares the network's layers with those of other runs, or with each other.

    `other` is the id of a run, or {label: id}. None in place of an id means the subject's own run, and `pixels` means
    the images themselves. On the command line a label may also name the settings in which the other run differs
    (vitbench/probing/partners.py).

    Each layer has its `similarity` with each layer of the other network, at that layer's relative depth, and the
    largest of these as `best`, with its depth as `best_at`. The scalars are `mean_best` over the layers; `last`, for
    the features that the heads get; and `diagonal`, the mean over layers with the same name, where both networks have
    the same layers. `self` has `between`, the mean over pairs of different layers.
    """
    rows: list[Row] = []
    for label, similarity in similarities(subject, _hashable(other)).items():
        if similarity is None:
            own = "the described run is this run itself"
            scalars = ("mean_best", "last", "diagonal")
            rows += [make_row(f"cka.{label}@v1", metric, math.nan, reason=own) for metric in scalars]
        else:
            rows += _rows(f"cka.{label}@v1", similarity, label == "self")
    return rows


def _hashable(other: Any) -> tuple[tuple[str, str | None], ...]:
    """Returns the labels and ids of the other runs in a form that `lru_cache` takes."""
    if other is None:
        return ()
    return tuple(other.items()) if isinstance(other, Mapping) else (("other", str(other)),)


@lru_cache(maxsize=1)  # the figure shows the similarities that the rows were made of
@torch.inference_mode()
def similarities(subject: Subject, other: tuple[tuple[str, str | None], ...]) -> dict[str, Similarity | None]:
    """Computes similarities by label in one pass over the images; None where the described run is the subject's own."""
    M = len(subject.images)
    if M < 4:
        raise UserError(f"images={M}: unbiased CKA needs 4 or more images")
    own = feature_counts(subject)
    others = {label: _other_run(subject, run) for label, run in other if run is not None} or {"self": subject}
    counts = {label: own if partner is subject else feature_counts(partner) for label, partner in others.items()}
    sums: dict[str, Any] = {label: [0.0, 0.0, 0.0] for label in others}
    for part in torch.tensor_split(torch.arange(M), max(1, M // BATCH)):
        x = centred_grams(subject, subject.images[part], own)
        for label, partner in others.items():
            y = x if partner is subject else centred_grams(partner, subject.images[part], counts[label])
            for i, term in enumerate((x @ y.T, x.square().sum(1), y.square().sum(1))):
                sums[label][i] = sums[label][i] + term
    similarity_of: dict[str, Similarity | None] = {label: None for label, _ in other}
    for label, (xy, xx, yy) in sums.items():
        spread = (xx[:, None] * yy).sqrt()
        values = torch.where(spread > 0, xy / spread, math.nan).cpu()
        theirs = [*counts[label]]
        similarity_of[label] = Similarity(values, [*own], theirs, others[label].name, [*own] == theirs)
    return similarity_of


def _other_run(subject: Subject, run: str) -> Subject:
    if run == RAW_PIXELS:
        return subject._replace(model=Pixels().eval(), name="raw pixels")
    if subject.network is None:
        raise UserError(f"probe.cka.other={run}: there are no other runs here")
    return subject.network(run)


def feature_counts(subject: Subject) -> dict[str, int]:
    """Counts the features that each layer has for an image, in depth order, without taps that are not by image."""
    with record(subject.model) as features:
        subject.model(subject.normalise(subject.images[:2]))
    return {name: value[0].numel() for name, value in features.items() if value.ndim > 1 and len(value) == 2}


def centred_grams(subject: Subject, images: Tensor, counts: Mapping[str, int]) -> Tensor:
    """Computes the U-centred gram matrix of each layer over sqrt(n(n-3)), (L,n*n) in float64; products are HSIC_1.

    Layers that have too many features to be kept together are computed in several forwards.
    """
    n, batch_size = len(images), batch_size_for(subject.model, subject.normalise(images[:1]))
    grams: dict[str, Tensor] = {}
    for names in _groups(counts, NUMBERS_AT_ONCE // n):
        parts: dict[str, list[Tensor]] = {name: [] for name in names}
        for batch in images.split(batch_size):
            with record(subject.model, names) as features:
                subject.model(subject.normalise(batch))
            for name in names:
                parts[name].append(features[name].flatten(1))
        for name in names:
            grams[name] = u_centred(gram(torch.cat(parts.pop(name)))).flatten()
    return torch.stack([grams[name] for name in counts]) / math.sqrt(n * (n - 3))


def _groups(counts: Mapping[str, int], most: int) -> Iterable[list[str]]:
    """Groups successive layers that together have at most `most` features; a larger layer is alone."""
    group: list[str] = []
    for name, count in counts.items():
        if group and sum(counts[member] for member in group) + count > most:
            yield group
            group = []
        group.append(name)
    yield group


def gram(features: Tensor) -> Tensor:
    """Computes XX' (n,n) of features (n,p), in float64."""
    total = features.new_zeros(len(features), len(features), dtype=torch.float64)
    for part in features.split(FEATURES_AT_ONCE, 1):
        total.addmm_(part.double(), part.double().T)
    return total


def u_centred(K: Tensor) -> Tensor:
    """U-centres a gram matrix: it then has zeros on the diagonal and rows that sum to 0.

    HSIC_1(K, L) is the inner product of two such matrices over n(n-3).
    """
    n = len(K)
    K = K.clone().fill_diagonal_(0)
    means = K.sum(1) / (n - 2)
    means -= means.sum() / (2 * (n - 1))
    centred = (K - means[:, None] - means).fill_diagonal_(0)
    # features that are the same for all images leave only rounding errors
    return centred if centred.norm() > 1e-10 * K.norm() else centred.zero_()


# -------------------------------------------------------------------------------------------------------------- rows


def _rows(protocol: str, similarity: Similarity, with_itself: bool) -> list[Row]:
    same, own = "the layer has the same features for all images", similarity.own_layers
    depth = [j / max(len(similarity.other_layers) - 1, 1) for j in range(len(similarity.other_layers))]
    unit = f"relative depth in {similarity.other_name or 'the other network'}"
    rows, best = [], []
    for layer, values in zip(own, similarity.values.tolist(), strict=True):
        pairs = [*zip(values, depth, strict=True)]
        rows += [_row(protocol, "similarity", value, same, layer=layer, at=at, at_unit=unit) for value, at in pairs]
        best.append(max((pair for pair in pairs if not math.isnan(pair[0])), default=(math.nan, math.nan)))
    if with_itself:
        upper = similarity.values[torch.triu_indices(len(depth), len(depth), 1).unbind()]
        reason = f"{len(depth)} layer has no pair" if len(depth) < 2 else same
        return [*rows, _row(protocol, "between", float(upper.mean()), reason)]
    rows += [_row(protocol, "best", value, same, layer=layer) for layer, (value, _) in zip(own, best, strict=True)]
    rows += [_row(protocol, "best_at", at, same, layer=layer) for layer, (_, at) in zip(own, best, strict=True)]
    rows.append(_row(protocol, "mean_best", sum(value for value, _ in best) / len(best), same))
    last, reason = math.nan, "the input of a head is not among the layers"
    if POOLED in own and POOLED in similarity.other_layers:
        last, reason = float(similarity.values[own.index(POOLED), similarity.other_layers.index(POOLED)]), same
    rows.append(_row(protocol, "last", last, reason))
    diagonal, reason = math.nan, "the networks have different layers"
    if similarity.same_layers:
        twins = [similarity.values[i, similarity.other_layers.index(layer)] for i, layer in enumerate(own)]
        diagonal, reason = float(torch.stack(twins).mean()), same
    return [*rows, _row(protocol, "diagonal", diagonal, reason)]


def _row(protocol: str, metric: str, value: float, reason: str, **where: Any) -> Row:
    """Makes a row with a value, or with the reason where the value is NaN."""
    return make_row(protocol, metric, value, reason=reason if math.isnan(value) else "", **where)


# -------------------------------------------------------------------------------------------------------------- figure


def draw(subject: Subject, *, seed: int, other: Any = None, ending: str = ".svg") -> bytes:
    """Draws a heat map for each of the other runs side by side, with a dot on the most similar layer of each row.

    The layers of the subject's network go upwards, those of the other network to the right.
    """
    from matplotlib.figure import Figure

    every = similarities(subject, _hashable(other))
    drawn = {label: similarity for label, similarity in every.items() if similarity}
    if not drawn:
        raise UserError("probe.cka.other: there is no other run to draw")
    columns = [len(similarity.other_layers) for similarity in drawn.values()]
    width = sum(1.1 + 0.24 * count for count in columns) + 1.1
    height = 1.9 + 0.24 * len(next(iter(drawn.values())).own_layers)
    with look.figure_style():
        figure = Figure(figsize=(max(width, 5.2), height), layout="constrained")
        ratios = [count + 2 for count in columns]
        panels = figure.subplots(1, len(drawn), squeeze=False, width_ratios=ratios)[0]
        for panel, (label, similarity) in zip(panels, drawn.items(), strict=True):
            image = _draw_panel(panel, label, similarity)
        panels[0].set_ylabel(f"layers of\n{subject.name}" if subject.name else "layers", fontsize=8)
        bar = figure.colorbar(image, ax=list(panels), shrink=0.9)
        bar.set_label("similarity (linear CKA, unbiased)", fontsize=8)
        bar.ax.tick_params(labelsize=7)
        figure.suptitle("How alike layers are in what they say of images", fontsize=10, fontweight="bold")
        dots = " A dot marks the other network's most similar layer." if [*drawn] != ["self"] else ""
        look.small_print(figure, f"Measured on {len(subject.images):,} test images.{dots}")
        return look.save_figure(figure, ending)


def _draw_panel(panel: Any, label: str, similarity: Similarity) -> Any:
    image = panel.imshow(similarity.values.numpy(), origin="lower", cmap="magma", vmin=0, vmax=1, aspect="auto")
    panel.grid(False)
    panel.set_xticks(range(len(similarity.other_layers)), similarity.other_layers, rotation=90, fontsize=7)
    panel.set_yticks(range(len(similarity.own_layers)), similarity.own_layers, fontsize=7)
    if label == "self":
        panel.set_xlabel("layers of the same network", fontsize=8)
        panel.set_title("with itself", fontsize=9)
        return image
    panel.set_xlabel(f"layers of\n{similarity.other_name}", fontsize=8)
    panel.set_title(label, fontsize=9)
    for y, line in enumerate(similarity.values.nan_to_num(-1).tolist()):
        x = line.index(max(line))
        panel.plot(x, y, ".", color="black" if line[x] > 0.6 else "white", markersize=4)
    return image
