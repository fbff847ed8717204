"""Reads and checks what was typed for `vitbench advise`, before anything is opened."""

from __future__ import annotations

import shlex
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from vitbench.advising.plan import setting_word
from vitbench.advising.pretrained import read_models
from vitbench.errors import UserError
from vitbench.machine.redact import redacted
from vitbench.menu import Range, check_ranges
from vitbench.numbers.words import typed_value
from vitbench.settings.check import RANGES, check_machine
from vitbench.settings.command_schemas import CHOSEN_BY_ADVISE
from vitbench.settings.compose import cache_folder
from vitbench.settings.schema import FolderConfig

MINUTES = Range("above 0 and at most 10000", lambda value: 0 < value <= 10_000)


class Asked(NamedTuple):
    """What was typed, after it was checked."""

    data: dict[str, Any]
    words: list[str]  # the settings of `data` as a study file has them
    minutes: float
    models: Any
    out: Path
    runs: str
    machine: dict[str, Any]
    sweep_words: list[str]  # the words that the sweep gets beside the study
    replace: bool = False

    @property
    def name(self) -> str:
        return str(self.data["name"])

    @property
    def study(self) -> Path:
        return self.out / "study.yaml"


def command_again() -> str:
    return redacted(shlex.join([*sys.argv[0].split(), *sys.argv[1:]]))


def checked(options: dict[str, Any]) -> Asked:
    """Returns what was typed; raises UserError where advise cannot work with it. Opens nothing."""
    check_ranges({"minutes": options["minutes"]}, {"minutes": MINUTES})
    data = options["data"]
    if data["source"] != "imagefolder":
        raise UserError(f"data={data['source']}: advise takes a folder of photographs; type data.root=FOLDER")
    usual = {field.name: field.default for field in fields(FolderConfig)}
    for chosen in CHOSEN_BY_ADVISE:
        key = chosen.removeprefix("data.")
        if data[key] != usual[key]:
            raise UserError(f"{chosen}={typed_value(data[key])}: advise itself chooses the images of each run; drop it")
    check_ranges({f"data.{key}": value for key, value in data.items()}, RANGES)
    check_machine(options["machine"]["device"], None)
    if not str(options["runs"]).strip() or (options["out"] is not None and not str(options["out"]).strip()):
        raise UserError("runs= and out= must not be empty")
    root = Path(data["root"]).expanduser()
    if data["root"] == usual["root"] and not root.exists():
        raise UserError("type the folder of your photographs, data.root=FOLDER")
    data = data | {"root": str(root), "cache": cache_folder(data["cache"])}
    data["name"] = data["name"] or root.resolve().name or "photographs"
    out = Path(options["out"]).expanduser() if options["out"] else Path("advice") / _as_folder(data["name"])
    if out.suffix == ".html" or (out.exists() and not out.is_dir()):
        raise UserError(f"out={out}: must be a folder, in which advise writes advice.html and study.yaml, not a file")
    if options["models"] is not None:
        read_models(options["models"])
    own = {**data, "root": str(root.absolute())}
    kept = [key for key in own if own[key] != usual[key] and key not in ("source", "cache", "image_size")]
    words = ["data=imagefolder", *(setting_word(f"data.{key}", own[key]) for key in kept)]
    machine, progress = options["machine"], options["machine"]["progress"]
    typed = [setting_word("runs", str(options["runs"])), setting_word("data.cache", data["cache"])]
    typed += [f"machine.device={machine['device']}", f"machine.progress={typed_value(progress)}"]
    minutes, models, replace = options["minutes"], options["models"], options["replace"]
    return Asked(data, words, minutes, models, out, str(options["runs"]), machine, typed, replace)


def _as_folder(name: str) -> str:
    """Turns the name of the images into a name that a folder can have."""
    return (
        "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in name).lstrip(".") or "photographs"
    )
