"""Lists the images of a folder. Hidden files, system folders and superfluous links are ignored and counted."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from vitbench.data.cache import listed
from vitbench.errors import DataError
from vitbench.machine.terminal import shown_path

IMAGE_ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
JUNK = {"thumbs.db", "desktop.ini"}
# Folders that macOS, Synology, QNAP, NetApp, Windows, Linux and Python create, in small letters. .git, .Trashes and
# others that begin with a dot are hidden anyway.
SYSTEM_FOLDERS = {
    "__macosx",
    "@eadir",
    "#recycle",
    "#snapshot",
    "@recycle",
    "~snapshot",
    "network trash folder",
    "temporary items",
    "$recycle.bin",
    "system volume information",
    "lost+found",
    "__pycache__",
}


class File(NamedTuple):
    """An image file and its class."""

    label: str
    path: str
    stamp: tuple[str, int, int]  # path below the root, bytes, nanoseconds


@dataclass
class SplitFiles:
    """The image files of one split, listed by `scan`. Each file is listed once."""

    folder: Path  # train, test or val, or the root itself
    root: Path
    follow_links: bool
    files: dict[str, list[str]] = field(default_factory=dict)  # class folder -> paths, both in name order
    stamps: list[tuple[str, int, int]] = field(default_factory=list)  # path below root, bytes, nanoseconds
    other_files: list[str] = field(default_factory=list)  # names of files without the ending of an image
    loose: list[str] = field(default_factory=list)  # names of images that lie in no class folder
    system: list[str] = field(default_factory=list)  # names of system folders
    hidden: int = 0
    links: int = 0  # number of links that are ignored, because their targets are read under their own names

    def scan(self) -> SplitFiles:
        """Lists the files. Raises DataError if the split has no classes, or a class no images."""
        self._is_read_anyway(self.folder)  # refuses a folder that is itself a broken link or a link out
        for entry in self._visible(self.folder):
            if entry.is_dir():
                self.files[entry.name] = list(self._walk(entry.path, set()))
            else:
                (self.loose if is_image(entry.name) else self.other_files).append(entry.name)
        if not self.files:
            raise DataError(
                f"{shown_path(self.folder)} holds no class folders; expected {self.folder.name}/<class>/*, "
                "or data.labels=FILE.csv"
            )
        if empty := [shown_path(name) for name, paths in self.files.items() if not paths]:
            endings = " ".join(IMAGE_ENDINGS)
            raise DataError(
                f"{shown_path(self.folder)}: no images in {listed(empty, 'class')} (endings of images: {endings})"
            )
        return self

    def scan_all(self) -> list[str]:
        """Lists all images in the folder and below, whatever their classes; `stamps` are in the same order."""
        self._is_read_anyway(self.folder)
        return list(self._walk(str(self.folder), set()))

    def labelled(self) -> list[File]:
        """Returns the files with their class folders, class by class."""
        paths = [(label, path) for label, of_class in self.files.items() for path in of_class]
        return [File(label, path, stamp) for (label, path), stamp in zip(paths, self.stamps, strict=True)]

    def _walk(self, folder: str, visited: set[tuple[int, int]]) -> Iterator[str]:
        """Yields the paths of the images in a folder and below."""
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in visited:
            return  # links that lead out of the split form a loop
        visited.add((status.st_dev, status.st_ino))
        for entry in self._visible(folder):
            if entry.is_dir():
                yield from self._walk(entry.path, visited)
            elif not is_image(entry.name):
                self.other_files.append(entry.name)
            else:
                status = entry.stat()
                if not stat.S_ISREG(status.st_mode):
                    raise DataError(
                        f"{shown_path(entry.path)} is not an ordinary file, but a pipe, socket or device; remove it"
                    )
                relative = entry.path[len(str(self.root)) + 1 :]  # os.path.relpath takes a second for 100,000 files
                self.stamps.append((relative, status.st_size, status.st_mtime_ns))
                yield entry.path

    def _visible(self, folder: str | Path) -> Iterator[os.DirEntry[str]]:
        """Yields the entries of a folder in name order. Counts hidden and system ones and superfluous links instead."""
        for entry in entries_of(folder):
            if is_hidden(entry.name):
                self.hidden += 1
            elif is_system_folder(entry):
                self.system.append(entry.name)
            elif entry.is_symlink() and self._is_read_anyway(Path(entry.path)):
                self.links += 1
            else:
                yield entry

    def _is_read_anyway(self, link: Path) -> bool:
        """Returns whether a link leads to a part of the split that is read under its own name, or to a parent folder.

        Raises DataError if the link is broken, or if it leads out of the root and `follow_links` is false.
        """
        target = Path(os.path.realpath(link))
        if not os.path.exists(target):
            raise DataError(f"{shown_path(link)} is a broken link (to {shown_path(os.readlink(link))}); remove it")
        if not self.follow_links and not target.is_relative_to(self.root.resolve()):
            raise DataError(
                f"{shown_path(link)} is a link out of data.root, to {shown_path(target)}; set data.follow_links=true to"
                " read it"
            )
        split = self.folder.resolve()
        if target.is_relative_to(split):
            return not any(part.startswith(".") for part in target.relative_to(split).parts)
        return split.is_relative_to(target)


def is_image(name: str) -> bool:
    """Returns whether a file is an image by the ending of its name."""
    return name.lower().endswith(IMAGE_ENDINGS)


def is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in JUNK


def is_system_folder(entry: os.DirEntry[str]) -> bool:
    """Returns whether a folder is one that an operating system creates for itself."""
    return is_systems_name(entry.name) and entry.is_dir()


def is_systems_name(name: str) -> bool:
    return name.lower() in SYSTEM_FOLDERS


def entries_of(folder: str | Path) -> list[os.DirEntry[str]]:
    """Returns the entries of a folder in name order."""
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def plain_name(name: str) -> str:
    """Returns a name without differences that people, file systems and tables ignore: case, spaces, Unicode form."""
    return " ".join(unicodedata.normalize("NFKC", shown_path(name)).casefold().split())


def colliding(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Returns groups of different names that have the same `plain_name`."""
    by_plain_name: dict[str, dict[str, None]] = defaultdict(dict)
    for name in names:
        by_plain_name[plain_name(name)][name] = None
    return [tuple(group) for group in by_plain_name.values() if len(group) > 1]


def ignored(*splits: SplitFiles) -> Iterator[str]:
    """Yields a warning for each kind of file that is not read."""
    hidden, links = sum(split.hidden for split in splits), sum(split.links for split in splits)
    system, loose, other_files = (
        [shown_path(name) for split in splits for name in getattr(split, kind)]
        for kind in ("system", "loose", "other_files")
    )
    if hidden:
        yield f"ignored {hidden:,} hidden file{'s' * (hidden > 1)}"
    if system:
        names = ", ".join(dict.fromkeys(system))  # often there is one in every class
        yield f"ignored {len(system):,} system folder{'s' * (len(system) > 1)}: {names}"
    if links:
        yield f"ignored {links:,} link{'s' * (links > 1)} to images or folders that are read anyway"
    if loose:
        yield f"ignored {listed(loose, 'image')} (in no class folder)"
    if other_files:
        yield f"ignored {listed(other_files, 'file')} (without the ending of an image)"
