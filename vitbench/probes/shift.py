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
from vitbench.probes.subject import Row, Subject, make_row, predict, ratio_row

FILLS = {"crop": "reflect", "circular": "circular", "zero": "zero"}
AXES = ((0, 1), (0, -1), (1, 0), (-1, 0))  # right, left, down, up


def probe(
    subject: Subject,
    *,
    seed: int,
    max_shift: int | None = None,
    draws: int = 4,
    worst: int | None = None,
    max_length: int | None = None,
) -> list[Row]:
    """`max_shift` null: an eighth of the width; `worst` null: a quarter of that; `max_length` null: twice it."""
    size = min(subject.images.shape[-2:])
    eighth = max(1, round(size / 8))
    max_shift = eighth if max_shift is None else max_shift
    worst = max(1, max_shift // 4) if worst is None else worst
    max_length = 2 * max_shift if max_length is None else max_length
    for name, value in {"max_shift": max_shift, "worst": worst, "max_length": max_length}.items():
        if not 1 <= value < size:
            raise UserError(f"probe.shift.{name}={value}: must be 1 to {size - 1} pixels, for images of {size} px")
    if draws < 2:
        raise UserError(f"probe.shift.draws={draws}: must be 2 or more copies of an image, of which pairs are made")
    random = torch.Generator().manual_seed(seed)
    rows: list[Row] = []
    for name, fill in FILLS.items():
        offsets = draw_offsets(len(subject.images), draws, max_shift, random, without_zero=name == "circular")
        rows += _pairs(subject, f"shift.{name}@v1", offsets, fill, seed)
    clean = predict(subject)
    rows += _lengths(subject, clean, max_length, random, seed)
    return [*rows, *_worst(subject, clean, worst, seed)]


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
        rows, columns = reflected(rows, H), reflected(columns, W)
    rows, columns = rows % H, columns % W
    each = torch.arange(B, device=images.device)[:, None, None]
    moved = images.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)  # (B,C,H,W)
    return moved * inside if fill == "zero" else moved


def reflected(index: Tensor, size: int) -> Tensor:
    """The places 0 .. size - 1 that places up to size - 1 outside are mirrored to; the border is not repeated."""
    return size - 1 - (size - 1 - index.abs()).abs()


def _predict(subject: Subject, images: Tensor, offsets: Tensor, fill: str) -> Tensor:
    """Logits (M,K) of images moved by `offsets` (M,2), a batch in memory at a time."""
    batches = zip(images.split(250), offsets.split(250), strict=True)
    return torch.cat([predict(subject, translate(batch, moved, fill)) for batch, moved in batches])


def _pairs(subject: Subject, protocol: str, offsets: Tensor, fill: str, seed: int) -> list[Row]:
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
    copies, of_right = torch.full_like(same, len(offsets)), (len(offsets) - 1) * right.sum(0)
    all_pairs, never = torch.full_like(same, len(pairs)), "no moved image is classified rightly"
    called = torch.bincount(classes.flatten(), minlength=subject.num_classes).double() / classes.numel()
    chance = called.square().sum().item()
    return [
        ratio_row(protocol, "consistency", same, seed, all_pairs),
        ratio_row(protocol, "conditional_consistency", same_and_right, seed, of_right, never),
        ratio_row(protocol, "total_variation", apart, seed, all_pairs),
        ratio_row(protocol, "accuracy", right.sum(0), seed, copies),
        make_row(protocol, "chance", chance),
        make_row(protocol, "degenerate", chance > (1 + 1 / subject.num_classes) / 2),
    ]


def _lengths(subject: Subject, clean: Tensor, longest: int, random: torch.Generator, seed: int) -> Iterator[Row]:
    """The image against itself moved by 1, 2, ... pixels, each image along an axis drawn for it."""
    ways = torch.tensor(AXES)[torch.randint(len(AXES), (len(subject.images),), generator=random)]  # (M,2)
    for length in range(1, longest + 1):
        moved = _predict(subject, subject.images, length * ways, "circular")
        apart = (moved.softmax(-1) - clean.softmax(-1)).abs().sum(-1) / 2
        same = moved.argmax(-1) == clean.argmax(-1)
        for metric, values in {"consistency": same, "total_variation": apart}.items():
            yield ratio_row("shift.length@v1", metric, values, seed, at=length, at_unit="px")


def _worst(subject: Subject, clean: Tensor, limit: int, seed: int) -> list[Row]:
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
    never = "no image is classified rightly where it is"
    return [
        ratio_row("shift.worst@v1", "accuracy", always, seed),
        ratio_row("shift.worst@v1", "conditional_consistency", always, seed, right, never),
    ]
