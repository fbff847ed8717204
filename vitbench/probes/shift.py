"""Shift consistency: is the predicted class the same when the image moves? (Zhang 2019, arXiv 1904.11486, section 4.2)

    shift.crop      the image moves and what enters is its own mirror image: crops of a reflection-padded image
    shift.circular  what leaves at one side enters at the other (no offset is (0,0))
    shift.zero      what enters is black
    shift.length    the image against itself moved by exactly `at` pixels along one axis, circularly
    shift.worst     right at *every* offset |dx|, |dy| <= `worst` (Michaeli et al. 2023, arXiv 2303.08085); mirror filled

Of each image `draws` copies are moved, each by an offset of its own, uniform in [-max_shift, max_shift]^2; all pairs of
them count (6 pairs of 4 copies: the expected value of independent pairs, from half the forwards). With p_i the class of a
copy and s_i its softmax:

    consistency              P(p_1 = p_2)
    conditional_consistency  P(p_1 = p_2 | p_1 is right): consistency is confounded by accuracy, and this is not
    total_variation          mean of |s_1 - s_2|_1 / 2: it moves before the class does
    accuracy                 P(p_1 is right)
    chance                   sum_c q_c^2, q_c the share of copies called c: the consistency of a network that calls out
                             these classes without looking; a constant network has 1
    degenerate               1 where chance is above (1 + 1/K) / 2, half-way from even to constant: consistency then
                             says nothing

Compared once with the reference, adobe/antialiased-cnns `main.py` (`validate_shift`, `agreement`; its 256 and 224 px made
40 and 32), on 1,000 test images and two networks of 45,000 CIFAR images. At the same offsets both call exactly the same
share unchanged: 80.3 % of pairs for a ResNet, 65.0 % for a ViT with learned positions. With offsets of their own (mean and
deviation over five epochs there, over five probe seeds here) it is 79.5 (1.1) there and 80.5 (0.6) here for the ResNet,
65.3 (1.3) and 66.6 (0.6) for the ViT: within what is drawn, and steadier here because the reference draws one pair of
offsets *per batch* and we draw per image. Other differences: its images are resized to 256 px and cut to 224, with real
pixels at the border, where images of 32 px have none to spare and are mirrored; and it gives no conditional consistency,
chance or interval.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import permutations

import torch
from torch import Tensor

from vitbench.errors import UserError
from vitbench.numbers.intervals import bootstrap_ratio
from vitbench.probes.subject import Row, Subject, predict

FILLS = {"crop": "reflect", "circular": "circular", "zero": "zero"}
AXES = ((0, 1), (0, -1), (1, 0), (-1, 0))  # right, left, down, up


def probe(
    subject: Subject, *, seed: int, max_shift: int | None = None, draws: int = 4, worst: int | None = None
) -> list[Row]:
    """`max_shift` null: an eighth of the width; `worst` null: a quarter of that."""
    size = min(subject.images.shape[-2:])
    eighth = max(1, round(size / 8))
    max_shift = eighth if max_shift is None else max_shift
    worst = max(1, max_shift // 4) if worst is None else worst
    for name, value in {"max_shift": max_shift, "worst": worst}.items():
        if not 1 <= value < size:
            raise UserError(f"probe.shift.{name}={value}: must be 1 to {size - 1} pixels, for images of {size} px")
    if draws < 2:
        raise UserError(f"probe.shift.draws={draws}: must be 2 or more copies of an image, of which pairs are made")
    random = torch.Generator().manual_seed(seed)
    rows: list[Row] = []
    for name, fill in FILLS.items():
        offsets = draw_offsets(len(subject.images), draws, max_shift, random, without_zero=name == "circular")
        rows += [{"protocol": f"shift.{name}@v1", **row} for row in _pairs(subject, offsets, fill, seed)]
    clean = predict(subject)
    rows += list(_lengths(subject, clean, min(2 * max_shift, size - 1), random, seed))
    rows += [{"protocol": "shift.worst@v1", **row} for row in _worst(subject, clean, worst, seed)]
    return rows


def draw_offsets(images: int, draws: int, limit: int, random: torch.Generator, without_zero: bool = False) -> Tensor:
    """Offsets (draws, images, 2), (dy, dx) each, uniform in [-limit, limit]^2."""
    side = 2 * limit + 1
    places = torch.randint(side * side - without_zero, (draws, images), generator=random)
    if without_zero:
        places += places >= side * limit + limit  # over the one in the middle
    return torch.stack([places // side - limit, places % side - limit], -1)


def translate(images: Tensor, offsets: Tensor, fill: str) -> Tensor:
    """Each image (B,C,H,W) moved down and right by its own whole pixels, `offsets` (B,2); `fill` is what enters.

    `reflect` mirrors without repeating the border pixel, `circular` brings back what left, `zero` is zero.
    """
    B, _, H, W = images.shape
    offsets = offsets.to(images.device)
    rows = torch.arange(H, device=images.device) - offsets[:, :1]  # (B,H): where each row comes from
    columns = torch.arange(W, device=images.device) - offsets[:, 1:]
    if fill == "zero":
        inside = ((rows >= 0) & (rows < H))[:, None, :, None] & ((columns >= 0) & (columns < W))[:, None, None, :]
    if fill == "reflect":
        rows, columns = (n - 1 - (n - 1 - at.abs()).abs() for n, at in ((H, rows), (W, columns)))
    rows, columns = rows % H, columns % W
    each = torch.arange(B, device=images.device)[:, None, None]
    moved = images.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)  # (B,C,H,W)
    return moved * inside if fill == "zero" else moved


def _predict(subject: Subject, images: Tensor, offsets: Tensor, fill: str) -> Tensor:
    """Logits (M,K) of images moved by `offsets` (M,2), a batch in memory at a time."""
    batches = zip(images.split(250), offsets.split(250), strict=True)
    return torch.cat([predict(subject, translate(batch, moved, fill)) for batch, moved in batches])


def _pairs(subject: Subject, offsets: Tensor, fill: str, seed: int) -> Iterator[Row]:
    """The rows of one way to fill, for copies moved by `offsets` (draws, M, 2)."""
    logits = torch.stack([_predict(subject, subject.images, moved, fill) for moved in offsets])  # (draws,M,K)
    softmax, classes = logits.softmax(-1), logits.argmax(-1)  # (draws,M,K), (draws,M)
    right = classes == subject.labels
    same = torch.zeros_like(subject.labels, dtype=torch.float64)  # sums over ordered pairs, an image each
    same_and_right, apart = same.clone(), same.clone()
    pairs = list(permutations(range(len(offsets)), 2))
    for i, j in pairs:
        equal = classes[i] == classes[j]
        same += equal
        same_and_right += equal & right[i]
        apart += (softmax[i] - softmax[j]).abs().sum(-1) / 2
    ones, n = torch.full_like(same, len(pairs)), len(offsets) - 1
    yield _row("consistency", same, ones, seed)
    yield _row(
        "conditional_consistency", same_and_right, n * right.sum(0), seed, "no moved image is classified rightly"
    )
    yield _row("total_variation", apart, ones, seed)
    yield _row("accuracy", right.sum(0), torch.full_like(same, len(offsets)), seed)
    called = torch.bincount(classes.flatten(), minlength=subject.num_classes).double() / classes.numel()
    chance = called.square().sum().item()
    yield {"metric": "chance", "value": chance}
    yield {"metric": "degenerate", "value": float(chance > (1 + 1 / subject.num_classes) / 2)}


def _lengths(subject: Subject, clean: Tensor, longest: int, random: torch.Generator, seed: int) -> Iterator[Row]:
    """The image against itself moved by 1, 2, ... pixels, each image along an axis drawn for it."""
    ways = torch.tensor(AXES)[torch.randint(len(AXES), (len(subject.images),), generator=random)]  # (M,2)
    ones = torch.ones(len(clean), dtype=torch.float64)
    for length in range(1, longest + 1):
        moved = _predict(subject, subject.images, length * ways, "circular")
        apart = (moved.softmax(-1) - clean.softmax(-1)).abs().sum(-1) / 2
        where = {"protocol": "shift.length@v1", "at": length, "at_unit": "px"}
        yield where | _row("consistency", moved.argmax(-1) == clean.argmax(-1), ones, seed)
        yield where | _row("total_variation", apart, ones, seed)


def _worst(subject: Subject, clean: Tensor, limit: int, seed: int) -> Iterator[Row]:
    """An image counts when it is right wherever it is moved; one that was wrong once is not looked at again."""
    right = clean.argmax(-1) == subject.labels
    always = right.clone()
    steps = range(-limit, limit + 1)
    for offset in sorted(
        ((dy, dx) for dy in steps for dx in steps), key=lambda o: -math.hypot(*o)
    ):  # far ones fail first
        left = always.nonzero()[:, 0]
        if offset == (0, 0) or not len(left):
            continue
        moved = _predict(subject, subject.images[left], torch.tensor([offset]).expand(len(left), 2), "reflect")
        always[left] = moved.argmax(-1) == subject.labels[left]
    yield _row("accuracy", always, torch.ones_like(subject.labels), seed)
    yield _row("conditional_consistency", always, right, seed, "no image is classified rightly where it is")


def _row(metric: str, parts: Tensor, of: Tensor, seed: int, reason: str = "") -> Row:
    """sum(parts) / sum(of) over images, with its interval."""
    value, low, high = bootstrap_ratio(parts.double().cpu().numpy(), of.double().cpu().numpy(), seed)
    return {"metric": metric, "value": value, "low": low, "high": high} | (
        {"reason": reason} if math.isnan(value) else {}
    )
