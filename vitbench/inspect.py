"""`vitbench inspect`: says what is wrong with images before hours of training, as text, JSON and a contact sheet."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitbench.data import suspects
from vitbench.data.menu import open_dataset
from vitbench.data.similar import SIDE
from vitbench.data.survey import survey
from vitbench.data.suspects import Finding, Images
from vitbench.data.tolerant import list_images
from vitbench.errors import UserError, check_choice
from vitbench.machine.outputs import check_output, write_output
from vitbench.machine.terminal import shown_path
from vitbench.menu import FROM_1, MOST_PIXELS, check_ranges
from vitbench.numbers import look
from vitbench.numbers.text import align, say
from vitbench.numbers.words import plural, printable
from vitbench.settings.compose import cache_folder
from vitbench.settings.share import source_options

FORMATS = ("text", "json")
SHOWN_CLASSES = 20  # a longer list is shortened to the largest and the smallest classes
INDENT = " " * 4  # indents the sentence below a finding
WIDTH = 110  # such a sentence is wrapped after so many characters


class Inspected(NamedTuple):
    """What was looked at, and what was found."""

    what: str  # the folder, or the name of a public set
    images: Images
    findings: list[Finding]
    paths: Sequence[str] = ()  # N paths; empty where the images are not files
    notes: Sequence[str] = ()  # which files are used for what, and which are ignored


def main(config: Any) -> int:
    from omegaconf import OmegaConf

    options: Any = OmegaConf.to_container(config, resolve=True)
    check_choice("format", options["format"], FORMATS)
    side = FROM_1.up_to(MOST_PIXELS).of("pixels")
    check_ranges({"data.image_size": options["data"]["image_size"]}, {"data.image_size": side})
    file = Path(options["file"]).expanduser() if options["file"] is not None else None
    if file is not None and file.suffix.lower() not in look.FIGURE_ENDINGS:
        raise UserError(f"file={file}: the ending says the format; choices: {', '.join(look.FIGURE_ENDINGS)}")
    if file is not None:
        check_output(file, replace=options["replace"])
    inspected = inspect(options["data"])
    if file is not None:
        from vitbench.data.sheet import contact_sheet

        sheet = contact_sheet(inspected.what, inspected.images, inspected.paths, inspected.findings, file)
        write_output(file, sheet, replace=options["replace"])
    say(as_json(inspected) if options["format"] == "json" else as_text(inspected, file))
    return 0


def inspect(data: dict[str, Any]) -> Inspected:
    """Looks at the images of the settings `data`. Raises DataError where there are none."""
    data = data | {"root": str(Path(data["root"]).expanduser()), "cache": cache_folder(data["cache"])}
    if data["source"] != "imagefolder":
        return _of_set(data)
    listed = list_images(Path(data["root"]), data.get("labels"), data["follow_links"])
    paths = [file.path for file in listed.files]
    seen = survey(paths, [file.stamp for file in listed.files], Path(data["cache"]), progress=True)
    digests = [facts.digest if facts.error is None else "" for facts in seen.facts]
    classes = [shown_path(file.label) for file in listed.files]
    images = Images(listed.names, classes, listed.splits, digests, seen.thumbnails, seen.facts)
    findings = [*suspects.of_folder(listed), *suspects.of_images(images, data["image_size"])]
    found = [one for one in findings if one.suspects]
    return Inspected(shown_path(Path(data["root"])), images, found, paths, listed.notes)


def _of_set(data: dict[str, Any]) -> Inspected:
    """Looks at the images of a public or drawn set, which are not files of the user."""
    from vitbench.data.stored import pixel_digest

    dataset = open_dataset(**source_options(data), progress=True)
    names, classes, splits, digests, thumbnails = [], [], [], [], []
    for name, split in (("train", dataset.train), ("test", dataset.test)):
        pixels = np.asarray(split.images)
        names += [f"{name} image {i}" for i in range(len(pixels))]
        classes += [dataset.classes[label] for label in split.labels]
        splits += [name] * len(pixels)
        digests += [pixel_digest(image).hex() for image in pixels]
        thumbnails.append(_thumbnails(pixels))
    images = Images(names, classes, splits, digests, np.concatenate(thumbnails))
    return Inspected(data["source"], images, [one for one in suspects.of_images(images) if one.suspects])


def _thumbnails(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Shrinks images (N, C, H, H) to (N, 3, 32, 32) by means of pixels; enlarges smaller ones by nearest pixels."""
    factor = max(pixels.shape[-1] // SIDE, 1)
    side = min(pixels.shape[-1], factor * SIDE)
    place = np.arange(SIDE) * side // factor // SIDE
    small = np.empty((len(pixels), 3, SIDE, SIDE), np.uint8)
    for i, image in enumerate(pixels):
        means = image[:, :side, :side].reshape(len(image), side // factor, factor, -1, factor).mean((2, 4))
        small[i] = means[:, place][:, :, place]
    return small


# ------------------------------------------------------------------------------------------------------------- printing


def as_text(inspected: Inspected, file: Path | None = None) -> str:
    """Writes a line for each finding (how many, what, an example) with its meaning below, and the images per class."""
    lines = [_summary(inspected), *map(printable, inspected.notes), ""]
    rows = [[f"{len(one.suspects):,}", one.what, _example(one)] for one in inspected.findings]
    widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
    for (number, what, example), finding in zip(rows, inspected.findings, strict=True):
        lines.append(f"{number:>{widths[0]}}  {what:<{widths[1]}}  {example}")
        lines += textwrap.wrap(finding.means, WIDTH, initial_indent=INDENT, subsequent_indent=INDENT)
    lines += [] if rows else ["nothing suspicious was found"]
    lines += ["", *_class_lines(inspected.images)]
    lines += ["", f"{file}"] if file is not None else []
    return "".join(f"{line}\n" for line in lines)


def as_json(inspected: Inspected) -> str:
    """Writes all findings with every suspicious image, where the text has only an example."""
    report = {
        "inspected": inspected.what,
        "images": len(inspected.images.names),
        "notes": inspected.notes,
        "classes": suspects.counts(inspected.images),
        "findings": [
            {
                "finding": one.what,
                "count": len(one.suspects),
                "means": one.means,
                "suspects": [{"names": suspect.names, "reason": suspect.reason} for suspect in one.suspects],
            }
            for one in inspected.findings
        ],
    }
    return json.dumps(report, indent=1) + "\n"


def _summary(inspected: Inspected) -> str:
    """Says how many images there are, of how many classes, in which splits, and how large they are."""
    images = inspected.images
    line = f"{inspected.what}: {plural(len(images.names), 'image')} in {len({*images.classes}):,} classes"
    splits = {split: images.splits.count(split) for split in dict.fromkeys(images.splits) if split}
    if splits:
        line += f" ({', '.join(f'{number:,} in {split}' for split, number in splits.items())})"
    elif images.facts:
        line += ", not split into training and test images"
    if images.facts and len(images.whole):
        sides = [min(images.facts[i].width, images.facts[i].height) for i in images.whole]
        line += f"; shortest side {min(sides):,} to {max(sides):,} px, median {median(sides):,.0f}"
    return line


def _example(finding: Finding) -> str:
    """Shows the first suspicious image or pair: a.png = b.png (why)."""
    first = finding.suspects[0]
    return " = ".join(map(printable, first.names)) + (f" ({printable(first.reason)})" if first.reason else "")


def _class_lines(images: Images) -> list[str]:
    """Lists how many images each class has, the largest first; of many classes only the largest and the smallest."""
    counts = suspects.counts(images)
    splits = list(next(iter(counts.values())))
    head = ["class", *(splits if len(splits) > 1 else []), "images"]
    rows = []
    for name, numbers in sorted(counts.items(), key=lambda one: -sum(one[1].values())):
        cells = [*numbers.values(), sum(numbers.values())] if len(splits) > 1 else [sum(numbers.values())]
        rows.append([printable(name), *(f"{cell:,}" for cell in cells)])
    if len(rows) > SHOWN_CLASSES:
        half = SHOWN_CLASSES // 2
        rows[half:-half] = [[f"... {len(rows) - 2 * half:,} more", *[""] * (len(head) - 1)]]
    return align([head, *rows], 1)
