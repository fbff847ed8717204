"""What `doctor` finds about folders: whether they can be written, have room and have working locks, and who holds what.

It writes only files without a name, which vanish by themselves.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from vitbench.errors import UserError
from vitbench.machine.disk import LARGE, in_place_of_folder, read_file
from vitbench.machine.locks import is_held, owner_of
from vitbench.numbers.words import plural, printable
from vitbench.runs.records import run_folders
from vitbench.runs.run import Run
from vitbench.upkeep.finding import DISK, LOOK, WRONG, Finding, spoken_bytes

LITTLE_ROOM, NO_ROOM = 5_000_000_000, 200_000_000  # bytes; a ResNet-50 with its optimizer takes 300 MB
SHARED_MEMORY = Path("/dev/shm")
LITTLE_SHARED = 128_000_000  # bytes; Docker gives 64 MB
MOUNTS = Path("/proc/self/mountinfo")
# file systems on other machines, whose locks are only as good as their server
NETWORK = re.compile(r"^(nfs|cifs|smb|9p|ceph|glusterfs|lustre|beegfs|gpfs|afs|fuse\.|ncpfs|virtiofs)")
# file systems that do not last
PASSING = {
    "tmpfs": "in memory, and is lost when this machine or container ends",
    "ramfs": "in memory, and is lost when this machine or container ends",
    "overlay": "in the container's own layer, and is lost with the container",
}
SHOWN = 5  # at most so many locks are named


def of_folder(setting: str, folder: Path) -> Finding:
    """Looks at a folder that vitbench writes to or, if it does not exist, at the place where it would be made."""
    try:
        return _of_folder(setting, folder)
    except OSError as error:
        means = f"It cannot be examined: {error.strerror or error}."
        return Finding(f"{setting}=", _shown(folder), WRONG, means, _another(setting), DISK)


def _of_folder(setting: str, folder: Path) -> Finding:
    what = f"{setting}="
    if (other := in_place_of_folder(folder)) is not None:
        return Finding(what, _shown(folder), WRONG, f"{printable(other)}.", _another(setting), DISK)
    there = next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
    kind = file_system(there)
    room = shutil.disk_usage(there).free
    found = f"{_shown(folder)}, {'' if there == folder else 'not there yet, '}{spoken_bytes(room)} free"
    found += f", {kind}" if kind else ""
    if (hindrance := _hindrance(there)) is not None:
        return Finding(what, found, WRONG, hindrance, _another(setting), DISK)
    if room < NO_ROOM or _full_of_files(there):
        lacking = "another file, however small" if _full_of_files(there) else "the states and weights of a run"
        return Finding(what, found, WRONG, f"There is no room for {lacking}.", "vitbench clean", DISK)
    if room < LITTLE_ROOM:
        means = "There is little room for sets of decoded images and for weights."
        return Finding(what, found, LOOK, means, "vitbench clean")
    if kind and NETWORK.match(kind):
        means = (
            "It is on another machine. Locks work from here; runs are safe if locks also work between the machines "
            "that share it. Reading images from it is slow."
        )
        return Finding(what, found, LOOK, means, f"{setting}=FOLDER, on a disk of this machine")
    if kind in PASSING and setting != "data.cache":
        return Finding(what, found, LOOK, f"It is {PASSING[kind]}.", f"{setting}=FOLDER, on a disk that stays")
    return Finding(what, found)


def _another(setting: str) -> str:
    return f"{setting}=FOLDER, another one"


def _hindrance(folder: Path) -> str | None:
    """Says why nothing can be written or locked in a folder; None where both can be done."""
    import fcntl

    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
            try:
                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                return f"Locks do not work there ({error.strerror}), so two processes could train the same run."
    except OSError as error:
        whose = f"; it belongs to {owner_of(os.stat(folder))}" if error.errno in (errno.EACCES, errno.EPERM) else ""
        return f"{_shown(folder)} cannot be written: {error.strerror}{whose}."
    return None


def _full_of_files(folder: Path) -> bool:
    """Whether a file system has no room for another file, whatever its size."""
    status = os.statvfs(folder)
    return bool(status.f_files) and status.f_favail == 0


def file_system(folder: Path, mounts: Path = MOUNTS) -> str | None:
    """Returns the kind of the file system that a folder is on (ext4, nfs4, overlay ...); None where it is not known."""
    try:
        lines = [line.split() for line in read_file(mounts, LARGE).decode(errors="replace").splitlines()]
    except OSError:
        return None
    best, kind = "", None
    real = os.path.realpath(folder)
    for words in lines:
        if "-" not in words or len(words) < 5:
            continue
        place = words[4].replace("\\040", " ")
        inside = real == place or real.startswith(place.rstrip("/") + "/")
        if inside and len(place) >= len(best):
            best, kind = place, words[words.index("-") + 1]
    return kind


def of_system_folders() -> Iterator[Finding]:
    """Looks at shared memory, and at the folder for temporary files."""
    if not SHARED_MEMORY.is_dir():
        means = "Sweeps with hydra/launcher=joblib and runs on several GPUs pass data through it."
        yield Finding("shared memory", f"no {SHARED_MEMORY}", LOOK, means, "docker run --shm-size=1g ...")
    else:
        status = os.statvfs(SHARED_MEMORY)
        size, free = status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize
        found = f"{spoken_bytes(free)} of {spoken_bytes(size)} free"
        if free < LITTLE_SHARED:
            means = "Sweeps with hydra/launcher=joblib and runs on several GPUs pass data through it."
            yield Finding("shared memory", found, LOOK, means, "docker run --shm-size=1g ...")
        else:
            yield Finding("shared memory", found)
    try:
        folder = Path(tempfile.gettempdir())
        room = shutil.disk_usage(folder).free
        little = (LOOK, "Libraries that compile write there.", "export TMPDIR=FOLDER") if room < NO_ROOM else ()
        yield Finding("temporary files", f"{_shown(folder)}, {spoken_bytes(room)} free", *little)
    except OSError:
        means = "There is no writable folder for temporary files, which libraries that compile need."
        yield Finding("temporary files", "none", WRONG, means, "export TMPDIR=FOLDER", DISK)


# --------------------------------------------------------------------------------------------------- locks and rights


def of_locks(runs: Path, cache: Path) -> Iterator[Finding]:
    """Says which process holds what, which runs cannot continue because they belong to others, and what killed
    processes left."""
    held, foreign, left = [], [], []
    try:
        folders = run_folders(runs) if runs.is_dir() else []
    except (OSError, UserError):
        folders = []  # `of_folder` has said why
    for folder in folders:
        run, lock = Run(folder, {}), folder / ".lock"
        ended = (folder / "record.json").exists()
        if is_held(lock):
            held.append(f"{folder.name} by {told}" if (told := _holder(run)) else folder.name)
        elif not ended and (file := _not_ours(folder)) is not None:
            foreign.append(f"{file} of {owner_of(os.lstat(file))}")
        elif not ended and (folder / ".holder.json").exists():
            left.append(folder.name)
    for lock in sorted(cache.glob("*.lock")) if cache.is_dir() else []:
        if is_held(lock):
            held.append(f"decoded images {lock.stem}")
        elif not lock.with_suffix(".json").exists() and _not_ours(lock) is not None:
            foreign.append(f"{lock} of {owner_of(os.lstat(lock))}")
    yield Finding("held now", _few(held, "nothing"))
    if foreign:
        means = "You may not write these, so their runs cannot continue. Ask the owner, or choose another folder."
        yield Finding("rights", _few(foreign, ""), WRONG, means, "runs=FOLDER; the owner: chmod -R a+rwX FOLDER", DISK)
    if left:
        means = "Their processes were killed. Nothing is lost: the same command continues from the saved state."
        yield Finding("killed runs", _few(left, ""), LOOK, means, "vitbench ls runs")


def _holder(run: Run) -> str | None:
    holder = run.holder()
    return f"process {holder[0]} on {printable(holder[1])}" if holder else None


def _not_ours(place: Path) -> Path | None:
    """Returns the first of a run's folder, lock and settings that may not be written; None where all may be."""
    files = [place, place / ".lock", place / "config.yaml"] if place.is_dir() else [place]
    return next((file for file in files if file.exists() and not os.access(file, os.W_OK)), None)


def _few(names: list[str], none: str) -> str:
    if not names:
        return none
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{plural(len(names), 'lock') + ': ' if none else ''}{printable(', '.join(names[:SHOWN]))}{more}"


def _shown(path: Path) -> str:
    return printable(str(path))
