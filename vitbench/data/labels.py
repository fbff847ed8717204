"""Reads a table of labels in place of class folders: `data.labels=labels.csv`, a header and one line per image.

    file,label,split
    2024/may/1.jpg,cat,train
    2024/may/2.jpg,dog,test

The column split may be left out. Paths are relative to `data.root`; the ending of a file may be left out.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vitbench.data.cache import listed
from vitbench.data.layout import TEST, TRAIN, VALIDATION, Layout, check_root, recognise
from vitbench.data.listing import File, SplitFiles, ignored
from vitbench.errors import DataError, did_you_mean
from vitbench.machine.disk import LARGE, read_file
from vitbench.machine.terminal import shown_path

# The known names of columns, in small or capital letters. The first one that a table has is used.
FILE_COLUMNS = (
    "file",
    "filename",
    "file_name",
    "path",
    "filepath",
    "file_path",
    "image",
    "image_path",
    "image_id",
    "id",
)
LABEL_COLUMNS = ("label", "class", "class_name", "target", "category")
SPLIT_COLUMN = "split"
SEPARATORS = ",;\t|"
KINDS = {name: kind for kind, names in (("train", TRAIN), ("test", TEST), ("val", VALIDATION)) for name in names}


class Line(NamedTuple):
    """The content of a line of the table."""

    number: int  # number of the line in the file
    file: str
    label: str
    kind: str | None  # train, test or val; None if the table has no column split


class Table(NamedTuple):
    """The lines of a table of labels, and the names of the columns that they come from."""

    name: str
    file_column: str
    label_column: str
    lines: list[Line]


def layout_of(root: Path, labels: str | None, follow_links: bool) -> Layout:
    """Lists the images below a root, by a table if one is typed, else by its folders.

    Raises DataError if the folder or the table cannot be used, or if the system refuses to read a file.
    """
    try:
        return recognise(root, follow_links) if labels is None else labelled(root, labels, follow_links)
    except OSError as error:
        raise DataError(f"{shown_path(error.filename or root)} cannot be read: {error.strerror}") from None


def labelled(root: Path, typed: str, follow_links: bool) -> Layout:
    """Lists the images that a table names. Raises DataError if it is not a table, or does not fit the files.

    `typed` is a path relative to the root, or to the working folder if the root has no such file.
    """
    check_root(root)
    places = [root / Path(typed).expanduser(), Path(typed).expanduser()]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise DataError(
            f"data.labels={typed}: no such file, neither in data.root={shown_path(root)} nor in the working folder"
        )
    table = read_table(path)
    below = SplitFiles(root, root, follow_links)
    paths = below.scan_all()
    if path.name in below.other_files and path.resolve().is_relative_to(root.resolve()):
        below.other_files.remove(path.name)  # the table itself is not an ignored file
    rows = _rows_of(table, [stamp[0] for stamp in below.stamps], root)
    _check_agreement(table, rows)
    kinds: dict[str | None, list[File]] = defaultdict(list)
    first_lines = {row: line for row, line in reversed(list(zip(rows, table.lines, strict=True)))}
    for row, line in sorted(first_lines.items()):
        kinds[line.kind].append(File(line.label, paths[row], below.stamps[row]))
    return _layout(table, kinds, unnamed=len(paths) - len(first_lines), ignored_files=tuple(ignored(below)))


def _layout(table: Table, kinds: dict[str | None, list[File]], unnamed: int, ignored_files: tuple[str, ...]) -> Layout:
    """Decides which lines are for training and which for testing, by the same rules as for folders."""
    for files in kinds.values():
        files.sort(key=lambda file: file.label)  # the sort is stable: files of a class stay in name order
    columns = f"{table.name}: files in column {table.file_column}, classes in column {table.label_column}"
    notes, test = [columns], None
    if None in kinds:
        train = kinds[None]
    elif not (train := kinds["train"]):
        raise DataError(f"{table.name}: no line has split=train")
    else:
        test = kinds["test"] or kinds["val"] or None
        if kinds["val"]:
            used = "not used: validation images are cut from the training images (data.val_fraction)"
            notes.append(f"lines with split=val are {used if kinds['test'] else 'the test images'}")
    if unnamed:
        notes.append(
            f"{unnamed:,} other image{'s' * (unnamed > 1)} below data.root {'are' if unnamed > 1 else 'is'} left out"
        )
    return Layout(train, test, table.name, ("; ".join(notes),), ignored_files)


def read_table(path: Path) -> Table:
    """Reads a table of labels. Raises DataError if the file is not one."""
    name = shown_path(path.name)
    try:
        file = io.StringIO(read_file(path, LARGE).decode("utf-8-sig"), newline="")
        header = file.readline()
        separator = max(SEPARATORS, key=header.count)
        cells = [cell.strip() for cell in next(csv.reader([header], delimiter=separator), [])]
        file_at, label_at, split_at = _columns(name, cells)
        rows = list(_lines(name, csv.reader(file, delimiter=separator), file_at, label_at, split_at))
    except OSError as error:
        raise DataError(f"data.labels={shown_path(path)} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)
        raise DataError(f"{name} is not a table of labels: {reason}") from None
    if not rows:
        raise DataError(f"{name} has no lines; expected a header, for example file,label, and a line for each image")
    return Table(name, cells[file_at], cells[label_at], rows)


def _columns(name: str, header: Sequence[str]) -> tuple[int, int, int | None]:
    """Returns the positions of the file, the class and the split in a line."""
    if not any(header):
        raise DataError(f"{name} is empty; expected a header, for example file,label")
    plain = [cell.casefold().replace(" ", "_") for cell in header]
    if twice := [cell for cell, uses in Counter(plain).items() if cell and uses > 1]:
        raise DataError(f"{name} has the column {twice[0]} twice")
    split_at = plain.index(SPLIT_COLUMN) if SPLIT_COLUMN in plain else None
    file_at = next((plain.index(known) for known in FILE_COLUMNS if known in plain), None)
    label_at = next((plain.index(known) for known in LABEL_COLUMNS if known in plain), None)
    others = [place for place in range(len(plain)) if place not in (split_at, file_at)]
    if file_at is not None and label_at is None and len(others) == 1:
        label_at = others[0]  # the only other column, such as breed
    for what, place, known_names in (("file", file_at, FILE_COLUMNS), ("label", label_at, LABEL_COLUMNS)):
        if place is None:
            raise DataError(
                f"{name} has no column for the {what}; its columns: {', '.join(map(shown_path, header))}; "
                f"known names of this column: {', '.join(known_names)}"
            )
    assert file_at is not None and label_at is not None
    return file_at, label_at, split_at


def _lines(name: str, reader: Any, file_at: int, label_at: int, split_at: int | None) -> Iterator[Line]:
    """Yields the lines that a reader of the `csv` module gives, without empty ones; the header was line 1."""
    for cells in reader:
        number = reader.line_num + 1
        values = [cell.strip() for cell in cells]
        if not any(values):
            continue
        file, label, split = (
            values[place] if place is not None and place < len(values) else ""
            for place in (file_at, label_at, split_at)
        )
        if not file or not label:
            lacking = "label" if file else "file"
            raise DataError(f"{name}, line {number} has no {lacking}; complete the line or remove it")
        if split_at is not None and split.casefold() not in KINDS:
            remedy = did_you_mean(split.casefold(), KINDS)
            raise DataError(f"{name}, line {number}: split={shown_path(split)}: {remedy}")
        yield Line(number, file, label, KINDS[split.casefold()] if split_at is not None else None)


def _rows_of(table: Table, names: Sequence[str], root: Path) -> list[int]:
    """Returns for each line the index of the file that it names. Raises DataError for files that are missing."""
    by_name = {name: row for row, name in enumerate(names)}
    by_stem: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(names):
        by_stem[os.path.splitext(name)[0]].append(row)
    rows, missing = [], []
    for line in table.lines:
        name = _below(line.file, root)
        candidates = [by_name[name]] if name in by_name else by_stem.get(name, [])
        if len(candidates) > 1:
            files = ", ".join(shown_path(names[row]) for row in candidates)
            raise DataError(f"{table.name}, line {line.number}: {line.file} may be {files}; add its ending")
        rows += candidates
        missing += [] if candidates else [line.file]
    if missing:
        found = next((name for name in names if _plain_end(name) == _plain_end(missing[0])), None)
        hint = f"; there is {shown_path(found)}: paths are relative to data.root" if found else ""
        raise DataError(
            f"{table.name}: {listed(missing, 'row')}: no such image below data.root={shown_path(root)}"
            f"{hint or '; remove these rows, or add the files'}"
        )
    return rows


def _below(written: str, root: Path) -> str:
    """Returns a path of the table relative to the root; Windows writes \\ between folders."""
    path = os.path.normpath(written if "/" in written else written.replace("\\", "/"))
    return os.path.relpath(path, root) if os.path.isabs(path) else path


def _plain_end(name: str) -> str:
    return os.path.splitext(os.path.basename(name))[0]


def _check_agreement(table: Table, rows: Sequence[int]) -> None:
    """Refuses two lines that contradict each other about one file."""
    said: dict[int, Line] = {}
    contradictions = []
    for row, line in zip(rows, table.lines, strict=True):
        first = said.setdefault(row, line)
        if first.label != line.label:
            contradictions.append(f"{line.file} ({first.label}, {line.label})")
        elif first.kind != line.kind:
            raise DataError(
                f"{table.name}: {line.file} is in two splits, lines {first.number} and {line.number}; remove one"
            )
    if contradictions:
        raise DataError(f"{table.name}: two labels for {listed(contradictions, 'file')}; keep one")
