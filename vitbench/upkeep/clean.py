"""`vitbench clean`: lists what can be deleted, and deletes it only with `remove=true`.

    what=caches     decoded images that no run in runs= was trained on or trains on, and that no sweep asked for
    what=surveys    what `inspect` and splits found out about folders of images
    what=features   features that `vitbench features` computed
    what=failed     runs that failed, or were killed, and have no record
    what=temporary  files that killed processes left half-written
    what=damaged    what `vitbench check repair=true` moved aside, into .damaged/

It deletes only files with names that vitbench gives, one by one, and only folders that are then empty. So even
`runs=~` loses nothing else. Links are not followed. A run with a record stays, even if the record is damaged. So does
what a process holds, and what was written to within `days=1`.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from vitbench.errors import StorageError, TryAgain, UserError, check_choice
from vitbench.machine.locks import is_held, lock_errors
from vitbench.menu import Range, check_ranges
from vitbench.numbers.text import say
from vitbench.numbers.words import plural, printable
from vitbench.runs.run import Run
from vitbench.settings.compose import cache_folder, read_yaml
from vitbench.upkeep.finding import spoken_bytes
from vitbench.upkeep.needed import HEADER_NAME, Needs, is_header
from vitbench.upkeep.printing import Line, print_lines

FORMATS = ("text", "json")
ASIDE = ".damaged"  # `vitbench check` puts damaged files there
DAY = 86_400  # seconds
RUN_NAME = re.compile(r"[\w.-]+-[0-9a-f]{8}")
RUN_FILES = re.compile(
    r"config\.yaml|metrics\.csv|failure\.json|(state|checkpoint)(\.\w+)?\.safetensors(\.damaged)?"
    r"|record\.damaged\.json|\.lock|\.holder\.json|\.wandb\.json|events\.out\.tfevents\..+"
    r"|(predictions|labels|probabilities)\.npy|\..+\.\d+\.tmp"
)
LOCKS = (".lock", ".holder.json")  # a process that claims a run removes these itself
SURVEY = re.compile(r"[0-9a-f]{16}(\.alike[\d.]+)?\.npz")
FEATURES = re.compile(r".+-[0-9a-f]{16}\.safetensors")
READ_AGAIN = (".npy", ".npz", ".safetensors")  # for these files of the cache, reading counts like writing
# a process writes a file under such a name, which has the number of the process, and then renames it
TEMPORARY = re.compile(
    r"\..+\.(?:json|csv|md|tex|svg|yaml|npz|npy|safetensors|txt)\.(\d+)\.tmp"
    r"|[\w-]+-[0-9a-f]{16}(?:-files)?\.(\d+)\.(?:npy|json)\.part"
)

UNPACKED = re.compile(r"\.merge\.\w+\.(\d+)\.tmp")  # a folder of `vitbench merge` (vitbench/runs/merge.py)


class Item(NamedTuple):
    """Something that can be deleted."""

    what: str  # one of FINDERS
    path: Path  # a file, a run's folder, or the header of a set of images
    files: list[Path]
    size: int  # bytes
    why: str  # what it is, or why it can be deleted


class Places(NamedTuple):
    """The folders that are cleaned."""

    runs: Path
    results: Path
    cache: Path


def main(config: Any) -> int:
    """Lists what can be deleted, and with `remove` deletes it. Returns 0, or 4 where something could not be deleted."""
    from omegaconf import OmegaConf

    asked: Any = OmegaConf.to_container(config, resolve=True)
    check_choice("format", asked["format"], FORMATS)
    check_ranges(asked, {"days": Range("0 or more", lambda days: days >= 0)})
    typed = [*FINDERS] if asked["what"] is None else asked["what"]
    what = [check_choice("what", str(word), FINDERS) for word in (typed if isinstance(typed, list) else [typed])]
    runs, results = (Path(asked[key]).expanduser() for key in ("runs", "results"))
    places = Places(runs, results, Path(cache_folder(asked["data"]["cache"])))
    found = [item for word in what for item in FINDERS[word](places)]
    old = time.time() - asked["days"] * DAY
    items = [item for item in found if asked["days"] == 0 or newest(item.files) <= old]
    problems = [problem for item in items if (problem := remove(item))] if asked["remove"] else []
    if asked["format"] == "json":
        say(_json(items, asked["remove"], problems))
    else:
        _print(items, len(found) - len(items), len(problems), asked)
    for problem in problems:
        print(f"vitbench: {printable(problem)}", file=sys.stderr)
    return StorageError.exit_code if problems else 0


def newest(files: Iterable[Path]) -> float:
    """Returns when a file was last written or read, in seconds since the epoch, as far as the disk notes it."""
    times = [0.0]
    for file in files:
        with suppress(OSError):
            status = os.lstat(file)
            times.append(max(status.st_mtime, status.st_atime if file.suffix in READ_AGAIN else 0))
    return max(times)


# ------------------------------------------------------------------------------------------------------- what can go


def caches(places: Places) -> Iterator[Item]:
    """Yields sets of decoded images that no run in runs= needs."""
    headers = [path for path in regular(places.cache, typed=True) if HEADER_NAME.fullmatch(path.name)]
    if not headers:
        return
    needs = Needs.of(places.runs)
    for header in headers:
        lock, images = header.with_suffix(".lock"), header.with_suffix(".npy")
        if not is_held(lock) and (about := is_header(header)) is not None and not needs.has(header.stem, about):
            files = [header, *([images] if is_regular(images) else [])]
            count, side = about["shape"][0], about["shape"][-1]
            why = f"{plural(count, 'image')} of {side} px"
            yield Item("caches", header, files, size_of(files), why)


def surveys(places: Places) -> Iterator[Item]:
    """Yields what was found out about folders of images, such as which images are near-duplicates of each other."""
    return _of_cache("surveys", places, SURVEY)


def features(places: Places) -> Iterator[Item]:
    """Yields files of features of frozen networks."""
    return _of_cache("features", places, FEATURES)


def _of_cache(what: str, places: Places, name: re.Pattern[str]) -> Iterator[Item]:
    for path in regular(places.cache / what):
        if name.fullmatch(path.name):
            yield Item(what, path, [path], size_of([path]), "a file")


def failed(places: Places) -> Iterator[Item]:
    """Yields runs without a record that no process holds."""
    for folder in folders(places.runs, typed=True):
        if not RUN_NAME.fullmatch(folder.name) or os.path.lexists(folder / "record.json"):
            continue
        files = files_of_run(folder)
        if files is None or is_held(folder / ".lock"):
            continue
        run = Run(folder, {})
        if why := run.failure():
            told = f"failed: {printable(why)[:200]}"
        elif step := run.saved_step():
            told = f"killed or stopped; its command would continue from step {step:,}"
        else:
            told = "killed or stopped before it saved anything"
        yield Item("failed", folder, files, size_of(files), told)


def files_of_run(folder: Path) -> list[Path] | None:
    """Returns the files of a run without a record; None where the folder has anything that vitbench did not write."""
    try:
        with os.scandir(folder) as entries:
            files = [Path(entry) for entry in entries if entry.is_file(follow_symlinks=False)]
            others = len(os.listdir(folder)) - len(files)
        config = read_yaml(folder / "config.yaml")
    except (OSError, UserError):
        return None
    ours = all(RUN_FILES.fullmatch(file.name) for file in files) and {"seed", "model", "data", "optim"} <= config.keys()
    return sorted(files) if ours and not others else None


def temporary(places: Places) -> Iterator[Item]:
    """Yields half-written files of processes that have ended."""
    beside = [places.runs / ".plans", *(places.cache / name for name in ("costs", "features", "surveys"))]
    beside += [folder for folder in folders(places.results, typed=True) if is_regular(folder / "runs.csv")]
    for folder in [places.cache, *beside]:
        for path in regular(folder, typed=folder == places.cache):
            named = TEMPORARY.fullmatch(path.name)
            if named and not is_alive(int(named[1] or named[2])):
                yield Item("temporary", path, [path], size_of([path]), "a file")
    for folder in hidden_folders(places.runs):
        if (named := UNPACKED.fullmatch(folder.name)) and not is_alive(int(named[1])):
            files = sorted(path for path in folder.rglob("*") if is_regular(path))
            yield Item("temporary", folder, files, size_of(files), "archives that a killed `vitbench merge` unpacked")
    for images in regular(places.cache, typed=True):  # a whole set has a header, which is written last
        header, lock = images.with_suffix(".json"), images.with_suffix(".lock")
        is_alone = images.suffix == ".npy" and HEADER_NAME.fullmatch(header.name) and not os.path.lexists(header)
        if is_alone and is_regular(lock) and not is_held(lock):
            yield Item("temporary", images, [images], size_of([images]), "images that lack their header")


def damaged(places: Places) -> Iterator[Item]:
    """Yields what `vitbench check` moved aside."""
    for home in (places.runs, places.cache):
        for path in regular(home / ASIDE):
            yield Item("damaged", path, [path], size_of([path]), "a file")
        for folder in folders(home / ASIDE):
            if re.fullmatch(rf"{RUN_NAME.pattern}(-\d+)?", folder.name):
                files = sorted(path for path in folder.rglob("*") if is_regular(path))
                yield Item("damaged", folder, files, size_of(files), plural(len(files), "file"))


TITLES = {
    "caches": "decoded images that no run in {runs} needs; a command that needs them decodes them again",
    "surveys": "findings about folders of images; a command that needs them looks again",
    "features": "features of frozen networks; `vitbench features` computes them again",
    "failed": "runs that failed or were killed; they have no record, and no process holds them",
    "temporary": "half-written files of processes that have ended",
    "damaged": "files that `vitbench check repair=true` moved aside",
}
FINDERS = {
    "caches": caches,
    "surveys": surveys,
    "features": features,
    "failed": failed,
    "temporary": temporary,
    "damaged": damaged,
}


def folders(place: Path, typed: bool = False) -> list[Path]:
    """Returns the folders in a folder, sorted, without links and hidden folders. Only a typed folder may be a link."""
    found = _entries(place, typed)
    return [Path(each) for each in found if each.is_dir(follow_symlinks=False) and not each.name.startswith(".")]


def hidden_folders(place: Path) -> list[Path]:
    """Returns the hidden folders in a folder that was typed, sorted, without links."""
    found = _entries(place, typed=True)
    return [Path(each) for each in found if each.is_dir(follow_symlinks=False) and each.name.startswith(".")]


def regular(place: Path, typed: bool = False) -> list[Path]:
    """Returns the files in a folder, sorted, without links. Only a folder that was typed may be a link."""
    return [Path(each) for each in _entries(place, typed) if each.is_file(follow_symlinks=False)]


def _entries(place: Path, typed: bool) -> list[os.DirEntry[str]]:
    """Returns what is in a folder, sorted by name; nothing where there is no such folder."""
    with suppress(OSError):
        if typed or not place.is_symlink():
            with os.scandir(place) as entries:
                return sorted(entries, key=lambda entry: entry.name)
    return []


def is_regular(path: Path) -> bool:
    with suppress(OSError):
        return stat.S_ISREG(os.lstat(path).st_mode)
    return False


def size_of(files: Iterable[Path]) -> int:
    """Returns the size of files in bytes; a file that has vanished counts as 0."""
    size = 0
    for file in files:
        with suppress(OSError):
            size += os.lstat(file).st_size
    return size


def is_alive(process: int) -> bool:
    """Whether a process with this number runs on this machine."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


# ----------------------------------------------------------------------------------------------------------- removing


def remove(item: Item) -> str | None:
    """Deletes an item, unless a process uses it again; returns a line about what went wrong, or None."""
    try:
        if item.what == "failed":
            _remove_run(item.path)
        elif item.what == "caches":
            _remove_images(item)
        else:
            _unlink(item.files)
            if item.path.is_dir():  # it is a run that was moved aside, or an unpacked archive
                for folder in sorted((path for path in item.path.rglob("*") if path.is_dir()), reverse=True):
                    folder.rmdir()
                item.path.rmdir()
    except (TryAgain, StorageError) as error:
        return str(error)
    except OSError as error:
        return f"{item.path} cannot be deleted: {error.strerror}"
    return None


def _remove_run(folder: Path) -> None:
    """Deletes a run's files. `claim` then deletes the folder, because it is empty."""
    with Run(folder, {}).claim():
        files = files_of_run(folder)
        if files is None or os.path.lexists(folder / "record.json"):
            raise TryAgain(f"{folder} is not a failed run any more, so it stays")
        # the settings are deleted last, because the next call recognises the folder by them
        _unlink(sorted((file for file in files if file.name not in LOCKS), key=lambda file: file.name == "config.yaml"))


def _remove_images(item: Item) -> None:
    from filelock import FileLock, Timeout

    lock = item.path.with_suffix(".lock")
    try:
        with lock_errors(lock), FileLock(lock, blocking=False):
            _unlink(item.files)
    except Timeout:
        raise TryAgain(f"{item.path} stays, because a process is reading or writing it") from None


def _unlink(files: Iterable[Path]) -> None:
    for file in files:
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"{file} cannot be deleted: {error.strerror}") from error


# ------------------------------------------------------------------------------------------------------------ printing


def _print(items: list[Item], young: int, failures: int, asked: dict[str, Any]) -> None:
    lines: dict[str, list[Line]] = {}
    for item in items:
        part = f"{item.what}: {TITLES[item.what].format(runs=asked['runs'])}"
        lines.setdefault(part, []).append(Line(spoken_bytes(item.size), "", str(item.path), [item.why]))
    size = spoken_bytes(sum(item.size for item in items))
    if not items:
        foot = "there is nothing to delete"
    elif asked["remove"]:
        of_all = f" of {len(items)}" if failures else ""
        foot = f"deleted {plural(len(items) - failures, 'item')}{of_all}, {size} in all"
    else:
        foot = f"{plural(len(items), 'item')}, {size} in all; the same command with remove=true deletes them"
    foot += f"; {plural(young, 'item')} left out, because younger than days={asked['days']:g}" if young else ""
    print_lines(lines, ("size", "", "what"), foot)


def _json(items: list[Item], removed: bool, problems: list[str]) -> str:
    things = [{"what": one.what, "path": str(one.path), "bytes": one.size, "why": one.why} for one in items]
    return json.dumps({"removed": removed, "things": things, "problems": problems}, indent=1) + "\n"
