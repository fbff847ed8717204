"""Finds out which folders of `data.root` hold training images and which hold test images, by their usual names.

    root/<class>/*                              no split: `holdout.py` makes one
    root/train/<class>/*                        no split, either
    root/train/<class>/*  root/test/<class>/*   a split; the test folder may also be val, valid or validation

A test folder without class folders, as some competitions have it, is not used. If there is a test folder, a folder val
is not used: validation images are always taken from the training images.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from vitbench.data.cache import listed
from vitbench.data.listing import (
    File,
    SplitFiles,
    entries_of,
    ignored,
    is_hidden,
    is_image,
    is_system_folder,
    is_systems_name,
)
from vitbench.errors import DataError
from vitbench.machine.terminal import shown_path

# The known names of folders, and of the values in the column split of a table, in small or capital letters. Earlier
# names come first.
TRAIN = ("train", "training")
TEST = ("test", "testing")
VALIDATION = ("val", "valid", "validation")
EXPECTED = "expected <class>/*, or train/<class>/* and test/<class>/* (or val/<class>/*), or data.labels=FILE.csv"


class Layout(NamedTuple):
    """The files of a data set. `test` is None if they have no split."""

    train: list[File]
    test: list[File] | None
    where: str  # where the training images are: "class folders" of the root, train/, labels.csv
    notes: tuple[str, ...] = ()  # lines about what is used for what, if it is not obvious
    ignored: tuple[str, ...] = ()  # warnings about files that are not read


def recognise(root: Path, follow_links: bool) -> Layout:
    """Lists the images below a root. Raises DataError if no layout fits, or more than one."""
    check_root(root)
    folders = _subfolders(root)
    train, tests, validations = (_named(folders, names) for names in (TRAIN, TEST, VALIDATION))
    others = [name for name in folders if name not in train + tests + validations]
    if others and train and not _subfolders(root / train[0]) and _holds_images(root / train[0]):
        others += train  # the class train, beside bus and car
        train = []
    if train:
        return _split(root, train[0], [*tests, *validations], [*train[1:], *others], follow_links)
    if not others:
        missing = "folder train" if tests or validations else "class folders"
        parent = root.absolute().parent
        classes = [name for name in _subfolders(parent) if _holds_images(parent / name)]
        is_class = root.name in classes and len(classes) > 1 and not (tests or validations)
        hint = f"is it one of the classes of data.root={shown_path(parent)}?" if is_class else EXPECTED
        raise DataError(f"data.root={shown_path(root)}: has no {missing}; {hint}")
    if beside := tests + validations:
        raise DataError(
            f"data.root={shown_path(root)}: has {listed(others, 'class folder')} beside {beside[0]}/; put "
            f"{'it' if len(others) == 1 else 'them'} into train/, or move {beside[0]}/ out of data.root"
        )
    plain = SplitFiles(root, root, follow_links).scan()
    if len(plain.files) == 1 and _subfolders(only := root / next(iter(plain.files))):
        raise DataError(
            f"data.root={shown_path(root)}: there is only one class, {only.name}; if its folders are the classes, type "
            f"data.root={only}"
        )
    return Layout(plain.labelled(), None, f"{len(plain.files):,} class folders", (), tuple(ignored(plain)))


def check_root(root: Path) -> None:
    """Refuses a root that is not a folder."""
    if not root.exists():
        raise DataError(f"data.root={shown_path(root)}: no such folder; {EXPECTED}")
    if not root.is_dir():
        raise DataError(f"data.root={shown_path(root)}: is a file, not a folder; {EXPECTED}")


def _split(root: Path, train: str, candidates: list[str], others: list[str], follow_links: bool) -> Layout:
    """Returns the layout with a folder of training images. The test images are in the best one of `candidates`."""
    classes = {*_subfolders(root / train)}
    with_classes = [name for name in candidates if _subfolders(root / name)]
    labelled = [name for name in with_classes if any(_holds_images(root / name / a) for a in _subfolders(root / name))]
    alike = [name for name in labelled if classes & {*_subfolders(root / name)}]
    test = next(iter([*alike, *labelled, *with_classes]), None)  # one of with_classes is refused later: it is empty
    unused = []
    for name in candidates:
        if name not in with_classes:
            unused.append(f"{name}/ holds no class folders and is not used")
        elif name != test and name not in labelled:
            unused.append(f"{name}/ holds no images in its class folders and is not used")
        elif name != test:
            unused.append(f"{name}/ is not used")
    beside = [name for name in others if _holds_images(root / name)]
    if test is None:
        if beside:
            raise DataError(
                f"data.root={shown_path(root)}: {train}/ holds folders and lies beside {listed(beside, 'folder')}; if "
                f"{train}/ is itself a class, rename it; if it holds the classes, type data.root={root / train}"
            )
        train_files = SplitFiles(root / train, root, follow_links).scan()
        notes = ("; ".join(unused),) if unused else ()
        return Layout(train_files.labelled(), None, f"{train}/", notes, tuple(ignored(train_files)))
    if beside:
        unused.append(f"{listed(beside, 'other folder')}, {'is' if len(beside) == 1 else 'are'} not used")
    splits = [SplitFiles(root / name, root, follow_links).scan() for name in (train, test)]
    told = []
    if unused or test.casefold() not in TEST:
        told = [f"{train}/ holds the training images, {test}/ the test images", *unused]
        if any(name.casefold() in VALIDATION for name in candidates):
            told.append("validation images are cut from the training images (data.val_fraction)")
    notes = ("; ".join(told),) if told else ()
    return Layout(splits[0].labelled(), splits[1].labelled(), f"{train}/", notes, tuple(ignored(*splits)))


def _subfolders(folder: Path) -> list[str]:
    """Returns the names of the folders in a folder in name order, without hidden and system folders."""
    return [
        entry.name
        for entry in entries_of(folder)
        if entry.is_dir() and not is_hidden(entry.name) and not is_system_folder(entry)
    ]


def _named(folders: list[str], names: tuple[str, ...]) -> list[str]:
    """Returns the folders with one of these names, in the order of `names`; those in small letters come first."""
    found = [name for name in folders if name.casefold() in names]
    return sorted(found, key=lambda name: (name != name.casefold(), names.index(name.casefold())))


def _holds_images(folder: Path) -> bool:
    """Returns whether there are images in a folder or below it, without hidden files and system folders."""
    for _, below, names in os.walk(folder):
        below[:] = [name for name in below if not is_hidden(name) and not is_systems_name(name)]
        if any(is_image(name) and not is_hidden(name) for name in names):
            return True
    return False
