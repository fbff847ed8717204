"""What one should know of images before a network trains on them: damage, odd formats, copies, names, balance."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitbench.data.listing import IMAGE_ENDINGS, colliding
from vitbench.data.similar import similar_pairs
from vitbench.data.survey import Facts
from vitbench.data.tolerant import Listed
from vitbench.machine.terminal import shown_path

DARK = 20  # the mean of a picture, 0 to 255, below which little is to be seen in it
ONE_COLOUR = 3  # the standard deviation of a picture, 0 to 255, below which it shows nothing
FAR_SMALLER = 0.5  # times the median of the shortest sides
UNBALANCED = 3  # times as many images as another class has
CHUNK = 4096  # thumbnails at a time


@dataclass(frozen=True)
class Images:
    """What is looked at: N images, and of files what their headers say."""

    names: list[str]  # N
    classes: list[str]  # N, as they are shown
    splits: list[str]  # N: train, test ...; empty where there are no splits
    digests: list[str]  # N, equal for equal files, or equal pixels; empty where an image cannot be read
    thumbnails: NDArray[np.uint8]  # (N, 3, 32, 32)
    facts: list[Facts] = field(default_factory=list)  # N, of files alone

    @property
    def whole(self) -> NDArray[np.int64]:
        """The images that can be read."""
        return np.array([i for i in range(len(self.names)) if not self.facts or self.facts[i].error is None], np.int64)


class Suspect(NamedTuple):
    """One image, a pair of them, or a name, and why it is suspicious."""

    names: tuple[str, ...]
    reason: str = ""
    images: tuple[int, ...] = ()  # their numbers; none where no image is meant


class Finding(NamedTuple):
    """All that is suspicious for one reason."""

    what: str
    means: str  # for training, in a sentence
    suspects: list[Suspect]  # the most suspicious first


def of_folder(listed: Listed) -> Iterator[Finding]:
    """What the names of folders and files show, before a file is opened."""
    yield Finding(
        "what training refuses", "Training stops at each of these.", [Suspect((line,)) for line in listed.refused]
    )
    yield Finding(
        "class folders without images",
        f"Training refuses them: remove the folder, or add images ({' '.join(IMAGE_ENDINGS)}).",
        [Suspect((name,)) for name in listed.empty],
    )
    folders = [*(file.label for file in listed.files), *(name.rpartition("/")[2] for name in listed.empty)]
    yield Finding(
        "classes whose names collide",
        "They differ only in case, spaces or Unicode form, and training refuses them: rename or join them.",
        [Suspect(tuple(map(shown_path, group))) for group in colliding(folders)],
    )
    in_folders = defaultdict(list)
    for file in listed.files:
        folder, _, name = file.stamp[0].rpartition("/")
        in_folders[folder].append(name)
    yield Finding(
        "files whose names collide",
        "They differ only in case, spaces or Unicode form: on some systems one takes the place of the other.",
        [
            Suspect(tuple(shown_path(f"{folder}/{name}") for name in group))
            for folder, names in in_folders.items()
            for group in colliding(names)
        ],
    )


def of_images(images: Images, image_size: int | None = None) -> Iterator[Finding]:
    """What the images show, with `image_size` as the network would get them, in pixels."""
    yield _of_files(
        images,
        "damaged files",
        "Training stops at them: repair or remove them, or set data.skip_broken=true to leave them out.",
        lambda facts: facts.error,
    )
    yield from _of_classes(images)
    yield from _copies(images)
    yield from _sizes(images, image_size)
    yield from _empty_pictures(images)
    yield from _formats(images)


# ------------------------------------------------------------------------------------------------------------- classes


def counts(images: Images) -> dict[str, dict[str, int]]:
    """The number of images of each class in each split, both in name order; 0 where a class has none there."""
    counted = Counter(zip(images.classes, images.splits, strict=True))
    splits = dict.fromkeys(images.splits)
    return {name: {split: counted[name, split] for split in splits} for name in sorted({*images.classes})}


def _of_classes(images: Images) -> Iterator[Finding]:
    by_class = counts(images)
    lacking = [
        Suspect((name,), f"none in {split}")
        for name, numbers in by_class.items()
        for split, number in numbers.items()
        if number == 0
    ]
    yield Finding(
        "classes that are not in every split",
        "Training refuses classes that cannot be both learned and tested.",
        lacking,
    )
    alone = [Suspect((name,)) for name in by_class if len(by_class) == 1]
    yield Finding("one class alone", "A classifier needs two or more classes.", alone)
    readable = Counter(images.classes[i] for i in images.whole)
    yield Finding(
        "classes of one image",
        "Training refuses them: one image cannot be a training and a test image. Add others, or remove the class.",
        [Suspect((name,)) for name in by_class if readable[name] == 1 and not any(images.splits)],
    )
    totals = {name: sum(numbers.values()) for name, numbers in by_class.items()}
    most, fewest = max(totals.values()), min(totals.values())
    rare = sorted((number, name) for name, number in totals.items() if most >= UNBALANCED * number)
    yield Finding(
        "classes with few images",
        f"The largest class has {most / fewest:.1f} times the images of the smallest: a network that leans to the "
        "large ones looks accurate and is not. Look at the accuracy of each class.",
        [Suspect((name,), f"{number:,}, the largest has {most:,}") for number, name in rare],
    )


# -------------------------------------------------------------------------------------------------------------- copies


def _copies(images: Images) -> Iterator[Finding]:
    """Pairs of images that are the same, or nearly, each in the first of the findings that it belongs to."""
    first: dict[str, int] = {}
    exact = [
        (earlier, i)
        for i, digest in enumerate(images.digests)
        if digest and (earlier := first.setdefault(digest, i)) != i
    ]
    found: list[list[int]] = similar_pairs(images.thumbnails, images.whole).tolist()
    near = [(i, j) for i, j in found if images.digests[i] != images.digests[j]]

    def pairs(chosen: Iterable[tuple[int, int]], reason: str) -> list[Suspect]:
        """A suspect for each second image of a pair."""
        partner: dict[int, int] = {}
        for i, j in chosen:
            partner.setdefault(j, i)
        return [Suspect((images.names[i], images.names[j]), reason, (i, j)) for j, i in partner.items()]

    def sorted_out(all_pairs: list[tuple[int, int]]) -> tuple[list[tuple[int, int]], ...]:
        """The pairs under two classes, else in two splits, else the others."""
        kinds: tuple[list[tuple[int, int]], ...] = [], [], []
        for i, j in all_pairs:
            of_two_classes, of_two_splits = images.classes[i] != images.classes[j], images.splits[i] != images.splits[j]
            kinds[0 if of_two_classes else 1 if of_two_splits else 2].append((i, j))
        return kinds

    (wrong, leaked, copies), (nearly_wrong, nearly_leaked, near_copies) = sorted_out(exact), sorted_out(near)
    yield Finding(
        "the same image under two classes",
        "One of the two labels is wrong, and nothing can be learned from either: keep the right one.",
        pairs(wrong, "the same"),
    )
    yield Finding(
        "the same image in two splits",
        "The test asks what training has shown, and the accuracy comes out too high: remove it from one of them.",
        pairs(leaked, "the same"),
    )
    yield Finding(
        "nearly the same image under two classes",
        "Look at them: either a label is wrong, or the classes differ in less than this.",
        pairs(nearly_wrong, "nearly the same"),
    )
    yield Finding(
        "nearly the same image in two splits",
        "Scaled, compressed or burst copies make the accuracy come out too high: keep them on one side.",
        pairs(nearly_leaked, "nearly the same"),
    )
    yield Finding(
        "copies of another file",
        "Training sees them more often than others, and there are fewer images than it seems.",
        pairs(copies, "the same"),
    )
    yield Finding(
        "nearly copies of another file",
        "There are fewer different images than it seems; a split at random would have them on both sides.",
        pairs(near_copies, "nearly the same"),
    )


# ------------------------------------------------------------------------------------------------ sizes, light, formats


def _sizes(images: Images, image_size: int | None) -> Iterator[Finding]:
    if not images.facts:
        return
    whole = images.whole.tolist()
    sides = {i: (images.facts[i].width, images.facts[i].height) for i in whole}
    least = image_size or FAR_SMALLER * median([min(pair) for pair in sides.values()] or [0])
    small = sorted((min(pair), i) for i, pair in sides.items() if min(pair) < least)
    yield Finding(
        f"smaller than data.image_size={image_size}" if image_size else "far smaller than the others",
        "They are scaled up and show less than they seem to: a network may learn the blur instead of the class.",
        [Suspect((images.names[i],), f"{sides[i][0]:,} x {sides[i][1]:,} px", (i,)) for _, i in small],
    )
    lost = {i: 1 - min(pair) / max(pair) for i, pair in sides.items() if pair[0] != pair[1]}
    usual = median(lost.values()) if lost else 0.0
    yield Finding(
        "not square",
        f"They are {100 * len(lost) / max(len(sides), 1):.0f} % of the images. With data.fit=crop half of them lose "
        f"{100 * usual:.0f} % or more; data.fit=pad and squash show all.",
        [
            Suspect((images.names[i],), f"{sides[i][0]:,} x {sides[i][1]:,} px", (i,))
            for i in sorted(lost, key=lambda i: -lost[i])
        ],
    )


def _empty_pictures(images: Images) -> Iterator[Finding]:
    whole = images.whole
    means, deviations = np.empty(len(whole)), np.empty(len(whole))
    for start in range(0, len(whole), CHUNK):
        part = slice(start, start + CHUNK)
        pictures = images.thumbnails[whole[part]].reshape(len(whole[part]), 3, -1).astype(np.float32)
        means[part], deviations[part] = pictures.mean((1, 2)), pictures.std(2).mean(1)

    def suspects(chosen: NDArray[np.bool_], values: NDArray[np.float64], say: Callable[[float], str]) -> list[Suspect]:
        order = np.flatnonzero(chosen)[np.argsort(values[chosen], kind="stable")]
        return [Suspect((images.names[whole[k]],), say(values[k]), (int(whole[k]),)) for k in order]

    plain = deviations < ONE_COLOUR
    yield Finding(
        "of one colour, or nearly",
        "Nothing can be seen in them, so their label teaches nothing: remove them.",
        suspects(plain, deviations, lambda deviation: f"contrast {100 * deviation / 255:.1f} %"),
    )
    yield Finding(
        "very dark",
        "Little can be seen in them: look whether a person could tell the class.",
        suspects(~plain & (means < DARK), means, lambda mean: f"brightness {100 * mean / 255:.0f} %"),
    )


def _formats(images: Images) -> Iterator[Finding]:
    kinds: Sequence[tuple[str, str, Callable[[Facts], str | None]]] = [
        ("grey of 12 or 16 bits", "Their range is scaled to that of 8 bits.", _is_deep),
        ("grey of 12 or 16 bits, nearly black", "They use under a sixteenth of their range: scale their values up.",
         lambda facts: "under 1/16 of the range" if facts.dim else None),
        ("CMYK", "Colours of print become RGB by a plain rule, and look a little different from those in a viewer.",
         lambda facts: facts.mode if facts.mode == "CMYK" else None),
        ("animated", "Only the first frame is used.", _is_animated),
        ("turned by EXIF", "They are set upright before training; what reads them otherwise sees them on their side.",
         lambda facts: "turned" if facts.turned else None),
        ("transparent", "They are laid on white; a background that belongs to one class gives the class away.",
         lambda facts: facts.mode if facts.transparent else None),
        ("with a colour profile other than sRGB", "The profile is ignored, so their colours look a little paler.",
         lambda facts: facts.profile or None),
    ]  # fmt: skip
    for what, means, reason in kinds:
        yield _of_files(images, what, means, reason)


def _is_deep(facts: Facts) -> str | None:
    return facts.mode if facts.mode.startswith("I") else None


def _is_animated(facts: Facts) -> str | None:
    """Says of how many frames; a phone's JPEG (MPO) has a second picture for a depth, and does not move."""
    return f"{facts.frames:,} frames" if facts.frames > 1 and facts.format != "MPO" else None


def _of_files(images: Images, what: str, means: str, reason: Callable[[Facts], str | None]) -> Finding:
    """The files of whose facts there is a reason to tell."""
    reasons = {i: said for i, facts in enumerate(images.facts) if (said := reason(facts))}
    return Finding(what, means, [Suspect((images.names[i],), said, (i,)) for i, said in reasons.items()])
