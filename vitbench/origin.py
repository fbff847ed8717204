"""`init=`: which weights a run begins from, and what they cost. What is done with them is in transfer.py.

    init=vit-rope-shapes-f1-s0-3fa9c1d2    a finished run in runs=
    init=FILE.safetensors                  a file, ours or another's
    init=torchvision:NAME, timm:NAME       pretrained weights, which the library fetches
    init='data.fraction=1'                 words: the run that has this run's settings but for these (ancestor.py)

No torch here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vitbench import ancestor
from vitbench.disk import checksum
from vitbench.errors import UserError
from vitbench.overrides import words_of

LIBRARIES = ("torchvision", "timm")


class Origin(NamedTuple):
    typed: str  # what follows init=
    source: str  # run, file, torchvision or timm
    name: str  # the run's id, the file as typed, the library's name of the network
    path: Path | None = None  # of the weights
    classes: tuple[str, ...] | None = None  # of a run; a file of ours says so itself
    seconds: float | None = None  # of training, with all that went before; None: nobody says


def check(settings: Mapping[str, Any]) -> None:
    """Refuses an init that is none, without looking at runs or files, but for the words of another run."""
    typed = settings["init"]
    if not typed.strip():
        raise UserError("init=: must not be empty; init=null begins from random weights")
    if ancestor.is_words(typed):
        if model := next((word for word in words_of(typed) if word.startswith("model=")), None):
            raise UserError(f"init='{typed}': {model}: a run begins from one of its own model")
        ancestor.settings_of(settings, "init")
        return
    library, colon, name = typed.partition(":")
    if colon and (library not in LIBRARIES or not name):
        raise UserError(f"init={typed}: must be torchvision:NAME or timm:NAME")
    if not colon and re.search(r"/|\.(pth?|ckpt|bin|pkl|npz)$", typed) and not typed.endswith(".safetensors"):
        raise UserError(f"init={typed}: must be a run's id below runs=, or a file that ends in .safetensors (others can hold "
                        "code)")  # fmt: skip


def named(settings: Mapping[str, Any]) -> str:
    """What init adds to a run's identity: a run's id, a file's checksum, a library's name."""
    typed: str = settings["init"]
    if run := ancestor.id_of(settings, "init"):
        return run
    return f"sha256:{checksum(_file(typed))}" if typed.endswith(".safetensors") else typed


def of(settings: Mapping[str, Any]) -> Origin | None:
    """Where a run begins from, None for random weights; UserError where that is not there or not finished."""
    from vitbench.records import total_seconds
    from vitbench.run import Run

    typed = settings["init"]
    if typed is None:
        return None
    if run := ancestor.id_of(settings, "init"):
        folder, record = ancestor.finished(settings, "init")
        typed = f"'{typed}'" if ancestor.is_words(typed) else typed
        seconds = total_seconds(record, record["config"])
        return Origin(typed, "run", run, Run(folder, {}).weights(), tuple(record["classes"]), seconds)
    if typed.endswith(".safetensors"):
        return Origin(typed, "file", typed, _file(typed))
    library, _, name = typed.partition(":")
    return Origin(typed, library, name)


def _file(typed: str) -> Path:
    path = Path(typed).expanduser()
    if not path.is_file():
        raise UserError(f"init={typed}: no such file")
    return path
