"""Classifies images by the network of a run: `vitbench predict run=ID images=FOLDER|FILE [file=predictions.csv]`.

It writes a line of CSV for each image: file, class, probability, problem, and with `probabilities=all` the probability
of each class. Files are decoded like those of `data=imagefolder`. A file that cannot be read gets a line without a
class that says why, and the exit code is then 3.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitbench.data.decode import mapped
from vitbench.data.listing import IMAGE_ENDINGS, SplitFiles
from vitbench.errors import DataError, UserError, check_choice
from vitbench.machine.outputs import check_output, write_output
from vitbench.machine.progress import progress
from vitbench.machine.terminal import shown_path
from vitbench.numbers.text import csv_text, say
from vitbench.numbers.words import plural
from vitbench.runs.record import Record
from vitbench.using.network import Network, find_classifier, fit_of, load_network, pixels_of

PROBABILITIES = ("top", "all")
DECODED = 512  # so many images are in memory at a time
PIECE = 64  # a process decodes so many at a time
BATCH = 64  # the network sees so many at a time

Pixels = NDArray[np.uint8]  # (C,H,W)


def main(config: Any) -> int:
    """Returns 0, or 3 where some files could not be read."""
    from omegaconf import OmegaConf

    asked: Any = OmegaConf.to_container(config, resolve=True)
    show_all = check_choice("probabilities", str(asked["probabilities"]), PROBABILITIES) == "all"
    target = None if asked["file"] is None else Path(asked["file"]).expanduser()
    if target is not None and target.suffix.lower() != ".csv":
        raise UserError(f"file={asked['file']}: must end in .csv")
    if target is not None:
        check_output(target, replace=asked["replace"])
    folder, record = find_classifier(asked["runs"], asked["run"])
    paths = files_of(asked["images"])
    network = load_network(folder, record, asked["machine"])
    classes = [_text(name) for name in record["classes"]]
    head = ["file", "class", "probability", "problem"]
    texts = [csv_text([[*head, *(f"probability.{name}" for name in classes)] if show_all else head])]
    if target is None:
        say(texts[0])
    problems: list[str] = []
    with progress("predicting", len(paths), "images", asked["machine"]["progress"]) as bar:
        done = 0
        for block in predicted(network, record, paths):
            lines = [line(path, given, classes, show_all) for path, given in block]
            problems += [f"{shown_path(path)} ({given})" for path, given in block if isinstance(given, str)]
            texts.append(csv_text(lines))
            if target is None:
                say(texts.pop())
                sys.stdout.flush()
            done += len(block)
            bar.update(done)
    if target is not None:
        write_output(target, "".join(texts).encode("utf-8", "backslashreplace"), replace=asked["replace"])
        say(f"{target}\n")
    if problems:
        of = f"{len(problems):,} of {plural(len(paths), 'image')}"
        print(f"vitbench: {of} could not be read; the first is {problems[0]}", file=sys.stderr)
        return DataError.exit_code
    return 0


def files_of(typed: str | None) -> list[str]:
    """Returns the images of a folder and of those within it, sorted by name, or the one file that was typed.

    Raises DataError where there is no image.
    """
    if typed is None or not str(typed).strip():
        raise UserError("images= is missing; type a folder of images, or one file")
    path = Path(str(typed)).expanduser()
    if not path.exists():
        raise DataError(f"images={shown_path(str(typed))}: no such file or folder")
    if not path.is_dir():
        return [str(path)]
    try:
        paths = SplitFiles(path, path, follow_links=True).scan_all()
    except OSError as error:
        raise DataError(f"{shown_path(error.filename or path)} cannot be read: {error.strerror}") from None
    if not paths:
        raise DataError(f"images={shown_path(str(typed))}: has no images; their names end in {' '.join(IMAGE_ENDINGS)}")
    return paths


def predicted(
    network: Network, record: Record, paths: Sequence[str]
) -> Iterator[list[tuple[str, NDArray[np.float32] | str]]]:
    """Yields blocks of files in their order, each file with its probabilities (K,) or the reason why it cannot be
    read."""
    channels = record["channels"]
    read = partial(_read, size=record["image_size"], channels=channels, fit=fit_of(record))
    blocks = [paths[first : first + DECODED] for first in range(0, len(paths), DECODED)]
    with mapped(None, len(paths) // DECODED + 1) as map_pieces:
        for block in blocks:
            pieces = [block[first : first + PIECE] for first in range(0, len(block), PIECE)]
            given: list[Any] = [each for piece in map_pieces(read, pieces) for each in piece]
            whole = [place for place, each in enumerate(given) if not isinstance(each, str)]
            for first in range(0, len(whole), BATCH):
                places = whole[first : first + BATCH]
                logits = network.logits(np.stack([given[place] for place in places]))
                for place, probabilities in zip(places, logits.softmax(1).numpy(), strict=True):
                    given[place] = probabilities
            yield [*zip(block, given, strict=True)]


def _read(paths: Sequence[str], *, size: int, channels: int, fit: str) -> list[Pixels | str]:
    """Returns the pixels of each file, or the reason why it cannot be read."""
    read: list[Pixels | str] = []
    for path in paths:
        try:
            read.append(pixels_of(path, size, channels, fit))
        except (ValueError, DataError) as error:
            read.append(str(error))
    return read


def line(path: str, given: NDArray[np.float32] | str, classes: Sequence[str], show_all: bool) -> list[str]:
    """Returns the cells of a file. `given` has the probabilities (K,), or the reason why there are none."""
    name = shown_path(path)
    name = f"./{name}" if name[:1] in "=+-@" else name  # otherwise a spreadsheet would read it as a formula
    if isinstance(given, str):
        return [name, "", "", given, *([""] * len(classes) if show_all else [])]
    best = int(given.argmax())
    every = [f"{p:.6f}" for p in given] if show_all else []
    return [name, classes[best], f"{given[best]:.6f}", "", *every]


def _text(name: str) -> str:
    """Writes a class's name so that no spreadsheet reads it as a formula."""
    return f"'{name}" if name[:1] in "=+-@\t\r" else name
