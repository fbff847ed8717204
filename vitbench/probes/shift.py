"""Shift consistency: is the predicted class the same when the image moves? (Zhang 2019, arXiv 1904.11486, section 4.2)

    shift.crop      crops of a reflection-padded image: the mirror image enters at the border
    shift.circular  pixels that leave at one side enter at the other (no offset is (0,0))
    shift.zero      black enters at the border
    shift.length    compares the image with itself moved circularly by exactly `at` pixels along one axis
    shift.worst     right at *every* offset |dx|, |dy| <= `worst` (Michaeli et al. 2023, arXiv 2303.08085); mirrored
    shift.worst8    right at the 8 offsets whose steps are 0 or `worst`: an upper bound of shift.worst

`draws` copies of each image are moved, each by its own offset, uniform in [-max_shift, max_shift]^2. All pairs of
copies count: the 6 pairs of 4 copies have the expected value of independent pairs, for half the forwards. With p_i the
predicted class of a copy and s_i its softmax:

    consistency              P(p_1 = p_2)
    conditional_consistency  P(p_1 = p_2 | p_1 is right): a network cannot gain by being wrong all the time
    total_variation          mean of |s_1 - s_2|_1 / 2, which changes before the class does
    accuracy                 P(p_1 is right)
    chance                   sum_c q_c^2, q_c the share of copies that get class c: the consistency of a network that
                             gives these classes without looking at the image; a constant network has 1
    degenerate               1 where chance is above (1 + 1/K) / 2, half-way from even to constant: then consistency
                             says nothing

Accuracy influences all of these, also conditional consistency: for one kind of ResNet it rose from 0.82 to 0.90 while
more training images raised its accuracy from 45 to 64 % (results/archive/inductive_bias). So compare two networks at
equal accuracy: `vitbench table value=shift.crop.conditional_consistency matched=test_accuracy`. `shift.crop` moves
images as far as training with random crops does (`augment=light`). What it finds after such training was taught, not
built in.

We compared this with the reference, adobe/antialiased-cnns `main.py` (`validate_shift`, `agreement`; with 40 and 32 px
in place of 256 and 224), on 1,000 test images and two networks trained on 45,000 CIFAR images. At the same offsets both
find exactly the same share of unchanged pairs: 80.3 % for a ResNet, 65.0 % for a ViT with learned positions. With their
own offsets (mean and standard deviation over five epochs there, over five probe seeds here), the ResNet has 79.5 (1.1)
there and 80.5 (0.6) here, and the ViT 65.3 (1.3) and 66.6 (0.6). These differ by no more than draws do. Ours vary less,
because the reference draws one pair of offsets *for a batch* and we draw for each image. There are two more
differences. The reference resizes images to 256 px and cuts out 224, so that real pixels enter; images of 32 px have
none to spare, so they are mirrored. And it has no conditional consistency, chance or interval.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import permutations

import torch
from torch import Tensor

from vitbench.errors import UserError
from vitbench.probes.subject import Row, Subject, make_row, predict, ratio_row

LARGEST_FOR_ALL = 64  # pixels; larger images take long, so fewer shifts are measured
LENGTHS = 8  # so many lengths are measured for larger images, evenly spaced
FILL_OF_PROTOCOL = {"crop": "reflect", "circular": "circular", "zero": "zero"}
AXES = ((0, 1), (0, -1), (1, 0), (-1, 0))  # right, left, down, up


def probe(
    subject: Subject, *, seed: int, max_shift: int | None = None, draws: int = 4, worst: int | None = None
) -> list[Row]:
    """Measures all protocols. `max_shift` null is an eighth of the width in pixels, and `worst` null a quarter of that.

    The lengths of `shift.length` reach twice `max_shift`, within the image. Images above 64 px take long. For them only
    LENGTHS lengths are measured (the row `lengths` of `shift.length` says how many) and, where `worst` is null,
    `shift.worst8` in place of `shift.worst`. Raises UserError for options that the image is too small for.
    """
    size = min(subject.images.shape[-2:])
    eighth = max(1, round(size / 8))
    max_shift = eighth if max_shift is None else max_shift
    many, all_offsets = size > LARGEST_FOR_ALL, worst is not None or size <= LARGEST_FOR_ALL
    worst = max(1, max_shift // 4) if worst is None else worst
    for name, value in {"max_shift": max_shift, "worst": worst}.items():
        if not 1 <= value < size:
            raise UserError(f"probe.shift.{name}={value}: must be 1 to {size - 1} pixels, for images of {size} px")
    if draws < 2:
        raise UserError(f"probe.shift.draws={draws}: must be 2 or more, because pairs of copies are compared")
    random = torch.Generator().manual_seed(seed)
    rows: list[Row] = []
    for name, fill in FILL_OF_PROTOCOL.items():
        offsets = draw_offsets(len(subject.images), draws, max_shift, random, without_zero=name == "circular")
        rows += _pairs(subject, f"shift.{name}@v1", offsets, fill, seed)
    clean = predict(subject)
    longest = min(2 * max_shift, size - 1)
    lengths = [*range(1, longest + 1)]
    if many and longest > LENGTHS:
        lengths = [round(1 + i * (longest - 1) / (LENGTHS - 1)) for i in range(LENGTHS)]
        rows.append(make_row("shift.length@v1", "lengths", len(lengths)))
    rows += _lengths(subject, clean, lengths, random, seed)
    steps = range(-worst, worst + 1, 1 if all_offsets else worst)
    places = [(down, right) for down in steps for right in steps]
    return [*rows, *_worst(subject, f"shift.worst{'' if all_offsets else '8'}@v1", clean, places, seed)]


def draw_offsets(images: int, draws: int, limit: int, random: torch.Generator, without_zero: bool = False) -> Tensor:
    """Draws offsets (dy, dx) uniformly from [-limit, limit]^2, (draws,images,2)."""
    side = 2 * limit + 1
    places = torch.randint(side * side - without_zero, (draws, images), generator=random)
    if without_zero:
        places += places >= side * limit + limit  # steps over the place in the middle
    return torch.stack([places // side - limit, places % side - limit], -1)


def translate(images: Tensor, offsets: Tensor, fill: str) -> Tensor:
    """Moves each image (B,C,H,W) down and right by the whole pixels of its own offset (B,2).

    `fill` says what enters at the border: `reflect` mirrors without repeating the border pixel, `circular` brings back
    the pixels that left, `zero` is 0.
    """
    B, _, H, W = images.shape
    offsets = offsets.to(images.device)
    rows = torch.arange(H, device=images.device) - offsets[:, :1]  # (B,H), the source of each row
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
    """Mirrors places that are up to size - 1 outside of 0 .. size - 1 back into it, without repeating the border."""
    return size - 1 - (size - 1 - index.abs()).abs()


def _predict_moved(subject: Subject, images: Tensor, offsets: Tensor, fill: str) -> Tensor:
    """Computes the logits (M,K) of images moved by `offsets` (M,2), one batch in memory at a time."""
    batches = zip(images.split(250), offsets.split(250), strict=True)
    return torch.cat([predict(subject, translate(batch, moved, fill)) for batch, moved in batches])


def _pairs(subject: Subject, protocol: str, offsets: Tensor, fill: str, seed: int) -> list[Row]:
    """Makes the rows of one protocol from copies moved by `offsets` (draws,M,2)."""
    logits = torch.stack([_predict_moved(subject, subject.images, moved, fill) for moved in offsets])  # (draws,M,K)
    softmax, classes = logits.softmax(-1), logits.argmax(-1)  # (draws,M,K), (draws,M)
    right = classes == subject.labels
    same = torch.zeros_like(subject.labels, dtype=torch.float64)  # (M,), like the next two a sum over ordered pairs
    same_and_right, variation = same.clone(), same.clone()
    pairs = list(permutations(range(len(offsets)), 2))
    for i, j in pairs:
        equal = classes[i] == classes[j]
        same += equal
        same_and_right += equal & right[i]
        variation += (softmax[i] - softmax[j]).abs().sum(-1) / 2
    copies, all_pairs = torch.full_like(same, len(offsets)), torch.full_like(same, len(pairs))
    pairs_of_right = (len(offsets) - 1) * right.sum(0)
    never = "no moved image is classified rightly"
    class_shares = torch.bincount(classes.flatten(), minlength=subject.num_classes).double() / classes.numel()
    chance = class_shares.square().sum().item()
    return [
        ratio_row(protocol, "consistency", same, seed, all_pairs),
        ratio_row(protocol, "conditional_consistency", same_and_right, seed, pairs_of_right, never),
        ratio_row(protocol, "total_variation", variation, seed, all_pairs),
        ratio_row(protocol, "accuracy", right.sum(0), seed, copies),
        make_row(protocol, "chance", chance),
        make_row(protocol, "degenerate", chance > (1 + 1 / subject.num_classes) / 2),
    ]


def _lengths(subject: Subject, clean: Tensor, lengths: list[int], random: torch.Generator, seed: int) -> Iterator[Row]:
    """Compares each image with itself moved by each length, along an axis that is drawn for the image."""
    directions = torch.tensor(AXES)[torch.randint(len(AXES), (len(subject.images),), generator=random)]  # (M,2)
    for length in lengths:
        moved = _predict_moved(subject, subject.images, length * directions, "circular")
        variation = (moved.softmax(-1) - clean.softmax(-1)).abs().sum(-1) / 2
        same = moved.argmax(-1) == clean.argmax(-1)
        for metric, values in {"consistency": same, "total_variation": variation}.items():
            yield ratio_row("shift.length@v1", metric, values, seed, at=length, at_unit="px")


def _worst(subject: Subject, protocol: str, clean: Tensor, offsets: list[tuple[int, int]], seed: int) -> list[Row]:
    """Counts the images that are right at all offsets. An image that was wrong once is not moved again."""
    right = clean.argmax(-1) == subject.labels
    always = right.clone()
    for offset in sorted(offsets, key=lambda offset: -math.hypot(*offset)):  # most images fail at long offsets
        left = always.nonzero()[:, 0]
        if offset == (0, 0) or not len(left):
            continue
        moved = _predict_moved(subject, subject.images[left], torch.tensor([offset]).expand(len(left), 2), "reflect")
        always[left] = moved.argmax(-1) == subject.labels[left]
    never = "no image is classified rightly where it is"
    return [
        ratio_row(protocol, "accuracy", always, seed),
        ratio_row(protocol, "conditional_consistency", always, seed, right, never),
    ]
