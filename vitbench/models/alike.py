"""Finds networks of a library that cost about as much as one of ours: `vitbench ls models family=timm match=vit.nano`.

Each network is built without memory for its weights, and its multiply-adds are counted in one forward pass. This takes
up to some seconds, and there are more than a thousand networks. So counting stops after some time, the counts are kept
in the cache, and the same command continues. Networks whose names suggest the right size are counted first.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from vitbench.errors import StorageError, UserError
from vitbench.machine.disk import read_json, write
from vitbench.machine.progress import progress
from vitbench.machine.seal import is_whole, sealed
from vitbench.models.menu import SIZES

WITHIN = 0.1  # largest relative difference of the multiply-adds
CLASSES, CHANNELS = 10, 3
# Words in names of networks with up to 1 G and up to 6 G multiply-adds at 224 px. All other networks are counted last.
SIZE_WORDS = {
    1e9: "zepto atto femto pico nano tiny ti xxs xs xxtiny xtiny mini small 035 050 075 100 b0 b1 s0 s1 m0 m1 m2 m3 "
    "002 004 006 008 t0 t1 t2 test s050 s100 128s 128 192 resnet10t resnet14t lcnet mobilenet",
    6e9: "nano tiny small s s12 18 26 34 50 b2 b3 b4 016 032 040 t12 sa12 pico 256 m l0",
}


class Alike(NamedTuple):
    """The networks that were found, with parameters and multiply-adds, and how many of all names were counted."""

    networks: list[tuple[str, int, int]]
    target: int
    counted: int
    names: int


def find(library: str, match: str, names: Sequence[str], image_size: int, seconds: float, memory: Path) -> Alike:
    """Counts networks for some seconds; returns those of `names` that cost about as much as `match` ("vit.nano").

    Networks are sorted by cost. `memory` is the folder of the cache. Raises UserError if `match` is not one of ours.
    """
    target = _target(match, image_size)
    path = memory / "costs" / f"{library}-{version(library)}-{image_size}px.json"
    known: dict[str, Any] = {}
    with suppress(OSError, ValueError, KeyError, AttributeError):  # files of older versions have no checksum
        remembered = read_json(path)
        networks = remembered["networks"].items() if is_whole(remembered) else ()
        known = {name: costs for name, costs in networks if costs is None or _is_cost(costs)}
    missing = sorted(
        (name for name in names if name not in known), key=lambda name: _unlikely(name, target, image_size)
    )
    try:
        _count(library, missing, image_size, seconds, known)
    finally:
        with suppress(OSError, StorageError):  # without this file, the networks are counted again
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, json.dumps(sealed({"networks": known})).encode())
    costs = [(name, *known[name]) for name in names if known.get(name)]
    near = [each for each in costs if abs(each[2] / target - 1) <= WITHIN]
    return Alike(sorted(near, key=lambda each: each[2]), target, sum(name in known for name in names), len(names))


def _is_cost(remembered: Any) -> bool:
    """Returns whether a value is a pair of parameters and multiply-adds."""
    return isinstance(remembered, list) and len(remembered) == 2 and all(type(count) is int for count in remembered)


def _target(match: str, image_size: int) -> int:
    """Returns the multiply-adds of one of our models and sizes, such as vit.nano, for images of this size."""
    model, _, size = match.partition(".")
    if size not in SIZES or model not in SIZES[size]:
        raise UserError(f"match={match}: must be a model and a size of ours, for example match=vit.nano")
    if image_size == 32:
        return SIZES[size][model].multiply_adds
    from vitbench.models.build import cost

    return cost(model, size=size, image_size=image_size, channels=CHANNELS, num_classes=CLASSES)[1]


def _unlikely(name: str, target: int, image_size: int) -> tuple[bool, str]:
    """Returns a key that sorts names with the words of networks of this cost before all others."""
    at_224 = target * (224 / image_size) ** 2
    fitting = next((words.split() for most, words in SIZE_WORDS.items() if at_224 <= most), [])
    return not set(name.split("_")) & {*fitting} if fitting else False, name


def _count(library: str, names: list[str], image_size: int, seconds: float, known: dict[str, Any]) -> None:
    """Adds the costs of networks to `known`, None for those that do not take such images, until the time is over."""
    if not names:
        return
    from vitbench.models.build import cost_on_meta

    end = time.monotonic() + seconds
    with progress(f"{library} at {image_size} px", len(names), "networks") as display:
        for done, name in enumerate(names):
            if time.monotonic() > end:
                return
            display.update(done, name)
            shape = {"image_size": image_size, "channels": CHANNELS, "num_classes": CLASSES}
            known[name] = cost_on_meta({"name": library, "arch": name, **shape})
