"""Finds what is suspicious about images before training: damage, unusual formats, duplicates, names, balance."""

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

DARK = 20  # an image with a smaller mean, of 0 to 255, is very dark
ONE_COLOUR = 3  # an image with a smaller standard deviation, of 0 to 255, shows nothing
FAR_SMALLER = 0.5  # an image is far smaller than the others below this share of the median shorter side
UNBALANCED = 3  # a class has few images if the largest class has this many times as many
CHUNK = 4096  # number of thumbnails that are measured at a time


@dataclass(frozen=True)
class Images:
    """The N images that are inspected, and the facts about their files if they come from files."""

    names: list[str]  # N
    classes: list[str]  # N, as they are shown
    splits: list[str]  # N: train, test ...; empty texts if there are no splits
    digests: list[str]  # N, equal for equal files or pixels; an empty text if an image cannot be read
    thumbnails: NDArray[np.uint8]  # (N, 3, 32, 32)
    facts: list[Facts] = field(default_factory=list)  # N, or none if the images do not come from files

    @property
    def whole(self) -> NDArray[np.int64]:
        """The numbers of the images that can be read."""
        return np.array([i for i in range(len(self.names)) if not self.facts or self.facts[i].error is None], np.int64)


class Suspect(NamedTuple):
    """A suspicious image, pair of images or name, and the reason."""

    names: tuple[str, ...]
    reason: str = ""
    images: tuple[int, ...] = ()  # numbers of the images; none if only names are suspicious


class Finding(NamedTuple):
    """All that is suspicious for one reason."""

    what: str
    means: str  # what it means for training, in a sentence
    suspects: list[Suspect]  # the most suspicious first


def of_folder(listed: Listed) -> Iterator[Finding]:
    """Yields findings about the names of folders and files, before a file is opened."""
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
        "Their names differ only in case, spaces or Unicode form, and training refuses them: rename or join them.",
        [Suspect(tuple(map(shown_path, group))) for group in colliding(folders)],
    )
    in_folders = defaultdict(list)
    for file in listed.files:
        folder, _, name = file.stamp[0].rpartition("/")
        in_folders[folder].append(name)
    yield Finding(
        "files whose names collide",
        "Their names differ only in case, spaces or Unicode form: on some systems, one file replaces the other.",
        [
            Suspect(tuple(shown_path(f"{folder}/{name}") for name in group))
            for folder, names in in_folders.items()
            for group in colliding(names)
        ],
    )


def of_images(images: Images, image_size: int | None = None) -> Iterator[Finding]:
    """Yields findings about the images; `image_size` is the width in pixels at which the network would get them."""
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
    """Returns the number of images of each class, in name order, in each split; 0 if a class has none there."""
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
        "Training refuses them: a class needs training images and test images.",
        lacking,
    )
    alone = [Suspect((name,)) for name in by_class if len(by_class) == 1]
    yield Finding("only one class", "A classifier needs two or more classes.", alone)
    readable = Counter(images.classes[i] for i in images.whole)
    yield Finding(
        "classes with a single image",
        "Training refuses them: one image cannot be both a training and a test image. Add images or remove the class.",
        [Suspect((name,)) for name in by_class if readable[name] == 1 and not any(images.splits)],
    )
    totals = {name: sum(numbers.values()) for name, numbers in by_class.items()}
    most, fewest = max(totals.values()), min(totals.values())
    rare = sorted((number, name) for name, number in totals.items() if most >= UNBALANCED * number)
    yield Finding(
        "classes with few images",
        f"The largest class has {most / fewest:.1f} times the images of the smallest. A network that mostly predicts "
        "large classes then looks accurate and is not: look at the accuracy of each class.",
        [Suspect((name,), f"{number:,}, the largest has {most:,}") for number, name in rare],
    )


# -------------------------------------------------------------------------------------------------------------- copies


def _copies(images: Images) -> Iterator[Finding]:
    """Yields findings about pairs of equal or nearly equal images. Each pair is in the first finding that fits."""
    first: dict[str, int] = {}
    exact = [
        (earlier, i)
        for i, digest in enumerate(images.digests)
        if digest and (earlier := first.setdefault(digest, i)) != i
    ]
    found: list[list[int]] = similar_pairs(images.thumbnails, images.whole).tolist()
    near = [(i, j) for i, j in found if images.digests[i] != images.digests[j]]

    def pairs(chosen: Iterable[tuple[int, int]], reason: str) -> list[Suspect]:
        """Returns one suspect for each image that is the second of a pair."""
        partner: dict[int, int] = {}
        for i, j in chosen:
            partner.setdefault(j, i)
        return [Suspect((images.names[i], images.names[j]), reason, (i, j)) for j, i in partner.items()]

    def sorted_out(all_pairs: list[tuple[int, int]]) -> tuple[list[tuple[int, int]], ...]:
        """Divides the pairs into those in two classes, those in two splits, and the others."""
        kinds: tuple[list[tuple[int, int]], ...] = [], [], []
        for i, j in all_pairs:
            of_two_classes, of_two_splits = images.classes[i] != images.classes[j], images.splits[i] != images.splits[j]
            kinds[0 if of_two_classes else 1 if of_two_splits else 2].append((i, j))
        return kinds

    (wrong, leaked, copies), (nearly_wrong, nearly_leaked, near_copies) = sorted_out(exact), sorted_out(near)
    yield Finding(
        "the same image in two classes",
        "One of the two labels is wrong, and they contradict each other in training: keep the right one.",
        pairs(wrong, "the same"),
    )
    yield Finding(
        "the same image in two splits",
        "The network is tested on an image that it has seen, so the accuracy is too high: remove one of the two.",
        pairs(leaked, "the same"),
    )
    yield Finding(
        "nearly the same image in two classes",
        "Look at them: either a label is wrong, or the classes differ in small details.",
        pairs(nearly_wrong, "nearly the same"),
    )
    yield Finding(
        "nearly the same image in two splits",
        "Scaled or compressed copies and photographs of a burst make the accuracy too high: keep them in one split.",
        pairs(nearly_leaked, "nearly the same"),
    )
    yield Finding(
        "copies of another file",
        "Training sees them more often than other images, and there are fewer different images than files.",
        pairs(copies, "the same"),
    )
    yield Finding(
        "near-copies of another file",
        "There are fewer different images than files; a random split would put some of them on both sides.",
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
        "They are enlarged and look blurred: a network may learn the blur instead of the class.",
        [Suspect((images.names[i],), f"{sides[i][0]:,} x {sides[i][1]:,} px", (i,)) for _, i in small],
    )
    lost = {i: 1 - min(pair) / max(pair) for i, pair in sides.items() if pair[0] != pair[1]}
    usual = median(lost.values()) if lost else 0.0
    yield Finding(
        "not square",
        f"They are {100 * len(lost) / max(len(sides), 1):.0f} % of the images. With data.fit=crop, half of them lose "
        f"{100 * usual:.0f} % of their area or more; data.fit=pad and data.fit=squash keep the whole image.",
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
        "Nothing can be seen in them, so a network cannot learn their class: remove them.",
        suspects(plain, deviations, lambda deviation: f"contrast {100 * deviation / 255:.1f} %"),
    )
    yield Finding(
        "very dark",
        "Little can be seen in them: check whether a person could tell the class.",
        suspects(~plain & (means < DARK), means, lambda mean: f"brightness {100 * mean / 255:.0f} %"),
    )


def _formats(images: Images) -> Iterator[Finding]:
    kinds: Sequence[tuple[str, str, Callable[[Facts], str | None]]] = [
        ("grey of 12 or 16 bits", "Their range is scaled to that of 8 bits.", _is_deep),
        ("grey of 12 or 16 bits, nearly black", "They use at most 1/16 of their range: scale their values up.",
         lambda facts: "at most 1/16 of the range" if facts.dim else None),
        ("CMYK", "Print colours are converted to RGB by a simple rule and may look different from those in a viewer.",
         lambda facts: facts.mode if facts.mode == "CMYK" else None),
        ("animated", "Only the first frame is used.", _is_animated),
        ("turned by EXIF", "They are set upright before training; programs that ignore EXIF show them on their side.",
         lambda facts: "turned" if facts.turned else None),
        ("transparent", "They get a white background; if only one class has it, it gives the class away.",
         lambda facts: facts.mode if facts.transparent else None),
        ("with a colour profile other than sRGB", "The profile is ignored, so their colours may look a little paler.",
         lambda facts: facts.profile or None),
    ]  # fmt: skip
    for what, means, reason in kinds:
        yield _of_files(images, what, means, reason)


def _is_deep(facts: Facts) -> str | None:
    return facts.mode if facts.mode.startswith("I") else None


def _is_animated(facts: Facts) -> str | None:
    """Returns the number of frames as text. A phone's JPEG (MPO) has several pictures but is not animated."""
    return f"{facts.frames:,} frames" if facts.frames > 1 and facts.format != "MPO" else None


def _of_files(images: Images, what: str, means: str, reason: Callable[[Facts], str | None]) -> Finding:
    """Returns the finding about all files for whose facts `reason` returns a text."""
    reasons = {i: said for i, facts in enumerate(images.facts) if (said := reason(facts))}
    return Finding(what, means, [Suspect((images.names[i],), said, (i,)) for i, said in reasons.items()])
