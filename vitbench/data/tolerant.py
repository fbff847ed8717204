"""Lists all image files of a folder, even of one that training refuses, and the reasons for which it is refused.

Training stops at the first mistake (vitbench/data/layout.py). The functions here continue, and collect all mistakes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from vitbench.data.labels import layout_of
from vitbench.data.layout import TEST, TRAIN, VALIDATION, Layout
from vitbench.data.listing import File, SplitFiles, entries_of, ignored, is_image
from vitbench.errors import DataError
from vitbench.machine.terminal import shown_path


@dataclass
class Listed:
    """The image files of a folder."""

    files: list[File] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)  # the split of each file: train, val, test; "" if there is none
    notes: list[str] = field(default_factory=list)  # lines about what is used for what, and what is ignored
    refused: list[str] = field(default_factory=list)  # the reasons for which training refuses the folder or a file
    empty: list[str] = field(default_factory=list)  # class folders without images, relative to the root

    @property
    def names(self) -> list[str]:
        """The names of the files as they are shown: their paths relative to the root."""
        return [shown_path(file.stamp[0]) for file in self.files]


def list_images(root: Path, labels: str | None = None, follow_links: bool = False) -> Listed:
    """Lists the images that training would use, or all images if training refuses the folder.

    Raises DataError if there is no such folder, if it holds no image, or if a table of labels does not fit.
    """
    root = root.absolute()
    try:
        return _of_layout(layout_of(root, labels, follow_links))
    except DataError as error:
        found = _all_images(root, follow_links) if labels is None and os.path.isdir(root) else Listed()
        if not found.files:
            raise
        if not found.refused and not found.empty:
            found.refused = [str(error)]
        return found


def _of_layout(layout: Layout) -> Listed:
    notes = [*layout.notes, *layout.ignored]
    if layout.test is None:
        return Listed(layout.train, [""] * len(layout.train), notes)
    splits = ["train"] * len(layout.train) + ["test"] * len(layout.test)
    return Listed([*layout.train, *layout.test], splits, notes)


def _all_images(root: Path, follow_links: bool) -> Listed:
    """Lists the files of train/, val/, test/ ..., and of class folders if there is no train/, whatever else is wrong.

    Class folders beside test/ count as a split.
    """
    names: list[str] = []
    with suppress(OSError):  # the caller already has an error about it
        usual = {*TRAIN, *VALIDATION, *TEST}
        names = [entry.name for entry in entries_of(root) if entry.name.casefold() in usual and entry.is_dir()]
    splits = {name: name for name in names}
    if not any(name.casefold() in TRAIN for name in names):
        splits[""] = "class folders" if names else ""
    found, scanned = Listed(), []
    for name, shown in splits.items():
        split = _Tolerant(root / name, root, follow_links, apart=[] if name else names).scan()
        files = split.labelled()
        found.files += files
        found.splits += [shown] * len(files)
        found.refused += split.refused
        found.empty += [shown_path(os.path.join(name, folder)) for folder, paths in split.files.items() if not paths]
        scanned.append(split)
    found.notes = [*ignored(*scanned)]
    return found


@dataclass
class _Tolerant(SplitFiles):
    """Lists a split, and collects messages where `SplitFiles` raises an error."""

    refused: list[str] = field(default_factory=list)
    apart: list[str] = field(default_factory=list)  # folders in it that are splits themselves

    def scan(self) -> _Tolerant:
        with suppress(DataError):  # the caller sees that there is no class, or a class without images
            super().scan()
        return self

    def _visible(self, folder: str | Path) -> Iterator[os.DirEntry[str]]:
        try:
            entries = [*super()._visible(folder)]
        except OSError as error:
            self.refused.append(f"{shown_path(folder)} cannot be read: {error.strerror}")
            return
        for entry in entries:
            if folder == self.folder and entry.name in self.apart:
                continue
            if is_image(entry.name) and not entry.is_dir() and not entry.is_file():
                self.refused.append(
                    f"{shown_path(entry.path)} is not an ordinary file, but a pipe, socket or device; remove it"
                )
            else:
                yield entry

    def _is_read_anyway(self, link: Path) -> bool:
        try:
            return super()._is_read_anyway(link)
        except DataError as error:
            self.refused.append(str(error))
            return True
