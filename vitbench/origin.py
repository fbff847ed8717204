"""`init=`: which weights a run begins from, and what they cost. What is done with them is in transfer.py.

    init=vit-rope-shapes-f1-s0-3fa9c1d2    a finished run in runs=
    init=FILE.safetensors                  a file, ours or another's
    init=torchvision:NAME, timm:NAME       pretrained weights, which the library fetches
    init='data.fraction=1'                 words: the run that has this run's settings but for these

Words serve studies, where each seed and model begins from its own. In that run `init` is null where the words don't say
otherwise, and `head`, `freeze` and `optim.layer_decay`, which belong to fine-tuning, are at their defaults. A choice among
them (`data=shapes`) brings its own settings, as on the command line; where the images lie is handed on.
No torch here.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from vitbench.config import DataConfig, FolderConfig, ShapesConfig, TrainConfig, flatten, plain
from vitbench.errors import UserError, did_you_mean
from vitbench.identity import run_id
from vitbench.overrides import explain, setting, words_of

LIBRARIES = ("torchvision", "timm")
CHOICES = ("data", "augment", "optim", "pe")  # of what words can choose; the model is this run's


class Origin(NamedTuple):
    typed: str  # what follows init=
    source: str  # run, file, torchvision or timm
    name: str  # the run's id, the file as typed, the library's name of the network
    path: Path | None = None  # of the weights
    classes: tuple[str, ...] | None = None  # None: nobody says
    seconds: float | None = None  # of training, with all that went before; None: nobody says


def check(settings: Mapping[str, Any]) -> None:
    """Refuses an init that is none, without looking at runs or files, but for the words of another run."""
    typed = settings["init"]
    if not typed.strip():
        raise UserError("init=: must not be empty; init=null begins from random weights")
    if "=" in typed:
        parent(settings)
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
    if typed.endswith(".safetensors") and "=" not in typed:
        return f"sha256:{checksum(_file(typed))}"
    return run_of(settings) or typed


def run_of(settings: Mapping[str, Any]) -> str | None:
    """The id of the run that a run begins from; None where it begins from none."""
    typed = settings["init"]
    if typed is None or "=" in typed:
        return None if typed is None else run_id(parent(settings))
    return None if ":" in typed or typed.endswith(".safetensors") else str(typed)


def of(settings: Mapping[str, Any]) -> Origin | None:
    """Where a run begins from, None for random weights; UserError where that is not there or not finished."""
    typed = settings["init"]
    if typed is None:
        return None
    if (run := run_of(settings)) is not None:
        return _run(settings, run)
    if typed.endswith(".safetensors"):
        return Origin(typed, "file", typed, _file(typed))
    library, _, name = typed.partition(":")
    return Origin(typed, library, name)


def checksum(path: Path) -> str:
    try:
        status = path.stat()
        return _checksum(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


@cache
def _checksum(path: Path, size: int, time: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _file(typed: str) -> Path:
    path = Path(typed).expanduser()
    if not path.is_file():
        raise UserError(f"init={typed}: no such file")
    return path


def _run(settings: Mapping[str, Any], run: str) -> Origin:
    from vitbench.run import Run, run_folders
    from vitbench.state import failure

    words = "=" in settings["init"]
    wanted = parent(settings) if words else None
    folder = Path((wanted or settings)["runs"]).expanduser() / run
    its = Run(folder, {})
    record = its.record()
    if record is None:
        if wanted is None:
            known = [path.name for path in run_folders(folder.parent) if (path / "record.json").is_file()]
            near = did_you_mean(run, known) if known else "there is none"
            raise UserError(f"init={run}: no finished run in runs={settings['runs']}; {near}")
        why = f"failed ({reason})" if (reason := failure(its)) else "is not finished"
        raise UserError(f"init='{settings['init']}': {run} {why}; it is trained by: {command(wanted)}")
    typed, path = f"'{settings['init']}'" if words else run, folder / "checkpoint.safetensors"
    if record["status"] != "finished" or not path.exists():
        raise UserError(f"init={typed}: {run} {record['status']} and has no weights")
    seconds = record.get("total_train_seconds", record["train_seconds"])
    return Origin(typed, "run", run, path, tuple(record["classes"]), seconds)


# ------------------------------------------------------------------------------------------------------------- words


def parent(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the run that the words of `init` name."""
    found: dict[str, Any] = json.loads(_parent(json.dumps(settings, sort_keys=True)))
    return found


@cache
def _parent(text: str) -> str:
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from vitbench.check import check
    from vitbench.study import parsed

    settings = json.loads(text)
    typed = settings["init"]
    settings |= {
        "init": None,
        "head": "keep",
        "freeze": "none",
        "teacher": None,
        "distill": dict.fromkeys(settings["distill"]),
    }
    settings["optim"]["layer_decay"] = 1.0
    if "distill_token" in settings["model"]:
        settings["model"]["distill_token"] = False
    try:
        words = [setting(word) for word in words_of(typed)]
        try:
            values = []
            for override in map(parsed, words):
                key, value = override.key_or_group, override.value()
                if override.is_sweep_override() or key.startswith("hydra"):
                    raise UserError(f"{key}: names one run by its settings")
                if key in ("model", *CHOICES):
                    _choose(settings, key, str(value))
                else:
                    values.append((key, value))
            if any(key == "data.root" for key, _ in values) and settings["data"]["source"] == "imagefolder":
                settings["data"]["name"] = None  # after the folder, where the words say nothing
            config: Any = OmegaConf.structured(TrainConfig)
            data = {"shapes": ShapesConfig, "imagefolder": FolderConfig}.get(settings["data"]["source"], DataConfig)
            config.data = OmegaConf.structured(data)
            config = OmegaConf.merge(config, settings)
            for key, value in values:
                OmegaConf.update(config, key, value)
        except (HydraException, OmegaConfBaseException) as error:
            raise explain(error, "train", words) from None
        return json.dumps(check(plain(config)), sort_keys=True)
    except UserError as error:
        raise UserError(f"init='{typed}': {error}") from None


def _choose(settings: dict[str, Any], group: str, choice: str) -> None:
    """Puts a choice's own settings in the place of the present one's."""
    if group == "model":
        raise UserError(f"model={choice}: a run begins from one of its own model")
    section = json.loads(_section(group, choice))
    if group == "pe":
        settings["model"]["pe"] = section
    else:
        kept = {key: settings["data"][key] for key in ("root", "cache")} if group == "data" else {}
        settings[group] = section | kept


@cache
def _section(group: str, choice: str) -> str:
    from omegaconf import OmegaConf

    from vitbench.study import compose_groups

    config: Any = compose_groups([f"{group}={choice}"])
    return json.dumps(OmegaConf.to_container(config.model.pe if group == "pe" else config[group]))


def command(settings: Mapping[str, Any]) -> str:
    """The command line of a run, without what says how fast it is computed."""
    from vitbench.compare import typed
    from vitbench.study import Planner

    model, planner = settings["model"], Planner()
    words = [f"model={model['name']}", *([f"pe={model['pe']['name']}"] if model.get("pe") else []),
             f"data={settings['data']['source']}"]  # fmt: skip
    chosen = planner.settings(words)
    for group in ("optim", "augment"):
        if chosen[group]["name"] != settings[group]["name"]:
            words.append(f"{group}={settings[group]['name']}")
            chosen = planner.settings(words)
    usual = flatten(chosen)
    for key, value in flatten(settings).items():
        if value != usual.get(key) and not key.startswith("machine.") and key != "data.cache":
            words.append(f"{key.replace('model.pe.', 'pe.')}={typed(value)}")
    return shlex.join(["vitbench", "train", *words])
